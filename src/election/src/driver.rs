//! Drives the state machine: sends its requests, keeps its time, opens and shuts the gate.

#[cfg(test)]
mod tests;
mod watching;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    clock::{BootInstant, Clock},
    elector::{Action, Answer, Elector, Event, Loss, Request, RequestId},
    epoch::{Epoch, EpochToken},
    fence::{FenceMode, FenceProver, FenceState, ProbeError},
    gate::GateKeeper,
    leadership::{ElectionStatus, Leadership, Tenure},
    lease_api::{LeaseApi, LeaseError},
};

/// How often a working fence is proven again.
const FENCE_PERIOD: Duration = Duration::from_secs(60);
/// How soon the fence is looked at again when it could not be probed, or when a required one was found broken.
const FENCE_RETRY: Duration = Duration::from_secs(5);
/// How often in a row one that is broken or absent is looked at again after [`FENCE_EARLY_PAUSE`].
const FENCE_EARLY_RETRIES: u32 = 5;
/// The time before such a look, and the least time between two proofs that refused writes ask for.
const FENCE_EARLY_PAUSE: Duration = Duration::from_secs(1);

/// Who stands for election, and for what.
#[derive(Debug, Clone)]
pub struct ElectionConfig {
    /// Our name in the Lease: this process's alone, hostname and a random part.
    pub identity: String,
    /// The Lease's name; the epoch's key is made of it.
    pub lease_name: String,
}

/// One election. Dropping it, also by a panic, shuts the gate and ends the tenure.
pub struct Election<A> {
    api: Arc<A>,
    clock: Arc<dyn Clock>,
    keeper: GateKeeper,
    lease_name: String,
    elector: Elector,
    fence: Option<(FenceMode, Arc<dyn FenceProver>)>,
    leadership: watch::Sender<Leadership>,
    status: watch::Sender<ElectionStatus>,
    tenure: Option<Running>,
    /// The request under way.
    request: Slot<(RequestId, Answer)>,
    /// The fence's proof under way, and for which tenure.
    proof: Slot<(EpochToken, Result<FenceState, ProbeError>)>,
    /// Waiting for workers and their writes.
    drain: Slot<()>,
}

type Slot<T> = Option<BoxFuture<'static, T>>;

/// A tenure that has begun, announced or not.
struct Running {
    token: EpochToken,
    announced: Option<(Arc<Tenure>, crate::leadership::Joined)>,
    fence: Option<FenceState>,
    /// Proofs in a row that found a required fence broken, after the tenure was announced.
    failed_proofs: u32,
    next_proof: Option<BootInstant>,
    last_proof: BootInstant,
}

impl<A: LeaseApi> Election<A> {
    /// An election over `api`; `keeper` holds the gate that it opens. Time and durations are the gate's.
    pub fn new(config: ElectionConfig, api: A, keeper: GateKeeper) -> Self {
        let clock = keeper.clock();
        let elector = Elector::new(config.identity, keeper.timing());
        let (leadership, _) = watch::channel(Leadership::Standby { holder: None, lost: None });
        let (status, _) = watch::channel(first_status(&elector));
        Self {
            api: Arc::new(api),
            clock,
            keeper,
            lease_name: config.lease_name,
            elector,
            fence: None,
            leadership,
            status,
            tenure: None,
            request: None,
            proof: None,
            drain: None,
        }
    }

    /// Has the fence proven before a tenure is announced, and every minute.
    #[must_use]
    pub fn with_fence(mut self, mode: FenceMode, prover: Arc<dyn FenceProver>) -> Self {
        self.fence = Some((mode, prover));
        self
    }

    /// Whether this process leads. Followers of this channel must [`Tenure::enter`] before they work.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// A picture of the election, renewed with every event.
    pub fn status(&self) -> watch::Receiver<ElectionStatus> {
        self.status.subscribe()
    }

    /// Stands for election until `stop` is cancelled; returns once the lease, if held, is given back.
    ///
    /// On a stop the gate shuts at once: whatever is to be written as leader ("stopped leading") must be written before.
    pub async fn run(mut self, stop: CancellationToken) {
        let (seen, mut sights) = mpsc::channel(16);
        let _watching = AbortOnDropHandle::new(tokio::spawn(watching::watch(
            self.api.clone(),
            seen,
            self.elector.timing().lease_duration(),
        )));
        let mut event = Event::Tick;
        let mut stopping = false;
        loop {
            if self.take(event) {
                return;
            }
            event = loop {
                let wake = self.next_wake();
                tokio::select! {
                    biased;
                    () = stop.cancelled(), if !stopping => {
                        stopping = true;
                        break Event::Stop;
                    }
                    Some(sight) = sights.recv() => break Event::Seen(sight),
                    (id, answer) = wait(&mut self.request) => break Event::Answered(id, answer),
                    () = wait(&mut self.drain) => break Event::WorkersJoined,
                    (token, result) = wait(&mut self.proof) => {
                        if let Some(event) = self.judge(&token, result) {
                            break event;
                        }
                    }
                    () = self.keeper.doubted() => {
                        self.doubt();
                        break Event::Doubt;
                    }
                    () = tokio::time::sleep(wake) => {
                        self.prove_again();
                        break Event::Tick;
                    }
                }
            };
        }
    }

