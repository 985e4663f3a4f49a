//! The part of an informer that its task writes and everyone else reads.

use std::any::TypeId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::metrics::Counters;
use super::status::Progress;
use super::store::Store;
use super::visible::{Callback, Waiters};
use super::{Change, Index, Selection, State, Status, WatchTransport, driver};
use crate::client::{Expect, Identity};
use crate::object::{Cached, Kind, ObjectKey, ResourceVersion, parse_version};
use crate::view::Metadata;

/// How much longer a decoded object of the API is than its JSON, when nothing better is known: 14.7
/// kB for 4.4 kB were measured for a Pod without its managed fields.
const DECODED_FACTOR: usize = 3;

type Handler<K> = Box<dyn Fn(Change<'_, K>) + Send + Sync>;

/// The part of an informer that does not depend on its form.
pub(super) struct Core {
    pub(super) kind: Kind,
    pub(super) selection: Selection,
    pub(super) identity: Identity,
    /// Whether only metadata is asked for.
    pub(super) metadata_only: bool,
    pub(super) progress: Progress,
    pub(super) counters: Counters,
    pub(super) stop: CancellationToken,
    /// Asks the task to answer once it has read its stream dry.
    pub(super) ask_dry: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Ends a wait for the next try.
    pub(super) retry_now: Notify,
}

/// An informer of any form.
pub(super) trait AnyInformer: Send + Sync {
    fn core(&self) -> &Core;
    fn status(&self) -> Status;
    fn when_visible(&self, key: &ObjectKey, expect: Expect, callback: Callback);
    fn start(self: Arc<Self>, transport: Arc<dyn WatchTransport>, runtime: &Handle);
    fn stop(&self);
}

/// One informer's store, handlers and progress.
pub(super) struct Shared<K> {
    pub(super) core: Core,
    pub(super) store: RwLock<Store<K>>,
    /// Held from the change of the store until all handlers know of it, so that a handler added
    /// meanwhile sees either the state before and the change, or the state after.
    handlers: Mutex<Vec<Handler<K>>>,
    waiters: Mutex<Waiters>,
    running: AtomicBool,
    /// The other end of [`Core::ask_dry`], until the task starts.
    dry_questions: Mutex<Option<DryQuestions>>,
}

/// Questions whether the stream has been read dry, each answered when it has.
pub(super) type DryQuestions = mpsc::UnboundedReceiver<oneshot::Sender<()>>;

impl<K: Cached> AnyInformer for Shared<K> {
    fn core(&self) -> &Core {
        &self.core
    }

    fn status(&self) -> Status {
        Shared::status(self)
    }

    fn when_visible(&self, key: &ObjectKey, expect: Expect, callback: Callback) {
        Shared::when_visible(self, key, expect, callback);
    }

    fn start(self: Arc<Self>, transport: Arc<dyn WatchTransport>, runtime: &Handle) {
        self.running.store(true, Ordering::Release);
        let questions = self.dry_questions.lock().take();
        if let Some(questions) = questions {
            runtime.spawn(driver::run(self, transport, questions));
        }
    }

    fn stop(&self) {
        self.stopped();
    }
}

impl<K: Cached> Shared<K> {
    pub(super) fn new(kind: Kind, selection: Selection, identity: Identity, counters: Counters) -> Self {
        let (ask_dry, dry_questions) = mpsc::unbounded_channel();
        Self {
            store: RwLock::new(Store::new(kind.namespaced)),
            handlers: Mutex::default(),
            waiters: Mutex::default(),
            running: AtomicBool::new(false),
            dry_questions: Mutex::new(Some(dry_questions)),
            core: Core {
                kind,
                selection,
                identity,
                metadata_only: TypeId::of::<K>() == TypeId::of::<Metadata>(),
                progress: Progress::new(),
                counters,
                stop: CancellationToken::new(),
                ask_dry,
                retry_now: Notify::new(),
            },
        }
    }

    pub(super) fn add_index(&self, index: Index<K>) {
        let mut store = self.store.write();
        if self.running.load(Ordering::Acquire) && store.indexed_len(index.name, "").is_none() {
            drop(store);
            panic!("index {:?} of {} was declared after its informer had started", index.name, self.core.kind);
        }
        store.add_index(index);
    }

    pub(super) fn on_change(&self, handler: Handler<K>) {
        let mut handlers = self.handlers.lock();
        let present = self.store.read().all();
        for object in &present {
            self.tell(&handler, Change::Added(object));
        }
        handlers.push(handler);
    }

    fn tell(&self, handler: &Handler<K>, change: Change<'_, K>) {
        let key = change.object().key();
        if catch_unwind(AssertUnwindSafe(|| handler(change))).is_err() {
            self.core.counters.handler_panics.inc();
            error!(kind = %self.core.kind, object = %key, "a handler panicked");
        }
    }

    /// Stores an object that the server sent, and tells the handlers.
    pub(super) fn put(&self, mut object: K, wire_bytes: usize) {
        object.trim();
        let key = object.key();
        let heap = crate::view::heap_bytes(&object).unwrap_or(wire_bytes * DECODED_FACTOR);
        let bytes = u32::try_from(size_of::<K>() + 2 * size_of::<usize>() + heap).unwrap_or(u32::MAX);
        let handlers = self.handlers.lock();
        let old = self.store.read().get(&key).cloned();
        if let Some(old) = &old {
            let version = object.resource_version();
            if !version.is_empty() && old.resource_version() == version && old.uid() == object.uid() {
                self.store.write().mark_listed(&key);
                for handler in &*handlers {
                    self.tell(handler, Change::Updated { old, new: old });
                }
                return;
            }
            if old.uid() != object.uid() {
                self.store.write().remove(&key);
                for handler in &*handlers {
                    self.tell(handler, Change::Deleted { last: old, is_final: false });
                }
            }
        }
        let object = Arc::new(object);
        let replaced = self.store.write().put(key.clone(), Arc::clone(&object), bytes);
        for handler in &*handlers {
            match &replaced {
                Some(old) => self.tell(handler, Change::Updated { old, new: &object }),
                None => self.tell(handler, Change::Added(&object)),
            }
        }
        drop(handlers);
        self.wake_waiters_of(&key);
    }

    /// Removes an object and tells the handlers; `last` is its final state, if the server sent it.
    pub(super) fn remove(&self, key: &ObjectKey, last: Option<K>) {
        let handlers = self.handlers.lock();
        let Some(old) = self.store.write().remove(key) else { return };
        let is_final = last.is_some();
        let last = last.map_or(old, |mut last| {
            last.trim();
            Arc::new(last)
        });
        for handler in &*handlers {
            self.tell(handler, Change::Deleted { last: &last, is_final });
        }
        drop(handlers);
        self.wake_waiters_of(key);
    }

    /// Starts a complete list: what is put from now on is in it.
    pub(super) fn begin_list(&self) {
        self.store.write().begin_list();
    }

    /// Notes that a list contains an object which could not be read.
    pub(super) fn keep(&self, key: &ObjectKey) {
        self.store.write().mark_listed(key);
    }

    /// Ends a complete list at this version. Objects that it did not contain are gone, unless
    /// `removes` is false because some objects of the list could not even be named.
    pub(super) fn end_list(&self, version: &str, removes: bool) {
        if removes {
            let gone = self.store.read().unlisted();
            for key in &gone {
                self.remove(key, None);
            }
            self.store.write().shrink();
        }
        self.core.progress.listed();
        self.core.counters.lists.inc();
        self.see(version);
        // Absence counts only now.
        let keys = self.waiters.lock().keys();
        for key in &keys {
            self.wake_waiters_of(key);
        }
    }

    /// Notes that everything up to this version is in the store.
    pub(super) fn see(&self, version: &str) {
        self.core.progress.see(version);
        let mut ready = Vec::new();
        let mut waiters = self.waiters.lock();
        if !waiters.is_empty() {
            waiters.take_reached(self.core.progress.number(), &mut ready);
        }
        drop(waiters);
        call(ready);
    }

    fn wake_waiters_of(&self, key: &ObjectKey) {
        let mut ready = Vec::new();
        let mut waiters = self.waiters.lock();
        if !waiters.is_empty() {
            waiters.take_shown(key, |expect| self.shows(key, expect), &mut ready);
        }
        drop(waiters);
        call(ready);
    }

    /// Whether the store shows what is expected of an object.
    fn shows(&self, key: &ObjectKey, expect: &Expect) -> bool {
        let store = self.store.read();
        let object = store.get(key);
        let gone = object.is_none() && self.core.progress.has_synced();
        match expect {
            Expect::AtLeast(version) => {
                self.core.progress.number() >= *version
                    || object.is_some_and(|object| version_of(&**object) >= *version)
            }
            Expect::Deleted { uid } => gone || object.is_some_and(|object| object.uid() != uid || object.is_deleting()),
            Expect::OtherThan(version) => gone || object.is_some_and(|object| object.resource_version() != version),
        }
    }

    /// Calls back once the store shows what is expected; at once if it does already, or if the
    /// informer has stopped.
    pub(super) fn when_visible(&self, key: &ObjectKey, expect: Expect, callback: Callback) {
        // The lock comes before the look: a change after the look finds the waiter.
        let mut waiters = self.waiters.lock();
        if self.core.stop.is_cancelled() || self.shows(key, &expect) {
            drop(waiters);
            return callback();
        }
        waiters.add(key, expect, callback);
    }

    /// Ends the informer for good; whoever waits is called, as nothing more will be shown.
    pub(super) fn stopped(&self) {
        self.core.stop.cancel();
        self.core.progress.set_state(State::Stopped);
        let waiting = self.waiters.lock().take_all();
        call(waiting);
    }

    pub(super) fn status(&self) -> Status {
        let store = self.store.read();
        let (objects, bytes) = (store.len(), store.bytes());
        drop(store);
        Status {
            kind: self.core.kind.clone(),
            selection: self.core.selection.clone(),
            identity: self.core.identity.clone(),
            form: K::form(),
            state: self.core.progress.state(),
            synced: self.core.progress.has_synced(),
            objects,
            bytes,
            version: self.core.progress.version(),
            last_event: self.core.progress.heard(),
            relists: self.core.progress.relists(),
            decode_errors: self.core.progress.decode_errors(),
        }
    }
}

fn version_of<K: Cached>(object: &K) -> ResourceVersion {
    parse_version(object.resource_version()).unwrap_or(0)
}

fn call(ready: Vec<Callback>) {
    for callback in ready {
        callback();
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
