//! A made-up cloud as a provider.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::Clock;
use super::control::Dump;
use super::faults::{Drawn, Fault, Faults, Held, Moment, Rule, Twist};
use super::journal::{Call, Journal};
use super::state::State;
use crate::error::{CloudError, Result};
use crate::model::{
    Answers, Deletion, Handle, LbOutcome, LoadBalancerSpec, NodeRef, OwnedLoadBalancer, Owner, Page, Route,
};
use crate::provider::{CallCtx, Instances, LoadBalancers, Provider, ProviderInfo, Routes};

/// Outcome of a call whose caller left before its end.
const ABANDONED: &str = "abandoned";
/// How often a call that blocks its thread looks whether it still should.
const BLOCK: Duration = Duration::from_millis(10);

/// A made-up cloud. Shared by an `Arc`; everything about it may be asked and changed while calls run.
pub struct Sim {
    clock: Clock,
    inner: Mutex<Inner>,
    /// Says that the faults changed.
    faults: watch::Sender<u64>,
    /// Version of the state, after each change.
    version: watch::Sender<u64>,
    /// Version that is kept, if somebody keeps it.
    kept: Option<watch::Sender<u64>>,
}

struct Inner {
    state: State,
    faults: Faults,
    journal: Journal,
    held: Vec<Held>,
    /// What the cloud was, each from this time on; only while reads may have to see it.
    past: VecDeque<(u64, State)>,
}

impl Default for Sim {
    fn default() -> Self {
        Self::new(State::default())
    }
}

impl Sim {
    /// A cloud in memory.
    #[must_use]
    pub fn new(state: State) -> Self {
        let version = watch::Sender::new(state.version);
        let (faults, journal) = (Faults::default(), Journal::default());
        let inner = Inner { state, faults, journal, held: Vec::new(), past: VecDeque::new() };
        Self { clock: Clock::default(), inner: Mutex::new(inner), faults: watch::Sender::new(0), version, kept: None }
    }

    /// A cloud whose calls answer only when what they changed [is kept](Self::keep).
    #[must_use]
    pub fn kept(state: State) -> Self {
        let kept = Some(watch::Sender::new(state.version));
        Self { kept, ..Self::new(state) }
    }

    /// The latest version of the state, and word of later ones.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Says up to which version the state is kept.
    pub fn keep(&self, version: u64) {
        if let Some(kept) = &self.kept {
            kept.send_if_modified(|latest| {
                let later = version > *latest;
                *latest = version.max(*latest);
                later
            });
        }
    }

    /// Waits until the state as it is now is kept; at once if nobody keeps it.
    pub async fn until_kept(&self) {
        let version = *self.version.borrow();
        if let Some(kept) = &self.kept {
            // The sender is ours: it cannot be gone.
            let _ = kept.subscribe().wait_for(|kept| *kept >= version).await;
        }
    }

    /// The cloud as it is.
    #[must_use]
    pub fn state(&self) -> State {
        let mut inner = self.inner.lock();
        self.settle(&mut inner, self.clock.now());
        inner.state.clone()
    }

