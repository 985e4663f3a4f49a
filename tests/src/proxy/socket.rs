//! The way to a plug-in, failing on demand: a proxy between a unix socket of its own and that of a server.
//!
//! It passes bytes on untouched until it is told otherwise, and runs on a thread of its own, so that a test that blocks
//! does not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest piece that is passed on at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// What becomes of the bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// They pass.
    #[default]
    Pass,
    /// They are lost in both directions, and nobody is told: a connection that is half open.
    Silence,
    /// Requests pass, answers are lost.
    LoseAnswers,
    /// Answers come byte by byte, with this pause before each.
    Drip(Duration),
    /// So many bytes of the next answer pass; then the connection ends.
    Cut(usize),
    /// Answers are as long as they were, and mean nothing.
    Garbage,
    /// The connection ends as soon as something is sent.
    Reset,
}

/// A running proxy; dropping it ends all connections.
#[derive(Debug)]
pub struct SocketProxy {
    path: PathBuf,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Listen>,
}

#[derive(Debug, Default)]
struct Shared {
    /// For connections to come.
    wire: Mutex<Wire>,
    open: Mutex<Vec<watch::Sender<Control>>>,
}

/// What a connection obeys.
#[derive(Clone, Copy, Debug, Default)]
struct Control {
    wire: Wire,
    cut: bool,
}

/// Whether to listen, and whom to tell when it is so.
type Listen = (bool, oneshot::Sender<std::io::Result<()>>);

impl SocketProxy {
    /// Listens at `path`, in front of the server at `server`.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub async fn start(path: impl Into<PathBuf>, server: impl Into<PathBuf>) -> Result<Self> {
        let (path, server) = (path.into(), server.into());
        let shared = Arc::new(Shared::default());
        let (commands, received) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (place, state) = (path.clone(), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("socket-proxy".to_owned())
            .spawn(move || runtime.block_on(serve(&place, &server, received, &state)))?;
        let proxy = Self { path, shared, commands };
        proxy.accept().await?;
        Ok(proxy)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it listens: `unix:///…`.
    pub fn uri(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Does this to all connections, open and to come. One that lost bytes ends when bytes pass again: its stream has
    /// a hole.
    pub fn set(&self, wire: Wire) {
        *self.shared.wire.lock() = wire;
        self.control(|control| control.wire = wire);
    }

    /// Does this to connections to come; those that are open go on as they are.
    pub fn set_new(&self, wire: Wire) {
        *self.shared.wire.lock() = wire;
    }

    /// Ends all open connections.
    pub fn cut(&self) {
        self.control(|control| control.cut = true);
    }

    fn control(&self, change: impl Fn(&mut Control)) {
        let mut open = self.shared.open.lock();
        open.retain(|connection| !connection.is_closed());
        open.iter().for_each(|connection| connection.send_modify(&change));
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
    /// When it cannot listen any more.
    pub async fn accept(&self) -> Result<()> {
        self.listen(true).await
    }

    async fn listen(&self, open: bool) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.commands.send((open, done)).map_err(|_| anyhow!("the proxy's thread has ended"))?;
        answer.await?.with_context(|| format!("listening on {}", self.path.display()))
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Accepts until the proxy is dropped.
async fn serve(path: &Path, server: &Path, mut commands: mpsc::UnboundedReceiver<Listen>, shared: &Shared) {
    let mut listener = None;
    loop {
        let accepting = async {
            match &listener {
                Some(listener) => UnixListener::accept(listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                // The file stays: who connects is refused.
                Some((false, done)) => {
                    listener = None;
                    let _ = done.send(Ok(()));
                }
                Some((true, done)) => {
                    let _ = done.send(listen(path).map(|opened| listener = Some(opened)));
                }
            },
            accepted = accepting => if let Ok((client, _)) = accepted {
                // Under the lock of the faults: no change is missed between.
                let wire = shared.wire.lock();
                let (sender, control) = watch::channel(Control { wire: *wire, cut: false });
                shared.open.lock().push(sender);
                drop(wire);
                let server = server.to_owned();
                tokio::spawn(async move { carry(client, &server, control).await });
            },
        }
    }
}

/// Carries bytes until an end closes its side, or the connection is to end.
async fn carry(client: UnixStream, server: &Path, mut control: watch::Receiver<Control>) {
    let Ok(upstream) = UnixStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    let (asking, answering) = (control.clone(), control.clone());
    tokio::select! {
        () = requests(from_client, to_server, asking) => {}
        () = answers(from_server, to_client, answering) => {}
        // An error means that the proxy is gone: the same.
        _ = control.wait_for(|control| control.cut) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, control: watch::Receiver<Control>) {
    let (mut buffer, mut lost) = (vec![0; CHUNK], false);
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        match control.borrow().wire {
            Wire::Reset => return,
            Wire::Silence => {
                lost = true;
                continue;
            }
            _ if lost => return,
            _ => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut control: watch::Receiver<Control>) {
    let (mut buffer, mut lost) = (vec![0; CHUNK], false);
    let loses = |control: &Control| matches!(control.wire, Wire::Silence | Wire::LoseAnswers);
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = control.wait_for(|control| lost && !loses(control)) => return,
        };
        let Ok(count @ 1..) = read else { return };
        let wire = control.borrow().wire;
        let written = match wire {
            Wire::Silence | Wire::LoseAnswers => {
                lost = true;
                continue;
            }
            Wire::Pass => to.write_all(&buffer[..count]).await,
            Wire::Drip(pause) => drip(&buffer[..count], &mut to, &mut control, pause).await,
            Wire::Cut(most) => {
                let _ = to.write_all(&buffer[..count.min(most)]).await;
                return;
            }
            Wire::Garbage => to.write_all(&[0xa5; CHUNK][..count]).await,
            Wire::Reset => return,
        };
        if written.is_err() {
            return;
        }
    }
}

/// Writes byte by byte as long as that is wanted.
async fn drip(
    bytes: &[u8],
    to: &mut OwnedWriteHalf,
    control: &mut watch::Receiver<Control>,
    pause: Duration,
) -> std::io::Result<()> {
    for (index, byte) in bytes.iter().enumerate() {
        let over = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            _ = control.wait_for(|control| !matches!(control.wire, Wire::Drip(_))) => true,
        };
        if over {
            return to.write_all(&bytes[index..]).await;
        }
        to.write_all(std::slice::from_ref(byte)).await?;
    }
    Ok(())
}
