//! What the rest of the process sees of the election.

use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{clock::BootInstant, elector::Loss, epoch::EpochToken, fence::FenceState};

/// Whether this process leads.
#[derive(Debug, Clone)]
pub enum Leadership {
    /// It does not.
    Standby {
        /// Who holds the lease as far as is known.
        holder: Option<Arc<str>>,
        /// Why the last tenure of this process ended, if there was one.
        lost: Option<Loss>,
    },
    /// It does: work may begin. Keep a [`WorkGuard`] of the tenure while it goes on.
    Leading(Arc<Tenure>),
}

impl Leadership {
    /// A process that takes part in no election always leads; its writes carry no token.
    pub fn unelected() -> Self {
        let token = EpochToken { lease_uid: Arc::from(""), transitions: 0 };
        let (tenure, _) = Tenure::begin(token, 0, BootInstant::default());
        Self::Leading(tenure)
    }

    /// The tenure, while leading.
    pub fn tenure(&self) -> Option<&Arc<Tenure>> {
        match self {
            Self::Leading(tenure) => Some(tenure),
            Self::Standby { .. } => None,
        }
    }
}

/// One time this process leads.
///
/// ```no_run
/// # use quarterdeck_election::*;
/// # async fn work(_: &Tenure) {}
/// # async fn follow(mut leadership: tokio::sync::watch::Receiver<Leadership>) {
/// loop {
///     let tenure = leadership.borrow_and_update().tenure().cloned();
///     if let Some((tenure, guard)) = tenure.and_then(|tenure| tenure.enter().map(|guard| (tenure, guard))) {
///         tokio::select! {
///             () = work(&tenure) => {}
///             () = tenure.ended() => {} // cancel the workers and join them
///         }
///         drop(guard); // only now may the lease be released
///     }
///     if leadership.changed().await.is_err() { break }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Tenure {
    token: EpochToken,
    lease_version: u64,
    since: BootInstant,
    ended: CancellationToken,
    /// Each guard holds a clone; the receiver resolves when all are gone.
    door: Mutex<Option<mpsc::Sender<Infallible>>>,
}

impl Tenure {
    /// A tenure that has begun, and what resolves once it was closed and all its guards are gone.
    pub(crate) fn begin(token: EpochToken, lease_version: u64, since: BootInstant) -> (Arc<Self>, Joined) {
        let (door, joined) = mpsc::channel(1);
        let ended = CancellationToken::new();
        (Arc::new(Self { token, lease_version, since, ended, door: Mutex::new(Some(door)) }), Joined(joined))
    }

    /// The token that this tenure's writes carry.
    pub fn token(&self) -> &EpochToken {
        &self.token
    }

    /// The resourceVersion of the Lease write that began the tenure: caches should be at least as new before work starts.
    /// 0 if the server's versions are no numbers.
    pub fn lease_version(&self) -> u64 {
        self.lease_version
    }

    /// When work was allowed to begin.
    pub fn since(&self) -> BootInstant {
        self.since
    }

    /// Says that work of this tenure goes on, until the guard is dropped; [`None`] if the tenure has ended.
    pub fn enter(&self) -> Option<WorkGuard> {
        self.door.lock().clone().map(WorkGuard)
    }

    /// Resolves when the tenure has ended: the gate is shut, workers must be cancelled and joined.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }

    /// Whether the tenure has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// A token that is cancelled with the tenure, for handing down to workers.
    pub fn cancellation(&self) -> CancellationToken {
        self.ended.child_token()
    }

    /// Ends the tenure. No guard is given out any more.
    pub(crate) fn end(&self) {
        self.door.lock().take();
        self.ended.cancel();
    }
}

/// Work of a tenure goes on while this exists; the lease is not released, nor taken anew, before it is dropped.
#[derive(Debug, Clone)]
#[must_use]
pub struct WorkGuard(#[expect(dead_code, reason = "held for its drop")] mpsc::Sender<Infallible>);

/// Resolves when a tenure's guards are gone.
pub(crate) struct Joined(mpsc::Receiver<Infallible>);

impl Joined {
    pub(crate) async fn wait(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// What the elector is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Somebody else leads, or nobody yet.
    Standby,
    /// The lease is ours; the fence is being proven.
    Proving,
    /// The lease is ours and work goes on.
    Leading,
    /// The gate is shut; workers are being joined.
    Draining,
    /// Workers are joined; the lease is being given back.
    Releasing,
    /// The election has ended.
    Finished,
}

/// A picture of the election for the status page and the metrics.
#[derive(Debug, Clone)]
pub struct ElectionStatus {
    /// Our name in the Lease.
    pub identity: Arc<str>,
    /// What the elector is doing.
    pub activity: Activity,
    /// Who holds the lease as far as is known.
    pub holder: Option<Arc<str>>,
    /// `leaseTransitions` as last seen.
    pub transitions: Option<i32>,
    /// The holder's renew time as last seen, by the holder's clock.
    pub renew_time: Option<Timestamp>,
    /// The moment by which every write of this tenure must have ended; [`None`] while not leading.
    pub deadline: Option<BootInstant>,
    /// What was left until `deadline` when the picture was made.
    pub remaining: Duration,
    /// When this process last began to lead, by its wall clock.
    pub last_began: Option<Timestamp>,
    /// When this process last stopped leading, by its wall clock.
    pub last_stopped: Option<Timestamp>,
    /// Why it did.
    pub last_loss: Option<Loss>,
    /// How often this process began to lead.
    pub tenures: u64,
    /// How often a renewal needed to read the Lease first (`leader_election_slowpath_total`).
    pub slow_paths: u64,
    /// The last error of an exchange about the Lease; [`None`] after one that went well.
    pub last_error: Option<String>,
    /// What is known of the fence; [`None`] while not leading, or if no prover was plugged in.
    pub fence: Option<FenceState>,
}
