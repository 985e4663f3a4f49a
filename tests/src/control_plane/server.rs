//! A server of the control plane: a process that listens on ports of its own
//! and says when it is ready.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http::Request;
use parking_lot::Mutex;

use super::ledger::Ledger;
use crate::kubeconfig;
use crate::ports::ReservedPort;
use crate::process::{Exit, Launch, Process};
use crate::wait::eventually;

/// Time that a server gets to become ready on a loaded machine.
pub(super) const READY: Duration = Duration::from_secs(120);

/// A server: etcd, a kube-apiserver, or a peer that answers `/healthz`.
pub struct Server {
    name: String,
    url: String,
    ready_path: String,
    /// Kubeconfig text of the client that asks whether it is ready.
    probe: String,
    state: Mutex<State>,
    /// Learns of every process that runs it.
    ledger: Arc<Ledger>,
    _ports: Vec<ReservedPort>,
}

struct State {
    launch: Launch,
    process: Process,
}

/// What a server is started with, once its ports are known.
pub(super) struct Plan {
    /// How to start it.
    pub(super) launch: Launch,
    /// Where it answers.
    pub(super) url: String,
    /// Path that answers 200 when it is ready.
    pub(super) ready_path: String,
    /// Kubeconfig text of the client that asks.
    pub(super) probe: String,
}

impl Server {
    /// Starts a server on `ports` free ports, and on others if a stranger
    /// takes one meanwhile; returns when it is ready.
    pub(super) async fn launch(
        ports: usize,
        plan: impl Fn(&[u16]) -> Result<Plan>,
        ledger: &Arc<Ledger>,
    ) -> Result<Self> {
        const TRIES: usize = 5;
        for attempt in 1.. {
            let taken = (0..ports).map(|_| ReservedPort::take()).collect::<Result<Vec<_>>>()?;
            let numbers: Vec<_> = taken.iter().map(ReservedPort::port).collect();
            let plan = plan(&numbers)?;
            let process = plan.launch.spawn()?;
            ledger.add(&plan.launch, &plan.url, &process)?;
            let server = Self::new(plan, process.clone(), taken, ledger.clone());
            match server.wait_ready(READY).await {
                Ok(()) => return Ok(server),
                Err(_) if attempt < TRIES && lost_port(&process) => {
                    process.kill().await?;
                }
                Err(error) => {
                    process.kill().await?;
                    return Err(error);
                }
            }
        }
        unreachable!("the last try returns");
    }

    /// A server that another program started.
    pub(super) fn attach(plan: Plan, process: Process, ledger: &Arc<Ledger>) -> Self {
        Self::new(plan, process, Vec::new(), ledger.clone())
    }

    fn new(plan: Plan, process: Process, ports: Vec<ReservedPort>, ledger: Arc<Ledger>) -> Self {
        Self {
            name: plan.launch.name().to_owned(),
            url: plan.url,
            ready_path: plan.ready_path,
            probe: plan.probe,
            state: Mutex::new(State { launch: plan.launch, process }),
            ledger,
            _ports: ports,
        }
    }

    /// Its name, which also names its log: `etcd`, `kube-apiserver-0`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it answers: `https://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port of [`Server::url`], as a [`crate::Proxy`] takes it.
    pub fn address(&self) -> std::net::SocketAddr {
        let (_, address) = self.url.split_once("://").expect("we wrote the URL");
        address.parse().expect("we wrote the URL with a numeric address")
    }

    /// The process that runs it now, or that ran it last.
    pub fn process(&self) -> Process {
        self.state.lock().process.clone()
    }

    /// Is its process there (paused or not)?
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// File of its output.
    ///
    /// # Panics
    /// Never: servers have a log.
    pub fn log(&self) -> std::path::PathBuf {
        self.process().log().map(Path::to_owned).expect("servers are launched with a log")
    }

    /// Ends it in an orderly way (SIGTERM); it is killed after 30 s.
    ///
    /// # Errors
    /// When it survives.
    pub async fn stop(&self) -> Result<Exit> {
        self.process().stop(Duration::from_secs(30)).await
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Errors
    /// When it survives.
    pub async fn kill(&self) -> Result<Exit> {
        self.process().kill().await
    }

    /// Starts it again after [`Server::stop`] or [`Server::kill`], on the same
    /// ports and data, and returns when it is ready.
    ///
    /// # Errors
    /// When it runs already, or does not get ready.
    pub async fn start(&self) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.process.is_running() {
                bail!("{} runs already", self.name);
            }
            state.process = state.launch.spawn()?;
            self.ledger.add(&state.launch, &self.url, &state.process)?;
        }
        self.wait_ready(READY).await
    }

    /// Stops and starts it.
    ///
    /// # Errors
    /// As [`Server::stop`] and [`Server::start`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Stops it and starts it with more arguments, now and later. Of an
    /// argument that is given twice, the last one counts (lists add up).
    ///
    /// # Errors
    /// As [`Server::stop`] and [`Server::start`].
    pub async fn restart_with<I, S>(&self, args: I) -> Result<()>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.stop().await?;
        {
            let mut state = self.state.lock();
            state.launch = state.launch.clone().args(args);
        }
        self.start().await
    }

    /// Freezes it: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn pause(&self) -> Result<()> {
        self.process().pause().await
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self) -> Result<()> {
        self.process().resume()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready within `timeout`; the error carries the
    /// end of its log.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let process = self.process();
        let asking = async {
            let client = kubeconfig::client(&self.probe).await?;
            eventually("an answer of 200", timeout, || async {
                let request = Request::get(&self.ready_path).body(Vec::new())?;
                let look = tokio::time::timeout(Duration::from_secs(5), client.request_text(request));
                look.await?.map(drop).map_err(|error| anyhow!(error))
            })
            .await
        };
        tokio::select! {
            ready = asking => ready
                .with_context(|| format!("{} {}{}", self.url, self.ready_path, process.log_end()))
                .with_context(|| format!("{} is not ready", self.name)),
            ended = process.wait(timeout + Duration::from_secs(5)) => {
                bail!("{} ended at its start ({:?}){}", self.name, ended?, process.log_end())
            }
        }
    }

    /// Kills it and waits, for use in `drop`.
    pub(super) fn kill_now(&self) {
        let process = self.process();
        if process.signal(nix::sys::signal::Signal::SIGKILL).is_ok() {
            process.join();
        }
    }
}

/// Did the process end because a stranger had its port?
fn lost_port(process: &Process) -> bool {
    !process.is_running() && process.log_text().contains("address already in use")
}
