//! One Service: read, plan, call the cloud, write down what came of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use quarterdeck_cloud::model::{Handle, Ingress, LbOutcome, LoadBalancerSpec, OwnedLoadBalancer, Owner};
use quarterdeck_cloud::{CloudError, Guarded};
use quarterdeck_runtime::client::Written;
use quarterdeck_runtime::controller::{Action, Cx, Error};
use quarterdeck_runtime::events::Reason;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::address::Settled;
use super::complaint::{Complaint, Subject, unknown_annotations};
use super::memory::{Busy, Hold, Known, Made};
use super::node::backends;
use super::plan::{Aim, Snapshot, Step, aim, step};
use super::record::{Record, has_finalizer};
use super::status::{self, ServicePatch, reference};
use super::wish::{BadWish, digest, owner, wish};
use super::{Balancer, reasons};

/// Shortest and longest time after which a cloud that works on something is asked again.
const POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// How soon a call is tried again that found no place, or the lease too near its end.
const SOON: Duration = Duration::from_secs(1);
/// How soon after the cloud refused us for a later leader.
const SUPERSEDED: Duration = Duration::from_secs(5);
/// How often a Service that waits for an address is looked at if nothing wakes it.
const WAITING: Duration = Duration::from_secs(60);
/// Names of nodes in an event at most.
const NAMES: usize = 20;

/// A load balancer that is to be kept.
#[derive(Clone)]
pub(super) struct Task<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) service: &'a Service,
    pub(super) provider: &'a Guarded,
    /// What it should be.
    pub(super) spec: Arc<LoadBalancerSpec>,
    /// [`digest`] of that.
    pub(super) digest: String,
    /// What the Service carries.
    pub(super) record: Record,
    pub(super) known: Known,
    /// Whether `spec` is what `digest` says; else it serves for calls that change nothing but backends.
    pub(super) exact: bool,
    /// Whether this is all that the Service asks for: addresses beyond it are given back.
    pub(super) settled: bool,
}

/// Which call failed, for the event.
#[derive(Clone, Copy)]
pub(super) enum Doing {
    /// Making, changing or removing it.
    Syncing,
    /// Telling it of nodes.
    UpdatingHosts,
}

impl Balancer {
    /// Brings the load balancer of one Service to where it should be.
    pub(super) async fn sync_service(&self, cx: &Cx, key: &ObjectKey) -> Result<Action, Error> {
        let Some(cluster) = self.cloud.cluster() else {
            return Err(Error::Transient("the cluster's id is not known yet".to_owned()));
        };
        let service = self.services.get(key);
        if let Some(action) = self.remove_of_vanished(cx, key, service.as_deref()).await? {
            return Ok(action);
        }
        let Some(service) = service else {
            self.complaints.forget(key);
            return Ok(Action::Done);
        };
        let owner = owner(&service, cluster);
        let ours = match self.provider_of(&service).await {
            Ok(ours) => ours,
            Err(error) => return self.failed(cx, key, &owner, Doing::Syncing, &error),
        };
        let aim = aim(&service, ours.as_deref());
        let asked = match &aim {
            Aim::Keep { provider, instead_of } => Some(instead_of.as_ref().unwrap_or(provider)),
            Aim::Remove { provider } => provider.as_ref(),
            Aim::Ignore => None,
        };
        let place = asked.map(|name| self.place_for(name));
        if matches!(place, Some(None)) && asked.is_some_and(|name| self.provider(name).is_some()) {
            return Ok(Action::RequeueAfter(SOON));
        }
        match aim {
            Aim::Ignore => {
                self.complaints.forget(key);
                Ok(Action::Done)
            }
            Aim::Remove { provider } => self.remove(cx, key, &service, &owner, provider.as_deref()).await,
            Aim::Keep { provider, instead_of: Some(before) } => {
                self.remove_from_former(cx, key, &service, &owner, &before, &provider).await
            }
            Aim::Keep { provider, instead_of: None } => self.keep(cx, key, &service, owner, &provider).await,
        }
    }

