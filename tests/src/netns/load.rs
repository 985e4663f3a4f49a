//! Callers that go on all the time, and count.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;

use super::Machine;
use super::traffic::{Conversation, Flow, datagram_patient, dial};

/// Pause between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(25);
/// How long an answer may take in a conversation: a gateway's end is longer than that of a packet.
const PATIENT: Duration = Duration::from_secs(180);
/// How long the answer to a datagram may take on a loaded machine. Longer means that one of the two was lost.
const LOST: Duration = Duration::from_secs(10);
/// Conversations with each address.
const CONVERSATIONS: usize = 6;
/// Faults that are told.
const TOLD: usize = 20;

/// What callers have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers in conversations that were begun at the start.
    pub kept: u64,
    /// Connections that were made, answered, and ended.
    pub fresh: u64,
    /// Answers to datagrams from a fresh port each.
    pub datagrams: u64,
    /// Answers to datagrams from a port that stays.
    pub flow: u64,
    /// Calls and datagrams without an answer. Conversations are not among them: one that breaks is a fault.
    pub lost: u64,
}

impl Tally {
    /// The fewest of the four.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.kept.min(self.fresh).min(self.datagrams).min(self.flow)
    }

    /// What was counted since an earlier tally.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            kept: self.kept - earlier.kept,
            fresh: self.fresh - earlier.fresh,
            datagrams: self.datagrams - earlier.datagrams,
            flow: self.flow - earlier.flow,
            lost: self.lost - earlier.lost,
        }
    }
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    forgiving: AtomicBool,
    kept: AtomicU64,
    fresh: AtomicU64,
    datagrams: AtomicU64,
    flow: AtomicU64,
    lost: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// Callers at work; they stop when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts callers of these addresses: conversations by TCP that stay, fresh connections, datagrams from fresh ports,
    /// and a flow of datagrams from one port. All expect that servers see this client's address.
    ///
    /// # Errors
    /// When a conversation cannot be begun.
    pub fn start(client: &Machine, seen: IpAddr, addresses: &[SocketAddr]) -> Result<Self> {
        let mut load = Self { shared: Arc::default(), callers: Vec::new() };
        for to in addresses.iter().copied() {
            let mut talks: Vec<Conversation> = (0..CONVERSATIONS).map(|_| dial(client, to)).collect::<Result<_>>()?;
            for talk in &talks {
                ensure!(talk.seen == seen.to_string(), "{} saw {}", talk.server, talk.seen);
                talk.wait_for(PATIENT)?;
            }
            load.call(client, move |shared, _| {
                talks.retain_mut(|talk| match talk.again() {
                    Ok(()) => count(&shared.kept),
                    Err(error) => {
                        shared.fault(format!("the conversation of {to} with {} broke: {error:#}", talk.server));
                        false
                    }
                });
            })?;
            load.call(client, move |shared, client| {
                let called = Called { what: "call", to, seen, forgiven: shared.is_forgiving() };
                shared.called(&shared.fresh, &called, dial(client, to).map(|talk| talk.seen));
            })?;
            load.call(client, move |shared, client| {
                let called = Called { what: "datagram", to, seen, forgiven: shared.is_forgiving() };
                let heard = datagram_patient(client, to, LOST).map(|(_, seen)| seen);
                shared.called(&shared.datagrams, &called, heard);
            })?;
            let flow = Flow::patient(client, to, LOST)?;
            load.call(client, move |shared, _| {
                let called = Called { what: "datagram of a flow", to, seen, forgiven: shared.is_forgiving() };
                let heard = flow.ask().map(|_| seen.to_string());
                shared.called(&shared.flow, &called, heard);
            })?;
        }
        Ok(load)
    }

    fn call(&mut self, client: &Machine, mut once: impl FnMut(&Shared, &Machine) + Send + 'static) -> Result<()> {
        let (shared, client) = (Arc::clone(&self.shared), client.handle()?);
        self.callers.push(std::thread::spawn(move || {
            while !shared.stopped.load(Ordering::Acquire) {
                once(&shared, &client);
                std::thread::sleep(PAUSE);
            }
        }));
        Ok(())
    }

    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Acquire);
        let shared = &self.shared;
        Tally {
            kept: read(&shared.kept),
            fresh: read(&shared.fresh),
            datagrams: read(&shared.datagrams),
            flow: read(&shared.flow),
            lost: read(&shared.lost),
        }
    }

    /// Whether calls and datagrams without an answer are only counted from now on, and no fault. Conversations that
    /// break always are one.
    pub fn forgive(&self, forgiving: bool) {
        self.shared.forgiving.store(forgiving, Ordering::Release);
    }

    /// Whether all is well so far.
    ///
    /// # Errors
    /// When a conversation broke, an answer did not come, or a server saw another address than the client's.
    pub fn check(&self) -> Result<()> {
        let faults = self.shared.faults.lock();
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
    }

    /// Stops the callers and tells what they counted.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn finish(mut self) -> Result<Tally> {
        self.shared.stopped.store(true, Ordering::Release);
        for caller in self.callers.drain(..) {
            if caller.join().is_err() {
                bail!("a caller panicked");
            }
        }
        self.check()?;
        Ok(self.tally())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

/// A call under way.
struct Called {
    what: &'static str,
    to: SocketAddr,
    /// As whose it has to be seen.
    seen: IpAddr,
    /// Whether it began when nothing was held against anybody.
    forgiven: bool,
}

fn count(counter: &AtomicU64) -> bool {
    counter.fetch_add(1, Ordering::AcqRel);
    true
}

impl Shared {
    fn is_forgiving(&self) -> bool {
        self.forgiving.load(Ordering::Acquire)
    }

    fn called(&self, counter: &AtomicU64, call: &Called, heard: Result<String>) {
        let Called { what, to, seen, forgiven } = call;
        match heard {
            Ok(told) if told == seen.to_string() => {
                count(counter);
            }
            Ok(told) => self.fault(format!("a {what} to {to} was seen as {told}'s, and not as {seen}'s")),
            Err(error) => {
                count(&self.lost);
                // It was under way in the time that is forgiven.
                if !forgiven && !self.is_forgiving() {
                    self.fault(format!("a {what} to {to} was lost: {error:#}"));
                }
            }
        }
    }

    fn fault(&self, fault: String) {
        let mut faults = self.faults.lock();
        if faults.len() < TOLD {
            faults.push(fault);
        }
    }
}
