//! What would leave the cluster in a pass over a source, and what of it may go: the brake, the
//! kinds that are held, and the releases that people gave.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::brake::{self, Loss, Pass};
use super::ident::{GroupKind, Ident};
use super::parent::{Held, Parent};
use super::source::{AddonId, Snapshot};

/// What is decided about one addon's removals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What may be deleted.
    pub go: BTreeSet<Ident>,
    /// What waits.
    pub held: Option<Held>,
    /// Whether the addon's file is gone.
    pub gone: bool,
}

/// What a pass is decided from.
#[derive(Clone, Debug)]
pub struct Losing<'a> {
    /// The source as it is.
    pub snapshot: &'a Snapshot,
    /// The parents of the source's addons.
    pub parents: &'a BTreeMap<AddonId, Parent>,
    /// Everything that any source names.
    pub named: &'a Named,
    /// Kinds whose objects a person has to let go.
    pub protected: &'a BTreeSet<GroupKind>,
    /// Files that were let go a moment ago.
    pub recent_files: usize,
    /// Objects that were let go a moment ago.
    pub recent_objects: usize,
}

/// Everything that sources name, whether they manage it or not.
#[derive(Clone, Debug, Default)]
pub struct Named {
    by_name: BTreeMap<(GroupKind, Box<str>), BTreeSet<Ident>>,
}

impl Named {
    /// Adds a source.
    pub fn add(&mut self, snapshot: &Snapshot) {
        for ident in snapshot.addons.values().flat_map(|addon| addon.named()) {
            self.by_name.entry((ident.kind.clone(), (*ident.name).into())).or_default().insert(ident.clone());
        }
    }

    /// Whether a file may mean this object.
    #[must_use]
    pub fn may_mean(&self, ident: &Ident) -> bool {
        let written = self.by_name.get(&(ident.kind.clone(), (*ident.name).into()));
        written.is_some_and(|written| written.iter().any(|written| ident.may_be(written)))
    }
}

/// The members that an addon would lose, if its absence or its content is evidence.
#[must_use]
pub fn losing(parent: &Parent, id: &AddonId, snapshot: &Snapshot, named: &Named) -> BTreeSet<Ident> {
    let evidence = snapshot.complete
        && !snapshot.never_prunes
        && snapshot.addons.get(&id.name).is_none_or(|addon| addon.is_evidence());
    let members = parent.content.members.keys().filter(|member| evidence && !named.may_mean(member));
    members.cloned().collect()
}

/// Decides about every addon of a source that loses something or held something. A source that
/// could not be read whole, or has not settled, decides nothing.
#[must_use]
pub fn decide(pass: &Losing<'_>) -> BTreeMap<AddonId, Verdict> {
    if !pass.snapshot.complete || !pass.snapshot.settled {
        return BTreeMap::new();
    }
    let lost: Vec<(&AddonId, &Parent, BTreeSet<Ident>)> = pass
        .parents
        .iter()
        .map(|(id, parent)| (id, parent, losing(parent, id, pass.snapshot, pass.named)))
        .filter(|(id, _, lost)| !lost.is_empty() || !pass.snapshot.addons.contains_key(&id.name))
        .collect();
    let losses: Vec<Loss> = lost
        .iter()
        .filter(|(_, _, lost)| !lost.is_empty())
        .map(|(id, parent, lost)| Loss {
            addon: id.name.clone(),
            gone: !pass.snapshot.addons.contains_key(&id.name),
            objects: lost.len(),
            held: parent.content.held.as_ref().is_some_and(|held| held.braked),
        })
        .collect();
    let holds = brake::decide(&Pass {
        objects: pass.parents.values().map(|parent| parent.content.members.len()).sum(),
        files: pass.snapshot.addons.len(),
        losses: &losses,
        recent_files: pass.recent_files,
        recent_objects: pass.recent_objects,
    });
    let mut holds = holds.into_iter();
    let mut verdicts = BTreeMap::new();
    for (id, parent, lost) in lost {
        let hold = if lost.is_empty() { None } else { holds.next().flatten() };
        let gone = !pass.snapshot.addons.contains_key(&id.name);
        let waits: BTreeSet<Ident> = match hold {
            Some(_) => lost.clone(),
            None => lost.iter().filter(|member| pass.protected.contains(&member.kind)).cloned().collect(),
        };
        let before = parent.content.held.as_ref();
        let released = before.is_some_and(|held| held.members == waits && parent.released.as_ref() == Some(&held.plan));
        let held = (!waits.is_empty() && !released).then(|| Held {
            plan: String::new(),
            reason: match (hold, before) {
                // The first reason stays: it says what happened.
                (Some(brake::Hold::HeldBefore), Some(before)) => before.reason.clone(),
                (Some(hold), _) => hold.to_string(),
                (None, _) => "objects of these kinds take others with them".to_owned(),
            },
            braked: hold.is_some(),
            members: waits.clone(),
        });
        let go = if held.is_some() { lost.difference(&waits).cloned().collect() } else { lost };
        verdicts.insert(id.clone(), Verdict { go, held, gone });
    }
    name_plans(&mut verdicts, pass.parents);
    verdicts
}

/// Names what is held. One plan covers everything that one source holds, so that one command lets
/// it go; a plan keeps its name while parts of it are carried out, so that the release stays good
/// for the rest.
fn name_plans(verdicts: &mut BTreeMap<AddonId, Verdict>, parents: &BTreeMap<AddonId, Parent>) {
    let before = |id: &AddonId| parents.get(id).and_then(|parent| parent.content.held.as_ref());
    let held = || verdicts.iter().filter_map(|(id, verdict)| Some((id, verdict.held.as_ref()?)));
    let kept: BTreeSet<Option<&str>> = held()
        .map(|(id, held)| before(id).filter(|before| before.members == held.members).map(|before| &*before.plan))
        .collect();
    let plan = match kept.iter().next() {
        Some(Some(plan)) if kept.len() == 1 && !plan.is_empty() => (*plan).to_owned(),
        _ => {
            let mut hasher = Sha256::new();
            for (id, held) in held() {
                hasher.update(format!("{id}\n"));
                let uid = |member| parents.get(id).and_then(|parent| parent.content.members.get(member));
                for member in &held.members {
                    hasher.update(format!("{member} {}\n", uid(member).map_or("", String::as_str)));
                }
            }
            hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
        }
    };
    for held in verdicts.values_mut().filter_map(|verdict| verdict.held.as_mut()) {
        held.plan.clone_from(&plan);
    }
}

/// The name of a plan to remove these members of one addon.
#[must_use]
pub fn plan_of(id: &AddonId, waits: &BTreeSet<Ident>, members: &BTreeMap<Ident, String>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{id}\n"));
    for member in waits {
        hasher.update(format!("{member} {}\n", members.get(member).map_or("", String::as_str)));
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "removal_tests.rs"]
mod tests;
