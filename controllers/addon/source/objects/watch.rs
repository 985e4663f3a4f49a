//! The loop that hands on what the cache of Addon objects holds.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quarterdeck_api::addon::Addon;
use quarterdeck_runtime::controller::Worker;
use quarterdeck_runtime::informer::Lister;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Reader;
use crate::addon::source::Snapshot;

/// How often a cache is asked that has not been filled yet: the CRD may not be there.
const UNSYNCED: Duration = Duration::from_secs(1);

/// Reads Addon objects when one changes, and hands each reading on.
pub struct ObjectsWatch {
    objects: Lister<Addon>,
    reader: Mutex<Reader>,
    changed: Arc<Notify>,
    publish: Box<dyn Fn(Snapshot) + Send + Sync>,
}

impl ObjectsWatch {
    /// A watch whose readings go to `publish`.
    #[must_use]
    pub fn new(objects: Lister<Addon>, publish: impl Fn(Snapshot) + Send + Sync + 'static) -> Self {
        let changed = Arc::new(Notify::new());
        let change = Arc::clone(&changed);
        objects.on_change(move |_| change.notify_one());
        Self { objects, reader: Mutex::default(), changed, publish: Box::new(publish) }
    }
}

impl Worker for ObjectsWatch {
    async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let synced = self.objects.has_synced();
            if synced {
                let snapshot = self.reader.lock().read(&self.objects.all());
                (self.publish)(snapshot);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified(), if synced => {}
                () = tokio::time::sleep(UNSYNCED), if !synced => {}
            }
        }
    }
}
