//! Three masters on this machine for people: what `hack/run` runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use quarterdeck_it::deck::{self, CloudDemo, Demo, MetalDemo, MetalYard, SimDemo, serve_machines};
use quarterdeck_it::{ControlPlane, Deck, Peer, Server, Signal, eventually, repository};

/// How long anything may take that this program waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The namespace of the demonstration's workload.
const NAMESPACE: &str = "demo";

#[derive(Parser)]
#[command(name = "hack/run", about = "Three masters of quarterdeck on this machine")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Folder of the run's state: data, logs, kubeconfigs, addons, and env to be sourced
    #[arg(long, global = true, default_value_os_t = repository().join("target/run"))]
    dir: PathBuf,
    /// Use the cluster of this kubeconfig instead of starting one
    #[arg(long, conflicts_with_all = ["full", "check"])]
    kubeconfig: Option<PathBuf>,
    /// Do not ask before installing into that cluster
    #[arg(long, requires = "kubeconfig")]
    yes: bool,
    /// Add a scheduler, fake nodes and the Go manager with the controllers that this build lacks
    #[arg(long)]
    full: bool,
    /// Look after this cloud, too, and show what it does
    #[arg(long, conflicts_with_all = ["kubeconfig", "check"])]
    cloud: Option<CloudName>,
    /// Start, wait for an addon and a slice (with --full, of a Deployment's pods), fail over once, say so, and stop
    #[arg(long)]
    check: bool,
}

/// Clouds that can be shown.
#[derive(Clone, Copy, ValueEnum)]
enum CloudName {
    /// Machines of an inventory.
    Metal,
    /// A made-up cloud.
    Sim,
}

#[derive(Subcommand)]
enum Command {
    /// End everything that an earlier run started
    Stop,
    /// Serve inside the machines of metal's demonstration
    #[command(hide = true)]
    Machines {
        /// The kube-apiserver, which the machines reach at the same address
        #[arg(long)]
        server: SocketAddr,
        /// Gateways, as NAME=PID
        #[arg(long)]
        gateway: Vec<String>,
        /// Nodes, as NAME=PID
        #[arg(long)]
        node: Vec<String>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    match (&cli.command, &cli.kubeconfig) {
        (Some(Command::Stop), _) => stop(&cli.dir).await,
        (Some(Command::Machines { server, gateway, node }), _) => serve_machines(*server, gateway, node).await,
        (None, Some(kubeconfig)) => join(&cli.dir, kubeconfig, cli.yes).await,
        (None, None) if cli.check => check(&cli.dir, cli.full).await,
        (None, None) => up(&cli.dir, cli.full, cli.cloud).await,
    }
}

/// Where the replicas of a run are written down.
fn ledger(dir: &Path) -> PathBuf {
    dir.with_extension("replicas.json")
}

async fn stop(dir: &Path) -> Result<()> {
    Deck::end_written_down(&ledger(dir)).await?;
    SimDemo::end(dir).await?;
    MetalYard::end(dir).await?;
    if ControlPlane::exists(dir) {
        ControlPlane::remove(dir, false).await?;
    }
    println!("everything is ended");
    Ok(())
}

/// Starts a control plane and a deck on it, and leaves both running.
async fn up(dir: &Path, full: bool, cloud: Option<CloudName>) -> Result<()> {
    if ControlPlane::exists(dir) {
        bail!("{} holds a run already; hack/run stop ends it", dir.display());
    }
    say("starting etcd and kube-apiserver");
    let control_plane = ControlPlane::builder().folder(dir).detached().with(peers(full)).start().await?;
    let samples = Samples::copy(dir)?;
    let mut cloud = match cloud {
        Some(CloudName::Metal) => Some(CloudDemo::Metal(MetalDemo::prepare(dir)?)),
        Some(CloudName::Sim) => Some(CloudDemo::Sim(SimDemo::start(dir).await?)),
        None => None,
    };
    let cloud_flags = cloud.as_ref().map(CloudDemo::flags).unwrap_or_default();
    let (deck, _peers) = start(&control_plane, &samples, full, true, cloud_flags).await?;
    deck.write_down(&ledger(dir))?;
    let leader = wait(&deck).await?;
    describe(&control_plane, &deck, leader, &samples, full)?;
    if let Some(cloud) = &mut cloud {
        cloud.furnish(dir, &control_plane).await?;
        cloud.describe();
    }
    Ok(())
}

fn peers(full: bool) -> &'static [Peer] {
    if full { &[Peer::Kcm, Peer::Scheduler, Peer::Kwok] } else { &[] }
}

async fn start(
    control_plane: &ControlPlane,
    samples: &Samples,
    full: bool,
    detached: bool,
    cloud: Vec<String>,
) -> Result<(Deck, Vec<Server>)> {
    let mut flags = [samples.flags(), cloud.clone()].concat();
    let mut peers = Vec::new();
    if full {
        let flag;
        (peers, flag) = start_peers(control_plane).await?;
        flags.push(flag);
    }
    say("starting three replicas of quarterdeck");
    let deck = Deck::builder(control_plane).install_args(cloud).args(flags).detached(detached).start().await?;
    Ok((deck, peers))
}

