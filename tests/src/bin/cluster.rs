//! The control plane on this machine for people: what `hack/cluster up`, `down`
//! and `status` run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use quarterdeck_it::{ControlPlane, Launch, Peer, repository};

#[derive(Parser)]
#[command(name = "hack/cluster", about = "A real control plane on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a control plane and leave it running
    Up(Up),
    /// End it, and remove its folder
    Down(Down),
    /// Say what runs, and where
    Status(Folder),
    /// Start a child and stay: what becomes of it when this is killed is for a test to see
    #[command(hide = true)]
    Parent,
}

#[derive(Args)]
struct Folder {
    /// Folder of the control plane's state
    #[arg(long, value_name = "D", default_value_os_t = repository().join("target/cluster"))]
    dir: PathBuf,
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    folder: Folder,
    /// Peers to start besides etcd and kube-apiserver: kcm, scheduler, kwok, node
    #[arg(long, value_delimiter = ',', value_parser = Peer::from_name)]
    with: Vec<Peer>,
    /// Number of kube-apiservers over the one etcd
    #[arg(long, default_value_t = 1)]
    apiservers: usize,
}

#[derive(Args)]
struct Down {
    #[command(flatten)]
    folder: Folder,
    /// Leave the folder with data and logs
    #[arg(long)]
    keep: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Up(up) => start(up).await,
        Command::Down(down) => stop(&down).await,
        Command::Status(folder) => status(&folder.dir).await,
        Command::Parent => parent().await,
    }
}

async fn parent() -> Result<()> {
    // Started from a thread that ends at once: the child must not end with it.
    let child = std::thread::spawn(|| Launch::new("sleeper", "sleep").arg("1000").spawn());
    let child = child.join().map_err(|_| anyhow!("the thread panicked"))??;
    println!("child {}", child.pid());
    std::future::pending().await
}

async fn start(up: Up) -> Result<()> {
    let folder = &up.folder.dir;
    if ControlPlane::exists(folder) {
        let there = ControlPlane::attach(folder).await;
        if there.is_ok_and(|there| there.all_running()) {
            eprintln!("it runs already");
            return status(folder).await;
        }
        bail!("{} holds a control plane that does not run: hack/cluster down first", folder.display());
    }
    let begun = Instant::now();
    let mut builder = ControlPlane::builder().apiservers(up.apiservers).with(&up.with);
    builder = builder.folder(folder).detached();
    let control_plane = builder.start().await?;
    for peer in &up.with {
        match peer {
            Peer::Kcm => drop(control_plane.start_kcm(&[]).await?),
            Peer::Scheduler => drop(control_plane.start_scheduler(&[]).await?),
            Peer::Kwok => drop(control_plane.start_kwok(&[]).await?),
            // It came with the servers, which have to know of it.
            Peer::Node => {}
            // They need a socket, files and flags of whoever speaks to them; masters have servers of their own.
            Peer::Masters | Peer::CloudShim | Peer::CloudTemplate | Peer::CloudPeer | Peer::Helm => {}
        }
    }
    eprintln!("ready {:.1} s after the start", begun.elapsed().as_secs_f64());
    status(folder).await
}

async fn stop(down: &Down) -> Result<()> {
    let folder = &down.folder.dir;
    if !ControlPlane::exists(folder) {
        eprintln!("{} holds no control plane: nothing to do", folder.display());
        return Ok(());
    }
    ControlPlane::remove(folder, down.keep).await
}

async fn status(folder: &Path) -> Result<()> {
    let control_plane = ControlPlane::attach(folder).await?;
    for server in control_plane.servers() {
        let process = server.process();
        let state = match process.usage() {
            Ok(usage) => format!("pid {}, {} MiB", process.pid(), usage.resident >> 20),
            Err(_) => "NOT RUNNING".to_owned(),
        };
        println!("{:<28}{:<26}{state}", server.name(), server.url());
    }
    println!("logs        {}", control_plane.folder().join("logs").display());
    println!("kubectl     {}", control_plane.program("kubectl").display());
    println!("export KUBECONFIG={}", control_plane.admin_kubeconfig()?.display());
    if !control_plane.all_running() {
        bail!("a part of it does not run (see the logs); hack/cluster down ends the rest");
    }
    Ok(())
}