    /// Feeds one event to the elector and does what it says; true when the election has ended.
    fn take(&mut self, event: Event) -> bool {
        // Read before anything is sent: the deadline counts from here.
        let now = self.clock.now();
        let slow_paths = self.elector.slow_paths();
        let mut finished = false;
        for action in self.elector.step(now, event) {
            match action {
                Action::Ask { id, request, within } => self.ask(id, request, within),
                Action::ProveFence { token } => self.begin(now, token),
                Action::Lead { token, lease_version, deadline } => self.lead(now, token, lease_version, deadline),
                Action::Extend { deadline } => self.keeper.extend(deadline),
                Action::StandDown { loss } => self.stand_down(loss),
                Action::Finish => finished = true,
            }
        }
        if self.elector.slow_paths() != slow_paths {
            tracing::debug!(lease = %self.lease_name, error = ?self.elector.last_error(), "renewal failed, reading the lease");
        }
        if self.elector.deadline().is_none() {
            // A tenure that ended before it was announced has no StandDown of its own.
            self.tenure = None;
            self.proof = None;
        }
        self.publish(now);
        finished
    }

    fn ask(&mut self, id: RequestId, request: Request, within: Duration) {
        let api = self.api.clone();
        let record = request.record(self.clock.wall());
        let exchange = async move {
            match (request, record) {
                (Request::Create { .. }, Some(record)) => {
                    Answer::Wrote(bound(within, api.create(&record, within)).await)
                }
                (Request::Replace { base, .. }, Some(record)) => {
                    Answer::Wrote(bound(within, api.replace(&base, &record, within)).await)
                }
                _ => Answer::Got(bound(within, api.get(within)).await),
            }
        };
        self.request = Some(exchange.map(move |answer| (id, answer)).boxed());
    }

    /// The lease is ours: prove the fence, then the elector announces the tenure.
    fn begin(&mut self, now: BootInstant, token: EpochToken) {
        tracing::info!(lease = %self.lease_name, epoch = %token, "acquired the lease");
        self.tenure = Some(Running {
            token: token.clone(),
            announced: None,
            fence: None,
            failed_proofs: 0,
            next_proof: None,
            last_proof: now,
        });
        self.prove(token);
    }

    fn prove(&mut self, token: EpochToken) {
        self.proof = Some(match &self.fence {
            Some((_, prover)) => prover.prove(token.clone()).map(move |result| (token, result)).boxed(),
            None => std::future::ready((token, Ok(FenceState::Absent))).boxed(),
        });
    }

    /// Takes note of a proof; the event is for the elector, if it changes anything.
    fn judge(&mut self, token: &EpochToken, result: Result<FenceState, ProbeError>) -> Option<Event> {
        let now = self.clock.now();
        let required = matches!(self.fence, Some((FenceMode::Required, _)));
        let running = self.tenure.as_mut().filter(|running| running.token == *token)?;
        running.last_proof = now;
        let announced = running.announced.is_some();
        let state = match result {
            Ok(state) => state,
            Err(error) if announced => {
                tracing::warn!(lease = %self.lease_name, error = %error, "the fence stays as it was");
                running.next_proof = Some(now + FENCE_RETRY);
                return None;
            }
            Err(error) => FenceState::Broken(error.to_string().into()),
        };
        let verified = state.is_verified();
        if running.fence.as_ref() != Some(&state) {
            match &state {
                FenceState::Verified => tracing::info!(lease = %self.lease_name, "the fence works"),
                FenceState::Absent if self.fence.is_some() => {
                    tracing::warn!(lease = %self.lease_name, "no fence is installed: writes go out without a token");
                }
                FenceState::Absent => {}
                FenceState::Broken(reason) => {
                    tracing::warn!(lease = %self.lease_name, %reason, "the fence is broken: writes go out without a token");
                }
            }
        }
        running.fence = Some(state);
        running.failed_proofs = if verified { 0 } else { running.failed_proofs + 1 };
        let pause = match running.failed_proofs {
            0 => FENCE_PERIOD,
            // A server does not look at a fence, or a Lease, that was only just made.
            1..=FENCE_EARLY_RETRIES => FENCE_EARLY_PAUSE,
            _ if required => FENCE_RETRY,
            _ => FENCE_PERIOD,
        };
        running.next_proof = self.fence.is_some().then(|| now + pause);
        if announced {
            self.keeper.set_fenced(verified);
        }
        // One bad proof in the middle of a tenure may be a server that just restarts.
        let may_lead = verified || !required || (announced && running.failed_proofs < 2);
        if announced && may_lead {
            return None;
        }
        Some(Event::FenceJudged { token: token.clone(), may_lead })
    }

    fn doubt(&mut self) {
        let now = self.clock.now();
        if let Some(running) = &mut self.tenure
            && self.proof.is_none()
        {
            running.next_proof = Some(now.max(running.last_proof + FENCE_EARLY_PAUSE));
        }
        self.prove_again();
    }

