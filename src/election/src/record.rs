//! What a Lease says, and what the next one shall say.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use crate::epoch::EpochToken;

/// The election record: the five fields of a Lease's spec that upstream's elector writes
/// (`client-go:tools/leaderelection/resourcelock/leaselock.go`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Record {
    /// Who holds the lease; empty if nobody does.
    pub holder: Arc<str>,
    /// How long followers wait without a change, in seconds; 0 if the Lease does not say.
    pub duration_seconds: i32,
    /// When the holder got it, by the holder's wall clock. For people only.
    pub acquire_time: Option<Timestamp>,
    /// When the holder last renewed it, by the holder's wall clock. For people only.
    pub renew_time: Option<Timestamp>,
    /// How often the lease went to another tenure.
    pub transitions: i32,
}

/// What a write makes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new tenure: `transitions` + 1, acquire time now.
    Take,
    /// The same tenure goes on: only the renew time moves.
    Renew,
    /// Nobody holds it: holder empty, duration 1.
    Release,
}

impl Record {
    /// The record of a Lease that is created: `transitions` 0.
    pub fn first(identity: &str, duration_seconds: i32, wall: Timestamp) -> Self {
        let now = Some(micros(wall));
        Self { holder: identity.into(), duration_seconds, acquire_time: now, renew_time: now, transitions: 0 }
    }

    /// The record that follows this one.
    ///
    /// The renew time always differs from the one before, as the server does not store a write that changes nothing, and
    /// followers would not see it.
    #[must_use]
    pub fn next(&self, change: Change, identity: &str, duration_seconds: i32, wall: Timestamp) -> Self {
        let mut now = micros(wall);
        if self.renew_time == Some(now) {
            now = now.checked_add(Duration::from_micros(1)).unwrap_or(Timestamp::MIN);
        }
        match change {
            Change::Take => Self {
                holder: identity.into(),
                duration_seconds,
                acquire_time: Some(now),
                renew_time: Some(now),
                transitions: self.transitions.saturating_add(1),
            },
            Change::Renew => Self {
                holder: identity.into(),
                duration_seconds,
                acquire_time: self.acquire_time,
                renew_time: Some(now),
                transitions: self.transitions,
            },
            Change::Release => Self {
                holder: "".into(),
                duration_seconds: 1,
                acquire_time: Some(now),
                renew_time: Some(now),
                transitions: self.transitions,
            },
        }
    }

    /// Whether nobody holds the lease.
    pub fn is_free(&self) -> bool {
        self.holder.is_empty()
    }

    /// How long the holder may be silent; [`None`] if the Lease does not say.
    pub fn duration(&self) -> Option<Duration> {
        u64::try_from(self.duration_seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }
}

impl From<&LeaseSpec> for Record {
    fn from(spec: &LeaseSpec) -> Self {
        Self {
            holder: spec.holder_identity.as_deref().unwrap_or_default().into(),
            duration_seconds: spec.lease_duration_seconds.unwrap_or_default(),
            acquire_time: spec.acquire_time.as_ref().map(|time| time.0),
            renew_time: spec.renew_time.as_ref().map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
        }
    }
}

impl From<&Record> for LeaseSpec {
    fn from(record: &Record) -> Self {
        Self {
            holder_identity: Some(record.holder.to_string()),
            lease_duration_seconds: Some(record.duration_seconds),
            acquire_time: record.acquire_time.map(MicroTime),
            renew_time: record.renew_time.map(MicroTime),
            lease_transitions: Some(record.transitions),
            ..Self::default()
        }
    }
}

/// A Lease as seen at one moment.
#[derive(Debug, Clone)]
pub struct LeaseView {
    /// `metadata.uid`: another one means that the Lease was deleted and created anew.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`: the precondition of the next write.
    pub version: Arc<str>,
    /// What it says.
    pub record: Record,
    /// Labels, annotations, owners and the like, to be kept by the next write. Not part of equality.
    pub metadata: Arc<ObjectMeta>,
}

impl LeaseView {
    /// The version as a number; [`None`] if the server's are opaque.
    pub fn version_number(&self) -> Option<u64> {
        self.version.parse().ok()
    }

    /// The token of the tenure that this Lease stands for.
    pub fn token(&self) -> EpochToken {
        EpochToken { lease_uid: self.uid.clone(), transitions: self.record.transitions }
    }
}

impl From<Lease> for LeaseView {
    fn from(lease: Lease) -> Self {
        let mut metadata = lease.metadata;
        metadata.managed_fields = None;
        Self {
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            record: lease.spec.as_ref().map(Record::from).unwrap_or_default(),
            metadata: Arc::new(metadata),
        }
    }
}

impl PartialEq for LeaseView {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid && self.version == other.version && self.record == other.record
    }
}

impl Eq for LeaseView {}

impl Hash for LeaseView {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uid.hash(state);
        self.version.hash(state);
        self.record.hash(state);
    }
}

/// A Lease holds microseconds.
fn micros(wall: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(wall.as_microsecond()).expect("was in range with more digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    #[test]
    fn follows_upstreams_rules() {
        let first = Record::first("a", 15, at(10));
        assert_eq!((&*first.holder, first.duration_seconds, first.transitions), ("a", 15, 0));
        assert_eq!((first.acquire_time, first.renew_time), (Some(at(10)), Some(at(10))));

        let renewed = first.next(Change::Renew, "a", 15, at(20));
        assert_eq!(renewed, Record { renew_time: Some(at(20)), ..first.clone() });

        let released = renewed.next(Change::Release, "a", 15, at(30));
        assert_eq!((&*released.holder, released.duration_seconds, released.transitions), ("", 1, 0));
        assert!(released.is_free() && !renewed.is_free());

        let taken = released.next(Change::Take, "b", 4, at(40));
        let expected = Record {
            holder: "b".into(),
            duration_seconds: 4,
            acquire_time: Some(at(40)),
            renew_time: Some(at(40)),
            transitions: 1,
        };
        assert_eq!(taken, expected);
    }

    #[test]
    fn a_renewal_always_changes_the_record() {
        let first = Record::first("a", 15, at(10));
        assert_ne!(first.next(Change::Renew, "a", 15, at(10)), first);
        // A clock that went back still makes a change.
        assert_eq!(first.next(Change::Renew, "a", 15, at(5)).renew_time, Some(at(5)));
    }

    #[test]
    fn survives_the_way_through_a_lease_and_tolerates_an_empty_one() {
        let record =
            Record::first("a", 15, at(1_700_000_000_123_456)).next(Change::Take, "b", 15, at(1_700_000_001_000_000));
        assert_eq!(Record::from(&LeaseSpec::from(&record)), record);
        let empty = LeaseView::from(Lease::default());
        assert!(empty.record.is_free());
        assert_eq!((empty.record.duration(), empty.version_number()), (None, None));
    }
}