    /// The provider that looks after the Service. Of one that goes, only whether any does.
    async fn provider_of(&self, service: &Service) -> Result<Option<String>, CloudError> {
        let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
        let Some(spec) = spec else { return Ok(None) };
        let class = spec.load_balancer_class.as_deref();
        if service.metadata.deletion_timestamp.is_some() {
            let names = self.names();
            return Ok(self.classes.candidates(class, &names).first().map(|at| names[*at].to_owned()));
        }
        Ok(self.provider_of_class(class).await?.map(|provider| provider.name().to_owned()))
    }

    async fn keep(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        service: &Service,
        owner: Owner,
        provider: &str,
    ) -> Result<Action, Error> {
        let provider = self.provider(provider).expect("the aim names a provider of ours");
        let wish = wish(service, &owner.cluster);
        let (before, claimed) = (Record::of(service), has_finalizer(service));
        let made = before.as_ref().is_some_and(|record| !record.made.is_empty());
        let complain = |subject, what: Option<&Complaint>| {
            self.complain(cx, key, &owner, provider.name(), subject, what);
        };
        complain(Subject::Annotations, unknown_annotations(service).as_ref());
        let nonsense = wish.nonsense.as_ref().map(BadWish::complaint);
        complain(Subject::Wish, nonsense.as_ref());
        let bad_request = wish.requested.as_ref().err().map(BadWish::complaint);
        if let (Some(why), false) = (nonsense.as_ref().or(bad_request.as_ref()), made) {
            if nonsense.is_none() {
                complain(Subject::Addresses, Some(why));
            }
            // Nothing is made, and nothing written. It is looked at again when it changes.
            return Err(Error::Terminal(why.to_string()));
        }
        let _busy = Busy { memory: &self.memory, key };
        let known = self.memory.begin(key, &owner, provider.name(), cx.authority.epoch);
        let record = before.clone().unwrap_or_else(|| Record::new(&owner.uid, provider.name()));

        let needed = match provider.info().await {
            Ok(info) => info.needs_addresses,
            Err(error) => return self.failed(cx, key, &owner, Doing::Syncing, &error),
        };
        // Before anything is made or reserved: whoever deletes the Service from now on waits for us.
        if let Some(patch) = status::claim(service, &record) {
            self.write(cx, key, patch).await?;
        }
        let spec = LoadBalancerSpec { backends: backends(&self.nodes.all()), ..wish.spec.clone() };
        let task = |spec: LoadBalancerSpec, settled| {
            let digest = digest(&spec);
            let (record, known, spec) = (record.clone(), known.clone(), Arc::new(spec));
            Task { key, service, provider, spec, digest, record, known, exact: true, settled }
        };
        if let Some(why) = nonsense {
            let left = self.leave_as_it_is(cx, &task(spec, false)).await?;
            return left.map_or_else(|| Err(Error::Terminal(why.to_string())), Ok);
        }
        let (addresses, waits) = match self.addresses.settle(cx, service, &wish, provider.name(), needed, made).await? {
            Settled::Have(addresses) => {
                complain(Subject::Addresses, None);
                (addresses, false)
            }
            Settled::Kept { addresses, why } => {
                complain(Subject::Addresses, Some(&why));
                (addresses, true)
            }
            Settled::Waiting { why } => {
                complain(Subject::Addresses, Some(&why));
                let left = self.leave_as_it_is(cx, &task(spec, false)).await?;
                return Ok(sooner(left.unwrap_or(Action::Done), WAITING));
            }
        };
        let task = task(LoadBalancerSpec { addresses, ..spec }, true);
        let next = step(&Snapshot {
            known: &known,
            record: before.as_ref(),
            claimed,
            digest: &task.digest,
            backends: &task.spec.backends,
            now: Instant::now(),
        });
        let action = match next {
            Step::Wait(until) => Ok(Action::RequeueAfter(until.saturating_duration_since(Instant::now()))),
            Step::Nothing => {
                let made = task.known.made.clone().expect("it is known to be as it should be");
                self.finish(cx, &task, &made).await.map(|()| Action::Done)
            }
            Step::UpdateBackends => self.update_backends(cx, &task).await,
            Step::Ensure => self.ensure(cx, &task, None).await,
            Step::FindAndEnsure => self.find_and_ensure(cx, &task).await,
        }?;
        Ok(if waits { sooner(action, WAITING) } else { action })
    }

