//! What a reconcile found and did.

use std::collections::BTreeSet;
use std::time::Duration;

use quarterdeck_runtime::client::{ApiError, Class, ImpersonationRefused};
use quarterdeck_runtime::controller::Error;

use crate::addon::plan::Wanted;

/// What a reconcile found and did.
#[derive(Default)]
pub(super) struct Outcome {
    /// What failed, as a person is told.
    pub(super) errors: Vec<String>,
    /// Kinds of which no change is seen, as a person is told.
    pub(super) blind: BTreeSet<String>,
    /// What is told, and is no fault of the addon's.
    pub(super) notes: Vec<String>,
    /// What is wrong beside the objects: it is tried again, and nothing waits for it.
    pub(super) beside: Vec<String>,
    /// Objects that were deleted and are left so.
    pub(super) missing: Vec<String>,
    /// As whom the manager may not act.
    pub(super) blocked: Option<ImpersonationRefused>,
    /// Whether something failed that a retry may mend.
    pub(super) retry: bool,
    /// Whether all that failed was a conflict.
    pub(super) conflict: bool,
    /// When to look again, whatever happens.
    pub(super) later: Option<Duration>,
    /// Whether something waits for something else of ours.
    pub(super) waiting: bool,
    /// Whether an object is on its way, within the time it may take.
    pub(super) unready: bool,
    /// Whether an object will not come right, or takes too long.
    pub(super) sick: bool,
    /// The first object that was refused for what it says.
    pub(super) refused: Option<String>,
    /// Whether something failed that says nothing about the addon.
    pub(super) unsure: bool,
    /// Why the revision will not come right.
    pub(super) hopeless: Option<String>,
    /// Objects put back.
    pub(super) drift: u64,
    /// Objects made or changed.
    pub(super) applied: usize,
    /// Objects taken over as they were.
    pub(super) adopted: usize,
    /// Objects deleted.
    pub(super) pruned: Vec<String>,
    /// Objects that are ours no more and stay, and why.
    pub(super) kept: Vec<String>,
    /// Writes that were not made because a predecessor is alive.
    pub(super) planned: usize,
}

impl Outcome {
    pub(super) fn look_again(&mut self, after: Duration) {
        self.later = Some(self.later.map_or(after, |before| before.min(after)));
    }

    /// Notes that the account may neither list nor watch an object's kind, there and everywhere.
    pub(super) fn blind(&mut self, wanted: &Wanted) {
        let place = match &*wanted.ident.namespace {
            "" => String::new(),
            namespace => format!(" in namespace {namespace}"),
        };
        self.blind.insert(format!(
            "{}{place}: list and watch are forbidden: changes are noticed once a minute",
            wanted.ident.kind
        ));
    }

    /// Notes a failed call; only the end of our tenure ends the reconcile.
    pub(super) fn failed(&mut self, what: &str, error: ApiError) -> Result<(), Error> {
        if let Some(refused) = error.impersonation_refused() {
            self.blocked = Some(refused);
            self.retry = true;
            return Ok(());
        }
        match (error.class(), error.code()) {
            (Class::Conflict | Class::NotLeader, _) => {}
            (_, Some(400 | 413 | 422)) => {
                self.refused.get_or_insert_with(|| format!("{what}: {error}"));
            }
            (_, Some(403 | 404)) => {}
            _ => self.unsure = true,
        }
        match error.class() {
            Class::NotLeader => return Err(error.into()),
            Class::Conflict => {
                self.conflict |= !self.retry;
            }
            Class::Transient | Class::Terminal => {
                self.errors.push(format!("{what}: {error}"));
                self.conflict = false;
            }
        }
        self.retry = true;
        Ok(())
    }

    /// What a further turn begins with: what was done counts, what was wrong is found again.
    pub(super) fn next_turn(self) -> Self {
        Self {
            drift: self.drift,
            applied: self.applied,
            adopted: self.adopted,
            pruned: self.pruned,
            kept: self.kept,
            planned: self.planned,
            notes: self.notes,
            ..Self::default()
        }
    }
}
