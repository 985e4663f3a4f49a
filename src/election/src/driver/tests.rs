//! The driver on tokio's paused clock, over a Lease in memory that checks versions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use futures::{StreamExt as _, stream::BoxStream};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::*;
use crate::{
    clock::TokioClock,
    gate::{Gate, Refused},
    leadership::Activity,
    lease_api::LeaseSight,
    record::{LeaseView, Record},
    timing::Timing,
};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Store {
    lease: Option<LeaseView>,
    version: u64,
    uids: u64,
}

/// One Lease for several candidates.
#[derive(Clone)]
struct Memory {
    store: Arc<Mutex<Store>>,
    news: watch::Sender<Option<LeaseView>>,
}

/// One candidate's way to it.
#[derive(Clone)]
struct Line {
    memory: Memory,
    cut: Arc<AtomicBool>,
    /// Milliseconds between the commit of a write and its answer.
    answer_after: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
}

impl Memory {
    fn new() -> Self {
        Self { store: Arc::default(), news: watch::channel(None).0 }
    }

    fn write(&self, uid: Option<&LeaseView>, record: &Record) -> Result<LeaseView, LeaseError> {
        let mut store = self.store.lock();
        let uid = match (&store.lease, uid) {
            (Some(lease), Some(base)) if lease.uid == base.uid && lease.version == base.version => base.uid.clone(),
            (None, None) => {
                store.uids += 1;
                format!("uid-{}", store.uids).into()
            }
            (None, Some(_)) => return Err(LeaseError::NotFound),
            _ => return Err(LeaseError::Conflict),
        };
        store.version += 1;
        let version = store.version.to_string().into();
        let lease = LeaseView { uid, version, record: record.clone(), metadata: Arc::default() };
        store.lease = Some(lease.clone());
        self.news.send_replace(Some(lease.clone()));
        Ok(lease)
    }

    fn delete(&self) {
        let mut store = self.store.lock();
        store.version += 1;
        store.lease = None;
        self.news.send_replace(None);
    }

    fn record(&self) -> Record {
        self.store.lock().lease.as_ref().expect("there is a lease").record.clone()
    }
}

