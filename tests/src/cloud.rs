//! A made-up cloud beside a control plane: the server `quarterdeck-cloud-sim`, steered by a test.
//!
//! ```no_run
//! # async fn example(control_plane: &quarterdeck_it::ControlPlane) -> anyhow::Result<()> {
//! use quarterdeck_it::cloud::{CloudSim, Fault, Moment, Rule};
//! use quarterdeck_it::Deck;
//!
//! let cloud = CloudSim::start().await?;
//! let provider_id = cloud.add_instance("node-1").await?;
//! let deck = Deck::builder(control_plane).args([cloud.flag()]).start().await?;
//!
//! // The next call that makes a load balancer stands still when the cloud has made it, and nobody was told.
//! let hold = Rule::new("loadbalancers.ensure", Fault::Hold { at: Moment::After }).times(1);
//! cloud.fault(hold).await?;
//! cloud.held("loadbalancers.ensure").await?;
//! deck.replica(deck.leader(std::time::Duration::from_secs(60)).await?).process().kill().await?;
//! cloud.heal().await?;
//!
//! // Exactly one load balancer for each of these Services, and nothing of any other.
//! cloud.owned_by(&["uid-of-a-service"]).await?;
//! # drop(provider_id);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use quarterdeck_cloud_sim::client::{Client, control_socket};
use tempfile::TempDir;
use tokio::net::UnixStream;

pub use quarterdeck_cloud::sim::{
    Balancer, Call, Command, Dump, FailKind, Fault, Held, Moment, NewInstance, Power, Reply, Rule, Settings, State,
    StoredRoute,
};

use crate::deck::{end_written_down, program_named, write_down};
use crate::wait::eventually;
use crate::{Launch, Process};

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// A running made-up cloud. It ends with this value, unless it was started detached.
pub struct CloudSim {
    process: Mutex<Process>,
    socket: PathBuf,
    client: Client,
    /// Sockets need short paths: they are not in the folder of the control plane.
    _folder: Option<TempDir>,
}

/// How to start one.
#[derive(Default)]
pub struct Builder {
    folder: Option<PathBuf>,
    args: Vec<String>,
    detached: bool,
}

impl Builder {
    /// Machines that it has from the start, as `NAME` or `NAME@ZONE`.
    #[must_use]
    pub fn instances<I, S>(self, names: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let flags: Vec<String> = names.into_iter().map(|name| format!("--instance={}", name.as_ref())).collect();
        self.args(flags)
    }

    /// Flags of the server, such as `--provision-ms=2000`.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Folder for its state, sockets and log, with a path of at most 80 characters; one of its own unless given.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// Lets it outlive this process.
    #[must_use]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it was not built, or does not answer.
    pub async fn start(self) -> Result<CloudSim> {
        let own = match &self.folder {
            Some(_) => None,
            None => Some(TempDir::with_prefix("quarterdeck-sim-")?),
        };
        let folder = self.folder.as_deref().or(own.as_ref().map(TempDir::path)).context("it has a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let socket = folder.join("cloud.sock");
        let launch = Launch::new("quarterdeck-cloud-sim", program_named("quarterdeck-cloud-sim")?)
            .arg(format!("--listen=unix://{}", socket.display()))
            .arg(format!("--state={}", folder.join("state").display()))
            .args(self.args)
            .log(folder.join("cloud.log"))
            .detached(self.detached);
        let client = Client::new(control_socket(&socket));
        let sim = CloudSim { process: Mutex::new(launch.spawn()?), socket, client, _folder: own };
        sim.answers().await?;
        Ok(sim)
    }
}

impl CloudSim {
    /// A cloud with nothing in it.
    ///
    /// # Errors
    /// When it was not built, or does not answer.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// A cloud that is started in some other way than [`Self::start`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Steers it: for whoever needs more than the methods below.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The manager's flag that has it use this cloud.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--cloud-provider=sim={}", self.uri())
    }