/// Waits until every replica is ready and one of them leads.
async fn wait(deck: &Deck) -> Result<usize> {
    deck.ready(PATIENCE).await?;
    deck.leader(PATIENCE).await
}

/// Copies of the sample addons and of a channel, to be edited.
struct Samples {
    addons: PathBuf,
    channel: PathBuf,
}

impl Samples {
    fn copy(dir: &Path) -> Result<Self> {
        let samples = Self { addons: dir.join("addons"), channel: dir.join("channel") };
        for folder in [&samples.addons, &samples.channel] {
            std::fs::create_dir_all(folder)?;
            let name = folder.file_name().context("a folder has a name")?;
            for entry in std::fs::read_dir(repository().join("hack/lib").join(name))? {
                let entry = entry?;
                std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
        Ok(samples)
    }

    /// Flags of replicas that keep them, and what they were before, to go back to.
    fn flags(&self) -> Vec<String> {
        vec![
            format!("--addon-path={}", self.addons.display()),
            format!("--channel={}", self.channel.join("index.yaml").display()),
            "--channel-interval=5s".to_owned(),
            "--addon-rollback=manual".to_owned(),
        ]
    }
}

/// The Go manager with what this build lacks, a scheduler, and fake nodes; and the flag by which the replicas take the other
/// controllers over.
async fn start_peers(control_plane: &ControlPlane) -> Result<(Vec<Server>, String)> {
    say("starting the Go manager with the complementary controllers, a scheduler and fake nodes");
    let output = tokio::process::Command::new(deck::program()?).arg("--print-kcm-controllers").output().await?;
    let complement = String::from_utf8(output.stdout)?;
    let peers = vec![
        control_plane.start_kcm(&[&format!("--controllers={}", complement.trim())]).await?,
        control_plane.start_scheduler(&[]).await?,
        control_plane.start_kwok(&[]).await?,
    ];
    let demo = Demo::new(control_plane.admin().await?, "default");
    for (node, zone) in [("node-a", "a"), ("node-b", "b"), ("node-c", "c")] {
        demo.kwok_node(node, zone).await?;
    }
    // What that manager leaves out is ours by name: unnamed, it would wait for the manager to end.
    let ours: Vec<_> = complement.trim().split(',').filter_map(|name| name.strip_prefix('-')).collect();
    Ok((peers, format!("--controllers=*,{}", ours.join(","))))
}

fn describe(control_plane: &ControlPlane, deck: &Deck, leader: usize, samples: &Samples, full: bool) -> Result<()> {
    let kubeconfig = control_plane.admin_kubeconfig()?;
    println!("\nThe deck is manned. quarterdeck-{leader} leads.\n");
    for (index, replica) in deck.replicas().iter().enumerate() {
        let (url, pid) = (replica.url(), replica.process().pid());
        println!("  quarterdeck-{index}  pid {pid:<7} {url}/metrics  {url}/statusz");
    }
    println!("\n  environment  . {}", environment(control_plane, samples, &kubeconfig)?.display());
    println!("  kubeconfig   export KUBECONFIG={}", kubeconfig.display());
    println!("  kubectl      {}", control_plane.program("kubectl").display());
    println!("  addons       {}", samples.addons.display());
    println!("  channel      {}", samples.channel.display());
    println!("  logs         {}", control_plane.folder().display());
    println!("\nTry:");
    println!("  kubectl -n kube-system get lease quarterdeck -o yaml      # who has the deck");
    println!("  edit {}/welcome.yaml, then kubectl -n kube-system get cm welcome -o yaml", samples.addons.display());
    println!("  kubectl -n kube-system label cm welcome mine=yes           # drift: it is taken back");
    println!("  kubectl create ns brig && kubectl delete ns brig           # gone in a second");
    println!(
        "  kill {}                                                # another replica takes the deck",
        deck.replica(leader).process().pid()
    );
    if full {
        println!("  kubectl create deploy web --image=web --replicas=3 && kubectl expose deploy web --port=80");
        println!("  kubectl get endpointslices                                 # written by quarterdeck");
    }
    for (index, replica) in deck.replicas().iter().enumerate() {
        let file = control_plane.folder().join(format!("ask-{index}.conf"));
        std::fs::write(&file, serde_json::to_vec(replica.kubeconfig())?)?;
        println!("  kubectl --kubeconfig={} get --raw /statusz   # or /metrics, /readyz?verbose", file.display());
    }
    println!("\nhack/run stop ends everything.");
    Ok(())
}

/// Writes a file for shells: kubeconfig, programs, and where the samples are.
fn environment(control_plane: &ControlPlane, samples: &Samples, kubeconfig: &Path) -> Result<PathBuf> {
    let file = control_plane.folder().join("env");
    let kubectl = control_plane.program("kubectl");
    let folders = [deck::program()?, kubectl].map(|program| program.parent().map(Path::to_owned).unwrap_or_default());
    let [ours, theirs] = folders;
    let text = format!(
        "export KUBECONFIG='{}'\nexport PATH='{}:{}':\"$PATH\"\nexport ADDONS='{}'\nexport CHANNEL='{}'\n",
        kubeconfig.display(),
        ours.display(),
        theirs.display(),
        samples.addons.display(),
        samples.channel.display(),
    );
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Starts everything, shows that it works, and ends it.
async fn check(dir: &Path, full: bool) -> Result<()> {
    let dir = dir.with_extension("check");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    say("starting etcd and kube-apiserver");
    let control_plane = ControlPlane::builder().folder(&dir).with(peers(full)).start().await?;
    let samples = Samples::copy(&dir)?;
    let (deck, peers) = start(&control_plane, &samples, full, false, Vec::new()).await?;
    let leader = wait(&deck).await?;
    say(&format!("quarterdeck-{leader} leads"));

    let client = control_plane.admin().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    eventually("an addon is applied", PATIENCE, || async { Ok(maps.get("welcome").await.map(drop)?) }).await?;
    say("an addon is applied");
    eventually("a channel's addon is applied", PATIENCE, || async { Ok(maps.get("tides").await.map(drop)?) }).await?;
    say("a channel's addon is applied");

    control_plane.namespace(NAMESPACE).await?;
    let demo = Demo::new(client, NAMESPACE);
    let workload = Workload { demo, full };
    workload.appear().await?;
    say("a slice is written");

    let process = deck.replica(leader).process();
    let begun = Instant::now();
    process.signal(Signal::SIGTERM)?;
    let next = eventually("another replica leads", PATIENCE, || async {
        match deck.leader(PATIENCE).await? {
            same if same == leader => bail!("quarterdeck-{same} still leads"),
            other => Ok(other),
        }
    })
    .await?;
    workload.change().await?;
    say(&format!("quarterdeck-{next} took over and wrote a slice, {} ms after SIGTERM", begun.elapsed().as_millis()));
    process.wait(PATIENCE).await?;
    drop((deck, peers, control_plane));
    println!("check passed");
    Ok(())
}

/// What is behind the demonstration's one service: a Deployment in a full run, else a pod whose status is written by hand.
struct Workload {
    demo: Demo,
    full: bool,
}

impl Workload {
    /// Makes it, and waits until it is in a slice.
    async fn appear(&self) -> Result<()> {
        self.demo.service("web").await?;
        if self.full {
            self.demo.deployment("web", 3).await?;
            return self.is_seen(3, true).await;
        }
        self.demo.node("node-a", "a").await?;
        self.demo.pod("web-0", "web", "node-a", "10.1.0.1").await?;
        self.is_seen(1, true).await
    }

    /// Changes it, and waits until a slice shows that.
    async fn change(&self) -> Result<()> {
        if self.full {
            self.demo.deployment("web", 2).await?;
            return self.is_seen(2, true).await;
        }
        self.demo.ready("web-0", false).await?;
        self.is_seen(1, false).await
    }

    async fn is_seen(&self, count: usize, ready: bool) -> Result<()> {
        eventually("the slice shows the pods", PATIENCE, || async {
            let seen = self.demo.endpoints("web").await?;
            ensure!(seen.len() == count && seen.iter().all(|(_, each)| *each == ready), "{seen:?}");
            Ok(())
        })
        .await
    }
}

/// Runs three replicas against somebody's cluster, after showing what that means.
async fn join(dir: &Path, kubeconfig: &Path, yes: bool) -> Result<()> {
    let program = deck::program()?;
    let client = kube::Client::try_from(
        kube::Config::from_custom_kubeconfig(kube::config::Kubeconfig::read_from(kubeconfig)?, &<_>::default()).await?,
    )?;
    let review: Api<SelfSubjectReview> = Api::all(client);
    let me = review.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = me.status.and_then(|status| status.user_info).and_then(|info| info.username).unwrap_or_default();
    println!("This would run three replicas here as user {user:?}, after installing into that cluster:\n");
    let args = vec![format!("--user={user}")];
    let plan = [args.clone(), vec!["--dry-run".to_owned()]].concat();
    print!("{}", deck::install(&program, kubeconfig, &plan).await?);
    println!("\nControllers that the Go manager there runs stay blocked until they are handed over by name.");
    if !yes && !confirmed()? {
        bail!("nothing was done");
    }
    deck::install(&program, kubeconfig, &args).await?;
    std::fs::create_dir_all(dir)?;
    let deck = Deck::join(kubeconfig, dir, 3, &Samples::copy(dir)?.flags())?;
    deck.write_down(&ledger(dir))?;
    println!("\nThree replicas run; their logs are in {}.", dir.display());
    println!("hack/run stop ends them; quarterdeck uninstall --kubeconfig {} removes the rest.", kubeconfig.display());
    Ok(())
}

fn confirmed() -> Result<bool> {
    eprint!("Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn say(text: &str) {
    eprintln!("{text}");
}
