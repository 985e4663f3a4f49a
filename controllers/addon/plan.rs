//! What is to be done about an addon's objects, as a pure function of what was seen.

use std::collections::BTreeSet;

use quarterdeck_runtime::controller::Account;
use quarterdeck_runtime::object::Kind;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::applyset::PART_OF_LABEL;
use super::edited;
use super::fields::{self, FieldSet, Overrides};
use super::ident::Ident;
use super::kinds::crd_kind;
use super::manifest::{Mode, Place};
use super::source::{Object, StepId};

/// Our field manager for objects of addons.
pub const MANAGER: &str = "quarterdeck-addons";

/// An object that an addon wants, with everything known that is needed to apply it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Which object.
    pub ident: Ident,
    /// The resource that serves it.
    pub kind: Kind,
    /// How it is kept.
    pub mode: Mode,
    /// What is applied.
    pub body: Value,
    /// A hash of `body`.
    pub hash: [u8; 32],
    /// Where it stands in its source.
    pub place: Place,
    /// As who it is read and written; the engine's own account if none.
    pub account: Option<Account>,
    /// The step of the addon's lifecycle that makes it.
    pub step: Option<StepId>,
    /// Keys of it that a user edited and that stay as they are (see [`edited`]).
    pub edited: BTreeSet<String>,
}

impl Wanted {
    /// An object of the set `set`, served by `kind`.
    #[must_use]
    pub fn new(object: &Object, kind: Kind, set: &str) -> Self {
        let ident = object.resolved(kind.namespaced);
        let mut body = object.body.tree();
        edited::as_kept(&mut body);
        if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            if ident.namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                metadata.insert("namespace".into(), (*ident.namespace).into());
            }
            if object.mode == Mode::Reconcile {
                let labels = metadata.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new()));
                labels[PART_OF_LABEL] = set.into();
            }
        }
        let hash = hash_of(&body);
        Self {
            ident,
            kind,
            mode: object.mode,
            body,
            hash,
            place: object.place,
            account: object.account.clone(),
            step: object.step,
            edited: BTreeSet::new(),
        }
    }
}

fn hash_of(body: &Value) -> [u8; 32] {
    Sha256::digest(body.to_string().as_bytes()).into()
}

/// When an object is applied: namespaces first, then CRDs, then the rest. Removal goes the other way.
#[must_use]
pub fn rank(ident: &Ident) -> usize {
    if ident.kind.is("", "Namespace") {
        0
    } else if ident.kind == crd_kind() {
        1
    } else {
        2
    }
}

/// Number of ranks.
pub const RANKS: usize = 3;

/// What was seen of an object.
#[derive(Clone, Copy, Debug)]
pub enum Live<'a> {
    /// Nothing says that it changed since it was right.
    Quiet,
    /// The server does not have it.
    Absent,
    /// The server has it like this.
    Present(&'a Value),
}

/// What is remembered of an object that was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// [`Wanted::hash`] of what was wanted.
    pub wanted: [u8; 32],
    /// A hash of what was applied of it: fields that a controller keeps are left out while it does.
    pub applied: [u8; 32],
    /// What the server made of our fields.
    pub fingerprint: [u8; 32],
}

/// An object and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What is wanted.
    pub wanted: &'a Wanted,
    /// What was seen.
    pub live: Live<'a>,
    /// How it was when it was right last.
    pub right: Option<Right>,
}

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The objects.
    pub objects: &'a [Seen<'a>],
    /// Whose changes are taken back.
    pub overrides: &'a Overrides,
    /// Whether a set is one of ours: an object may move from one to another.
    pub is_ours: &'a dyn Fn(&str) -> bool,
}

/// One thing to do; `index` is the object's place in [`View::objects`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Make the object.
    Create {
        /// Which.
        index: usize,
    },
    /// Bring the object to what is wanted.
    Apply {
        /// Which.
        index: usize,
        /// The live object's uid.
        uid: String,
        /// Its version.
        resource_version: String,
        /// `metadata.managedFields` to write first, where people's fields are taken back.
        take_back: Option<Value>,
        /// What is applied: what is wanted, less what a controller keeps.
        body: Value,
        /// Whether it had been right: somebody changed it.
        drift: bool,
        /// Fields that show it, at most a few.
        fields: Vec<String>,
        /// Whether nothing of it is ours yet and all of it is as wanted: only the hand changes.
        adopts: bool,
    },
    /// It is right.
    Accept {
        /// Which.
        index: usize,
    },
    /// It is only to exist, and still carries the label of the set that it was a member of: take that off.
    Release {
        /// Which.
        index: usize,
        /// The live object's uid.
        uid: String,
        /// Its version.
        resource_version: String,
    },
    /// It is being deleted: wait until it is gone, then make it anew.
    Wait {
        /// Which.
        index: usize,
    },
    /// It must not be touched.
    Refuse {
        /// Which.
        index: usize,
        /// Why.
        reason: String,
    },
}

