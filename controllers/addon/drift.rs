//! Which objects may have changed, told from metadata alone: only those are read from the server.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use quarterdeck_runtime::object::parse_version;
use quarterdeck_runtime::view::Metadata;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::health::Health;
use super::plan::Right;

/// How long a cache may take to show an object that was just written before it is looked up.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How often an object is looked up that no cache shows: one that lost the label its cache selects by.
const NEXT_LOOK: Duration = Duration::from_secs(60);
/// How often a cache that is not complete yet is asked again.
const UNSYNCED: Duration = Duration::from_secs(1);

/// What is remembered of an object that was right when it was last read or written.
#[derive(Clone, Debug)]
pub struct Known {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// A digest of what tells of changes.
    pub stamp: u64,
    /// How it was.
    pub right: Right,
    /// Whether its cache has shown it.
    pub seen: bool,
    /// When it was read or written.
    pub at: Instant,
    /// How often it was looked up without its cache showing it.
    pub looks: u32,
    /// Whether it does what it is there for.
    pub health: Health,
    /// How it differs from what was applied, where it is left so.
    pub drifted: Option<String>,
}

impl Known {
    /// An object that is right.
    #[must_use]
    pub fn new(metadata: &Metadata, right: Right, at: Instant) -> Self {
        Self {
            uid: metadata.uid.to_string(),
            resource_version: metadata.resource_version.to_string(),
            stamp: stamp(metadata),
            right,
            seen: false,
            at,
            looks: 0,
            health: Health::Ready,
            drifted: None,
        }
    }
}

impl Known {
    /// Whether a cache shows this object as it was or later.
    #[must_use]
    pub fn is_shown_by(&self, held: &Metadata) -> bool {
        *held.uid == *self.uid && !is_older(&held.resource_version, &self.resource_version)
    }
}

/// A digest of the metadata that changes when the object may have changed: labels, annotations,
/// owners, finalizers, deletion, and generation, or the version where the kind has no generation.
#[must_use]
pub fn stamp(metadata: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    for pairs in [&metadata.labels, &metadata.annotations] {
        pairs.iter().for_each(|pair| pair.hash(&mut hasher));
        hasher.write_u8(0xff);
    }
    metadata.owners.hash(&mut hasher);
    metadata.finalizers.hash(&mut hasher);
    metadata.deleting.hash(&mut hasher);
    metadata.generation.hash(&mut hasher);
    if metadata.generation == 0 {
        metadata.resource_version.hash(&mut hasher);
    }
    hasher.finish()
}

