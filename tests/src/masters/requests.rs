//! Requests to a Service, all the time, from a master's network; every one has to be answered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::netns::Machine;

/// Pause of a caller between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// How long an answer may take. A backend that is there answers in milliseconds; on a loaded machine it may get no
/// processor for a while, which is nobody's loss.
const PATIENCE: Duration = Duration::from_secs(20);
/// Callers.
const CALLERS: usize = 2;
/// Faults that are told.
const TOLD: usize = 20;

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    answered: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// Callers at work; they stop when this is dropped.
pub struct Requests {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

impl Requests {
    /// Starts callers in a machine's network, each request a connection of its own.
    ///
    /// # Errors
    /// When there are no more file descriptors or threads.
    pub fn start(from: &Machine, to: SocketAddr) -> Result<Self> {
        let mut requests = Self { shared: Arc::default(), callers: Vec::new() };
        for number in 0..CALLERS {
            let (shared, machine) = (Arc::clone(&requests.shared), from.handle()?);
            let call = move || {
                let entered = machine.inside(|| {
                    while !shared.stopped.load(Ordering::Acquire) {
                        shared.count(ask(to));
                        std::thread::sleep(PAUSE);
                    }
                    Ok(())
                });
                if let Err(error) = entered {
                    shared.count(Err(error));
                }
            };
            requests.callers.push(std::thread::Builder::new().name(format!("caller-{number}")).spawn(call)?);
        }
        Ok(requests)
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Acquire)
    }

    /// Whether every request so far was answered.
    ///
    /// # Errors
    /// With those that were not.
    pub fn check(&self) -> Result<()> {
        let faults = self.shared.faults.lock();
        if faults.is_empty() { Ok(()) } else { bail!("requests were lost:\n{}", faults.join("\n")) }
    }

    /// Stops the callers and tells how many requests were answered.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn finish(mut self) -> Result<u64> {
        self.shared.stopped.store(true, Ordering::Release);
        for caller in self.callers.drain(..) {
            if caller.join().is_err() {
                bail!("a caller panicked");
            }
        }
        self.check()?;
        Ok(self.answered())
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

impl Shared {
    fn count(&self, asked: Result<String>) {
        let Err(error) = asked else {
            self.answered.fetch_add(1, Ordering::AcqRel);
            return;
        };
        let mut faults = self.faults.lock();
        if faults.len() < TOLD {
            faults.push(format!("{}: {error:#}", Timestamp::now()));
        }
    }
}

/// One request from a machine's network; the page that came.
///
/// # Errors
/// When no page comes.
pub fn page(from: &Machine, to: SocketAddr) -> Result<String> {
    from.inside(|| ask(to))
}

fn ask(to: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {to}\r\n\r\n").as_bytes()).context("asking")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading the answer")?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.") && head.contains(" 200 ") => Ok(body.trim().to_owned()),
        _ => bail!("answered {text:?}"),
    }
}
