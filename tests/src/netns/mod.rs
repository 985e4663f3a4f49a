//! Machines that are network namespaces: hosts on bridges, with real packets between them.
//!
//! A namespace lives as long as the process that holds it, which ends with the test whatever becomes of it; nothing
//! of this machine's own network is touched. Takes root.

mod load;
mod relay;
mod site;
mod traffic;

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::binaries::repository;
use crate::process::{Launch, Process};
use crate::wait::eventually;

pub use load::{Load, Tally};
pub use relay::relay;
pub use site::{CLIENT, Layout, OTHER_CLIENT, Site};
pub use traffic::{
    Conversation, Echo, Flow, Health, Page, datagram, datagram_from, datagram_patient, dial, dial_from, get, refused,
};

const LONG: Duration = Duration::from_secs(60);

/// A machine.
pub struct Machine {
    name: String,
    namespace: File,
    pid: i32,
    /// Ends with this value, if it was started with it.
    holder: Option<Process>,
}

impl Machine {
    /// A machine without links but its own loopback.
    ///
    /// # Errors
    /// When namespaces cannot be made; the error says what is missing.
    pub async fn start(name: &str) -> Result<Self> {
        Self::launched(name, false).await
    }

    /// The same, of a machine that outlives this process: whoever started it writes [`Self::holder`] down.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_detached(name: &str) -> Result<Self> {
        Self::launched(name, true).await
    }

    async fn launched(name: &str, detached: bool) -> Result<Self> {
        if std::fs::metadata("/proc/self")?.uid() != 0 {
            bail!("network namespaces need root");
        }
        let launch = Launch::new(name, "unshare").args(["--net", "sleep", "infinity"]).detached(detached);
        let holder = launch.spawn()?;
        let path = format!("/proc/{}/ns/net", holder.pid());
        let own = std::fs::read_link("/proc/self/ns/net").context("this kernel has no network namespaces")?;
        eventually("the namespace is there", LONG, || async {
            if !holder.is_running() {
                bail!("no network namespace can be made here: `unshare --net` ended; CAP_SYS_ADMIN is needed");
            }
            if std::fs::read_link(&path)? == own { bail!("not yet") } else { Ok(()) }
        })
        .await?;
        let machine =
            Self { name: name.to_owned(), namespace: File::open(&path)?, pid: holder.pid(), holder: Some(holder) };
        machine.run("ip link set lo up")?;
        Ok(machine)
    }

    /// A machine that somebody else started, by the process whose namespace it is.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn attach(name: &str, pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).context(path)?;
        Ok(Self { name: name.to_owned(), namespace, pid, holder: None })
    }

    /// The same machine, for another thread; it does not keep the machine alive.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn handle(&self) -> Result<Self> {
        Ok(Self { name: self.name.clone(), namespace: self.namespace.try_clone()?, pid: self.pid, holder: None })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process whose namespace it is.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The same, as it was started here.
    pub fn holder(&self) -> Option<&Process> {
        self.holder.as_ref()
    }

    /// Runs a command inside; words are split at spaces. Returns its output.
    ///
    /// # Errors
    /// When it does not end well, with what it said.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg("--");
        command.arg(words.next().context("an empty command")?).args(words);
        command.env("PATH", path()?);
        let output = command.output().with_context(|| format!("{}: {line}", self.name))?;
        if !output.status.success() {
            bail!("{}: {line}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// How to start a program inside.
    ///
    /// # Errors
    /// When the tools cannot be had.
    pub fn launch(&self, name: &str, program: &Path) -> Result<Launch> {
        let launch = Launch::new(name, "nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .arg("--")
            .arg(program.display().to_string());
        Ok(launch.env("PATH", path()?))
    }

    /// Does something inside, on a thread of its own. What opens sockets keeps them in the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` fails.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
                work()
            });
            thread.join().unwrap_or_else(|_| bail!("{}: a thread panicked", self.name))
        })
    }

    /// Links it to a bridge in another machine, as `link`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plug(&self, link: &str, switch: &Machine, bridge: &str) -> Result<()> {
        let port = format!("{}-{link}", self.name);
        let (here, there) = (self.pid(), switch.pid());
        self.run(&format!("ip link add {link} type veth peer name {port} netns {there}"))
            .with_context(|| format!("linking {here} to {there}; are veth devices missing in this kernel?"))?;
        switch.run(&format!("ip link set {port} master {bridge} up"))?;
        self.run(&format!("ip link set {link} up"))?;
        Ok(())
    }

    /// Sets a kernel setting of the namespace, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        self.inside(|| {
            let path = format!("/proc/sys/{setting}");
            std::fs::write(&path, value).context(path)
        })
    }
}

/// A machine with bridges that others are plugged into.
///
/// # Errors
/// When the kernel refuses.
pub fn switch(switch: Machine, bridges: &[&str]) -> Result<Machine> {
    for bridge in bridges {
        switch
            .run(&format!("ip link add {bridge} type bridge forward_delay 0 mcast_snooping 0"))
            .context("are bridges missing in this kernel?")?;
        switch.run(&format!("ip link set {bridge} up"))?;
    }
    Ok(switch)
}

/// The PATH of programs inside: this process's, and the tools of `hack/metal/tools`.
///
/// # Errors
/// When the tools cannot be had.
pub fn path() -> Result<String> {
    static PATH: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let script = repository().join("hack/metal/tools");
        let output = Command::new(&script).output().map_err(|error| format!("{}: {error}", script.display()))?;
        if !output.status.success() {
            return Err(format!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr)));
        }
        let tools = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let rest = std::env::var("PATH").unwrap_or_default();
        Ok(format!("{}:{rest}:/usr/sbin:/sbin", tools.display()))
    });
    path.clone().map_err(|error| anyhow::anyhow!("the agent's tools cannot be had: {error}"))
}