/// By what an object that is right is known after a start: what is wanted of it, who it is, and what of its
/// metadata would tell that it changed. `terms` are what else decides whether it is right.
#[must_use]
pub fn mark(wanted: &[u8; 32], uid: &str, stamp: u64, terms: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [&wanted[..], uid.as_bytes(), &stamp.to_le_bytes(), terms.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What a cache says of an object.
#[derive(Clone, Copy, Debug)]
pub enum Cached<'a> {
    /// The cache is not complete yet.
    Unsynced,
    /// No cache shows it: the account may not list or watch it.
    Refused,
    /// The cache does not hold it.
    Missing,
    /// The cache holds it like this.
    Held(&'a Metadata),
}

/// Whether an object has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing says that it changed.
    No,
    /// It may have changed.
    Yes,
    /// Ask again after this time.
    After(Duration),
}

/// Whether an object may have changed since it was right. `deleted` says that a deletion was seen.
#[must_use]
pub fn look(known: Option<&Known>, cached: Cached<'_>, deleted: bool, now: Instant) -> Look {
    let Some(known) = known.filter(|_| !deleted) else { return Look::Yes };
    match cached {
        Cached::Unsynced => Look::After(UNSYNCED),
        Cached::Refused => at_or_after(known.at + NEXT_LOOK, now),
        Cached::Missing if known.seen => Look::Yes,
        Cached::Missing => at_or_after(known.at + if known.looks == 0 { FIRST_LOOK } else { NEXT_LOOK }, now),
        Cached::Held(held) if *held.uid == *known.uid => {
            let same = *held.resource_version == *known.resource_version || stamp(held) == known.stamp;
            if same || is_older(&held.resource_version, &known.resource_version) { Look::No } else { Look::Yes }
        }
        Cached::Held(held) if is_older(&held.resource_version, &known.resource_version) => Look::No,
        Cached::Held(_) => Look::Yes,
    }
}

fn at_or_after(due: Instant, now: Instant) -> Look {
    if now >= due { Look::Yes } else { Look::After(due - now) }
}

/// Whether a cache lags behind what is known; its next event brings the key back.
fn is_older(held: &str, known: &str) -> bool {
    matches!((parse_version(held), parse_version(known)), (Some(held), Some(known)) if held < known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(version: &str, generation: i64, labels: &serde_json::Value) -> Metadata {
        serde_json::from_value(json!({"metadata": {"name": "x", "uid": "u", "resourceVersion": version, "generation": generation, "labels": labels}})).expect("metadata")
    }

    fn known(of: &Metadata, seen: bool) -> Known {
        Known {
            seen,
            ..Known::new(of, Right { wanted: [0; 32], applied: [0; 32], fingerprint: [0; 32] }, Instant::now())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_have_changed_is_read() {
        let a = json!({"a": "1"});
        let with_generation = metadata("10", 2, &a);
        let without = metadata("10", 0, &a);
        let other_uid = Metadata { uid: "v".into(), ..metadata("11", 2, &a) };
        for (case, known, held, expected) in [
            ("our own write", known(&with_generation, true), metadata("10", 2, &a), Look::No),
            ("a write of a status", known(&with_generation, true), metadata("11", 2, &a), Look::No),
            ("a change of the spec", known(&with_generation, true), metadata("11", 3, &a), Look::Yes),
            ("a change of a label", known(&with_generation, true), metadata("11", 2, &json!({})), Look::Yes),
            ("a cache that lags", known(&with_generation, true), metadata("9", 1, &a), Look::No),
            ("any write, no generation", known(&without, true), metadata("11", 0, &a), Look::Yes),
            ("our own write, no generation", known(&without, true), metadata("10", 0, &a), Look::No),
            ("a foreign server's version", known(&with_generation, true), metadata("x", 3, &a), Look::Yes),
            ("another object of the name", known(&with_generation, true), other_uid, Look::Yes),
        ] {
            assert_eq!(look(Some(&known), Cached::Held(&held), false, Instant::now()), expected, "{case}");
        }
    }

    #[test]
    fn a_mark_is_of_one_object_in_one_state_for_one_manifest() {
        let a = json!({"a": "1"});
        let left = metadata("10", 2, &a);
        let of = |wanted: u8, seen: &Metadata, terms: &str| mark(&[wanted; 32], &seen.uid, stamp(seen), terms);
        let same = of(1, &left, "t");
        assert_eq!(same, of(1, &metadata("11", 2, &a), "t"), "a write of a status");
        for (case, other) in [
            ("another manifest", of(2, &left, "t")),
            ("other terms", of(1, &left, "u")),
            ("a change of the spec", of(1, &metadata("11", 3, &a), "t")),
            ("a change of a label", of(1, &metadata("11", 2, &json!({})), "t")),
            ("another object of the name", of(1, &Metadata { uid: "v".into(), ..metadata("10", 2, &a) }, "t")),
        ] {
            assert_ne!(same, other, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_cache_shows_is_looked_up_now_and_then() {
        let object = metadata("10", 2, &json!({}));
        let now = Instant::now();
        assert_eq!(look(None, Cached::Missing, false, now), Look::Yes);
        assert_eq!(look(Some(&known(&object, true)), Cached::Missing, false, now), Look::Yes);
        assert_eq!(look(Some(&known(&object, true)), Cached::Unsynced, false, now), Look::After(UNSYNCED));
        assert_eq!(look(Some(&known(&object, false)), Cached::Missing, true, now), Look::Yes);
        assert_eq!(look(None, Cached::Refused, false, now), Look::Yes);
        assert_eq!(look(Some(&known(&object, true)), Cached::Refused, false, now), Look::After(NEXT_LOOK));
        assert_eq!(look(Some(&known(&object, true)), Cached::Refused, false, now + NEXT_LOOK), Look::Yes);
        let fresh = known(&object, false);
        assert_eq!(look(Some(&fresh), Cached::Missing, false, now), Look::After(FIRST_LOOK));
        assert_eq!(look(Some(&fresh), Cached::Missing, false, now + FIRST_LOOK), Look::Yes);
        let looked = Known { looks: 1, ..fresh };
        assert_eq!(look(Some(&looked), Cached::Missing, false, now + FIRST_LOOK), Look::After(NEXT_LOOK - FIRST_LOOK));
    }
}
