//! Tells the service manager of this machine how we are, by the protocol of `sd_notify(3)`: a datagram of assignments to
//! the socket that `NOTIFY_SOCKET` names. Without one nothing is told. Why it is our own: `docs/decisions/0020-sd-notify.md`.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_election::Leadership;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How long the service manager waits for a sign of life, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// Whom it expects that of.
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// Signs of life are given once a second; who waits for less than twice that kills at random.
const SHORTEST_WATCHDOG: Duration = Duration::from_secs(2);

/// A line to the service manager. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
    watched: bool,
}

impl Notifier {
    /// The line that the environment of this process names. One that cannot be used is told in the log: the process runs
    /// all the same, and whoever waits for its word gives up on it.
    pub(crate) fn from_env() -> Self {
        Self::from(|name| std::env::var_os(name), std::process::id())
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Self {
        let Some(name) = variable(SOCKET).filter(|name| !name.is_empty()) else { return Self::default() };
        let socket = match connect(&name) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                tracing::warn!(path = %name.display(), %error, "the service manager cannot be told anything");
                return Self::default();
            }
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = number(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(own_pid));
        let limit = number(WATCHDOG).filter(|limit| *limit > 0 && ours).map(Duration::from_micros);
        if let Some(limit) = limit.filter(|limit| *limit < SHORTEST_WATCHDOG) {
            tracing::warn!(?limit, "the service manager's limit is too short");
        }
        Self { socket: Some(socket), watched: limit.is_some() }
    }

    /// What `/livez` and `/metrics` answer is served.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The process has been told to stop, and gives its Lease back.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// A sign of life, if one is waited for.
    pub(crate) fn alive(&self) {
        if self.watched {
            self.tell("WATCHDOG=1");
        }
    }

    /// Has the service manager show who leads, until `stop`.
    pub(crate) async fn follow(self, mut leadership: watch::Receiver<Leadership>, stop: CancellationToken) {
        if self.socket.is_none() {
            return;
        }
        loop {
            let status = match &*leadership.borrow_and_update() {
                Leadership::Leading(_) => "STATUS=leads".to_owned(),
                Leadership::Standby { holder: Some(holder), .. } => {
                    format!("STATUS=stands by for {}", holder.replace('\n', " "))
                }
                Leadership::Standby { holder: None, .. } => "STATUS=stands by".to_owned(),
            };
            self.tell(&status);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    }

    /// A service manager that does not listen holds nothing up.
    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::debug!(%error, state, "the service manager was not told");
        }
    }
}

/// Connects to a socket by its path, or, after an `@`, by its name in the abstract namespace.
fn connect(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Notifier::from(value, 7)
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 256];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
            .map(|bytes| String::from_utf8(bytes).expect("text"))
            .collect()
    }

    #[test]
    fn the_service_manager_hears_what_it_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = path.to_str().expect("text");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let say = |notifier: &Notifier| {
            notifier.ready();
            notifier.alive();
            notifier.stopping();
        };
        say(&notifier(&[(SOCKET, name), (WATCHDOG, "30000000"), (WATCHDOG_PID, "7")]));
        assert_eq!(heard(&manager), ["READY=1", "WATCHDOG=1", "STOPPING=1\nSTATUS=stopping"]);
        // Signs of life are expected of somebody else, or of nobody.
        for others in [&[(SOCKET, name), (WATCHDOG, "30000000"), (WATCHDOG_PID, "8")][..], &[(SOCKET, name)]] {
            say(&notifier(others));
            assert_eq!(heard(&manager), ["READY=1", "STOPPING=1\nSTATUS=stopping"]);
        }
        drop(manager);
        std::fs::remove_file(&path).expect("the socket's file");
        say(&notifier(&[(SOCKET, name)]));
    }

    #[test]
    fn an_abstract_name_and_a_bad_one() {
        let name = format!("quarterdeck-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        notifier(&[(SOCKET, &format!("@{name}"))]).ready();
        assert_eq!(heard(&manager), ["READY=1"]);
        for bad in ["", "vsock:2:1", "relative"] {
            let notifier = notifier(&[(SOCKET, bad)]);
            assert!(notifier.socket.is_none(), "{bad:?}");
            notifier.ready();
        }
    }
}
