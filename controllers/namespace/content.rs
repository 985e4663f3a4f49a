//! What is left of one kind in a namespace, and what to do about it next. Pure.

use std::collections::BTreeMap;

use quarterdeck_runtime::object::Kind;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// How many objects one deletecollection takes: few enough to end within a write's time.
pub(super) const COLLECTION_LIMIT: u32 = 200;

/// The metadata of an object, as far as its deletion goes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Leftover {
    /// `metadata`.
    pub metadata: LeftoverMeta,
}

/// `metadata` of a [`Leftover`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeftoverMeta {
    /// Name.
    pub name: String,
    /// uid, without which nothing is deleted one by one.
    #[serde(default)]
    pub uid: String,
    /// Set once the object is being deleted.
    #[serde(default)]
    pub deletion_timestamp: Option<IgnoredAny>,
    /// Seconds between the request to delete and the deadline, for kinds that end gracefully.
    #[serde(default)]
    pub deletion_grace_period_seconds: Option<u64>,
    /// What must be done before the object goes.
    #[serde(default)]
    pub finalizers: Option<Vec<String>>,
}

impl Leftover {
    /// Whether the object is being deleted.
    pub(super) fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// An object to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Name.
    pub name: String,
    /// uid that was listed.
    pub uid: String,
}

/// What lists have shown of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Objects counted.
    pub remaining: usize,
    /// Whether `remaining` is all of them.
    pub exact: bool,
    /// Objects that nobody has asked to delete yet, of the pages read so far.
    pub pending: Vec<Target>,
    /// Whether some of them are among the first that a deletecollection takes. If not, it would
    /// take the same objects for ever: those that wait for a finalizer.
    pub pending_at_head: bool,
    /// Objects that wait for each finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Longest grace period of the objects that end gracefully, seconds.
    pub grace: u64,
    pages: usize,
}

/// Pages read for the counts alone; more are read only in search of something to delete.
const COUNTED_PAGES: usize = 4;

impl Survey {
    /// The survey of a collection that holds nothing.
    pub(super) fn none() -> Self {
        Self { exact: true, ..Self::default() }
    }

    /// Takes in one page; `more` says that another one follows. Answers whether to read it.
    pub(super) fn page(&mut self, items: &[Leftover], more: bool) -> bool {
        for (at, item) in items.iter().enumerate() {
            let meta = &item.metadata;
            self.remaining += 1;
            if item.deleting() {
                self.grace = self.grace.max(meta.deletion_grace_period_seconds.unwrap_or(0));
            } else {
                self.pending_at_head |= self.pages == 0 && at < COLLECTION_LIMIT as usize;
                self.pending.push(Target { name: meta.name.clone(), uid: meta.uid.clone() });
            }
            for finalizer in meta.finalizers.iter().flatten() {
                *self.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        self.pages += 1;
        self.exact = !more;
        more && (self.pages < COUNTED_PAGES || self.pending.is_empty())
    }

    /// Whether nothing is left.
    pub(super) fn is_clear(&self) -> bool {
        self.exact && self.remaining == 0
    }
}

/// What to do about one kind next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is left.
    Clear,
    /// All that is left is on its way and waits for others.
    Wait,
    /// One deletecollection.
    Collect,
    /// One delete an object.
    Each,
}

/// The next step. `collect` says that a deletecollection is possible and safe.
pub(super) fn step(survey: &Survey, collect: bool) -> Step {
    if survey.is_clear() {
        Step::Clear
    } else if survey.pending.is_empty() {
        Step::Wait
    } else if collect && survey.pending_at_head {
        Step::Collect
    } else {
        Step::Each
    }
}

/// Where one kind stands at the end of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// The kind.
    pub kind: Kind,
    /// What is left.
    pub survey: Survey,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl Report {
    /// Whether nothing is left and nothing went wrong.
    pub(super) fn is_clear(&self) -> bool {
        self.errors.is_empty() && self.survey.is_clear()
    }
}