    /// All there is to know of it.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let state = self.state();
        let inner = self.inner.lock();
        Dump { state, calls: inner.journal.calls(), faults: inner.faults.rules().to_vec(), held: inner.held.clone() }
    }

    /// The calls that came, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.inner.lock().journal.calls()
    }

    /// The calls that stand still.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        self.inner.lock().held.clone()
    }

    /// Forgets the calls that came so far.
    pub fn clear_calls(&self) {
        self.inner.lock().journal.clear();
    }

    /// Adds a fault, and returns its number.
    pub fn add_fault(&self, rule: Rule) -> u64 {
        let mut inner = self.inner.lock();
        let id = inner.faults.add(rule);
        inner.remember(self.clock.now());
        id
    }

    /// Takes a fault away, or all; calls that it held go on.
    pub fn clear_faults(&self, id: Option<u64>) {
        let mut inner = self.inner.lock();
        inner.faults.clear(id);
        if !inner.faults.lags() {
            inner.past.clear();
        }
        drop(inner);
        self.faults.send_modify(|count| *count += 1);
    }

    /// Changes the cloud behind everybody's back.
    ///
    /// # Errors
    /// When it was not changed.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        self.settle(&mut inner, now);
        let before = inner.state.version;
        let done = change(&mut inner.state);
        self.changed(&mut inner, before, now);
        done
    }

    /// Ends what has lasted long enough; that is a change as any other, which has to be kept.
    fn settle(&self, inner: &mut Inner, now: u64) {
        let before = inner.state.version;
        inner.state.settle(now);
        self.changed(inner, before, now);
    }

    /// Tells of a change, if there was one.
    fn changed(&self, inner: &mut Inner, before: u64, now: u64) {
        if inner.state.version != before {
            inner.remember(now);
            self.version.send_replace(inner.state.version);
        }
    }

    /// Makes one call: what goes wrong before, the transition, what goes wrong after.
    async fn call<T>(
        &self,
        method: &'static str,
        call: &CallCtx,
        subjects: Vec<String>,
        transition: impl FnOnce(&mut State, &Twist, u64) -> Result<T> + Send,
    ) -> Result<T> {
        let (drawn, running) = self.begin(method, call, subjects);
        let answer = self.run(call, &drawn, &running, transition).await;
        let outcome = answer.as_ref().map_or_else(CloudError::outcome, |_| "ok");
        running.sim.inner.lock().journal.end(running.number, outcome);
        answer
    }

    fn begin(&self, method: &'static str, call: &CallCtx, subjects: Vec<String>) -> (Drawn, Running<'_>) {
        let mut inner = self.inner.lock();
        let drawn = inner.faults.draw(method, &subjects);
        let subject = subjects.first().cloned().unwrap_or_default();
        let number = inner.journal.begin(self.clock.now(), method, call, subjects);
        (drawn, Running { sim: self, number, method, subject })
    }

    async fn run<T>(
        &self,
        call: &CallCtx,
        drawn: &Drawn,
        running: &Running<'_>,
        transition: impl FnOnce(&mut State, &Twist, u64) -> Result<T> + Send,
    ) -> Result<T> {
        running.befall(call, drawn, Moment::Before).await?;
        let changes = CHANGES.contains(&running.method);
        let takes = if changes { self.inner.lock().state.settings.change_ms } else { 0 };
        if takes > 0 {
            tokio::time::sleep(Duration::from_millis(takes)).await;
        }
        let (answer, version) = self.commit(call, drawn, running, changes, transition);
        if let (Some(kept), true) = (&self.kept, changes) {
            let mut kept = kept.subscribe();
            let _ = kept.wait_for(|kept| *kept >= version).await;
        }
        let answer = answer?;
        running.befall(call, drawn, Moment::After).await?;
        Ok(answer)
    }

    /// Does what the call does, at one moment.
    fn commit<T>(
        &self,
        call: &CallCtx,
        drawn: &Drawn,
        running: &Running<'_>,
        changes: bool,
        transition: impl FnOnce(&mut State, &Twist, u64) -> Result<T> + Send,
    ) -> (Result<T>, u64) {
        let (now, twist) = (self.clock.now(), drawn.twist());
        let mut inner = self.inner.lock();
        self.settle(&mut inner, now);
        if !changes {
            let mut seen = twist.lag.and_then(|lag| inner.as_of(now.saturating_sub(lag)));
            let answer = transition(seen.as_mut().unwrap_or(&mut inner.state), &twist, now);
            return (answer, inner.state.version);
        }
        let before = inner.state.version;
        let answer = match inner.state.admit(&call.cluster, call.lease_epoch) {
            Ok(()) => {
                let admitted = inner.state.version;
                let answer = transition(&mut inner.state, &twist, now);
                if inner.state.version != admitted {
                    inner.journal.changed(running.number);
                }
                answer
            }
            Err(error) => Err(error),
        };
        self.changed(&mut inner, before, now);
        (answer, inner.state.version)
    }
}

