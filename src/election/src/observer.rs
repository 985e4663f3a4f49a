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
    /// Nobody holds it: it may be taken at once.
    Free,
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
    /// Who held it, also if it was deleted since.
    holder: Arc<str>,
    /// Until when the last holder seen, if any, has to be taken for alive.
    held_until: BootInstant,
}

impl Observer {
    /// An observer that has seen nothing. `default_duration` stands in for records without a duration.
    pub fn new(default_duration: Duration) -> Self {
        Self {
            default_duration,
            seen: None,
        }
    }

    /// The Lease was seen, at `now`, as the answer to a read or a write or as an event.
    ///
    /// A version older than the last one is ignored: an event may arrive after a read that was newer.
    pub fn saw(&mut self, now: BootInstant, lease: &LeaseView) {
        if let Some(last) = self.lease() {
            if is_older(lease.version_number(), last) {
                return;
            }
            if last.uid == lease.uid && last.record == lease.record {
                // Only the metadata moved, which is no sign of life; the next write needs the new version all the same.
                if let Some(seen) = &mut self.seen {
                    seen.lease = Some(lease.clone());
                }
                return;
            }
        }
        let held_until = match lease.record.is_free() {
            true => now,
            false => now + lease.record.duration().unwrap_or(self.default_duration),
        };
        self.seen = Some(Sight {
            lease: Some(lease.clone()),
            holder: lease.record.holder.clone(),
            held_until,
        });
    }

    /// The Lease was found not to exist, at `now`. `version` is that of its deletion, if known.
    ///
    /// A deletion does not prove that the holder stopped, and there may have been another holder meanwhile whom we never saw: a
    /// whole duration is waited for. Only if no Lease was ever seen is it vacant at once.
    pub fn saw_none(&mut self, now: BootInstant, version: Option<u64>) {
        if self.lease().is_some_and(|last| is_older(version, last)) {
            return;
        }
        match &mut self.seen {
            Some(seen) => {
                if let Some(gone) = seen.lease.take() {
                    let duration = gone.record.duration().unwrap_or_default();
                    seen.held_until = now + duration.max(self.default_duration);
                }
            }
            None => {
                self.seen = Some(Sight {
                    lease: None,
                    holder: "".into(),
                    held_until: now,
                });
            }
        }
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
            return Verdict::Absent {
                vacant_at: seen.held_until,
            };
        };
        let holder = lease.record.holder.clone();
        if holder.is_empty() {
            Verdict::Free
        } else if now < seen.held_until {
            Verdict::Held {
                holder,
                until: seen.held_until,
            }
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

    /// If the last holder seen is `me`, it is known to have stopped: nothing is left to wait for.
    pub(crate) fn vacate(&mut self, now: BootInstant, me: &str) {
        if let Some(seen) = &mut self.seen
            && *seen.holder == *me
        {
            seen.held_until = now;
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
        let record = Record {
            holder: holder.into(),
            duration_seconds: 15,
            transitions,
            ..Record::default()
        };
        LeaseView {
            uid: uid.into(),
            version: version.to_string().into(),
            record,
            metadata: Arc::default(),
        }
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
        assert_eq!(
            observer.verdict(at(14)),
            Verdict::Held {
                holder: "a".into(),
                until: at(15)
            }
        );
        observer.saw(at(14), &renewed(2, 2));
        assert_eq!(observer.live_holder(at(28)).as_deref(), Some("a"));
        assert_eq!(
            observer.verdict(at(29)),
            Verdict::Expired { holder: "a".into() }
        );
        assert_eq!(observer.live_holder(at(29)), None);
    }

    #[test]
    fn seeing_the_same_record_again_is_no_sign_of_life() {
        let mut observer = Observer::new(SECOND * 20);
        observer.saw(at(0), &renewed(1, 1));
        observer.saw(at(10), &renewed(1, 1));
        // Somebody else put a label on it.
        observer.saw(at(11), &renewed(5, 1));
        assert_eq!(
            observer.verdict(at(15)),
            Verdict::Expired { holder: "a".into() }
        );
        assert_eq!(
            observer.lease().unwrap().version_number(),
            Some(5),
            "the next write needs the newest version"
        );
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
        assert_eq!(observer.verdict(at(1)), Verdict::Free);
        observer.saw(at(2), &renewed(2, 9));
        observer.saw_none(at(2), Some(1));
        assert_eq!(observer.verdict(at(2)), Verdict::Free);
    }

    #[test]
    fn a_deletion_does_not_end_the_time_of_a_live_holder() {
        let mut observer = Observer::new(SECOND * 20);
        observer.saw_none(at(0), None);
        assert_eq!(
            observer.verdict(at(0)),
            Verdict::Absent { vacant_at: at(0) }
        );
        observer.saw(at(1), &renewed(1, 1));
        observer.saw_none(at(5), Some(2));
        assert_eq!(
            observer.verdict(at(5)),
            Verdict::Absent { vacant_at: at(25) }
        );
        observer.saw_none(at(9), None);
        assert_eq!(
            observer.verdict(at(9)),
            Verdict::Absent { vacant_at: at(25) }
        );
        observer.saw(at(10), &lease("new", 3, "b", 0));
        assert_eq!(observer.live_holder(at(24)).as_deref(), Some("b"));
    }
}
