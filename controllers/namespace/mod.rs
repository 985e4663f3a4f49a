//! The namespace controller: removes the content of namespaces that are being deleted, then the
//! finalizer that holds them.
//!
//! Behaviour: kubernetes/kubernetes:pkg/controller/namespace v1.36.3. What differs, and why, stands
//! in `docs/controllers/namespace-controller.md`.

mod conditions;
mod content;
mod discovery;
mod metrics;
mod object;
mod outcome;
pub mod reasons;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use parking_lot::Mutex;
use quarterdeck_runtime::client::Api;
use quarterdeck_runtime::controller::{
    Action, ClientShare, Controller, Cx, Descriptor, Error, Grant, Predecessor, Setup, SetupError,
};
use quarterdeck_runtime::informer::{Change, Selection};
use quarterdeck_runtime::object::{Cached, Kind, ObjectKey};
use quarterdeck_runtime::queue::Retry;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use discovery::Discovery;
use metrics::Metrics;
use outcome::{Outcome, Times, Verdict};
use sweep::{Abort, Sweep, Unsupported};

/// Longest time between two tries of a namespace that fails.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long one pass deletes before it reports.
const PASS: Duration = Duration::from_secs(15);
/// How often a write of the namespace is tried again after somebody else's.
const CONFLICTS: usize = 5;
/// Deletes of single objects at once, over all namespaces.
const DELETES_AT_ONCE: usize = 32;
/// How soon to look again at a namespace that changed under a pass.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Flags of the namespace controller.
#[derive(clap::Args, Clone, Debug)]
pub struct NamespaceConfig {
    /// Number of namespaces that are deleted at once.
    #[arg(long, value_name = "COUNT", default_value_t = 10, help_heading = "Namespace controller")]
    pub concurrent_namespace_syncs: usize,
    /// Longest time between two looks at a namespace whose deletion waits for something.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", help_heading = "Namespace controller")]
    pub namespace_sync_period: SignedDuration,
    /// How long after a namespace is first seen deleting it must have been found empty before it is
    /// let go. An API server that learns of the deletion late may still let objects in; raise it where
    /// admission webhooks are slow.
    #[arg(long, value_name = "DURATION", default_value = "500ms", help_heading = "Namespace controller")]
    pub namespace_deletion_settle: SignedDuration,
}

/// What is remembered of a namespace between two looks.
struct Progress {
    uid: String,
    since: Instant,
    blocked: Option<String>,
    /// Kinds of which the last pass left something; looks in between see to these alone.
    left: Vec<Kind>,
}

/// Removes the content of namespaces that are being deleted.
pub struct NamespaceController {
    settle: Duration,
    period: Duration,
    discovery: Discovery,
    unsupported: Unsupported,
    deletes: Semaphore,
    progress: Arc<Mutex<HashMap<ObjectKey, Progress>>>,
    metrics: Metrics,
}

impl Controller for NamespaceController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "namespace-controller",
        aliases: &["namespace"],
        enabled_by_default: true,
        account: "namespace-controller",
        upstream_role: true,
        writes_anything: false,
        predecessor: Some(Predecessor::KubeControllerManager),
        queue: "namespace",
        share: ClientShare { qps: 20.0, burst: 100 },
    };
    type Config = NamespaceConfig;
    type Key = ObjectKey;

    fn setup(config: &NamespaceConfig, setup: &mut Setup<ObjectKey>) -> Result<Self, SetupError> {
        let period = positive("namespace-sync-period", config.namespace_sync_period)?;
        let settle = positive("namespace-deletion-settle", config.namespace_deletion_settle)?;
        if config.concurrent_namespace_syncs == 0 {
            return Err(SetupError { flag: "concurrent-namespace-syncs", reason: "must be at least 1".to_owned() });
        }
        setup.workers(config.concurrent_namespace_syncs);
        setup.retry(Retry { max: RETRY_MAX, ..Retry::default() });
        // The bootstrap role of the account lets it create no events.
        setup.grant(Grant { group: "", resource: "events", verbs: &["create", "patch"] });

        let namespaces = setup.informer::<Namespace>(Selection::default());
        let progress = Arc::new(Mutex::new(HashMap::new()));
        let forget = Arc::clone(&progress);
        setup.watch(&namespaces, move |change, queue| {
            if let Change::Deleted { last, .. } = &change {
                forget.lock().remove(&last.key());
            } else if calls_for_work(&change) {
                queue.add(change.object().key());
            }
        });
        Ok(Self {
            settle,
            period,
            discovery: Discovery::default(),
            unsupported: Unsupported::default(),
            deletes: Semaphore::new(DELETES_AT_ONCE),
            progress,
            metrics: Metrics::new(setup.metrics()),
        })
    }

    async fn reconcile(&self, cx: &Cx, key: ObjectKey) -> Result<Action, Error> {
        let report = |about: &ObjectReference, message: String| {
            cx.recorder.event(about, reasons::BLOCKED, message);
        };
        self.visit(&cx.api, &key, &report).await
    }
}

