//! How many nodes of one kind of cloud are initialised at once, so that those of a cloud that hangs leave workers for
//! the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use quarterdeck_runtime::object::ObjectKey;

/// A lane for each scheme of providerIDs, and one for nodes that have none yet.
pub(super) struct Lanes {
    /// How many may be in a lane at once.
    places: usize,
    lanes: Mutex<HashMap<Arc<str>, Lane>>,
}

#[derive(Default)]
struct Lane {
    taken: usize,
    waiting: HashSet<ObjectKey>,
}

/// A place in a lane; given back when dropped, and those that waited are told then.
pub(super) struct Place<'a, W: FnMut(ObjectKey)> {
    owner: &'a Lanes,
    scheme: Arc<str>,
    wake: W,
}

impl Lanes {
    pub(super) fn new(places: usize) -> Self {
        Self { places: places.max(1), lanes: Mutex::default() }
    }

    /// A place in the lane of this scheme. `None` if all are taken; `key` is then handed to the `wake` of whoever
    /// leaves.
    pub(super) fn enter<W: FnMut(ObjectKey)>(&self, scheme: &str, key: &ObjectKey, wake: W) -> Option<Place<'_, W>> {
        let mut lanes = self.lanes.lock();
        let scheme: Arc<str> = scheme.into();
        let lane = lanes.entry(Arc::clone(&scheme)).or_default();
        if lane.taken >= self.places {
            lane.waiting.insert(key.clone());
            return None;
        }
        lane.taken += 1;
        Some(Place { owner: self, scheme, wake })
    }
}

impl<W: FnMut(ObjectKey)> Drop for Place<'_, W> {
    fn drop(&mut self) {
        let waiting = {
            let mut lanes = self.owner.lanes.lock();
            let Some(lane) = lanes.get_mut(&self.scheme) else { return };
            lane.taken -= 1;
            let waiting = std::mem::take(&mut lane.waiting);
            if lane.taken == 0 {
                lanes.remove(&self.scheme);
            }
            waiting
        };
        for key in waiting {
            (self.wake)(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_leaves_the_others_free_and_wakes_who_waited() {
        let lanes = Lanes::new(2);
        let woken = Mutex::new(Vec::new());
        let enter = |scheme: &str, node: &str| {
            lanes.enter(scheme, &ObjectKey::cluster(node), |key| woken.lock().push(key.name().to_owned()))
        };
        let (first, second) = (enter("a", "n1"), enter("a", "n2"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("a", "n3").is_none(), "full");
        assert!(enter("b", "n4").is_some() && enter("", "n5").is_some(), "lanes of their own");
        drop(first);
        assert_eq!(*woken.lock(), ["n3"]);
        assert!(enter("a", "n3").is_some());
        drop(second);
        assert_eq!(woken.lock().len(), 1, "each is told once");
        assert!(lanes.lanes.lock().is_empty(), "nothing is kept of empty lanes");
    }
}
