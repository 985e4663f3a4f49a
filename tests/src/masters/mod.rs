//! Three real masters (`hack/masters`): each with an etcd member, a kube-apiserver, a kubelet with containerd, and the
//! address 172.29.0.1N on one bridge.
//!
//! Whatever ends the test ends them: `hack/masters run` is a child that dies with this process, and takes the masters'
//! namespaces with it. A machine has one site at a time; a second waits for its turn.

mod deck;
mod history;
mod image;
mod leftovers;
mod manifest;
mod master;
mod requests;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::Signal;
use tokio::process::Command;

pub use deck::{ADDONS, Holder, addon};
pub use history::{Act, acts, first_useful, gap, history};
pub use image::{Image, image};
pub use leftovers::Leftovers;
pub use manifest::Manifest;
pub use master::Master;
pub use requests::{Requests, page};

use crate::binaries::{Binaries, Peer, repository, target};
use crate::deck::program;
use crate::process::{Launch, Process};
use crate::wait::eventually;
use crate::{AuditReader, Node};

/// How long the nodes and masters of other tests are waited for.
const TURN: Duration = Duration::from_secs(1800);
/// How long three masters may take to answer; programs are built before.
const READY: Duration = Duration::from_secs(300);
/// How long they may take to end, with everything in them.
const END: Duration = Duration::from_secs(60);
/// How long one order to `hack/masters` may take.
const ORDER: Duration = Duration::from_secs(120);

/// How many there are.
pub const COUNT: usize = 3;

/// Three masters. Dropping this ends every process of them, and removes the folder (kept when the test is panicking, so
/// that logs can be read).
pub struct Masters {
    process: Process,
    folder: PathBuf,
    masters: Vec<Master>,
    binaries: Binaries,
}

impl Masters {
    /// Whether somebody chose to go without masters on this machine, as with [`Node::is_left_out`]: they need the same.
    pub fn is_left_out() -> bool {
        Node::is_left_out()
    }

    /// Starts three bare masters that have this image: control planes and kubelets, nothing of ours, no network for pods,
    /// no DNS.
    ///
    /// # Errors
    /// When a program is missing and cannot be built, or a master does not answer; with the ends of the logs.
    pub async fn start(image: &Image) -> Result<Self> {
        // Minutes on a fresh machine; its progress is for whoever waits.
        let binaries = Binaries::ensure(&[Peer::Masters]).await?;
        let parent = target().join("it");
        std::fs::create_dir_all(&parent)?;
        let folder = tempfile::Builder::new().prefix("masters-").tempdir_in(&parent)?.keep().canonicalize()?;
        let log = folder.with_extension("log");
        let launch = Launch::new("masters", repository().join("hack/masters"))
            .args(["run", "--bare", "--dir"])
            .arg(folder.display().to_string())
            .arg("--program")
            .arg(program()?.display().to_string())
            .arg("--image")
            .arg(image.file().display().to_string())
            .log(&log);
        let process = launch.spawn()?;
        let masters = (1..=COUNT).map(|number| Master::new(&folder, number)).collect();
        let masters = Self { process, folder, masters, binaries };
        let ready = masters.until_they_are_ready().await;
        ready.with_context(|| format!("three masters{}", masters.process.log_end()))?;
        Ok(masters)
    }

    /// Folder of their keys, kubeconfigs, data and logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process that keeps them.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Master number `number`, from 1.
    ///
    /// # Panics
    /// When there is no such one.
    pub fn master(&self, number: usize) -> &Master {
        self.masters.get(number.wrapping_sub(1)).expect("masters are numbered from 1 to 3")
    }

    /// All of them.
    pub fn all(&self) -> &[Master] {
        &self.masters
    }

    /// Numbers of all but one.
    pub fn others(&self, number: usize) -> Vec<usize> {
        (1..=COUNT).filter(|other| *other != number).collect()
    }

