//! Which agents live, by their Leases as they are seen to be renewed.
//!
//! Wall clocks are never compared: an agent is silent when its Lease has not been seen to change for the Lease's own
//! duration. Silence alone proves nothing, for the server may have been away, or this process: an agent counts as dead
//! only if another one was seen to renew all that time, often, through the same server and the same watch. A gateway
//! that could take over is such a witness; without one nothing could be done anyway.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long a Lease counts that does not say so.
const DEFAULT_DURATION: Duration = Duration::from_secs(15);
/// Renewals that are remembered of an agent.
const REMEMBERED: usize = 256;
/// How soon to look again while somebody's life is not certain.
const UNCERTAIN: Duration = Duration::from_secs(2);

/// What is known of an agent's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It was seen to renew, and lately.
    Alive,
    /// Nothing can be said: it was not seen to renew yet, or nobody was.
    Unsure,
    /// It gave its Lease back.
    Left,
    /// It has not renewed while others did.
    Silent,
    /// It has no Lease, while others renew theirs.
    Missing,
}

impl Life {
    /// Whether it is certain that it does not live.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Left | Self::Silent | Self::Missing)
    }
}

#[derive(Clone, Debug)]
struct Pulse {
    /// What changes when it renews.
    stamp: (String, String),
    lasts: Duration,
    /// When the stamp was seen to change, or was seen first.
    heard: Instant,
    /// When it was seen to renew, without a gap as long as the Lease lasts.
    beats: VecDeque<Instant>,
    /// Whether nobody holds the Lease.
    left: bool,
    /// Whether the Lease was deleted.
    gone: bool,
}

impl Pulse {
    fn is_fresh(&self, now: Instant) -> bool {
        !self.gone && !self.left && now.duration_since(self.heard) <= self.lasts
    }

    /// Whether somebody whose Lease lasts so long would have been seen to renew it, had they: this one was, all that
    /// time until now, with no gap that is more than half of it.
    fn testifies(&self, lasts: Duration, now: Instant) -> bool {
        let mut after = now;
        for beat in self.beats.iter().rev().filter(|_| self.is_fresh(now)) {
            if after.duration_since(*beat) > lasts / 2 {
                return false;
            }
            if now.duration_since(*beat) >= lasts {
                return true;
            }
            after = *beat;
        }
        false
    }
}

/// What was seen of the agents' Leases. Kept on every replica, so that a new leader knows what the old one knew.
#[derive(Default)]
pub(super) struct Pulses(Mutex<BTreeMap<String, Pulse>>);

impl Pulses {
    /// Takes in a Lease as it was seen; one that was just made was renewed just now. Says whether that may change what
    /// is known of its agent's life.
    pub(super) fn saw(&self, lease: &Lease, just_made: bool, now: Instant) -> bool {
        let name = lease.metadata.name.clone().unwrap_or_default();
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0.to_string()).unwrap_or_default();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = seconds.filter(|seconds| *seconds > 0).map_or(DEFAULT_DURATION, Duration::from_secs);
        let (left, stamp) = (holder.is_empty(), (renewed, holder));
        let mut all = self.0.lock();
        let mut beats = VecDeque::new();
        if let Some(before) = all.get_mut(&name) {
            if before.stamp == stamp && !before.gone {
                return false;
            }
            if before.is_fresh(now) {
                beats = std::mem::take(&mut before.beats);
            }
        } else if !just_made {
            all.insert(name, Pulse { stamp, lasts, heard: now, beats, left, gone: false });
            return true;
        }
        let news = left || beats.is_empty();
        if beats.len() == REMEMBERED {
            beats.pop_front();
        }
        beats.push_back(now);
        all.insert(name, Pulse { stamp, lasts, heard: now, beats, left, gone: false });
        news
    }

    /// Takes in that a Lease is gone.
    pub(super) fn lost(&self, name: &str) {
        if let Some(pulse) = self.0.lock().get_mut(name) {
            pulse.gone = true;
        }
    }

    /// What is known of an agent's life.
    pub(super) fn of(&self, name: &str, now: Instant) -> Life {
        let all = self.0.lock();
        let Some(pulse) = all.get(name).filter(|pulse| !pulse.gone) else {
            let lasts = all.get(name).map_or(DEFAULT_DURATION, |pulse| pulse.lasts);
            return if is_witnessed(&all, name, lasts, now) { Life::Missing } else { Life::Unsure };
        };
        if pulse.left {
            return Life::Left;
        }
        if pulse.is_fresh(now) {
            return if pulse.beats.is_empty() { Life::Unsure } else { Life::Alive };
        }
        if is_witnessed(&all, name, pulse.lasts, now) { Life::Silent } else { Life::Unsure }
    }

    /// When what is known may change although nothing is seen.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let all = self.0.lock();
        let fresh = all.values().filter(|pulse| pulse.is_fresh(now));
        let expiry = fresh.map(|pulse| pulse.heard + pulse.lasts + Duration::from_millis(1)).min()?;
        let uncertain = |(name, pulse): (&String, &Pulse)| {
            !pulse.left && !pulse.is_fresh(now) && !is_witnessed(&all, name, pulse.lasts, now)
        };
        Some(if all.iter().any(uncertain) { expiry.min(now + UNCERTAIN) } else { expiry })
    }
}

