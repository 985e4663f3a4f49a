//! All informers of a process.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::Registry;
use tokio::runtime::Handle;

use super::barrier::{self, Freshness};
use super::metrics::Metrics;
use super::shared::{AnyInformer, Shared};
use super::{Lister, Selection, Status, WatchTransport};
use crate::client::{Expect, Identity};
use crate::object::{Cached, Kind, ObjectKey, ResourceVersion, Typed};

/// What makes two declarations the same informer.
#[derive(PartialEq, Eq, Hash)]
struct Id {
    kind: Kind,
    selection: Selection,
    identity: Identity,
    form: TypeId,
}

struct Entry {
    informer: Arc<dyn AnyInformer>,
    /// The same informer, to be found again as a `Shared<K>`.
    typed: Arc<dyn Any + Send + Sync>,
    /// Whether only [`Informers::dynamic`] asked for it, so that [`Informers::stop`] may stop it.
    stoppable: bool,
}

#[derive(Clone)]
struct Running {
    transport: Arc<dyn WatchTransport>,
    runtime: Handle,
}

#[derive(Default)]
struct Declared {
    entries: HashMap<Id, Entry>,
    running: Option<Running>,
}

/// The informers, whoever reads as whom.
pub(super) struct Table {
    declared: Mutex<Declared>,
    metrics: Metrics,
}

impl Table {
    pub(super) fn all(&self) -> Vec<InformerHandle> {
        self.declared.lock().entries.values().map(|entry| InformerHandle(Arc::clone(&entry.informer))).collect()
    }
}

/// All informers of a process. Declaring one does no I/O. Clones share them.
#[derive(Clone)]
pub struct Informers {
    table: Arc<Table>,
    identity: Arc<Identity>,
}

impl Default for Informers {
    fn default() -> Self {
        Self::new()
    }
}

impl Informers {
    /// No informers yet; those declared read as `kube-system/quarterdeck-reader`.
    #[must_use]
    pub fn new() -> Self {
        let identity =
            Identity::ServiceAccount { namespace: "kube-system".to_owned(), name: "quarterdeck-reader".to_owned() };
        let table = Table { declared: Mutex::default(), metrics: Metrics::new() };
        Self { table: Arc::new(table), identity: Arc::new(identity) }
    }

