//! The observed-time rule: a lease is live as long as its record keeps changing, by the local clock.
//!
//! Wall clocks are never compared: what counts is when *this* process saw the record change, and the duration the record names
//! (`client-go:tools/leaderelection/leaderelection.go`). The same rule judges the leases of predecessors.

use std::{sync::Arc, time::Duration};

use crate::{clock::BootInstant, record::LeaseView};

/// What the observations so far say about a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing has been seen yet.
    Unknown,
    /// There is no such Lease. If it was deleted while somebody held it, that holder may go on until `vacant_at`.
    Absent {
        /// From when on it may be created.
        vacant_at: BootInstant,
    },
    /// Nobody holds it. If it replaced one that was deleted, the holder of that one may go on until `vacant_at`.
    Free {
        /// From when on it may be taken.
        vacant_at: BootInstant,
    },
    /// Somebody holds it, and is given until `until` to show life.
    Held {
        /// Who.
        holder: Arc<str>,
        /// When the lease expires if nothing changes.
        until: BootInstant,
    },
    /// Somebody holds it on paper, and showed no life for the record's whole duration.
    Expired {
        /// Who.
        holder: Arc<str>,
    },
}

/// Watches one Lease change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Observer {
    /// For records that name no duration.
    default_duration: Duration,
    seen: Option<Sight>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sight {
    lease: Option<LeaseView>,
    /// The Lease's uid and holder, also if it was deleted since.
    uid: Arc<str>,
    holder: Arc<str>,
    /// The latest version heard of, a deletion's included.
    version: Option<u64>,
    /// Until when the holder of a Lease that was deleted has to be taken for alive.
    vacant_at: BootInstant,
    /// Until when the last holder seen, if any, has to be taken for alive.
    held_until: BootInstant,
}

impl Observer {
    /// An observer that has seen nothing. `default_duration` stands in for records without a duration.
    pub fn new(default_duration: Duration) -> Self {
        Self { default_duration, seen: None }
    }

    /// The Lease was seen, at `now`, as the answer to a read or a write or as an event.
    ///
    /// A version older than the last one is ignored: an event may arrive after a read that was newer.
    pub fn saw(&mut self, now: BootInstant, lease: &LeaseView) {
        if self.is_old(lease.version_number()) {
            return;
        }
        if let Some(last) = self.lease()
            && last.uid == lease.uid
            && last.record == lease.record
        {
            // Only the metadata moved, which is no sign of life; the next write needs the new version all the same.
            if let Some(seen) = &mut self.seen {
                seen.lease = Some(lease.clone());
                seen.version = lease.version_number();
            }
            return;
        }
        let vacant_at = match &self.seen {
            None => now,
            Some(seen) if seen.uid == lease.uid => now,
            // Deleted and created anew, as we saw, or as we see only now.
            Some(Sight { lease: None, vacant_at, .. }) => *vacant_at,
            Some(Sight { lease: Some(gone), .. }) => self.vacant_after(now, gone),
        };
        let duration = lease.record.duration().unwrap_or(self.default_duration);
        let live_until = if lease.record.is_free() { now } else { now + duration };
        self.seen = Some(Sight {
            lease: Some(lease.clone()),
            uid: lease.uid.clone(),
            holder: lease.record.holder.clone(),
            version: lease.version_number(),
            vacant_at,
            held_until: live_until.max(vacant_at),
        });
    }

    /// When a Lease found to be gone at `now` can have no holder any more.
    fn vacant_after(&self, now: BootInstant, gone: &LeaseView) -> BootInstant {
        now + gone.record.duration().unwrap_or_default().max(self.default_duration)
    }

