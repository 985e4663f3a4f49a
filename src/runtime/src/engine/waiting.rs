//! Read-your-writes: a key rests until the caches show what its last reconcile wrote.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::Means;
use crate::client::{Expect, Wrote};
use crate::controller::Key;
use crate::informer::Informers;
use crate::object::parse_version;
use crate::queue::Queue;
use crate::view::Metadata;

/// When a cache that does not show a write is checked against the server.
const LIVE_CHECK: Duration = Duration::from_secs(1);
/// The list of writes is swept when it has grown to this many keys.
const SWEEP_AT: usize = 1024;

/// Which keys wait for which writes.
pub(super) struct Waiting<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    informers: Informers,
    queue: Queue<K>,
    unseen: Mutex<HashMap<K, Vec<Wrote>>>,
    tasks: TaskTracker,
}

impl<K: Key> Waiting<K> {
    pub(super) fn new(informers: Informers, queue: Queue<K>) -> Self {
        let shared = Shared { informers, queue, unseen: Mutex::default(), tasks: TaskTracker::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Notes what a reconcile wrote; true when some of it is not yet visible.
    pub(super) fn note(&self, key: &K, wrote: Vec<Wrote>) -> bool {
        let mut unseen = self.shared.unseen.lock();
        let mut all = unseen.remove(key).unwrap_or_default();
        all.extend(wrote);
        all.retain(|wrote| !self.shared.informers.is_visible(wrote));
        if unseen.len() >= SWEEP_AT {
            unseen.retain(|_, wrote| {
                wrote.retain(|wrote| !self.shared.informers.is_visible(wrote));
                !wrote.is_empty()
            });
        }
        let waits = !all.is_empty();
        if waits {
            unseen.insert(key.clone(), all);
        }
        waits
    }

    /// Parks the key if a cache it reads lags behind its own writes; true when it did.
    pub(super) fn park_until_visible(&self, key: &K, means: &Means) -> bool {
        if !self.note(key, Vec::new()) {
            return false;
        }
        self.shared.queue.park(key);
        let (shared, key, means) = (Arc::clone(&self.shared), key.clone(), means.clone());
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = means.stop.cancelled() => {}
                () = shared.until_visible(&key, &means) => {}
            }
            shared.queue.unpark(&key);
        });
        true
    }

    /// Waits for the tasks of parked keys; the tenure must have ended.
    pub(super) async fn join(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.tasks.reopen();
    }
}

impl<K: Key> Shared<K> {
    async fn until_visible(&self, key: &K, means: &Means) {
        while let Some(wrote) = self.first_unseen(key) {
            let (seen, wait) = oneshot::channel();
            self.informers.when_visible(&wrote, Box::new(move || drop(seen.send(()))));
            if tokio::time::timeout(LIVE_CHECK, wait).await.is_ok() {
                self.forget(key, &wrote);
                continue;
            }
            match means.api.get::<Metadata>(&wrote.kind, &wrote.key).await {
                Ok(live) => self.check_live(key, &wrote, live.as_ref()),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(object = %wrote.key, kind = %wrote.kind, error, "a cache does not show our own write");
                }
            }
        }
    }

    /// Drops or sharpens what is waited for by what the server itself shows.
    fn check_live(&self, key: &K, wrote: &Wrote, live: Option<&Metadata>) {
        let expect = match (&wrote.expect, live) {
            // Not the version was in the way, but another precondition.
            (Expect::OtherThan(version), Some(live)) if *version == *live.resource_version => None,
            (Expect::OtherThan(_) | Expect::AtLeast(_), Some(live)) => {
                parse_version(&live.resource_version).map(Expect::AtLeast)
            }
            (Expect::OtherThan(_) | Expect::AtLeast(_), None) => {
                self.informers.uid_of(&wrote.kind, &wrote.key).map(|uid| Expect::Deleted { uid })
            }
            (Expect::Deleted { uid }, Some(live)) if *uid == *live.uid && !live.deleting => None,
            (Expect::Deleted { .. }, _) => return,
        };
        self.forget(key, wrote);
        if let Some(expect) = expect {
            let sharper = Wrote { expect, ..wrote.clone() };
            self.unseen.lock().entry(key.clone()).or_default().push(sharper);
        }
    }

    fn first_unseen(&self, key: &K) -> Option<Wrote> {
        let mut unseen = self.unseen.lock();
        let wrote = unseen.get_mut(key)?;
        wrote.retain(|wrote| !self.informers.is_visible(wrote));
        let first = wrote.first().cloned();
        if first.is_none() {
            unseen.remove(key);
        }
        first
    }

    fn forget(&self, key: &K, wrote: &Wrote) {
        if let Some(all) = self.unseen.lock().get_mut(key) {
            all.retain(|other| other != wrote);
        }
    }
}