    /// Looks for what may have been made already, and goes on with that.
    async fn find_and_ensure(&self, cx: &Cx, task: &Task<'_>) -> Result<Action, Error> {
        let owner = &task.spec.owner;
        let found = match task.provider.load_balancers_of(owner).await {
            Ok(found) => found,
            Err(error) => return self.failed(cx, task.key, owner, Doing::Syncing, &error),
        };
        self.report_duplicates(cx, owner, task.record.handle.as_ref(), &found);
        let adopted = adopt(task.record.handle.as_ref(), &found);
        self.ensure(cx, task, adopted).await
    }

    pub(super) async fn ensure(&self, cx: &Cx, task: &Task<'_>, found: Option<&Handle>) -> Result<Action, Error> {
        let Task { key, provider, spec, digest, record, known, .. } = task;
        let owner = &spec.owner;
        let made = known.made.as_ref().map(|made| &made.handle);
        let handle = found.or(made).or(record.handle.as_ref());
        let announce = record.made != *digest || known.drift.is_some();
        if announce && known.announced.as_ref() != Some(digest) {
            self.tell(cx, owner, reasons::ENSURING, "Ensuring load balancer");
        }
        // If this is cut short, nobody knows what came of it.
        self.memory.change(key, |known| {
            known.uncertain = true;
            known.announced = Some(digest.clone());
        });
        self.metrics.syncs.inc();
        let op = operation(spec, digest, record, known, cx.authority.epoch);
        match provider.ensure_load_balancer(&cx.authority, op, spec, handle).await {
            Ok(LbOutcome::Ready { ingress, handle, fingerprint }) => {
                let made = self.remember(task, ingress, handle, fingerprint);
                self.finish(cx, task, &made).await?;
                if spec.backends.is_empty() {
                    self.warn(cx, owner, reasons::NO_NODES, NOBODY.to_owned());
                }
                if announce {
                    self.tell(cx, owner, reasons::ENSURED, "Ensured load balancer");
                }
                Ok(Action::Done)
            }
            Ok(LbOutcome::Provisioning { poll_after, handle }) => {
                let after = self.hold(key, Some(digest), poll_after);
                self.memory.change(key, |known| known.uncertain = false);
                if let Some(handle) = handle {
                    let record = Record { handle: Some(handle), ..record.clone() };
                    if let Some(patch) = status::made(task.service, &record, None) {
                        self.write(cx, key, patch).await?;
                    }
                }
                Ok(Action::RequeueAfter(after))
            }
            Err(CloudError::ImplementedElsewhere(_)) => {
                self.memory.change(key, |known| known.uncertain = false);
                Ok(Action::Done)
            }
            Err(error) => {
                let action = self.failed(cx, key, owner, Doing::Syncing, &error);
                // What there is does not suffer from what it cannot become.
                if refuses(&error) && task.exact && task.digest != record.made {
                    self.leave_as_it_is(cx, &Task { settled: false, ..task.clone() }).await?;
                }
                action
            }
        }
    }

    pub(super) async fn update_backends(&self, cx: &Cx, task: &Task<'_>) -> Result<Action, Error> {
        let Task { key, provider, spec, digest, record, known, .. } = task;
        let owner = &spec.owner;
        let handle = known.made.as_ref().map(|made| made.handle.clone());
        let handle = handle.or_else(|| record.handle.clone()).expect("it is only called where there is one");
        self.memory.change(key, |known| known.uncertain = true);
        self.metrics.syncs.inc();
        let began = Instant::now();
        let op = operation(spec, digest, record, known, cx.authority.epoch);
        let outcome = provider.update_backends(&cx.authority, op, spec, &handle).await;
        match outcome {
            Ok(LbOutcome::Ready { ingress, handle, fingerprint }) => {
                let since = self.nodes_changed.lock().map(|changed| changed.elapsed());
                self.metrics.told_of_nodes(began.elapsed(), since);
                let made = self.remember(task, ingress, handle, fingerprint);
                self.finish(cx, task, &made).await?;
                if spec.backends.is_empty() {
                    self.warn(cx, owner, reasons::NO_NODES, NOBODY.to_owned());
                } else {
                    self.tell(cx, owner, reasons::UPDATED, "Updated load balancer with new hosts");
                }
                Ok(Action::Done)
            }
            Ok(LbOutcome::Provisioning { poll_after, .. }) => {
                self.memory.change(key, |known| known.uncertain = false);
                Ok(Action::RequeueAfter(self.hold(key, Some(digest), poll_after)))
            }
            Err(CloudError::ImplementedElsewhere(_)) => {
                self.memory.change(key, |known| {
                    known.uncertain = false;
                    if let Some(made) = &mut known.made {
                        made.spec = Arc::clone(spec);
                    }
                });
                Ok(Action::Done)
            }
            // It is gone, or can only be changed as a whole.
            Err(CloudError::NotFound(_) | CloudError::NotImplemented(_) | CloudError::Immutable(_)) if task.exact => {
                self.memory.change(key, |known| known.drift = Some("backends".to_owned()));
                let known = self.memory.get(key).unwrap_or_else(|| known.clone());
                self.find_and_ensure(cx, &Task { known, ..task.clone() }).await
            }
            Err(error) => {
                self.metrics.node_sync_errors.inc();
                self.failed(cx, key, owner, Doing::UpdatingHosts, &error)
            }
        }
    }

