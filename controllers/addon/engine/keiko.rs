//! Stepping aside for keiko's addon-manager: while it renews its Lease, nothing is written to Addon
//! objects, nor for them; when it has stopped, what it installed is adopted.

use std::time::Duration;

use quarterdeck_runtime::controller::Action;
use tokio::time::Instant;

use super::{Engine, Key};
use crate::addon::predecessor::Sight;
use crate::addon::source::OBJECTS;

/// How often the cache is asked until it has been filled.
const UNSYNCED: Duration = Duration::from_millis(100);
/// How often it is looked whether the Lease may be read by now.
const HIDDEN: Duration = Duration::from_secs(10);

impl Engine {
    /// Wakes all Addon objects when keiko's addon-manager came or went; when to look again.
    pub(super) fn note_keiko(&self) -> Action {
        let sight = self.keiko.sight(Instant::now());
        let alive = sight.has_the_word();
        let mut shared = self.shared.lock();
        let before = shared.keiko.replace(alive);
        if before != Some(alive) {
            match sight {
                Sight::Alive(_) => tracing::info!("keiko's addon-manager is alive: Addon objects are only looked at"),
                Sight::Hidden => tracing::warn!(
                    "the Lease addon-manager-system/addonmgr.keikoproj.io may not be watched: keiko's addon-manager may be \
                     alive, and Addon objects are only looked at"
                ),
                Sight::Gone if before.is_some() => {
                    tracing::info!("keiko's addon-manager does not renew its Lease: Addon objects are reconciled");
                }
                Sight::Gone | Sight::NotYet => {}
            }
            let addons = shared.sources.get(OBJECTS).into_iter().flat_map(|snapshot| snapshot.addons.values());
            addons.for_each(|addon| self.parts.queue.add(Key::Addon(addon.id.clone())));
        }
        drop(shared);
        self.parts.metrics.observing_objects.set(f64::from(u8::from(alive && sight != Sight::NotYet)));
        if before == Some(true) && !alive {
            self.wake_mirrors();
        }
        match sight {
            Sight::Alive(left) => Action::RequeueAfter(left),
            Sight::NotYet => Action::RequeueAfter(UNSYNCED),
            Sight::Hidden => Action::RequeueAfter(HIDDEN),
            Sight::Gone => Action::Done,
        }
    }
}
