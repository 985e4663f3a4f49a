//! The terms of leadership that this replica notes on its own Lease: the failover history is made of them.

use jiff::Timestamp;
use quarterdeck_api::status::TermNote;
use quarterdeck_election::clock::BootInstant;
use quarterdeck_election::{ElectionStatus, Leadership};

/// Terms that a replica remembers.
const KEPT: usize = 10;

/// What was seen of the election's Lease: who held it, and the last renewal as its text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sign {
    holder: Option<String>,
    renewed: Option<Timestamp>,
}

/// This replica's own terms, oldest first, and what it takes to tell how long nobody led before one.
#[derive(Debug)]
pub(crate) struct TermBook {
    identity: String,
    terms: Vec<TermNote>,
    /// Version of the term that lasts.
    open: Option<u64>,
    sign: Sign,
    /// When another replica was last seen to hold the Lease, or our own last term ended; on our own clock.
    last_sign: Option<BootInstant>,
}

impl TermBook {
    /// The book of the replica with this name in the election; empty.
    pub(crate) fn new(identity: &str) -> Self {
        Self { identity: identity.to_owned(), terms: Vec::new(), open: None, sign: Sign::default(), last_sign: None }
    }

    /// Takes over what an earlier process of this replica noted. Text that cannot be read is passed over.
    pub(crate) fn inherit(&mut self, text: &str) {
        let Ok(mut earlier) = serde_json::from_str::<Vec<TermNote>>(text) else { return };
        // What is there already was noted by this process.
        earlier.retain(|term| self.terms.iter().all(|own| own.version != term.version));
        earlier.append(&mut self.terms);
        self.terms = earlier;
        self.shorten();
    }

    /// Looks at the election. `now` and `wall` are the time of the look.
    pub(crate) fn look(&mut self, now: BootInstant, wall: Timestamp, leadership: &Leadership, status: &ElectionStatus) {
        let sign = Sign { holder: status.holder.as_deref().map(str::to_owned), renewed: status.renew_time };
        if sign != self.sign {
            let others = |sign: &Sign| sign.holder.as_ref().is_some_and(|holder| *holder != self.identity);
            // A release is the last sign of who released.
            if others(&sign) || (sign.holder.is_none() && others(&self.sign)) {
                self.last_sign = Some(now);
            }
            self.sign = sign;
        }
        let tenure = leadership.tenure();
        if self.open.is_some() && self.open != tenure.map(|tenure| tenure.lease_version()) {
            self.close(now, wall, status);
        }
        if let Some(tenure) = tenure.filter(|_| self.open.is_none()) {
            self.open = Some(tenure.lease_version());
            self.terms.push(TermNote {
                epoch: tenure.token().transitions,
                version: tenure.lease_version(),
                holder: self.identity.clone(),
                began: wall.to_string(),
                ended: None,
                why: None,
                gap_seconds: self.last_sign.map(|sign| millis(now.since(sign).as_secs_f64())),
            });
            self.shorten();
        }
    }

    fn close(&mut self, now: BootInstant, wall: Timestamp, status: &ElectionStatus) {
        let open = self.open.take();
        self.last_sign = Some(now);
        if let Some(term) = self.terms.iter_mut().rfind(|term| Some(term.version) == open) {
            term.ended = Some(wall.to_string());
            term.why = status.last_loss.as_ref().map(ToString::to_string);
        }
    }

    fn shorten(&mut self) {
        let surplus = self.terms.len().saturating_sub(KEPT);
        self.terms.drain(..surplus);
    }

    /// As it stands in the annotation.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(&self.terms).unwrap_or_default()
    }

    /// The terms, oldest first.
    pub(crate) fn terms(&self) -> &[TermNote] {
        &self.terms
    }
}

/// A time in seconds, to the millisecond: more is noise.
fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use quarterdeck_api::status::history;
    use quarterdeck_election::leadership::Activity;

    use super::*;

    #[test]
    fn a_replica_remembers_what_an_earlier_process_noted() {
        let mut book = TermBook::new("a_2");
        let earlier: Vec<TermNote> =
            (1..=12).map(|version| TermNote { version, holder: "a_1".to_owned(), ..TermNote::default() }).collect();
        book.inherit(&serde_json::to_string(&earlier).expect("plain data"));
        assert_eq!(book.terms().len(), KEPT);
        assert_eq!((book.terms()[0].version, book.terms()[KEPT - 1].version), (3, 12));
        book.inherit(&serde_json::to_string(&earlier).expect("plain data"));
        book.inherit("nonsense");
        assert_eq!(book.terms().len(), KEPT, "nothing is noted twice");
        let all = history([("a".to_owned(), book.terms().to_vec())], Some("a_2"));
        assert!(all.iter().all(|part| !part.lasts), "they are of a process that is gone");
    }

    /// What the elector publishes: who holds the Lease since which renewal.
    fn status(holder: Option<&str>, second: i64) -> ElectionStatus {
        ElectionStatus {
            identity: Arc::from("me"),
            activity: Activity::Standby,
            holder: holder.map(Arc::from),
            transitions: Some(1),
            renew_time: Timestamp::from_second(second).ok(),
            deadline: None,
            remaining: Duration::ZERO,
            last_began: None,
            last_stopped: None,
            last_loss: None,
            tenures: 0,
            slow_paths: 0,
            last_error: None,
            fence: None,
        }
    }

    fn at(millis: u64) -> BootInstant {
        BootInstant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_term_tells_how_long_nobody_led_before_it() {
        let standby = Leadership::Standby { holder: None, lost: None };
        let mut book = TermBook::new("me");
        let wall = Timestamp::UNIX_EPOCH;
        book.look(at(0), wall, &standby, &status(Some("other"), 1));
        book.look(at(2000), wall, &standby, &status(Some("other"), 3));
        // It renews no more; looks in between change nothing.
        book.look(at(9000), wall, &standby, &status(Some("other"), 3));
        let leading = Leadership::unelected();
        book.look(at(17_500), wall, &leading, &status(Some("me"), 18));
        assert_eq!(book.terms()[0].gap_seconds, Some(15.5));
        // Our own renewals, and the end.
        book.look(at(20_000), wall, &leading, &status(Some("me"), 20));
        book.look(at(30_000), Timestamp::from_second(30).expect("in range"), &standby, &status(None, 30));
        assert_eq!(book.terms().len(), 1);
        assert_eq!(book.terms()[0].ended.as_deref(), Some("1970-01-01T00:00:30Z"));
        // Again, after a release of somebody else.
        book.look(at(40_000), wall, &standby, &status(Some("other"), 40));
        book.look(at(50_000), wall, &standby, &status(None, 50));
        book.look(at(50_020), wall, &leading, &status(Some("me"), 50));
        assert_eq!(book.terms()[1].gap_seconds, Some(0.02));
    }

    #[test]
    fn the_first_term_of_all_has_no_gap() {
        let mut book = TermBook::new("me");
        book.look(at(5), Timestamp::UNIX_EPOCH, &Leadership::unelected(), &status(Some("me"), 1));
        assert_eq!(book.terms()[0].gap_seconds, None);
    }
}