    /// The Lease was found not to exist, at `now`. `version` is that of its deletion, if known.
    ///
    /// A deletion does not prove that the holder stopped, and there may have been another holder meanwhile whom we never saw: a
    /// whole duration is waited for. Only if no Lease was ever seen is it vacant at once.
    pub fn saw_none(&mut self, now: BootInstant, version: Option<u64>) {
        if self.is_old(version) {
            return;
        }
        let vacant_at = self.lease().map(|gone| self.vacant_after(now, gone));
        match (&mut self.seen, vacant_at) {
            (Some(seen), Some(vacant_at)) => {
                seen.lease = None;
                seen.version = version.or(seen.version);
                seen.vacant_at = vacant_at;
                seen.held_until = vacant_at;
            }
            (Some(_), None) => {}
            (None, _) => {
                let nobody: Arc<str> = "".into();
                self.seen = Some(Sight {
                    lease: None,
                    uid: nobody.clone(),
                    holder: nobody,
                    version,
                    vacant_at: now,
                    held_until: now,
                });
            }
        }
    }

    /// Whether something of this version is known to be history.
    fn is_old(&self, version: Option<u64>) -> bool {
        let last = self.seen.as_ref().and_then(|seen| seen.version);
        matches!((version, last), (Some(new), Some(old)) if new < old)
    }

    /// The Lease as last seen.
    pub fn lease(&self) -> Option<&LeaseView> {
        self.seen.as_ref()?.lease.as_ref()
    }

    /// What the observations say at `now`.
    pub fn verdict(&self, now: BootInstant) -> Verdict {
        let Some(seen) = &self.seen else {
            return Verdict::Unknown;
        };
        let Some(lease) = &seen.lease else {
            return Verdict::Absent { vacant_at: seen.vacant_at };
        };
        let holder = lease.record.holder.clone();
        if holder.is_empty() {
            Verdict::Free { vacant_at: seen.vacant_at }
        } else if now < seen.held_until {
            Verdict::Held { holder, until: seen.held_until }
        } else {
            Verdict::Expired { holder }
        }
    }

    /// Who holds the lease at `now` as far as can be told; [`None`] also before anything was seen.
    pub fn live_holder(&self, now: BootInstant) -> Option<Arc<str>> {
        match self.verdict(now) {
            Verdict::Held { holder, .. } => Some(holder),
            _ => None,
        }
    }

    /// From when on a Lease that names nobody, or ourselves, is nobody else's.
    pub(crate) fn vacant_at(&self) -> BootInstant {
        self.seen.as_ref().map_or(BootInstant::default(), |seen| seen.vacant_at)
    }

    /// If the last holder seen is `me`, it is known to have stopped: nothing is left to wait for.
    pub(crate) fn vacate(&mut self, now: BootInstant, me: &str) {
        if let Some(seen) = &mut self.seen
            && *seen.holder == *me
        {
            seen.held_until = now;
            seen.vacant_at = now;
        }
    }
}