impl Line {
    async fn pass(&self) {
        if self.cut.load(SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn write(&self, base: Option<&LeaseView>, record: &Record) -> Result<LeaseView, LeaseError> {
        self.pass().await;
        self.writes.fetch_add(1, SeqCst);
        let answer = self.memory.write(base, record);
        sleep(Duration::from_millis(self.answer_after.load(SeqCst))).await;
        self.pass().await;
        answer
    }
}

impl LeaseApi for Line {
    async fn get(&self, _within: Duration) -> Result<Option<LeaseView>, LeaseError> {
        self.pass().await;
        self.reads.fetch_add(1, SeqCst);
        Ok(self.memory.store.lock().lease.clone())
    }

    async fn create(&self, record: &Record, _within: Duration) -> Result<LeaseView, LeaseError> {
        self.write(None, record).await
    }

    async fn replace(&self, base: &LeaseView, record: &Record, _within: Duration) -> Result<LeaseView, LeaseError> {
        self.write(Some(base), record).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<LeaseSight, LeaseError>>, LeaseError> {
        self.pass().await;
        let (line, news) = (self.clone(), self.memory.news.subscribe());
        let first = self.memory.store.lock().lease.clone().map(|lease| Ok(LeaseSight::Is(lease)));
        let rest = futures::stream::unfold((line, news), |(line, mut news)| async move {
            news.changed().await.ok()?;
            line.pass().await;
            let sight = news.borrow_and_update().clone().map_or(LeaseSight::Gone(None), LeaseSight::Is);
            Some((Ok(sight), (line, news)))
        });
        Ok(futures::stream::iter(first).chain(rest).boxed())
    }
}

/// A candidate and its controls.
struct Candidate {
    line: Line,
    gate: Gate,
    leadership: watch::Receiver<Leadership>,
    status: watch::Receiver<ElectionStatus>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Candidate {
    fn start(name: &str, memory: &Memory, fence: Option<(FenceMode, Arc<dyn FenceProver>)>) -> Self {
        let line = Line {
            memory: memory.clone(),
            cut: Arc::default(),
            answer_after: Arc::default(),
            writes: Arc::default(),
            reads: Arc::default(),
        };
        let (gate, keeper) = Gate::new(Timing::default(), Arc::new(TokioClock::default()));
        let config = ElectionConfig { identity: name.into(), lease_name: "deck".into() };
        let mut election = Election::new(config, line.clone(), keeper);
        if let Some((mode, prover)) = fence {
            election = election.with_fence(mode, prover);
        }
        let (leadership, status) = (election.leadership(), election.status());
        let stop = CancellationToken::new();
        let task = tokio::spawn(election.run(stop.clone()));
        Self { line, gate, leadership, status, stop, task }
    }

    async fn tenure(&mut self) -> Arc<Tenure> {
        let leading = self.leadership.wait_for(|leadership| leadership.tenure().is_some()).await.unwrap();
        leading.tenure().unwrap().clone()
    }

    async fn standby(&mut self) {
        let standby = |leadership: &Leadership| leadership.tenure().is_none();
        self.leadership.wait_for(standby).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn leads_renews_and_gives_the_lease_back() {
    let memory = Memory::new();
    let mut a = Candidate::start("a", &memory, None);
    let tenure = a.tenure().await;
    let mut b = Candidate::start("b", &memory, None);
    b.leadership.wait_for(|now| matches!(now, Leadership::Standby { holder: Some(_), .. })).await.unwrap();
    assert_eq!((tenure.token().to_string().as_str(), tenure.lease_version()), ("uid-1/0", 1));
    assert!(a.gate.admit(SECOND).is_ok());
    assert_eq!(b.gate.admit(SECOND).unwrap_err(), Refused::NotLeading);

    let began = memory.record();
    sleep(SECOND * 61).await;
    let renewed = memory.record();
    assert_eq!((renewed.transitions, renewed.acquire_time), (0, began.acquire_time));
    assert!(renewed.renew_time > began.renew_time);
    assert_eq!(a.line.writes.load(SeqCst), 31, "one creation, a renewal every 2 s");
    assert_eq!(b.line.reads.load(SeqCst), 1, "a follower whose watch works reads once");

    // Stopping: the other one leads as soon as the guard is dropped, not before.
    let guard = tenure.enter().unwrap();
    a.stop.cancel();
    tenure.ended().await;
    assert_eq!(a.gate.admit(SECOND).unwrap_err(), Refused::NotLeading);
    assert!(tenure.enter().is_none());
    sleep(SECOND * 3).await;
    assert!(b.leadership.borrow().tenure().is_none());
    let before = tokio::time::Instant::now();
    drop(guard);
    let next = b.tenure().await;
    assert_eq!(before.elapsed(), Duration::ZERO, "in one round trip");
    assert_eq!(next.token().to_string(), "uid-1/1");
    a.task.await.unwrap();
    assert_eq!(a.status.borrow().activity, Activity::Finished);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_waits_for_any_more_holds_up_the_release() {
    let memory = Memory::new();
    let mut a = Candidate::start("a", &memory, None);
    a.tenure().await;
    let before = tokio::time::Instant::now();
    drop(a.gate.admit(SECOND).unwrap());
    a.stop.cancel();
    a.task.await.unwrap();
    assert!(before.elapsed() >= SECOND * 2 && memory.record().is_free());
}

#[tokio::test(start_paused = true)]
async fn a_partition_ends_the_tenure_before_another_begins_and_work_resumes_in_place() {
    let memory = Memory::new();
    let mut a = Candidate::start("a", &memory, None);
    let first = a.tenure().await;
    let mut b = Candidate::start("b", &memory, None);
    let guard = first.enter().unwrap();
    sleep(SECOND * 3).await;
    a.line.cut.store(true, SeqCst);
    first.ended().await;
    assert!(b.leadership.borrow().tenure().is_none(), "the old tenure ends first");
    drop(guard);
    let second = b.tenure().await;
    assert_eq!(second.token().transitions, 1);
    assert_eq!(a.status.borrow().last_loss, Some(Loss::NotRenewed));

    // Healed: it follows; and when the other one goes, it leads again, in a new epoch.
    a.line.cut.store(false, SeqCst);
    sleep(SECOND * 30).await;
    assert!(a.leadership.borrow().tenure().is_none());
    b.stop.cancel();
    assert_eq!(a.tenure().await.token().transitions, 2);
    assert_eq!(a.status.borrow().tenures, 2);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_do_not_lengthen_the_tenure() {
    let memory = Memory::new();
    let mut a = Candidate::start("a", &memory, None);
    a.tenure().await;
    let mut b = Candidate::start("b", &memory, None);
    a.line.answer_after.store(3500, SeqCst);
    sleep(SECOND * 20).await;
    assert!(a.leadership.borrow().tenure().is_some(), "slow is not lost");
    assert!(a.gate.remaining().unwrap() <= SECOND * 10, "counted from the sending");
    // So slow that no answer comes in time: every write is done, and none is known to be.
    a.line.answer_after.store(60_000, SeqCst);
    a.standby().await;
    b.tenure().await;
    assert!(a.leadership.borrow().tenure().is_none());
    assert!(a.status.borrow().slow_paths > 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_ends_the_tenure_and_the_same_one_leads_anew() {
    let memory = Memory::new();
    let mut a = Candidate::start("a", &memory, None);
    let first = a.tenure().await;
    let mut b = Candidate::start("b", &memory, None);
    sleep(SECOND * 5).await;
    memory.delete();
    first.ended().await;
    a.leadership.wait_for(|now| now.tenure().is_some_and(|tenure| tenure.token() != first.token())).await.unwrap();
    assert_eq!(a.tenure().await.token().to_string(), "uid-2/0");
    sleep(SECOND * 40).await;
    assert!(b.leadership.borrow_and_update().tenure().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_election_that_dies_shuts_its_gate() {
    let memory = Memory::new();
    let mut a = Candidate::start("a", &memory, None);
    let tenure = a.tenure().await;
    a.task.abort();
    tenure.ended().await;
    assert_eq!(a.gate.admit(SECOND).unwrap_err(), Refused::NotLeading);
    a.standby().await;
}

/// A fence that is as it is told to be.
struct Dial {
    state: Mutex<Result<FenceState, ProbeError>>,
    proofs: AtomicU64,
}

impl Dial {
    fn at(state: FenceState) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(Ok(state)), proofs: AtomicU64::new(0) })
    }
}

impl FenceProver for Dial {
    fn prove(&self, _token: EpochToken) -> BoxFuture<'static, Result<FenceState, ProbeError>> {
        self.proofs.fetch_add(1, SeqCst);
        std::future::ready(self.state.lock().clone()).boxed()
    }
}

fn broken() -> FenceState {
    FenceState::Broken("dead".into())
}

#[tokio::test(start_paused = true)]
async fn auto_leads_without_a_fence_and_sends_the_token_only_with_one() {
    let memory = Memory::new();
    let dial = Dial::at(broken());
    let mut a = Candidate::start("a", &memory, Some((FenceMode::Auto, dial.clone())));
    a.tenure().await;
    assert!(a.gate.admit(SECOND).unwrap().fence_header().is_none());
    *dial.state.lock() = Ok(FenceState::Verified);
    sleep(SECOND * 61).await;
    assert!(a.gate.admit(SECOND).unwrap().fence_header().is_some());
    assert_eq!(a.status.borrow().fence, Some(FenceState::Verified));
    // It cannot be looked at for a while: that is no evidence against it.
    *dial.state.lock() = Err(ProbeError("503".into()));
    sleep(SECOND * 61).await;
    assert!(a.gate.admit(SECOND).unwrap().fence_header().is_some());
    // A refused write makes it look at once.
    *dial.state.lock() = Ok(broken());
    sleep(SECOND).await;
    let permit = a.gate.admit(SECOND).unwrap();
    a.gate.fence_refused(&permit);
    a.status.wait_for(|status| status.fence == Some(broken())).await.unwrap();
    assert!(a.gate.admit(SECOND).unwrap().fence_header().is_none());
    assert!(a.leadership.borrow().tenure().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_working_fence_is_proven_once_a_minute() {
    let memory = Memory::new();
    let dial = Dial::at(FenceState::Verified);
    let mut a = Candidate::start("a", &memory, Some((FenceMode::Auto, dial.clone())));
    a.tenure().await;
    sleep(SECOND * 605).await;
    assert_eq!(dial.proofs.load(SeqCst), 11);
}

#[tokio::test(start_paused = true)]
async fn required_does_not_lead_without_one() {
    let memory = Memory::new();
    let dial = Dial::at(FenceState::Absent);
    let mut a = Candidate::start("a", &memory, Some((FenceMode::Required, dial.clone())));
    sleep(SECOND * 40).await;
    assert!(a.leadership.borrow_and_update().tenure().is_none());
    assert!(memory.record().is_free(), "another replica may try");
    let tries = dial.proofs.load(SeqCst);
    assert!((2..=4).contains(&tries), "{tries}");
    *dial.state.lock() = Ok(FenceState::Verified);
    let tenure = a.tenure().await;
    // One bad proof is looked at again; the second ends it.
    *dial.state.lock() = Ok(broken());
    tenure.ended().await;
    assert_eq!(a.status.borrow().last_loss, Some(Loss::FenceNotProven));
}