/// Methods that change the cloud.
const CHANGES: [&str; 6] = [
    "loadbalancers.ensure",
    "loadbalancers.update_backends",
    "loadbalancers.ensure_deleted",
    "routes.create",
    "routes.replace",
    "routes.delete",
];

impl Inner {
    /// Keeps what the cloud is, if reads may have to see it later.
    fn remember(&mut self, now: u64) {
        if self.faults.lags() {
            self.past.push_back((now, self.state.clone()));
        }
    }

    /// The cloud at a time, or the earliest that is remembered.
    fn as_of(&self, time: u64) -> Option<State> {
        let then = self.past.iter().rev().find(|(from, _)| *from <= time).or_else(|| self.past.front());
        then.map(|(_, state)| state.clone())
    }
}

/// A call that runs; one that is dropped before its end was abandoned.
struct Running<'a> {
    sim: &'a Sim,
    number: u64,
    method: &'static str,
    subject: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut inner = self.sim.inner.lock();
        inner.held.retain(|held| held.call != self.number);
        inner.journal.end(self.number, ABANDONED);
    }
}

impl Running<'_> {
    /// Has happen what is to go wrong at this moment, unless the caller leaves meanwhile.
    async fn befall(&self, call: &CallCtx, drawn: &Drawn, moment: Moment) -> Result<()> {
        let Some(befallen) = call.cancel.run_until_cancelled(self.happen(drawn, moment)).await else {
            let mut inner = self.sim.inner.lock();
            inner.held.retain(|held| held.call != self.number);
            inner.journal.end(self.number, ABANDONED);
            return Err(CloudError::Unavailable("the caller has left".to_owned()));
        };
        befallen
    }

    async fn happen(&self, drawn: &Drawn, moment: Moment) -> Result<()> {
        for (rule, fault) in &drawn.faults {
            match fault {
                Fault::Hang { at } if *at == moment => {
                    self.stand_still(*rule, moment).await;
                    return Err(CloudError::Unavailable("the call hung until now".to_owned()));
                }
                Fault::Hold { at } if *at == moment => self.stand_still(*rule, moment).await,
                Fault::Delay { ms, at } if *at == moment => tokio::time::sleep(Duration::from_millis(*ms)).await,
                Fault::Fail { error, retry_after_ms, at } if *at == moment => return Err(error.error(*retry_after_ms)),
                Fault::BlockThread { ms } if moment == Moment::Before => self.block(*rule, *ms),
                Fault::Panic if moment == Moment::Before => panic!("as the fault asks"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until a fault is taken away.
    async fn stand_still(&self, rule: u64, at: Moment) {
        let mut changed = self.sim.faults.subscribe();
        let held = Held { call: self.number, method: self.method.to_owned(), subject: self.subject.clone(), at };
        self.sim.inner.lock().held.push(held);
        let _ = changed.wait_for(|_| !self.sim.inner.lock().faults.has(rule)).await;
        self.sim.inner.lock().held.retain(|held| held.call != self.number);
    }

    /// Blocks the thread, as a provider does that does not know better.
    fn block(&self, rule: u64, ms: u64) {
        let until = std::time::Instant::now() + Duration::from_millis(ms);
        while std::time::Instant::now() < until && self.sim.inner.lock().faults.has(rule) {
            std::thread::sleep(BLOCK);
        }
    }
}

/// One page of a list that is sorted by id; asked for by the last id of the page before.
fn page<T>(all: Vec<(String, T)>, after: Option<&str>, size: usize, twist: &Twist) -> Page<T> {
    let mut all = all;
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.truncate(twist.keep.unwrap_or(usize::MAX));
    let mut rest = all.into_iter().filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
    let items: Vec<(String, T)> = rest.by_ref().take(size.max(1)).collect();
    let next = rest.next().and(items.last()).map(|(id, _)| id.clone());
    Page { items: items.into_iter().map(|(_, item)| item).collect(), next }
}

fn about(owner: &Owner) -> Vec<String> {
    vec![format!("{}/{}", owner.namespace, owner.name), owner.name.clone(), owner.uid.clone()]
}

fn leads_to(route: &Route) -> Vec<String> {
    vec![route.destination.to_string(), route.node.clone(), route.name.clone()]
}

#[async_trait]
impl Provider for Sim {
    async fn info(&self, call: &CallCtx) -> Result<ProviderInfo> {
        self.call("identity.info", call, Vec::new(), |state, _, _| {
            Ok(ProviderInfo {
                name: "sim".to_owned(),
                schemes: vec![state.settings.scheme.clone()],
                max_batch: state.settings.max_batch,
                instances: true,
                load_balancers: state.settings.load_balancers,
                routes: state.settings.routes,
                needs_addresses: state.settings.needs_addresses,
            })
        })
        .await
    }

    async fn probe(&self, call: &CallCtx) -> Result<()> {
        self.call("identity.probe", call, Vec::new(), |_, _, _| Ok(())).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        self.inner.lock().state.settings.load_balancers.then_some(self as &dyn LoadBalancers)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        self.inner.lock().state.settings.routes.then_some(self as &dyn Routes)
    }
}

#[async_trait]
impl Instances for Sim {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> Result<Answers> {
        let names = nodes.iter().map(|node| node.name.to_string()).collect();
        self.call("instances.get_many", call, names, |state, twist, _| state.look_up(nodes, twist)).await
    }
}

#[async_trait]
impl LoadBalancers for Sim {
    async fn get(&self, call: &CallCtx, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        self.call("loadbalancers.get", call, about(owner), |state, twist, now| {
            let mut found = state.get(owner, now);
            found.truncate(twist.keep.unwrap_or(usize::MAX));
            Ok(found)
        })
        .await
    }

    async fn ensure(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: Option<&Handle>) -> Result<LbOutcome> {
        self.call("loadbalancers.ensure", call, about(&spec.owner), |state, twist, now| {
            state.ensure(&call.cluster, spec, known, now, twist)
        })
        .await
    }

    async fn update_backends(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: &Handle) -> Result<LbOutcome> {
        self.call("loadbalancers.update_backends", call, about(&spec.owner), |state, twist, now| {
            state.update_backends(&call.cluster, spec, known, now, twist)
        })
        .await
    }

    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, _known: Option<&Handle>) -> Result<Deletion> {
        self.call("loadbalancers.ensure_deleted", call, about(owner), |state, twist, now| {
            state.ensure_deleted(&call.cluster, owner, now, twist)
        })
        .await
    }

    async fn list_owned(&self, call: &CallCtx, after: Option<&str>) -> Result<Page<OwnedLoadBalancer>> {
        self.call("loadbalancers.list_owned", call, Vec::new(), |state, twist, now| {
            Ok(page(state.balancers_of(&call.cluster, now), after, state.settings.page, twist))
        })
        .await
    }
}

#[async_trait]
impl Routes for Sim {
    async fn list(&self, call: &CallCtx, after: Option<&str>) -> Result<Page<Route>> {
        self.call("routes.list", call, Vec::new(), |state, twist, _| {
            Ok(page(state.routes_of(&call.cluster), after, state.settings.page, twist))
        })
        .await
    }

    async fn create(&self, call: &CallCtx, route: &Route) -> Result<()> {
        self.call("routes.create", call, leads_to(route), |state, _, _| state.create_route(&call.cluster, route)).await
    }

    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> Result<()> {
        self.call("routes.replace", call, leads_to(new), |state, _, _| state.replace_route(&call.cluster, old, new))
            .await
    }

    async fn delete(&self, call: &CallCtx, route: &Route) -> Result<()> {
        self.call("routes.delete", call, leads_to(route), |state, _, _| {
            state.delete_route(&call.cluster, route);
            Ok(())
        })
        .await
    }
}