    /// Where the plug-in is: `unix:///…`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process: to kill, stop, pause.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process.lock().clone()
    }

    /// Writes down which process it is, for a program that comes later to end it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_down(&self, file: &Path) -> Result<()> {
        write_down(&[self.process()], file)
    }

    /// Ends the one that [`Self::write_down`] wrote into `file`; without such a file there is nothing to end.
    ///
    /// # Errors
    /// When the file cannot be read, or the process survives.
    pub async fn end_written_down(file: &Path) -> Result<()> {
        end_written_down(file).await
    }

    /// Starts it again with the same flags and state, after it ended. Faults and calls are forgotten, but for those
    /// faults that were flags.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&self) -> Result<()> {
        let launch = self.process().launch().clone();
        *self.process.lock() = launch.spawn()?;
        self.answers().await
    }

    async fn answers(&self) -> Result<()> {
        let ready = async || -> Result<()> {
            ensure!(self.process().is_running(), "it has ended");
            self.client.state().await?;
            UnixStream::connect(&self.socket).await?;
            Ok(())
        };
        eventually("the made-up cloud answers", LONG, ready)
            .await
            .with_context(|| format!("its log ends:\n{}", self.process().log_end()))
    }

    /// Does one thing to the cloud; returns the id of what was made.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn command(&self, command: &Command) -> Result<String> {
        self.client.command(command).await
    }

    /// Makes a running machine, and returns its providerID.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn add_instance(&self, name: &str) -> Result<String> {
        self.command(&Command::AddInstance(NewInstance::named(name))).await
    }

    /// Starts, stops or terminates a machine.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn set_power(&self, name: &str, power: Power) -> Result<()> {
        self.command(&Command::SetPower { name: name.to_owned(), power }).await.map(drop)
    }

    /// Adds a fault, and returns its number.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn fault(&self, rule: Rule) -> Result<u64> {
        Ok(self.command(&Command::AddFault(rule)).await?.parse()?)
    }

    /// Takes all faults away; calls that were held go on.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn heal(&self) -> Result<()> {
        self.command(&Command::ClearFaults { id: None }).await.map(drop)
    }

    /// Everything: state, calls, faults, calls that stand still.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn dump(&self) -> Result<Dump> {
        self.client.dump().await
    }

    /// What the cloud consists of.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn state(&self) -> Result<State> {
        self.client.state().await
    }

    /// The calls that came, of a method or (`loadbalancers.*`, `*`) of many.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn calls(&self, method: &str) -> Result<Vec<Call>> {
        let all = self.client.calls().await?;
        let named = |call: &Call| match method.strip_suffix('*') {
            Some(prefix) => call.method.starts_with(prefix),
            None => call.method == method,
        };
        Ok(all.into_iter().filter(named).collect())
    }

    /// Load balancers of the Service with this uid.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn balancers_of(&self, uid: &str) -> Result<Vec<Balancer>> {
        Ok(self.state().await?.balancers.into_values().filter(|one| one.owner.uid == uid).collect())
    }

    /// Waits until a call of a method stands still, because of [`Fault::Hold`] or [`Fault::Hang`].
    ///
    /// # Errors
    /// When none does within a minute.
    pub async fn held(&self, method: &str) -> Result<Held> {
        eventually(&format!("a call of {method} stands still"), LONG, async || {
            let dump = self.dump().await?;
            let last: Vec<_> = dump.calls.iter().rev().take(10).collect();
            let held = dump.held.iter().find(|held| held.method == method).cloned();
            held.with_context(|| format!("none does; the last calls: {last:#?}"))
        })
        .await
    }

    /// Waits until there is exactly one load balancer for each of these Services, by their uids, and nothing else:
    /// no duplicate, no orphan, no address without a load balancer.
    ///
    /// # Errors
    /// When it is not so within a minute; the error carries what there is.
    pub async fn owned_by(&self, uids: &[&str]) -> Result<()> {
        eventually("one load balancer a Service, and nothing else", LONG, async || {
            let state = self.state().await?;
            let mut found: Vec<&str> = state.balancers.values().map(|one| one.owner.uid.as_str()).collect();
            let mut wanted = uids.to_vec();
            found.sort_unstable();
            wanted.sort_unstable();
            ensure!(found == wanted, "owners {found:?} instead of {wanted:?}");
            ensure!(state.leftovers().is_empty(), "left over: {:?}", state.leftovers());
            Ok(())
        })
        .await
    }

    /// Waits until exactly these routes lead to these nodes: `("10.1.0.0/24", "node-1")`.
    ///
    /// # Errors
    /// When it is not so within a minute; the error carries what there is.
    pub async fn routes_are(&self, wanted: &[(&str, &str)]) -> Result<()> {
        eventually("the routes", LONG, async || {
            let state = self.state().await?;
            let own = state.routes.values().filter(|one| one.owned);
            let mut found: Vec<_> = own.map(|one| (one.destination.to_string(), one.node.clone())).collect();
            let mut wanted: Vec<_> = wanted.iter().map(|(to, node)| ((*to).to_owned(), (*node).to_owned())).collect();
            found.sort();
            wanted.sort();
            ensure!(found == wanted, "{found:?} instead of {wanted:?}");
            Ok(())
        })
        .await
    }
}