/// Whether another agent was seen to renew for this time until now.
fn is_witnessed(all: &BTreeMap<String, Pulse>, name: &str, lasts: Duration, now: Instant) -> bool {
    all.iter().any(|(other, pulse)| other != name && pulse.testifies(lasts, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Desk {
        pulses: Pulses,
        now: Instant,
        beat: u32,
    }

    impl Desk {
        fn new() -> Self {
            Self { pulses: Pulses::default(), now: Instant::now(), beat: 0 }
        }

        fn renew(&mut self, name: &str) -> bool {
            self.beat += 1;
            let lease = lease(name, "holder", self.beat);
            self.pulses.saw(&lease, false, self.now)
        }

        fn pass(&mut self, seconds: u64, renewing: &[&str]) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                for name in renewing {
                    self.renew(name);
                }
            }
        }

        fn life(&self, name: &str) -> Life {
            self.pulses.of(name, self.now)
        }
    }

    fn lease(name: &str, holder: &str, beat: u32) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 10,
                "renewTime": format!("2026-01-01T00:{:02}:{:02}.000000Z", beat / 60 % 60, beat % 60),
            },
        }))
        .expect("a Lease")
    }

    #[test]
    fn an_agent_is_silent_when_it_stops_while_another_goes_on() {
        let mut desk = Desk::new();
        assert_eq!(desk.life("a"), Life::Unsure);
        assert!(desk.renew("a") && desk.renew("b"), "the first sight is news");
        assert_eq!(desk.life("a"), Life::Unsure, "its Lease may be an old one");
        desk.now += Duration::from_secs(1);
        assert!(desk.renew("a"), "the first change is news");
        assert!(!desk.renew("a"), "a renewal is none");
        assert_eq!(desk.life("a"), Life::Alive);
        desk.pass(20, &["a", "b"]);
        desk.pass(10, &["b"]);
        assert_eq!(desk.life("a"), Life::Alive, "its Lease has not expired");
        desk.pass(1, &["b"]);
        assert_eq!((desk.life("a"), desk.life("b")), (Life::Silent, Life::Alive));
        assert!(desk.renew("a"), "that it is back is news");
        assert_eq!(desk.life("a"), Life::Alive);
    }

    /// The server was away, or this process: nobody was seen to renew, and whoever is first afterwards testifies only
    /// about the time since.
    #[test]
    fn silence_of_all_proves_nothing() {
        let mut desk = Desk::new();
        desk.pass(20, &["a", "b"]);
        desk.pass(300, &[]);
        assert_eq!((desk.life("a"), desk.life("b")), (Life::Unsure, Life::Unsure));
        desk.pass(9, &["b"]);
        assert_eq!((desk.life("a"), desk.life("b")), (Life::Unsure, Life::Alive));
        desk.pass(1, &["a", "b"]);
        assert_eq!((desk.life("a"), desk.life("b")), (Life::Alive, Life::Alive));
    }

    /// A manager that begins sees old Leases and does not know how old.
    #[test]
    fn a_stranger_is_given_the_time_that_its_lease_lasts() {
        let mut desk = Desk::new();
        desk.renew("a");
        desk.pass(10, &["b"]);
        assert_eq!(desk.life("a"), Life::Unsure);
        assert_eq!(desk.life("never seen"), Life::Unsure);
        desk.pass(2, &["b"]);
        assert_eq!(desk.life("a"), Life::Silent);
        desk.pass(5, &["b"]);
        assert_eq!(desk.life("never seen"), Life::Missing);
    }

    #[test]
    fn a_lease_given_back_is_taken_at_its_word_and_a_deleted_one_needs_a_witness() {
        let mut desk = Desk::new();
        desk.pass(3, &["a", "b"]);
        assert!(desk.pulses.saw(&lease("a", "", 99), false, desk.now));
        assert_eq!(desk.life("a"), Life::Left);
        desk.pulses.lost("b");
        assert_eq!(desk.life("b"), Life::Unsure);
        desk.pass(12, &["c"]);
        assert_eq!(desk.life("b"), Life::Missing);
        assert!(desk.renew("b"));
    }

    /// A node's Lease lasts longer than a gateway's, and is renewed less often: that the server was away for so long
    /// does not show in it.
    #[test]
    fn whoever_renews_seldom_is_no_witness_for_the_quick() {
        let mut desk = Desk::new();
        desk.pass(30, &["a", "b"]);
        for _ in 0..5 {
            desk.pass(6, &[]);
            desk.renew("b");
        }
        assert_eq!((desk.life("a"), desk.life("b")), (Life::Unsure, Life::Alive));
        desk.pass(10, &["b"]);
        assert_eq!(desk.life("a"), Life::Silent);
    }

    #[test]
    fn a_lease_that_was_just_made_is_that_of_one_who_lives() {
        let desk = Desk::new();
        assert!(desk.pulses.saw(&lease("a", "holder", 1), true, desk.now));
        assert_eq!(desk.life("a"), Life::Alive);
    }

    #[test]
    fn it_is_known_when_to_look_again() {
        let mut desk = Desk::new();
        assert_eq!(desk.pulses.next(desk.now), None);
        desk.pass(30, &["a", "b"]);
        desk.pass(3, &["b"]);
        let next = desk.pulses.next(desk.now).expect("a's Lease expires");
        assert!(next > desk.now + Duration::from_secs(6) && next <= desk.now + Duration::from_secs(8));
        desk.pass(8, &["b"]);
        assert_eq!(desk.life("a"), Life::Silent);
    }
}
