//! Child processes that end with the test, whatever becomes of it.
//!
//! Every child is wrapped in `setpriv --pdeathsig KILL` (util-linux), so the
//! kernel ends it when its parent dies. The kernel looks at the *thread* that
//! started the child, and test threads come and go, so one thread that lives
//! as long as the process starts them all.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::wait::eventually;

/// How to start a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: Option<PathBuf>,
    detached: bool,
}

impl Launch {
    /// A program to start; `name` is for messages.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: None,
            detached: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Appends output and errors to this file; without one they are dropped.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Lets the program outlive this process, and every handle to it.
    #[must_use]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// Does the program outlive this process?
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When the program, its log or the wrapper cannot be opened or run.
    pub fn spawn(&self) -> Result<Process> {
        Process::spawn(self.clone()).with_context(|| format!("starting {}", self.name))
    }

    fn command(&self) -> Result<Command> {
        // The wrapper would report a missing program only in the log.
        if self.program.components().count() > 1 && !self.program.is_file() {
            bail!("{} is not a file", self.program.display());
        }
        let mut command = if self.detached {
            // Its own session: no signal of this terminal reaches it. A process
            // that leads a group would fork here, hence none is made.
            Command::new("setsid")
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]);
            command.process_group(0);
            command
        };
        command.arg(&self.program).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        match &self.log {
            None => command.stdout(Stdio::null()).stderr(Stdio::null()),
            Some(path) => {
                let log = OpenOptions::new().create(true).append(true).open(path);
                let log = log.with_context(|| format!("opening {}", path.display()))?;
                command.stdout(log.try_clone()?).stderr(log)
            }
        };
        Ok(command)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, if it ended by itself and is a child of this process.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Did it end by itself with code 0?
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// Highest resident memory so far, in bytes.
    pub peak_resident: u64,
    /// Processor time so far, in user and kernel mode.
    pub cpu: Duration,
}

/// A running (or ended) process. Clones share it; when the last one is dropped,
/// the process is killed, unless it was launched detached.
#[derive(Clone, Debug)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    launch: Launch,
    pid: Pid,
    /// Start time in clock ticks since boot; with the pid it names one process.
    started: u64,
    /// Held while signalling and while reaping, so that no signal goes to a
    /// stranger that got the pid.
    reaping: Arc<Mutex<()>>,
    ended: watch::Receiver<Option<Exit>>,
    waiter: Mutex<Option<JoinHandle<()>>>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs `job` on the one thread that starts children.
fn on_spawner<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .expect("a thread can be started at the start of a test");
        Mutex::new(sender)
    });
    let (sender, answer) = mpsc::channel();
    let job = Box::new(move || drop(sender.send(job())));
    spawner.lock().send(job).map_err(|_| anyhow!("the spawner thread has ended"))?;
    answer.recv().context("the spawner thread has ended")
}

