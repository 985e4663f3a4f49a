//! Replicas of quarterdeck on a control plane, as masters run them.

mod cloud_demo;
mod demo;
mod ledger;
mod made_up;
mod metal;
mod metal_yard;
mod replica;
mod wires;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kube::config::Kubeconfig;
use tokio::process::Command;

pub use cloud_demo::CloudDemo;
pub use demo::Demo;
pub(crate) use ledger::{end_written_down, write_down};
pub use made_up::SimDemo;
pub use metal::MetalDemo;
pub use metal_yard::{MetalYard, serve_machines};
pub use replica::{Replica, Status};
pub use wires::{busy_since, lease_connection, read_connection, renewed_lease};

use crate::wait::eventually;
use crate::{ControlPlane, Credentials, Launch, ReservedPort};

/// User of the replicas' kubeconfigs; `install` grants it its rights.
pub const USER: &str = "quarterdeck";

/// The group by which audit logs tell a replica from the others: their user is the same.
#[must_use]
pub fn group(replica: usize) -> String {
    format!("{GROUP}{replica}")
}

/// What the group of a replica begins with.
pub const GROUP: &str = "replica-";

/// The program under test: `QUARTERDECK_BIN`, else the one beside this test's own binary.
///
/// # Errors
/// When it has not been built.
pub fn program() -> Result<PathBuf> {
    match std::env::var_os("QUARTERDECK_BIN") {
        Some(path) => Ok(path.into()),
        None => program_named("quarterdeck"),
    }
}

/// A program of the workspace, beside this test's own binary.
///
/// # Errors
/// When it has not been built.
pub fn program_named(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("no {name} beside {}: cargo build --workspace --bins first", own.display()))
}

/// How to start a deck.
#[derive(Clone)]
pub struct DeckBuilder<'a> {
    control_plane: &'a ControlPlane,
    replicas: usize,
    args: Vec<String>,
    urls: Vec<String>,
    kubeconfigs: Vec<PathBuf>,
    install: Option<Vec<String>>,
    program: Option<PathBuf>,
    env: Vec<(String, String)>,
    detached: bool,
}

/// Replicas of quarterdeck.
pub struct Deck {
    replicas: Vec<Replica>,
}

impl Deck {
    /// A deck on this control plane; three replicas unless told otherwise.
    #[must_use]
    pub fn builder(control_plane: &ControlPlane) -> DeckBuilder<'_> {
        DeckBuilder {
            control_plane,
            replicas: 3,
            args: Vec::new(),
            urls: Vec::new(),
            kubeconfigs: Vec::new(),
            install: Some(Vec::new()),
            program: None,
            env: Vec::new(),
            detached: false,
        }
    }

    /// Replicas on a cluster of somebody else, which outlive this program; nothing is installed.
    ///
    /// # Errors
    /// When a replica cannot be started.
    pub fn join(kubeconfig: &Path, logs: &Path, replicas: usize, args: &[String]) -> Result<Self> {
        let (program, config) = (program()?, Kubeconfig::read_from(kubeconfig)?);
        let start = |index| {
            let (port, name) = (ReservedPort::take()?, format!("quarterdeck-{index}"));
            let launch = Launch::new(&name, &program)
                .args([
                    format!("--kubeconfig={}", kubeconfig.display()),
                    "--bind-address=127.0.0.1".to_owned(),
                    format!("--secure-port={}", port.port()),
                ])
                .args(state_dir(&program, args, &logs.join(format!("{name}-state"))))
                .args(replica_name(&program, args, &name))
                .args(args.iter().cloned())
                .log(logs.join(format!("{name}.log")))
                .detached(true);
            Replica::start_asked_by(&launch, port, config.clone())
        };
        Ok(Self { replicas: (0..replicas).map(start).collect::<Result<_>>()? })
    }

    /// One replica; panics if there is no such one.
    #[must_use]
    pub fn replica(&self, index: usize) -> &Replica {
        &self.replicas[index]
    }

    /// All replicas.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The index of the one replica that leads, by their own words.
    ///
    /// # Errors
    /// When none, or more than one, does within `timeout`.
    pub async fn leader(&self, timeout: Duration) -> Result<usize> {
        eventually("one replica leads", timeout, || async {
            let mut leaders = Vec::new();
            for (index, replica) in self.replicas.iter().enumerate() {
                if replica.process().is_running() && replica.status().await.is_ok_and(|status| status.leads()) {
                    leaders.push(index);
                }
            }
            match leaders[..] {
                [one] => Ok(one),
                _ => bail!("leaders: {leaders:?}"),
            }
        })
        .await
    }

    /// Waits until every controller that is not blocked has warm caches on every running replica.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<()> {
        for replica in &self.replicas {
            replica.ready(timeout).await?;
        }
        Ok(())
    }
}