impl Op {
    /// The place of the object that it is about.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Create { index }
            | Self::Apply { index, .. }
            | Self::Accept { index }
            | Self::Release { index, .. }
            | Self::Wait { index }
            | Self::Refuse { index, .. } => *index,
        }
    }
}

/// What to do, namespaces and CRDs first; nothing for objects that are quiet.
#[must_use]
pub fn plan(view: &View<'_>) -> Vec<Op> {
    let mut order: Vec<usize> = (0..view.objects.len()).collect();
    order.sort_by_key(|index| rank(&view.objects[*index].wanted.ident));
    order.into_iter().filter_map(|index| plan_one(view, index)).collect()
}

fn plan_one(view: &View<'_>, index: usize) -> Option<Op> {
    let Seen { wanted, live, right } = &view.objects[index];
    let live = match live {
        Live::Quiet => return None,
        Live::Absent => return Some(Op::Create { index }),
        Live::Present(live) => *live,
    };
    let owners = fields::owners(live);
    let set = live.pointer("/metadata/labels").and_then(|labels| labels.get(PART_OF_LABEL)).and_then(Value::as_str);
    let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    if wanted.mode == Mode::EnsureExists {
        // A member's label outlives the change of mode; with it kubectl would prune the object.
        return Some(if set.is_some() && labelled_by_us(&owners) {
            Op::Release { index, uid: text("/metadata/uid"), resource_version: text("/metadata/resourceVersion") }
        } else {
            Op::Accept { index }
        });
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Some(Op::Wait { index });
    }
    if let Some(set) = set.filter(|set| !(view.is_ours)(set) && !labelled_by_us(&owners)) {
        let reason =
            format!("it belongs to the set {set} of another tool; take the label {PART_OF_LABEL} off to hand it over");
        return Some(Op::Refuse { index, reason });
    }
    let take_back = fields::take_back(&owners, view.overrides, MANAGER, &wanted.kind.api_version());
    let body = applied(wanted, live, &owners, view.overrides);
    let ours = fields::applied_by(&owners, MANAGER);
    let same_file = right.filter(|right| right.wanted == wanted.hash);
    let same_body = same_file.filter(|right| right.applied == hash_of(&body));
    let differs = match (ours, same_body) {
        // What the server made of the same fields is the reference.
        (Some(ours), Some(right)) => fields::fingerprint(live, ours) != right.fingerprint,
        (Some(ours), None) => !fields::differences(&body, live, ours).is_empty(),
        (None, _) => true,
    };
    if take_back.is_none() && !differs {
        return Some(Op::Accept { index });
    }
    let adopts = ours.is_none() && fields::is_within(&without_label(body.clone()), live);
    Some(Op::Apply {
        adopts,
        index,
        uid: text("/metadata/uid"),
        resource_version: text("/metadata/resourceVersion"),
        fields: fields::differences(&body, live, ours.unwrap_or(&FieldSet::default())),
        take_back,
        body,
        drift: same_file.is_some(),
    })
}

/// An object without the label of its set.
fn without_label(mut body: Value) -> Value {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut)
    {
        labels.remove(PART_OF_LABEL);
        if labels.is_empty() {
            metadata.remove("labels");
        }
    }
    body
}

/// What is applied over a live object: what is wanted, less what controllers keep, and with the fields
/// that the manifest leaves to others, and the keys that users edited, as they are.
fn applied(wanted: &Wanted, live: &Value, owners: &[fields::Owner], overrides: &Overrides) -> Value {
    let body = fields::as_left(fields::without(wanted.body.clone(), &fields::yielded(owners, overrides)), live);
    edited::keep(body, live, &wanted.edited)
}

/// Whether the label of the object's set was applied by us: the set's parent may be gone already.
fn labelled_by_us(owners: &[fields::Owner]) -> bool {
    let labels = fields::applied_by(owners, MANAGER).and_then(|ours| ours.field("metadata")?.field("labels"));
    labels.is_some_and(|labels| labels.field(PART_OF_LABEL).is_some())
}

/// Whether the answer to an apply is what was wanted: a person may have written between our look and
/// our apply, which does not depend on the version that was looked at.
#[must_use]
pub fn is_settled(wanted: &Wanted, live: &Value, overrides: &Overrides) -> bool {
    let owners = fields::owners(live);
    wanted.mode == Mode::EnsureExists
        || fields::take_back(&owners, overrides, MANAGER, &wanted.kind.api_version()).is_none()
}

/// What to remember of an object that is right as the server has it.
#[must_use]
pub fn right(wanted: &Wanted, live: &Value, overrides: &Overrides) -> Right {
    let owners = fields::owners(live);
    let ours = fields::applied_by(&owners, MANAGER).cloned().unwrap_or_default();
    let body = applied(wanted, live, &owners, overrides);
    Right { wanted: wanted.hash, applied: hash_of(&body), fingerprint: fields::fingerprint(live, &ours) }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