    /// The provider says that it is as it should be.
    fn remember(&self, task: &Task<'_>, ingress: Vec<Ingress>, handle: Handle, fingerprint: String) -> Made {
        let made = Made {
            digest: task.digest.clone(),
            spec: Arc::clone(&task.spec),
            exact: task.exact,
            handle,
            fingerprint,
            ingress,
            at: Instant::now(),
        };
        self.memory.change(task.key, |known| {
            known.made = Some(made.clone());
            known.done += 1;
            known.uncertain = false;
            known.drift = None;
            known.hold = None;
        });
        made
    }

    /// Writes down what was made, and gives addresses back that it no longer has.
    pub(super) async fn finish(&self, cx: &Cx, task: &Task<'_>, made: &Made) -> Result<(), Error> {
        let record = &task.record;
        let revision = record.revision + u64::from(record.made != made.digest);
        let record =
            Record { handle: Some(made.handle.clone()), made: made.digest.clone(), revision, ..record.clone() };
        if let Some(patch) = status::made(task.service, &record, Some(&made.ingress)) {
            self.write(cx, task.key, patch).await?;
        }
        if !task.settled {
            return Ok(());
        }
        let keep: &[IpAddr] = &task.spec.addresses;
        self.addresses.release(cx, &task.spec.owner.uid, keep).await
    }

