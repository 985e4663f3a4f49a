//! One connection through the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Control, Flow};

/// Bytes that the ends have sent.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) from_client: AtomicU64,
    pub(super) from_server: AtomicU64,
}

/// How a direction ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The sender closed its side; the other direction may go on.
    Closed,
    /// The connection is of no use any more.
    Broken,
}

/// Chunks on the way in one direction; more than that and the sender waits.
const IN_FLIGHT: usize = 1024;
/// Longest chunk, in bytes.
const CHUNK: usize = 16 * 1024;

/// Carries bytes between `client` and `server` until one breaks, both are done,
/// or the connection is cut.
pub(super) async fn carry(
    client: TcpStream,
    server: SocketAddr,
    control: watch::Receiver<Control>,
    counters: Arc<Counters>,
) {
    let mut client = client;
    let Ok(mut upstream) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &upstream] {
        let _ = stream.set_nodelay(true);
    }
    // Borrowed halves: owned ones would say an orderly farewell when dropped.
    let orderly = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = upstream.split();
        let to_server = direction(client_read, server_write, control.clone(), Way::ToServer, &counters);
        let to_client = direction(server_read, client_write, control.clone(), Way::ToClient, &counters);
        let both = async {
            tokio::pin!(to_server, to_client);
            tokio::select! {
                end = &mut to_server => end == End::Closed && to_client.await == End::Closed,
                end = &mut to_client => end == End::Closed && to_server.await == End::Closed,
            }
        };
        let mut cut = control;
        tokio::select! {
            orderly = both => orderly,
            // An error means that the proxy is gone: the same.
            _ = cut.wait_for(|control| control.cut) => false,
        }
    };
    if !orderly {
        // Both ends see a reset.
        for stream in [&client, &upstream] {
            let _ = stream.set_zero_linger();
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    ToServer,
    ToClient,
}

impl Way {
    fn flow(self, control: &Control) -> Flow {
        match self {
            Self::ToServer => control.faults.to_server,
            Self::ToClient => control.faults.to_client,
        }
    }

    fn delay(self, control: &Control) -> std::time::Duration {
        match self {
            Self::ToServer => control.faults.delay_to_server,
            Self::ToClient => control.faults.delay_to_client,
        }
    }
}

/// Reads from `from` as fast as it comes, and writes to `to` as the faults want.
async fn direction(
    mut from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    control: watch::Receiver<Control>,
    way: Way,
    counters: &Counters,
) -> End {
    let (sender, chunks) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let counter = match way {
        Way::ToServer => &counters.from_client,
        Way::ToClient => &counters.from_server,
    };
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let Ok(count) = from.read(&mut buffer).await else {
                return End::Broken;
            };
            if count == 0 {
                return End::Closed;
            }
            counter.fetch_add(count as u64, Ordering::Relaxed);
            if sender.send((Instant::now(), buffer[..count].to_vec())).await.is_err() {
                return End::Broken;
            }
        }
    };
    let writing = deliver(chunks, to, control, way);
    tokio::pin!(reading, writing);
    tokio::select! {
        // What was read before the end is still delivered.
        end = &mut reading => if end == End::Closed { writing.await } else { End::Broken },
        end = &mut writing => end,
    }
}

/// Writes the chunks when and if the faults let them through.
async fn deliver(
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: WriteHalf<'_>,
    mut control: watch::Receiver<Control>,
    way: Way,
) -> End {
    let mut lost = false;
    loop {
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk,
            // A hole in the stream, and bytes pass again.
            _ = control.wait_for(|control| lost && way.flow(control) != Flow::Swallow) => {
                return End::Broken;
            }
        };
        let Some((arrived, bytes)) = chunk else {
            // The end of the stream is subject to the faults as its bytes are.
            if control.wait_for(|control| way.flow(control) == Flow::Pass).await.is_err() || lost {
                return End::Broken;
            }
            let _ = to.shutdown().await;
            return End::Closed;
        };
        loop {
            // What changes after this look wakes the waits below.
            let (flow, delay) = {
                let control = control.borrow_and_update();
                (way.flow(&control), way.delay(&control))
            };
            let due = arrived + delay;
            match flow {
                Flow::Swallow => {
                    lost = true;
                    break;
                }
                Flow::Pass if lost => return End::Broken,
                Flow::Pass if due <= Instant::now() => {
                    if to.write_all(&bytes).await.is_err() {
                        return End::Broken;
                    }
                    break;
                }
                Flow::Pass => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        changed = control.changed() => if changed.is_err() { return End::Broken },
                    }
                }
                Flow::Hold => {
                    if control.changed().await.is_err() {
                        return End::Broken;
                    }
                }
            }
        }
    }
}