/// Tells people what blocks a namespace.
type Report<'a> = &'a (dyn Fn(&ObjectReference, String) + Sync);

impl NamespaceController {
    /// One look at a namespace: delete what can be deleted, and let it go if nothing is left.
    async fn visit(&self, api: &Api, key: &ObjectKey, report: Report<'_>) -> Result<Action, Error> {
        let Some(namespace) = api.get::<Namespace>(&Kind::of::<Namespace>(), key).await? else {
            return Ok(self.done(key));
        };
        if !object::deleting(&namespace) {
            return Ok(self.done(key));
        }
        let Some(namespace) = write(api, key, namespace, "status", object::terminating).await? else {
            return Ok(self.done(key));
        };
        if !object::is_ours(&namespace) {
            return Ok(self.done(key));
        }
        let began = Instant::now();
        let (since, left) = self.recall(key, object::uid(&namespace), began);
        let waited = began.duration_since(since);
        let outcome = match self.pass(api, key, &namespace, since, began, &left).await {
            Ok(outcome) => outcome,
            Err(Abort::Changed) => return Ok(Action::RequeueAfter(AT_ONCE)),
            Err(Abort::Api(error)) => return Err(error.into()),
        };
        let times = Times { waited, took: began.elapsed(), settle: self.settle, at_most: self.period };
        let verdict = outcome::verdict(&outcome, times);
        if verdict == Verdict::Finish {
            return self.finish(api, key, namespace, &outcome, since).await;
        }
        self.tell(api, key, namespace, &outcome, waited, report).await?;
        match verdict {
            Verdict::Failed(reason) => Err(Error::Transient(reason)),
            Verdict::Again(after) => Ok(Action::RequeueAfter(after)),
            Verdict::Finish => Ok(Action::Done),
        }
    }

    async fn pass(
        &self,
        api: &Api,
        key: &ObjectKey,
        namespace: &Namespace,
        since: Instant,
        began: Instant,
        left: &[Kind],
    ) -> Result<Outcome, Abort> {
        // What lets a namespace go must know every kind that existed when it had settled.
        let settled = since + self.settle;
        let catalog = self.discovery.catalog(api, if settled <= began { settled } else { since }).await;
        let sweep = Sweep {
            api,
            key,
            uid: object::uid(namespace),
            unfenced: AtomicBool::new(false),
            deadline: began + PASS,
            unsupported: &self.unsupported,
            deletes: &self.deletes,
        };
        Box::pin(sweep.run(&catalog, left)).await
    }

    /// Removes our finalizer. The conditions are written before only where somebody will be there to
    /// read them.
    async fn finish(
        &self,
        api: &Api,
        key: &ObjectKey,
        namespace: Namespace,
        outcome: &Outcome,
        since: Instant,
    ) -> Result<Action, Error> {
        let namespace = if object::goes_with_ours(&namespace) {
            Some(namespace)
        } else {
            self.write_conditions(api, key, namespace, outcome).await?
        };
        if let Some(namespace) = namespace {
            write(api, key, namespace, "finalize", object::finalized).await?;
            self.metrics.finished(since.elapsed());
            tracing::debug!(namespace = %key, "namespace emptied");
        }
        Ok(self.done(key))
    }

