//! Read-your-writes: a key rests until the caches show what its last reconcile wrote.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
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

/// Which keys wait for which writes.
pub(super) struct Waiting<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    informers: Informers,
    queue: Queue<K>,
    unseen: Mutex<Unseen<K>>,
    tasks: TaskTracker,
}

struct Unseen<K> {
    by_key: HashMap<K, Vec<(u64, Wrote)>>,
    next: u64,
}

impl<K: Key> Waiting<K> {
    pub(super) fn new(informers: Informers, queue: Queue<K>) -> Self {
        let unseen = Mutex::new(Unseen { by_key: HashMap::new(), next: 0 });
        Self { shared: Arc::new(Shared { informers, queue, unseen, tasks: TaskTracker::new() }) }
    }

    /// Notes what a reconcile wrote; true when some of it is not yet visible.
    pub(super) fn note(&self, key: &K, wrote: Vec<Wrote>) -> bool {
        for wrote in wrote {
            self.shared.expect(key, &wrote);
        }
        self.shared.unseen.lock().by_key.contains_key(key)
    }

    /// Parks the key if a cache it reads lags behind its own writes; true when it did.
    pub(super) fn park_until_visible(&self, key: &K, means: &Means) -> bool {
        {
            // Held over the parking, so that a write seen just now finds the key parked.
            let unseen = self.shared.unseen.lock();
            if !unseen.by_key.contains_key(key) {
                return false;
            }
            self.shared.queue.park(key);
        }
        let (shared, key, means) = (Arc::clone(&self.shared), key.clone(), means.clone());
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = means.stop.cancelled() => shared.queue.unpark(&key),
                () = shared.check_while_unseen(&key, &means) => {}
            }
        });
        true
    }

    /// Waits for the checks of parked keys; the tenure must have ended.
    pub(super) async fn join(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.tasks.reopen();
    }
}

impl<K: Key> Shared<K> {
    /// Has `key` wait for a write.
    fn expect(self: &Arc<Self>, key: &K, wrote: &Wrote) {
        let id = {
            let mut unseen = self.unseen.lock();
            unseen.next += 1;
            let id = unseen.next;
            unseen.by_key.entry(key.clone()).or_default().push((id, wrote.clone()));
            id
        };
        let (shared, key) = (Arc::clone(self), key.clone());
        self.informers.when_visible(&wrote.kind, &wrote.key, &wrote.expect, move || shared.seen(&key, id));
    }

    /// A write need not be waited for any more; the last one lets its key go on.
    fn seen(&self, key: &K, id: u64) {
        let mut unseen = self.unseen.lock();
        let Some(waiting) = unseen.by_key.get_mut(key) else { return };
        waiting.retain(|(other, _)| *other != id);
        if waiting.is_empty() {
            unseen.by_key.remove(key);
            drop(unseen);
            self.queue.unpark(key);
        }
    }

    /// Compares what does not become visible with what the server has, each second.
    async fn check_while_unseen(self: &Arc<Self>, key: &K, means: &Means) {
        let mut told = false;
        loop {
            tokio::time::sleep(LIVE_CHECK).await;
            let unseen = self.unseen.lock().by_key.get(key).cloned();
            for (id, wrote) in unseen.into_iter().flatten() {
                match means.api.get::<Metadata>(&wrote.kind, &wrote.key).await {
                    Ok(live) => self.sharpen(key, id, &wrote, live.as_ref()),
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(%key, object = %wrote.key, kind = %wrote.kind, error, "a cache lags behind our own write");
                    }
                    Err(_) => {}
                }
            }
            if !self.unseen.lock().by_key.contains_key(key) {
                return;
            }
        }
    }

    /// Waits for something else, or for nothing, if the server shows that the expectation was wrong.
    /// An object that is gone shows itself in the cache.
    fn sharpen(self: &Arc<Self>, key: &K, id: u64, wrote: &Wrote, live: Option<&Metadata>) {
        let Some(live) = live else { return };
        let newer = match &wrote.expect {
            // Not the version was in the way, but another precondition.
            Expect::OtherThan(version) if *version == *live.resource_version => None,
            Expect::OtherThan(_) => parse_version(&live.resource_version).map(Expect::AtLeast),
            Expect::Deleted { uid } if *uid == *live.uid && !live.deleting => None,
            Expect::AtLeast(_) | Expect::Deleted { .. } => return,
        };
        if let Some(expect) = newer {
            self.expect(key, &Wrote { expect, ..wrote.clone() });
        }
        self.seen(key, id);
    }
}