    /// Path of a built program, such as `kubectl`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries.path(name)
    }

    /// Folder of the node's programs and images.
    pub(super) fn parts(&self) -> Result<PathBuf> {
        let parts = self.binaries.path("node");
        parts.canonicalize().with_context(|| format!("{} is not there", parts.display()))
    }

    /// A client of one master's kube-apiserver, as an administrator.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self, number: usize) -> Result<kube::Client> {
        client(self.master(number).kubeconfig()).await
    }

    /// Runs kubectl as an administrator at one master's kube-apiserver; its output if it ends well.
    ///
    /// # Errors
    /// With what it said, when it does not.
    pub async fn kubectl(&self, number: usize, args: &[&str]) -> Result<String> {
        let output = Command::new(self.program("kubectl"))
            .env("KUBECONFIG", self.master(number).kubeconfig())
            .env("HOME", &self.folder)
            .args(args)
            .output()
            .await
            .context("running kubectl")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills a whole master (SIGKILL of everything in it).
    ///
    /// # Errors
    /// When that is refused.
    pub async fn kill(&self, number: usize) -> Result<()> {
        self.order(&["kill", &number.to_string()]).await?;
        // A line of its audit log may have been cut off in the middle; a server that comes back would write on there.
        end_at_line(&self.master(number).audit_log())
    }

    /// Cuts a master off from the others and from this machine.
    ///
    /// # Errors
    /// When that is refused.
    pub async fn cut(&self, number: usize) -> Result<()> {
        self.order(&["cut", &number.to_string()]).await
    }

    /// Undoes either, and returns when its kube-apiserver answers again.
    ///
    /// # Errors
    /// When that is refused, or takes too long.
    pub async fn heal(&self, number: usize) -> Result<()> {
        self.order(&["heal", &number.to_string()]).await?;
        self.until_answers(number).await
    }

    /// Reader of what the three kube-apiservers log, from their first start on.
    pub fn audit(&self) -> AuditReader {
        AuditReader::new(self.masters.iter().map(Master::audit_log).collect())
    }

    /// Ends everything, and returns when it has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(END).await.map(drop)
    }

    async fn order(&self, args: &[&str]) -> Result<()> {
        let script = repository().join("hack/masters");
        let running = Command::new(&script)
            .args(args)
            .arg("--dir")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(ORDER, running).await;
        let output = output.with_context(|| format!("{} {args:?} took too long", script.display()))??;
        if !output.status.success() {
            bail!("{} {args:?}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    async fn until_they_are_ready(&self) -> Result<()> {
        let ended = || anyhow!("hack/masters has ended");
        // It waits for its turn before it writes anything.
        let (begun, ready) = (self.folder.join("pki"), self.folder.join("ready"));
        for (what, timeout, file) in
            [("the nodes of others are gone", TURN, begun), ("the masters are ready", READY, ready)]
        {
            let there = eventually(what, timeout, || async {
                match (self.process.is_running(), file.exists()) {
                    (false, _) => Ok(Err(ended())),
                    (true, true) => Ok(Ok(())),
                    (true, false) => bail!("{} is not there", file.display()),
                }
            });
            there.await.with_context(|| self.all().iter().map(Master::logs).collect::<Vec<_>>().join("\n"))??;
        }
        Ok(())
    }

    /// Waits until a master's kube-apiserver is ready.
    ///
    /// # Errors
    /// When it is not for long; with the ends of its logs.
    pub async fn until_answers(&self, number: usize) -> Result<()> {
        eventually(&format!("master {number} answers"), READY, || self.answers(number))
            .await
            .with_context(|| self.master(number).logs())
    }

    async fn answers(&self, number: usize) -> Result<()> {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        self.client(number).await?.request_text(request).await?;
        Ok(())
    }
}

impl Drop for Masters {
    fn drop(&mut self) {
        // It removes its cgroups before it ends; whatever is left after this is killed with it.
        let latest = Instant::now() + END;
        if self.process.signal(Signal::SIGTERM).is_ok() {
            while self.process.is_running() && Instant::now() < latest {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
            let _ = std::fs::remove_file(self.folder.with_extension("log"));
        }
    }
}

/// Drops what comes after the last whole line of a file.
fn end_at_line(file: &Path) -> Result<()> {
    let text = std::fs::read(file).with_context(|| file.display().to_string())?;
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        std::fs::OpenOptions::new().write(true).open(file)?.set_len(u64::try_from(whole)?)?;
    }
    Ok(())
}

/// Sends a signal to a process of a master.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {pid}"))
}

/// A client that says what it sees: no retries, and no long wait for a master that is gone.
async fn client(kubeconfig: PathBuf) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(&kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    asking(kubeconfig).await
}

/// The same for a kubeconfig that was read.
async fn asking(kubeconfig: Kubeconfig) -> Result<kube::Client> {
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(3));
    config.read_timeout = Some(Duration::from_secs(20));
    config.default_retry = false;
    config.proxy_url = None;
    kube::Client::try_from(config).context("making a client")
}