impl DeckBuilder<'_> {
    /// How many replicas.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Flags of every replica.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Server of each replica in turn (another kube-apiserver, a proxy); the first kube-apiserver by
    /// default.
    #[must_use]
    pub fn servers<I, S>(mut self, urls: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.urls = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Kubeconfig of each replica in turn; by default each gets one that is made for it.
    #[must_use]
    pub fn kubeconfigs<I, P>(mut self, paths: I) -> Self
    where
        I: IntoIterator<Item = P>,
        P: Into<PathBuf>,
    {
        self.kubeconfigs = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Flags of `quarterdeck install`.
    #[must_use]
    pub fn install_args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.install = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Installs nothing: what the server needs is there, or is missing on purpose.
    #[must_use]
    pub fn without_install(mut self) -> Self {
        self.install = None;
        self
    }

    /// Another program than [`program`].
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// An environment variable of every replica.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the replicas outlive this process.
    #[must_use]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// Installs what the server needs and starts the replicas; does not wait for them.
    ///
    /// # Errors
    /// When the installation fails or a replica cannot be started.
    pub async fn start(self) -> Result<Deck> {
        let program = self.program.map_or_else(program, Ok)?;
        if let Some(args) = &self.install {
            install(&program, &self.control_plane.admin_kubeconfig()?, args).await?;
        }
        let mut replicas = Vec::new();
        for index in 0..self.replicas {
            let url = match self.urls.len() {
                0 => self.control_plane.apiserver(0).url(),
                count => &self.urls[index % count],
            };
            let kubeconfig = match self.kubeconfigs.get(index) {
                Some(path) => path.clone(),
                None => self.control_plane.kubeconfig_at(url, &Credentials::user(USER, &[&group(index)]))?,
            };
            let port = ReservedPort::take()?;
            let name = format!("quarterdeck-{index}");
            let launch = Launch::new(&name, &program);
            let launch = self.env.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
            let launch = launch
                .args([
                    format!("--kubeconfig={}", kubeconfig.display()),
                    "--bind-address=127.0.0.1".to_owned(),
                    format!("--secure-port={}", port.port()),
                ])
                .args(state_dir(&program, &self.args, &self.control_plane.folder().join(format!("{name}-state"))))
                .args(replica_name(&program, &self.args, &name))
                .args(self.args.iter().cloned())
                .log(self.control_plane.folder().join(format!("{name}.log")))
                .detached(self.detached);
            replicas.push(Replica::start(&launch, port, self.control_plane)?);
        }
        Ok(Deck { replicas })
    }
}

/// Has a replica keep what it read in a folder of its own, unless it is told where, or is another
/// program, which may know no such flag.
fn state_dir(program: &Path, args: &[String], folder: &Path) -> Option<String> {
    let told = args.iter().any(|arg| arg.starts_with("--state-dir"));
    let ours = program.file_name().is_some_and(|name| name == "quarterdeck");
    (ours && !told).then(|| format!("--state-dir={}", folder.display()))
}

/// Gives a replica a name of its own, as it would have on a host of its own, under the same conditions.
fn replica_name(program: &Path, args: &[String], name: &str) -> Option<String> {
    let told = args.iter().any(|arg| arg.starts_with("--replica-name"));
    let ours = program.file_name().is_some_and(|name| name == "quarterdeck");
    (ours && !told).then(|| format!("--replica-name={name}"))
}

/// Runs `quarterdeck install` with the given kubeconfig.
///
/// # Errors
/// With what it printed, when it fails.
pub async fn install(program: &Path, kubeconfig: &Path, args: &[String]) -> Result<String> {
    command(program, "install", kubeconfig, args).await
}

/// Runs `quarterdeck uninstall` with the given kubeconfig.
///
/// # Errors
/// With what it printed, when it fails.
pub async fn uninstall(program: &Path, kubeconfig: &Path, args: &[String]) -> Result<String> {
    command(program, "uninstall", kubeconfig, args).await
}

async fn command(program: &Path, name: &str, kubeconfig: &Path, args: &[String]) -> Result<String> {
    let output = Command::new(program)
        .arg(name)
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(args)
        .output()
        .await
        .with_context(|| format!("running quarterdeck {name}"))?;
    if !output.status.success() {
        bail!("quarterdeck {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