    /// Writes the conditions and, when what blocks the deletion changes, an event.
    async fn tell(
        &self,
        api: &Api,
        key: &ObjectKey,
        namespace: Namespace,
        outcome: &Outcome,
        waited: Duration,
        report: Report<'_>,
    ) -> Result<(), Error> {
        let reference = object::reference(&namespace);
        if !outcome.is_clear() || conditions::present(object::conditions(&namespace)) {
            self.write_conditions(api, key, namespace, outcome).await?;
        }
        let blocked = outcome::blocked(outcome, waited);
        if !self.note(key, outcome, blocked.clone()) {
            return Ok(());
        }
        if let Some(message) = blocked {
            tracing::warn!(namespace = %key, reason = %message, "the deletion of a namespace is blocked");
            report(&reference, message);
        }
        Ok(())
    }

    async fn write_conditions(
        &self,
        api: &Api,
        key: &ObjectKey,
        namespace: Namespace,
        outcome: &Outcome,
    ) -> Result<Option<Namespace>, Error> {
        let change = |namespace: &Namespace| {
            let next = conditions::update(object::conditions(namespace), outcome, Timestamp::now())?;
            Some(object::with_conditions(namespace, next))
        };
        write(api, key, namespace, "status", change).await
    }

    /// When this namespace was first seen deleting, and the kinds that were left of it.
    fn recall(&self, key: &ObjectKey, uid: &str, now: Instant) -> (Instant, Vec<Kind>) {
        let mut progress = self.progress.lock();
        match progress.get(key) {
            Some(known) if known.uid == uid => (known.since, known.left.clone()),
            _ => {
                let fresh = Progress { uid: uid.to_owned(), since: now, blocked: None, left: Vec::new() };
                progress.insert(key.clone(), fresh);
                (now, Vec::new())
            }
        }
    }

    /// Notes what is left of a namespace and what blocks it. Answers whether the latter is news.
    fn note(&self, key: &ObjectKey, outcome: &Outcome, blocked: Option<String>) -> bool {
        let mut progress = self.progress.lock();
        let Some(known) = progress.get_mut(key) else { return false };
        known.left = outcome.left();
        if known.blocked == blocked {
            return false;
        }
        known.blocked = blocked;
        self.metrics.blocked(progress.values().filter(|p| p.blocked.is_some()).count());
        true
    }

    fn done(&self, key: &ObjectKey) -> Action {
        let mut progress = self.progress.lock();
        if progress.remove(key).is_some_and(|known| known.blocked.is_some()) {
            self.metrics.blocked(progress.values().filter(|p| p.blocked.is_some()).count());
        }
        Action::Done
    }
}

/// Writes a change to a subresource of the namespace, again on the fresh object after somebody
/// else's write. Answers the namespace as it is then; none if it is gone, is another one, or is
/// not being deleted.
async fn write(
    api: &Api,
    key: &ObjectKey,
    mut namespace: Namespace,
    subresource: &'static str,
    change: impl Fn(&Namespace) -> Option<Namespace>,
) -> Result<Option<Namespace>, Error> {
    for _ in 0..CONFLICTS {
        let Some(mut next) = change(&namespace) else { return Ok(Some(namespace)) };
        match api.replace_subresource(subresource, &next).await {
            Ok(written) => {
                next.metadata.resource_version = Some(written.resource_version);
                return Ok(Some(next));
            }
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) if error.is_conflict() => {
                let fresh = api.get::<Namespace>(&Kind::of::<Namespace>(), key).await?;
                match fresh {
                    Some(fresh) if same_deletion(&namespace, &fresh) => namespace = fresh,
                    _ => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Stale(format!("namespace {key} changed {CONFLICTS} times while its {subresource} was written")))
}

/// Whether a change of a namespace starts or alters its deletion. Our own writes of the conditions
/// do not: they would defeat the pace at which a waiting namespace is looked at.
fn calls_for_work(change: &Change<'_, Namespace>) -> bool {
    match change {
        Change::Added(namespace) => object::deleting(namespace),
        Change::Updated { old, new } => {
            object::deleting(new)
                && (!object::deleting(old)
                    || object::uid(old) != object::uid(new)
                    || object::is_ours(old) != object::is_ours(new))
        }
        Change::Deleted { .. } => false,
    }
}

/// Whether a fresh copy shows the same namespace, still being deleted.
fn same_deletion(known: &Namespace, fresh: &Namespace) -> bool {
    object::uid(known) == object::uid(fresh) && object::deleting(fresh)
}

fn positive(flag: &'static str, duration: SignedDuration) -> Result<Duration, SetupError> {
    Duration::try_from(duration)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| SetupError { flag, reason: "must be longer than zero".to_owned() })
}