impl Process {
    fn spawn(launch: Launch) -> Result<Self> {
        let mut command = launch.command()?;
        let wrapper = command.get_program().to_string_lossy().into_owned();
        let mut child =
            on_spawner(move || command.spawn())?.map_err(|error| anyhow!("{wrapper} (util-linux): {error}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("pid out of range")?);
        let (sender, ended) = watch::channel(None);
        let reaping = Arc::new(Mutex::new(()));
        let lock = reaping.clone();
        let waiter = std::thread::Builder::new().name(format!("wait-{pid}")).spawn(move || {
            // Look first, reap later under the lock.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), flags) == Err(Errno::EINTR) {}
            let _reaping = lock.lock();
            let exit = child.wait().map_or(Exit { code: None, signal: None }, |status| Exit {
                code: status.code(),
                signal: status.signal(),
            });
            let _ = sender.send(Some(exit));
        })?;
        let started = started(pid).unwrap_or_default();
        let waiter = Mutex::new(Some(waiter));
        Ok(Self { inner: Arc::new(Inner { launch, pid, started, reaping, ended, waiter }) })
    }

    /// Takes over a detached process that another program started; `started` as
    /// [`Process::started`] gave it there.
    pub fn attach(launch: Launch, pid: i32, start_time: u64) -> Self {
        let pid = Pid::from_raw(pid);
        let (sender, ended) = watch::channel(None);
        let reaping = Arc::new(Mutex::new(()));
        let lock = reaping.clone();
        if started(pid) != Some(start_time) {
            let _ = sender.send(Some(Exit { code: None, signal: None }));
        } else {
            // Not our child: nothing tells of its end but its absence.
            let watch = move || {
                while started(pid) == Some(start_time) {
                    if sender.is_closed() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                let _reaping = lock.lock();
                let _ = sender.send(Some(Exit { code: None, signal: None }));
            };
            std::thread::spawn(watch);
        }
        let launch = launch.detached(true);
        let waiter = Mutex::new(None);
        Self { inner: Arc::new(Inner { launch, pid, started: start_time, reaping, ended, waiter }) }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.inner.pid.as_raw()
    }

    /// Start time in clock ticks since boot; for [`Process::attach`].
    pub fn started(&self) -> u64 {
        self.inner.started
    }

    /// What it was started with.
    pub fn launch(&self) -> &Launch {
        &self.inner.launch
    }

    /// How it ended, or `None` while it runs.
    pub fn exit(&self) -> Option<Exit> {
        *self.inner.ended.borrow()
    }

    /// Does it run (a paused process does)?
    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// Sends a signal; to an ended process it is a no-op.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.inner.signal(signal)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it still runs after `timeout`; the error carries the end of its log.
    pub async fn wait(&self, timeout: Duration) -> Result<Exit> {
        let mut ended = self.inner.ended.clone();
        let exit = tokio::time::timeout(timeout, ended.wait_for(Option::is_some)).await;
        match exit {
            Ok(Ok(exit)) => Ok(exit.expect("waited for it")),
            Ok(Err(_closed)) => Ok(Exit { code: None, signal: None }),
            Err(_elapsed) => {
                let name = self.inner.launch.name();
                bail!("{name} still runs after {timeout:?}{}", self.log_end());
            }
        }
    }

    /// Asks it to end (SIGTERM) and waits; kills it after `grace`.
    ///
    /// # Errors
    /// When it survives even SIGKILL for 10 s.
    pub async fn stop(&self, grace: Duration) -> Result<Exit> {
        self.signal(Signal::SIGTERM)?;
        // A paused process handles nothing before it goes on.
        self.signal(Signal::SIGCONT)?;
        match self.wait(grace).await {
            Ok(exit) => Ok(exit),
            Err(_elapsed) => self.kill().await,
        }
    }

    /// Waits, blocking, for the end of a child that was just killed.
    pub(crate) fn join(&self) {
        if let Some(waiter) = self.inner.waiter.lock().take() {
            let _ = waiter.join();
        }
    }

    /// Kills it (SIGKILL) and waits for the end.
    ///
    /// # Errors
    /// When it survives for 10 s.
    pub async fn kill(&self) -> Result<Exit> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10)).await
    }

    /// Freezes it (SIGSTOP), and returns when it stands still.
    ///
    /// # Errors
    /// When it has ended, or does not stop within 5 s.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let what = format!("{} stands still", self.inner.launch.name());
        eventually(&what, Duration::from_secs(5), || async {
            match state(self.inner.pid) {
                Some('T') => Ok(()),
                other => Err(anyhow!("its state is {other:?}")),
            }
        })
        .await
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.inner.pid).with_context(|| format!("{} has ended", self.inner.launch.name()))
    }

    /// File of its output, if it was launched with one.
    pub fn log(&self) -> Option<&Path> {
        self.inner.launch.log.as_deref()
    }

    /// All output so far; empty without a log.
    pub fn log_text(&self) -> String {
        let text = self.log().and_then(|path| std::fs::read(path).ok());
        text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of the log, for error messages.
    pub fn log_end(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(15)..];
        if last.is_empty() {
            return String::new();
        }
        format!("; its log ends with:\n  {}", last.join("\n  "))
    }
}

impl Inner {
    fn signal(&self, signal: Signal) -> Result<()> {
        let _reaping = self.reaping.lock();
        // Children cannot lose their pid before they are reaped; others can.
        let gone = self.ended.borrow().is_some() || (self.launch.detached && started(self.pid) != Some(self.started));
        if gone {
            return Ok(());
        }
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{signal} to {}", self.launch.name)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.launch.detached {
            return;
        }
        let killed = self.signal(Signal::SIGKILL);
        // The files it has open are free when it is gone.
        if killed.is_ok()
            && let Some(waiter) = self.waiter.lock().take()
        {
            let _ = waiter.join();
        }
    }
}

/// Fields of `/proc/<pid>/stat` after the name, which may hold blanks; the first
/// is the state (field 3 in proc_pid_stat(5)).
fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn state(pid: Pid) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Start time in clock ticks since boot, unless the process has ended.
fn started(pid: Pid) -> Option<u64> {
    let fields = stat(pid)?;
    if fields.first().is_some_and(|state| state == "Z" || state == "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn usage(pid: Pid) -> Option<Usage> {
    let fields = stat(pid)?;
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Usage {
        resident: bytes("VmRSS:")?,
        peak_resident: bytes("VmHWM:")?,
        // USER_HZ is 100 on every Linux that we build for.
        cpu: Duration::from_millis(ticks * 10),
    })
}

/// Is `name` in the folders of PATH?
pub(crate) fn on_path(name: impl AsRef<OsStr>) -> bool {
    let name = name.as_ref();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}