    /// Shows what the informers count and hold on a registry.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.table.metrics.register(registry, Arc::downgrade(&self.table))
    }

    /// The same informers for a user who reads as another identity: what is declared through the
    /// result is shared only with those who read as that identity too.
    #[must_use]
    pub fn reading_as(&self, identity: Identity) -> Self {
        Self { table: Arc::clone(&self.table), identity: Arc::new(identity) }
    }

    /// The informer of a typed form, made on first use and shared afterwards.
    #[must_use]
    pub fn typed<K: Typed>(&self, selection: Selection) -> Lister<K> {
        self.declare(K::kind(), selection, false)
    }

    /// The informer of a kind that is known only at run time, in a form such as
    /// [`Metadata`](crate::view::Metadata). May be called while the process runs: the informer
    /// starts at once.
    #[must_use]
    pub fn dynamic<K: Cached>(&self, kind: Kind, selection: Selection) -> Lister<K> {
        self.declare(kind, selection, true)
    }

    fn declare<K: Cached>(&self, kind: Kind, selection: Selection, stoppable: bool) -> Lister<K> {
        let identity = Identity::clone(&self.identity);
        let id = Id { kind, selection, identity, form: TypeId::of::<K>() };
        let mut declared = self.table.declared.lock();
        if let Some(entry) = declared.entries.get_mut(&id) {
            entry.stoppable &= stoppable;
            let typed = Arc::clone(&entry.typed).downcast();
            return Lister { shared: typed.expect("the form is part of the id") };
        }
        let counters = self.table.metrics.counters(&id.kind);
        let shared = Arc::new(Shared::<K>::new(id.kind.clone(), id.selection.clone(), id.identity.clone(), counters));
        let informer: Arc<dyn AnyInformer> = Arc::clone(&shared) as _;
        if let Some(running) = &declared.running {
            Arc::clone(&informer).start(Arc::clone(&running.transport), &running.runtime);
        }
        declared.entries.insert(id, Entry { informer, typed: Arc::clone(&shared) as _, stoppable });
        Lister { shared }
    }

    /// Starts all informers, and each one declared later at once. Later calls do nothing.
    pub fn start(&self, transport: Arc<dyn WatchTransport>, runtime: Handle) {
        let mut declared = self.table.declared.lock();
        if declared.running.is_some() {
            return;
        }
        for entry in declared.entries.values() {
            Arc::clone(&entry.informer).start(Arc::clone(&transport), &runtime);
        }
        declared.running = Some(Running { transport, runtime });
    }

    /// Stops the informers of a kind that is no longer wanted: those that only [`Self::dynamic`]
    /// declared, under this identity. Their listers keep the last state.
    pub fn stop(&self, kind: &Kind) {
        let mut declared = self.table.declared.lock();
        let stopped: Vec<_> = declared
            .entries
            .extract_if(|id, entry| entry.stoppable && id.kind == *kind && id.identity == *self.identity)
            .map(|(_, entry)| entry.informer)
            .collect();
        if !stopped.is_empty() && !declared.entries.keys().any(|id| id.kind == *kind) {
            self.table.metrics.forget(kind);
        }
        drop(declared);
        for informer in stopped {
            informer.stop();
        }
    }

    /// Stops one informer that is no longer wanted, if only [`Self::dynamic`] declared it. Its listers
    /// keep the last state; the next declaration of the same makes a new one.
    pub fn stop_one<K: Cached>(&self, lister: &Lister<K>) {
        let core = &lister.shared.core;
        let id = Id {
            kind: core.kind.clone(),
            selection: core.selection.clone(),
            identity: core.identity.clone(),
            form: TypeId::of::<K>(),
        };
        let mut declared = self.table.declared.lock();
        let same = |entry: &Entry| std::ptr::addr_eq(Arc::as_ptr(&entry.informer), Arc::as_ptr(&lister.shared));
        // One that was stopped before has no entry, or left its place to another.
        if !declared.entries.get(&id).is_some_and(|entry| entry.stoppable && same(entry)) {
            return;
        }
        declared.entries.remove(&id);
        if !declared.entries.keys().any(|other| other.kind == id.kind) {
            self.table.metrics.forget(&id.kind);
        }
        drop(declared);
        lister.shared.stopped();
    }

    /// Stops all informers for good; their listers keep the last state.
    pub fn stop_all(&self) {
        for informer in self.table.all() {
            informer.0.stop();
        }
    }

    /// All informers of a resource, in whatever form, selection, version and identity.
    #[must_use]
    pub fn by_kind(&self, kind: &Kind) -> Vec<InformerHandle> {
        let mut found = self.table.all();
        found.retain(|informer| informer.kind().group == kind.group && informer.kind().plural == kind.plural);
        found
    }

    /// Those that read as this identity.
    fn own(&self, kind: &Kind) -> Vec<InformerHandle> {
        let mut found = self.by_kind(kind);
        found.retain(|informer| *informer.identity() == *self.identity);
        found
    }

    /// All informers.
    #[must_use]
    pub fn all(&self) -> Vec<InformerHandle> {
        self.table.all()
    }

    /// A picture of each informer, sorted by kind.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        let mut all: Vec<_> = self.table.all().iter().map(InformerHandle::status).collect();
        all.sort_by(|a, b| (&a.kind, a.form).cmp(&(&b.kind, b.form)));
        all
    }

    /// Calls back once, when every informer under this identity that may hold the object shows what
    /// is expected of it; at once if they do already. The call comes from an informer's task and may
    /// only enqueue. What others read, or may not read, delays nobody.
    pub fn when_visible(&self, kind: &Kind, key: &ObjectKey, expect: &Expect, call: impl FnOnce() + Send + 'static) {
        let mut holders = self.own(kind);
        holders.retain(|informer| informer.selection().may_hold(key));
        // One more than there are holders, so that the call cannot come before all were asked.
        let left = Arc::new((AtomicUsize::new(holders.len() + 1), Mutex::new(Some(call))));
        let one_less = move || {
            let (left, call) = &*left;
            if left.fetch_sub(1, Ordering::AcqRel) == 1
                && let Some(call) = call.lock().take()
            {
                call();
            }
        };
        for holder in &holders {
            holder.when_visible(key, expect.clone(), one_less.clone());
        }
        one_less();
    }

    /// Waits until each synced informer of a kind under this identity shows at least what the server had at `version`,
    /// or what it has now; at most `limit`. Versions are compared only as a shortcut: where the
    /// informer has not seen `version` yet, the server is asked.
    pub async fn barrier(
        &self,
        kind: &Kind,
        version: ResourceVersion,
        limit: Duration,
    ) -> Vec<(InformerHandle, Freshness)> {
        let transport = self.table.declared.lock().running.as_ref().map(|running| Arc::clone(&running.transport));
        barrier::wait(self.own(kind), transport, version, limit).await
    }

    /// Ends the waits of informers of this kind that are to try again later: something, such as a
    /// new CRD, makes it likely that the next try succeeds.
    pub fn retry_now(&self, kind: &Kind) {
        for informer in self.by_kind(kind) {
            informer.0.core().retry_now.notify_one();
        }
    }
}

/// One informer, whatever its form. Cheap to clone.
#[derive(Clone)]
pub struct InformerHandle(pub(super) Arc<dyn AnyInformer>);

impl InformerHandle {
    /// The kind it reads.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.0.core().kind
    }

    /// Which objects of the kind it holds.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.0.core().selection
    }

    /// Who it reads as.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.core().identity
    }

    /// Whether it has had a complete list.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.0.core().progress.has_synced()
    }

    /// What it does and holds.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// Calls back once the store shows what is expected of an object; at once if it does already.
    /// The call comes from the informer's task and may only enqueue.
    pub fn when_visible(&self, key: &ObjectKey, expect: Expect, call: impl FnOnce() + Send + 'static) {
        self.0.when_visible(key, expect, Box::new(call));
    }
}