/// Whether `version` is known to come before the one of `last`.
pub(crate) fn is_older(version: Option<u64>, last: &LeaseView) -> bool {
    matches!((version, last.version_number()), (Some(new), Some(old)) if new < old)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::Record;

    const SECOND: Duration = Duration::from_secs(1);

    pub(crate) fn lease(uid: &str, version: u64, holder: &str, transitions: i32) -> LeaseView {
        let record = Record { holder: holder.into(), duration_seconds: 15, transitions, ..Record::default() };
        LeaseView { uid: uid.into(), version: version.to_string().into(), record, metadata: Arc::default() }
    }

    fn at(seconds: u64) -> BootInstant {
        BootInstant::default() + SECOND * 1000 + Duration::from_secs(seconds)
    }

    fn renewed(version: u64, micros: i64) -> LeaseView {
        let mut lease = lease("u", version, "a", 0);
        lease.record.renew_time = Some(jiff::Timestamp::from_microsecond(micros).unwrap());
        lease
    }

    #[test]
    fn a_holder_is_live_for_its_duration_after_each_change() {
        let mut observer = Observer::new(SECOND * 20);
        assert_eq!(observer.verdict(at(0)), Verdict::Unknown);
        observer.saw(at(0), &renewed(1, 1));
        assert_eq!(observer.verdict(at(14)), Verdict::Held { holder: "a".into(), until: at(15) });
        observer.saw(at(14), &renewed(2, 2));
        assert_eq!(observer.live_holder(at(28)).as_deref(), Some("a"));
        assert_eq!(observer.verdict(at(29)), Verdict::Expired { holder: "a".into() });
        assert_eq!(observer.live_holder(at(29)), None);
    }

    #[test]
    fn seeing_the_same_record_again_is_no_sign_of_life() {
        let mut observer = Observer::new(SECOND * 20);
        observer.saw(at(0), &renewed(1, 1));
        observer.saw(at(10), &renewed(1, 1));
        // Somebody else put a label on it.
        observer.saw(at(11), &renewed(5, 1));
        assert_eq!(observer.verdict(at(15)), Verdict::Expired { holder: "a".into() });
        assert_eq!(observer.lease().unwrap().version_number(), Some(5), "the next write needs the newest version");
    }

    #[test]
    fn the_records_duration_counts_and_a_missing_one_is_replaced() {
        let mut observer = Observer::new(SECOND * 20);
        let mut short = lease("u", 1, "a", 0);
        short.record.duration_seconds = 4;
        observer.saw(at(0), &short);
        assert!(observer.live_holder(at(3)).is_some() && observer.live_holder(at(4)).is_none());
        let mut none = lease("u", 2, "a", 0);
        none.record.duration_seconds = 0;
        observer.saw(at(0), &none);
        assert!(observer.live_holder(at(19)).is_some() && observer.live_holder(at(20)).is_none());
    }

    #[test]
    fn a_released_lease_is_free_at_once_and_old_news_is_ignored() {
        let mut observer = Observer::new(SECOND * 20);
        observer.saw(at(0), &renewed(3, 1));
        observer.saw(at(1), &lease("u", 4, "", 0));
        assert_eq!(observer.verdict(at(1)), Verdict::Free { vacant_at: at(1) });
        observer.saw(at(2), &renewed(2, 9));
        observer.saw_none(at(2), Some(1));
        assert_eq!(observer.verdict(at(2)), Verdict::Free { vacant_at: at(1) });
    }

    #[test]
    fn a_deletion_does_not_end_the_time_of_a_live_holder() {
        let mut observer = Observer::new(SECOND * 20);
        observer.saw_none(at(0), None);
        assert_eq!(observer.verdict(at(0)), Verdict::Absent { vacant_at: at(0) });
        observer.saw(at(1), &renewed(1, 1));
        observer.saw_none(at(5), Some(2));
        assert_eq!(observer.verdict(at(5)), Verdict::Absent { vacant_at: at(25) });
        observer.saw_none(at(9), None);
        assert_eq!(observer.verdict(at(9)), Verdict::Absent { vacant_at: at(25) });
        observer.saw(at(10), &lease("new", 3, "b", 0));
        assert_eq!(observer.live_holder(at(24)).as_deref(), Some("b"));
    }

    #[test]
    fn a_lease_created_anew_is_not_free_while_the_old_holder_may_go_on() {
        let mut observer = Observer::new(SECOND * 20);
        observer.saw(at(0), &renewed(1, 1));
        observer.saw(at(5), &lease("new", 3, "", 0));
        assert_eq!(observer.verdict(at(5)), Verdict::Free { vacant_at: at(25) });
        observer.saw_none(at(6), None);
        observer.saw(at(8), &lease("newer", 4, "", 0));
        assert_eq!(observer.verdict(at(8)), Verdict::Free { vacant_at: at(26) });
        observer.vacate(at(9), "somebody");
        assert_eq!(observer.vacant_at(), at(26));
        observer.vacate(at(9), "");
        assert_eq!(observer.vacant_at(), at(9));
    }
}
