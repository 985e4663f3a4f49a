//! After a start: objects that are as the manager before left them are known by the marks in the
//! parent's inventory and by the caches, and need not be read.

use std::collections::BTreeMap;
use std::time::Duration;

use quarterdeck_runtime::view::Metadata;
use tokio::time::Instant;

use super::Memory;
use super::run::Run;
use crate::addon::drift::{Cached, Known, mark, stamp};
use crate::addon::health::Health;
use crate::addon::ident::Ident;
use crate::addon::manifest::Mode;
use crate::addon::parent::Content;
use crate::addon::plan::{Right, Wanted};

/// How long caches may take to fill before objects are read one by one.
const PATIENCE: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Takes what is as it was left for known. False while the caches that have to confirm it are not complete:
    /// nothing may be done before that.
    pub(super) fn recall(&self, wanted: &[Wanted], content: &Content, memory: &mut Memory) -> bool {
        if memory.recalled || content.marks.is_empty() {
            memory.recalled = true;
            return true;
        }
        let begun = *memory.begun.get_or_insert_with(Instant::now);
        let terms = self.terms();
        let mut complete = true;
        let mut found = Vec::new();
        for wanted in wanted {
            // Watched before it is taken for known: what happens from now on is an event.
            self.engine.wake_for(&self.id, &wanted.ident);
            self.engine.cached(wanted, |cached, health| match cached {
                Cached::Unsynced => complete = false,
                Cached::Held(held) if is_left(wanted, held, &content.marks, &terms) => {
                    found.push((wanted.ident.clone(), known(wanted, held, health)));
                }
                Cached::Held(_) | Cached::Missing | Cached::Refused => {}
            });
        }
        if !complete && begun.elapsed() < PATIENCE {
            return false;
        }
        memory.recalled = true;
        for (ident, known) in found {
            memory.known.entry(ident).or_insert(known);
        }
        true
    }

    /// Marks of the objects that are right.
    pub(super) fn marks(&self, wanted: &[Wanted], memory: &Memory) -> BTreeMap<Ident, String> {
        let terms = self.terms();
        let known = |wanted: &Wanted| {
            let known = memory.known.get(&wanted.ident)?;
            let right = known.right.wanted == wanted.hash && known.drifted.is_none();
            right.then(|| (wanted.ident.clone(), mark(&wanted.hash, &known.uid, known.stamp, &terms)))
        };
        wanted.iter().filter(|wanted| wanted.mode == Mode::Reconcile).filter_map(known).collect()
    }

    /// What decides, besides the object and what is wanted of it, whether it is right.
    fn terms(&self) -> String {
        format!("{} {:?}", env!("CARGO_PKG_VERSION"), self.engine.parts.overrides)
    }
}

/// Whether an object is as it was left: for one that has only to exist, whether it does.
fn is_left(wanted: &Wanted, held: &Metadata, marks: &BTreeMap<Ident, String>, terms: &str) -> bool {
    wanted.mode == Mode::EnsureExists
        || marks.get(&wanted.ident).is_some_and(|left| *left == mark(&wanted.hash, &held.uid, stamp(held), terms))
}

fn known(wanted: &Wanted, held: &Metadata, health: Option<&Health>) -> Known {
    // What the server made of it is not known: should it change, it is compared field by field.
    let right = Right { wanted: wanted.hash, applied: [0; 32], fingerprint: [0; 32] };
    let health = health.cloned().unwrap_or(Health::Ready);
    Known { seen: true, health, ..Known::new(held, right, Instant::now()) }
}
