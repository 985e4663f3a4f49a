//! A network that fails on demand: a TCP proxy between a client and a server.
//!
//! It passes bytes on untouched (TLS stays end to end), and can hold them back
//! (a partition that heals: TCP would send them again), lose them (one that
//! does not), delay them, refuse new connections, or cut those that are open.
//! It runs on a thread of its own, so that a test that blocks does not.

mod connection;
mod socket;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ports::ReservedPort;
use connection::{Counters, carry};
pub use socket::{SocketProxy, Wire};

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They are kept, and pass later in order: a partition that heals.
    Hold,
    /// They are taken and lost; when bytes pass again, a connection that lost
    /// some is cut, for its stream has a hole.
    Swallow,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Bytes from the client to the server.
    pub to_server: Flow,
    /// Bytes from the server to the client.
    pub to_client: Flow,
    /// Time that every byte to the server is late, at unchanged throughput.
    pub delay_to_server: Duration,
    /// Time that every byte to the client is late, at unchanged throughput.
    pub delay_to_client: Duration,
}

impl Faults {
    /// All is well.
    pub fn none() -> Self {
        Self::default()
    }

    /// Both directions swallow everything; new connections are accepted.
    pub fn black_hole() -> Self {
        Self { to_server: Flow::Swallow, to_client: Flow::Swallow, ..Self::default() }
    }

    /// Both directions hold everything back.
    pub fn partition() -> Self {
        Self { to_server: Flow::Hold, to_client: Flow::Hold, ..Self::default() }
    }

    /// Requests arrive, answers are late.
    pub fn slow_answers(delay: Duration) -> Self {
        Self { delay_to_client: delay, ..Self::default() }
    }

    /// Requests arrive, answers are lost.
    pub fn lost_answers() -> Self {
        Self { to_client: Flow::Swallow, ..Self::default() }
    }
}

/// An open connection, as [`Proxy::connections`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Number in the order of arrival, from 0.
    pub id: u64,
    /// Bytes that the client has sent.
    pub from_client: u64,
    /// Bytes that the server has sent.
    pub from_server: u64,
}

/// A running proxy; dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    _port: ReservedPort,
}

#[derive(Debug, Default)]
struct Shared {
    /// For connections to come.
    faults: Mutex<Faults>,
    open: Mutex<BTreeMap<u64, Handle>>,
    accepted: AtomicU64,
}

/// The proxy's side of an open connection.
#[derive(Debug)]
struct Handle {
    control: watch::Sender<Control>,
    counters: Arc<Counters>,
}

/// What a connection obeys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    pub(crate) faults: Faults,
    pub(crate) cut: bool,
}

enum Command {
    /// Close (false) or open (true) the listening socket, and tell when done.
    Listen(bool, oneshot::Sender<std::io::Result<()>>),
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1, in front of `server`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), server).await
    }

    /// Starts a proxy on another address of this machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_on(address: IpAddr, server: SocketAddr) -> Result<Self> {
        let port = ReservedPort::take()?;
        let address = SocketAddr::new(address, port.port());
        let shared = Arc::new(Shared::default());
        let (commands, received) = mpsc::unbounded_channel();
        let (ready, started) = oneshot::channel();
        let state = shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("proxy-{}", port.port())).spawn(move || {
            runtime.block_on(async move {
                match listen(address) {
                    Ok(listener) => {
                        let _ = ready.send(Ok(()));
                        serve(address, server, Some(listener), received, &state).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // Tasks of open connections end with the runtime.
        })?;
        started.await?.with_context(|| format!("listening on {address}"))?;
        Ok(Self { address, shared, commands, _port: port })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as the URL of a kube-apiserver, for
    /// [`crate::ControlPlane::kubeconfig_at`].
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Puts faults on all connections, open and to come.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock() = faults;
        for handle in self.shared.open.lock().values() {
            handle.control.send_modify(|control| control.faults = faults);
        }
    }

    /// Puts faults on connections to come; the open ones go on as they are.
    pub fn set_new(&self, faults: Faults) {
        *self.shared.faults.lock() = faults;
    }

    /// Puts faults on one open connection; false when it is gone.
    pub fn set_one(&self, id: u64, faults: Faults) -> bool {
        let open = self.shared.open.lock();
        let Some(handle) = open.get(&id) else {
            return false;
        };
        handle.control.send_modify(|control| control.faults = faults);
        true
    }

    /// Cuts all open connections (both ends see a reset).
    pub fn cut(&self) {
        for handle in self.shared.open.lock().values() {
            handle.control.send_modify(|control| control.cut = true);
        }
    }

    /// Cuts one open connection; false when it is gone.
    pub fn cut_one(&self, id: u64) -> bool {
        let open = self.shared.open.lock();
        let Some(handle) = open.get(&id) else {
            return false;
        };
        handle.control.send_modify(|control| control.cut = true);
        true
    }

    /// Refuses new connections from when this returns.
    ///
    /// # Errors
    /// When the proxy's thread has ended.
    pub async fn refuse(&self) -> Result<()> {
        self.listen(false).await
    }

    /// Accepts new connections again.
    ///
    /// # Errors
    /// When another program took the port meanwhile.
    pub async fn accept(&self) -> Result<()> {
        self.listen(true).await
    }

    async fn listen(&self, open: bool) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Listen(open, done));
        sent.map_err(|_| anyhow!("the proxy's thread has ended"))?;
        answer.await?.with_context(|| format!("listening on {}", self.address))
    }

    /// The open connections, oldest first.
    pub fn connections(&self) -> Vec<Connection> {
        let open = self.shared.open.lock();
        open.iter()
            .map(|(&id, handle)| Connection {
                id,
                from_client: handle.counters.from_client.load(Ordering::Relaxed),
                from_server: handle.counters.from_server.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Number of connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of before may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Accepts until the proxy is dropped.
async fn serve(
    address: SocketAddr,
    server: SocketAddr,
    mut listener: Option<TcpListener>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    shared: &Arc<Shared>,
) {
    loop {
        let accepting = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Listen(false, done)) => {
                    listener = None;
                    let _ = done.send(Ok(()));
                }
                Some(Command::Listen(true, done)) => {
                    let opened = if listener.is_some() { Ok(()) } else {
                        listen(address).map(|opened| listener = Some(opened))
                    };
                    let _ = done.send(opened);
                }
            },
            accepted = accepting => {
                if let Ok((client, _)) = accepted {
                    open(client, server, shared);
                }
            }
        }
    }
}

/// Carries one connection in a task of its own.
fn open(client: TcpStream, server: SocketAddr, shared: &Arc<Shared>) {
    let id = shared.accepted.fetch_add(1, Ordering::Relaxed);
    let counters = Arc::new(Counters::default());
    // Registered under the lock of the faults: no change is missed between.
    let control = {
        let faults = shared.faults.lock();
        let (sender, control) = watch::channel(Control { faults: *faults, cut: false });
        let handle = Handle { control: sender, counters: counters.clone() };
        shared.open.lock().insert(id, handle);
        control
    };
    let shared = shared.clone();
    tokio::spawn(async move {
        carry(client, server, control, counters).await;
        shared.open.lock().remove(&id);
    });
}
