//! Nodes that are proven to be gone, where nothing else tells: in a cluster that has no node at all.
//!
//! Such a cluster is more likely a mistake (another server, a restored database) than the end of it. A node is proven to
//! be gone when this process was told of its deletion, by the watch and not by a list that lacks it, and the server has
//! said twice, [`SPACING`] apart, that it has no such Node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use quarterdeck_runtime::controller::{Cx, Error};
use quarterdeck_runtime::informer::Change;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use quarterdeck_runtime::view::NodeView;
use tokio::time::Instant;

/// How far apart the two answers are.
pub(super) const SPACING: Duration = Duration::from_secs(15);
/// Nodes that are remembered; more than a cluster loses at its end.
const REMEMBERED: usize = 10_000;

/// Nodes whose deletion was told, with when the server first said that it has no such Node.
#[derive(Debug, Default)]
pub(super) struct Departed(Mutex<BTreeMap<Arc<str>, Option<Instant>>>);

impl Departed {
    /// Takes in a change of a node.
    pub(super) fn saw(&self, change: &Change<'_, NodeView>) {
        let mut all = self.0.lock();
        let name = change.object().key.name();
        match change {
            Change::Deleted { is_final: true, .. } => {
                if all.len() >= REMEMBERED {
                    all.pop_first();
                }
                all.insert(name.into(), None);
            }
            _ => drop(all.remove(name)),
        }
    }

    /// Takes in whether the server has a Node, if it said so. Returns whether the node is proven to be gone.
    fn hear(&self, name: &str, has_node: Option<bool>, now: Instant) -> bool {
        let mut all = self.0.lock();
        let Some(first) = all.get_mut(name) else { return false };
        match has_node {
            Some(false) => now.duration_since(*first.get_or_insert(now)) >= SPACING,
            // An error says nothing, and a Node that is there was made anew.
            _ => {
                *first = None;
                false
            }
        }
    }

    /// Those of these nodes that are proven to be gone, and whether any proof waits for its second answer.
    pub(super) async fn proven<'a>(
        &self,
        cx: &Cx,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(BTreeSet<String>, bool), Error> {
        let told: BTreeSet<&str> = {
            let all = self.0.lock();
            names.into_iter().filter(|name| all.contains_key(*name)).collect()
        };
        let (mut gone, mut waits) = (BTreeSet::new(), false);
        for name in told {
            let found = cx.api.get_metadata(&Kind::of::<Node>(), &ObjectKey::cluster(name)).await;
            let proven = self.hear(name, found.as_ref().ok().map(Option::is_some), Instant::now());
            waits |= found?.is_none() && !proven;
            if proven {
                gone.insert(name.to_owned());
            }
        }
        Ok((gone, waits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(departed: &Departed, name: &str, is_final: bool) {
        let node = Arc::new(NodeView::named(name));
        departed.saw(&Change::Deleted { last: &node, is_final });
    }

    #[test]
    fn a_node_is_gone_when_its_deletion_was_told_and_the_server_said_so_twice() {
        let (departed, start) = (Departed::default(), Instant::now());
        assert!(!departed.hear("a", Some(false), start), "nobody told of it");
        told(&departed, "a", true);
        assert!(!departed.hear("a", Some(false), start));
        assert!(!departed.hear("a", Some(false), start + SPACING - Duration::from_millis(1)));
        assert!(departed.hear("a", Some(false), start + SPACING));
    }

    #[test]
    fn a_list_that_lacks_it_an_error_and_a_node_that_is_back_prove_nothing() {
        let (departed, start) = (Departed::default(), Instant::now());
        told(&departed, "listed", false);
        assert!(!departed.hear("listed", Some(false), start));
        assert!(!departed.hear("listed", Some(false), start + SPACING));
        for answer in [None, Some(true)] {
            told(&departed, "a", true);
            assert!(!departed.hear("a", Some(false), start));
            assert!(!departed.hear("a", answer, start + SPACING));
            assert!(!departed.hear("a", Some(false), start + SPACING), "{answer:?} begins it anew");
            assert!(departed.hear("a", Some(false), start + SPACING * 2));
        }
        departed.saw(&Change::Added(&Arc::new(NodeView::named("a"))));
        assert!(!departed.hear("a", Some(false), start + SPACING * 3));
    }
}