    /// Begins the next proof if it is due.
    fn prove_again(&mut self) {
        let now = self.clock.now();
        let Some(running) = &mut self.tenure else {
            return;
        };
        if self.fence.is_none() || self.proof.is_some() || running.next_proof.is_none_or(|due| now < due) {
            return;
        }
        running.next_proof = None;
        let token = running.token.clone();
        self.prove(token);
    }

    fn lead(&mut self, now: BootInstant, token: EpochToken, lease_version: u64, deadline: BootInstant) {
        let Some(running) = &mut self.tenure else {
            return;
        };
        let fenced = running.fence.as_ref().is_some_and(FenceState::is_verified);
        tracing::debug!(lease = %self.lease_name, epoch = %token, lease_version, fenced, "leading");
        self.keeper.open(Epoch::new(&self.lease_name, token.clone()), deadline, fenced);
        let (tenure, joined) = Tenure::begin(token, lease_version, now);
        running.announced = Some((tenure.clone(), joined));
        let wall = self.clock.wall();
        self.status.send_modify(|status| {
            status.last_began = Some(wall);
            status.tenures += 1;
        });
        self.leadership.send_replace(Leadership::Leading(tenure));
    }

    fn stand_down(&mut self, loss: Loss) {
        self.keeper.shut();
        self.proof = None;
        let Some(running) = self.tenure.take() else {
            return;
        };
        let Some((tenure, joined)) = running.announced else {
            return;
        };
        tenure.end();
        tracing::debug!(lease = %self.lease_name, epoch = %running.token, reason = %loss, "stopped leading");
        let wall = self.clock.wall();
        self.status.send_modify(|status| {
            status.last_stopped = Some(wall);
            status.last_loss = Some(loss.clone());
        });
        self.leadership.send_replace(Leadership::Standby { holder: self.holder(), lost: Some(loss) });
        let gate = self.keeper.gate().clone();
        self.drain = Some(
            async move {
                joined.wait().await;
                gate.quiet().await;
            }
            .boxed(),
        );
    }

    fn holder(&self) -> Option<Arc<str>> {
        let holder = &self.elector.observer().lease()?.record.holder;
        (!holder.is_empty()).then(|| holder.clone())
    }

    fn publish(&mut self, now: BootInstant) {
        let holder = self.holder();
        self.leadership.send_if_modified(|leadership| match leadership {
            Leadership::Standby { holder: shown, .. } if *shown != holder => {
                tracing::debug!(lease = %self.lease_name, holder = holder.as_deref().unwrap_or("nobody"), "lease holder");
                shown.clone_from(&holder);
                true
            }
            _ => false,
        });
        let record = self.elector.observer().lease().map(|lease| &lease.record);
        let announced = self.tenure.as_ref().is_some_and(|running| running.announced.is_some());
        let deadline = self.elector.deadline().filter(|_| announced);
        self.status.send_modify(|status| {
            status.activity = self.elector.activity();
            status.transitions = record.map(|record| record.transitions);
            status.renew_time = record.and_then(|record| record.renew_time);
            status.holder = holder;
            status.deadline = deadline;
            status.remaining = deadline.map_or(Duration::ZERO, |deadline| deadline.since(now));
            status.slow_paths = self.elector.slow_paths();
            status.last_error = self.elector.last_error().map(ToString::to_string);
            status.fence = self.tenure.as_ref().and_then(|running| running.fence.clone());
        });
    }

    /// How long to sleep. Never longer than a retry period: tokio's clock stands still in suspend, the lease does not.
    fn next_wake(&self) -> Duration {
        let now = self.clock.now();
        let proof = match (&self.tenure, &self.proof) {
            (Some(running), None) => running.next_proof,
            _ => None,
        };
        let due = self.elector.next_wake().into_iter().chain(proof).min();
        due.map_or(Duration::MAX, |due| due.since(now)).min(self.elector.timing().retry_period())
    }
}

impl<A> Drop for Election<A> {
    fn drop(&mut self) {
        self.keeper.shut();
        if let Some(Running { announced: Some((tenure, _)), .. }) = &self.tenure {
            tenure.end();
            self.leadership.send_replace(Leadership::Standby { holder: None, lost: Some(Loss::Stopped) });
        }
    }
}

fn first_status(elector: &Elector) -> ElectionStatus {
    ElectionStatus {
        identity: elector.identity().clone(),
        activity: elector.activity(),
        holder: None,
        transitions: None,
        renew_time: None,
        deadline: None,
        remaining: Duration::ZERO,
        last_began: None,
        last_stopped: None,
        last_loss: None,
        tenures: 0,
        slow_paths: 0,
        last_error: None,
        fence: None,
    }
}

/// Resolves with what the slot holds and empties it; never, if it is empty.
async fn wait<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(future) => {
            let value = future.await;
            *slot = None;
            value
        }
        None => std::future::pending().await,
    }
}

async fn bound<T>(within: Duration, exchange: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(within, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(LeaseError::Unknown(format!("no answer within {within:?}"))),
    }
}