    /// Writes to a Service, and answers its new version; one that is gone needs nothing.
    pub(super) async fn write(&self, cx: &Cx, key: &ObjectKey, patch: ServicePatch) -> Result<Option<Written>, Error> {
        let ServicePatch { patch, precondition } = patch;
        match cx.api.merge_patch(&Kind::of::<Service>(), key, Some("status"), &patch, &precondition).await {
            Ok(written) => Ok(Some(written)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves a load balancer alone for a while; answers for how long.
    pub(super) fn hold(&self, key: &ObjectKey, digest: Option<&str>, after: Duration) -> Duration {
        let after = later(after);
        let hold = Hold { until: Instant::now() + after, digest: digest.map(str::to_owned) };
        self.memory.change(key, |known| known.hold = Some(hold));
        after
    }

    /// What a failed call asks for: an event, and another try at the time that the cloud names, or after a backoff.
    pub(super) fn failed(
        &self,
        cx: &Cx,
        key: &ObjectKey,
        owner: &Owner,
        doing: Doing,
        error: &CloudError,
    ) -> Result<Action, Error> {
        self.memory.change(key, |known| known.uncertain = known.uncertain && error.maybe_applied());
        match error {
            CloudError::NotLeading(_) | CloudError::Busy { .. } => return Ok(Action::RequeueAfter(SOON)),
            CloudError::Superseded(_) => {
                tracing::warn!(%key, %error, "the cloud has heard of a later leader");
                return Ok(Action::RequeueAfter(SUPERSEDED));
            }
            _ => {}
        }
        let (reason, message) = match doing {
            Doing::Syncing => (reasons::SYNC_FAILED, format!("Error syncing load balancer: {error}")),
            Doing::UpdatingHosts => {
                let nodes = self.node_names();
                (reasons::UPDATE_FAILED, format!("Error updating load balancer with new hosts {nodes}: {error}"))
            }
        };
        self.warn(cx, owner, reason, message);
        match error.retry_after() {
            Some(after) => Ok(Action::RequeueAfter(self.hold(key, None, after))),
            None => Err(Error::Transient(error.to_string())),
        }
    }

    /// The nodes that get traffic, for an event.
    fn node_names(&self) -> String {
        let all = backends(&self.nodes.all());
        let names: Vec<&str> = all.iter().take(NAMES).map(|backend| backend.name.as_str()).collect();
        let more = all.len().saturating_sub(NAMES);
        let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("[{}{rest}]", names.join(" "))
    }

    /// Load balancers beyond the one that is adopted are somebody's mistake: told, and left alone.
    pub(super) fn report_duplicates(
        &self,
        cx: &Cx,
        owner: &Owner,
        recorded: Option<&Handle>,
        found: &[OwnedLoadBalancer],
    ) {
        let Some(kept) = adopt(recorded, found).filter(|_| found.len() > 1) else { return };
        let others: Vec<&str> = found
            .iter()
            .map(|balancer| &balancer.handle)
            .filter(|handle| *handle != kept)
            .map(|handle| &*handle.0)
            .collect();
        let message = format!(
            "The cloud has {} load balancers of this Service: {} is looked after, {} should be removed by hand",
            found.len(),
            kept.0,
            others.join(", ")
        );
        self.warn(cx, owner, reasons::DUPLICATES, message);
    }

    pub(super) fn warn(&self, cx: &Cx, owner: &Owner, reason: Reason, message: String) {
        let about = reference(&owner.namespace, &owner.name, &owner.uid);
        cx.recorder.event(&about, reason, message);
    }

    pub(super) fn tell(&self, cx: &Cx, owner: &Owner, reason: Reason, message: &str) {
        let about = reference(&owner.namespace, &owner.name, &owner.uid);
        let key = ObjectKey::new(owner.namespace.as_str(), owner.name.as_str());
        tracing::info!(%key, state = reason.name(), "the load balancer of a service changed");
        cx.recorder.event(&about, reason, message);
    }
}

const NOBODY: &str = "There are no available nodes for LoadBalancer";

/// Whether an error is the cloud's answer to what is asked for, which it will give again.
fn refuses(error: &CloudError) -> bool {
    matches!(
        error,
        CloudError::Invalid(_)
            | CloudError::Immutable(_)
            | CloudError::Quota(_)
            | CloudError::Denied(_)
            | CloudError::Conflict(_)
            | CloudError::NotImplemented(_)
    )
}

/// When a cloud is asked again that asked for this.
pub(super) fn later(after: Duration) -> Duration {
    after.clamp(POLL.0, POLL.1)
}

/// The same, no later than after this time.
fn sooner(action: Action, latest: Duration) -> Action {
    match action {
        Action::RequeueAfter(after) => Action::RequeueAfter(after.min(latest)),
        Action::Done => Action::RequeueAfter(latest),
    }
}

/// Which of several load balancers of one owner is looked after: the one that is written down, else the oldest, else
/// the first by name; always the same one.
pub(super) fn adopt<'a>(recorded: Option<&Handle>, found: &'a [OwnedLoadBalancer]) -> Option<&'a Handle> {
    let written_down = found.iter().find(|balancer| Some(&balancer.handle) == recorded);
    let oldest = || found.iter().min_by_key(|balancer| (std::cmp::Reverse(balancer.age), &balancer.handle));
    written_down.or_else(oldest).map(|balancer| &balancer.handle)
}

/// The number of an operation: the same in each try of it, another one for every other.
///
/// Until a load balancer was made once, it is the same for every leader: whoever tries again after a crash says so.
/// After that, the same change may be wanted again later (there and back), and the count of changes tells them apart.
fn operation(spec: &LoadBalancerSpec, digest: &str, record: &Record, known: &Known, epoch: u64) -> Uuid {
    let backends = serde_json::to_string(&spec.backends).expect("texts are JSON");
    let tenure = match (record.revision, known.done, &known.drift) {
        (0, 0, None) => String::new(),
        _ => format!("{epoch}/{}/{}", known.done, known.drift.as_deref().unwrap_or_default()),
    };
    let revision = record.revision.to_string();
    operation_id(&[&spec.owner.cluster.0, &spec.owner.uid, &record.claim, &revision, digest, &backends, &tenure])
}

/// An id made of these parts.
pub(super) fn operation_id(parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
