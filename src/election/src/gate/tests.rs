use futures::FutureExt as _;

use super::*;
use crate::clock::{ManualClock, TokioClock};

const SECOND: Duration = Duration::from_secs(1);

fn epoch(transitions: i32) -> Epoch {
    Epoch::new("deck", EpochToken { lease_uid: "u".into(), transitions })
}

fn gate() -> (ManualClock, Gate, GateKeeper) {
    let clock = ManualClock::at(BootInstant::default() + SECOND * 100);
    let (gate, keeper) = Gate::new(Timing::default(), Arc::new(clock.clone()));
    (clock, gate, keeper)
}

#[test]
fn a_new_gate_is_shut() {
    let (_clock, gate, _keeper) = gate();
    assert_eq!(gate.admit(SECOND).unwrap_err(), Refused::NotLeading);
    assert_eq!((gate.is_open(), gate.token(), gate.remaining()), (false, None, Some(Duration::ZERO)));
    assert_eq!(gate.counts(), GateCounts { not_leading: 1, ..GateCounts::default() });
}

#[test]
fn admits_up_to_twice_the_timeout_before_the_deadline_and_not_a_nanosecond_later() {
    let (clock, gate, keeper) = gate();
    let deadline = clock.now() + SECOND * 10;
    keeper.open(epoch(1), deadline, true);
    let last = deadline - SECOND * 2;
    clock.set(last);
    let permit = gate.admit(SECOND).unwrap();
    assert_eq!((permit.timeout(), permit.must_end_by()), (SECOND, deadline));
    clock.advance(Duration::from_nanos(1));
    let refused = gate.admit(SECOND).unwrap_err();
    assert!(matches!(refused, Refused::DeadlineTooNear { timeout: SECOND, .. }), "{refused:?}");
    keeper.extend(deadline + SECOND);
    assert!(gate.admit(SECOND).is_ok());
    keeper.extend(deadline - SECOND);
    assert!(gate.admit(SECOND).is_ok(), "a deadline never moves back");
    assert_eq!(gate.counts(), GateCounts { admitted: 3, not_leading: 0, deadline_too_near: 1 });
}

#[test]
fn shutting_is_immediate_and_no_extension_opens_again() {
    let (clock, gate, keeper) = gate();
    keeper.open(epoch(1), clock.now() + SECOND * 10, true);
    let out = gate.admit(SECOND).unwrap();
    assert!(out.is_current());
    gate.shut();
    assert!(!out.is_current());
    keeper.extend(clock.now() + SECOND * 60);
    assert_eq!(gate.admit(SECOND).unwrap_err(), Refused::NotLeading);
    assert_eq!(gate.remaining(), Some(Duration::ZERO));
    keeper.open(epoch(2), clock.now() + SECOND * 10, true);
    assert!(gate.admit(SECOND).is_ok());
    drop(keeper);
    assert_eq!(gate.admit(SECOND).unwrap_err(), Refused::NotLeading, "a lost keeper shuts its gate");
}

#[test]
fn the_header_is_sent_only_while_the_fence_is_known_to_work() {
    let (clock, gate, keeper) = gate();
    keeper.open(epoch(1), clock.now() + SECOND * 10, false);
    let permit = gate.admit(SECOND).unwrap();
    assert_eq!(permit.fence_header(), None);
    assert_eq!(permit.token().map(ToString::to_string).as_deref(), Some("u/1"));
    keeper.set_fenced(true);
    let (name, value) = gate.admit(SECOND).unwrap().fence_header().unwrap();
    assert_eq!((name.as_str(), value.to_str().unwrap()), ("impersonate-extra-quarterdeck.dev%2fepoch-deck", "u/1"));
}

#[test]
fn a_fence_refusal_is_retried_only_by_the_present_tenure() {
    let (clock, gate, keeper) = gate();
    keeper.open(epoch(1), clock.now() + SECOND * 10, true);
    let old = gate.admit(SECOND).unwrap();
    assert_eq!(gate.fence_refused(&old), FenceVerdict::RetryAfter(FENCE_RETRY));
    assert!(keeper.doubted().now_or_never().is_some(), "the elector is told");
    keeper.open(epoch(2), clock.now() + SECOND * 10, true);
    assert_eq!(gate.fence_refused(&old), FenceVerdict::NotLeading);
    gate.shut();
    assert_eq!(gate.fence_refused(&old), FenceVerdict::NotLeading);
}

#[test]
fn a_504_is_retried_with_more_time_until_the_lease_is_too_short() {
    let (_clock, gate, _keeper) = gate();
    let ms = Duration::from_millis;
    assert_eq!(gate.write_timeout(), ms(1875));
    assert_eq!(gate.longer_timeout(ms(1875)), Ok(ms(3750)));
    assert_eq!(gate.longer_timeout(ms(3750)), Ok(ms(4750)));
    let error = gate.longer_timeout(ms(4750)).unwrap_err();
    assert_eq!((error.next, error.needed), (ms(9500), SECOND * 26));
    assert!(error.to_string().contains("--leader-elect-lease-duration=26s"), "{error}");
}

#[test]
fn without_an_election_the_gate_is_open_and_has_no_token() {
    let gate = Gate::unelected(Arc::new(ManualClock::default()));
    let permit = gate.admit(SECOND * 60).unwrap();
    assert_eq!((permit.token(), permit.fence_header(), gate.remaining()), (None, None, None));
    assert!(gate.longer_timeout(SECOND * 4).is_ok());
    gate.shut();
    assert_eq!(gate.admit(SECOND).unwrap_err(), Refused::NotLeading);
}

#[tokio::test(start_paused = true)]
async fn quiet_waits_for_answers_and_for_the_time_of_abandoned_writes() {
    let clock = Arc::new(TokioClock::default());
    let (gate, keeper) = Gate::new(Timing::default(), clock.clone());
    gate.quiet().await;
    let start = clock.now();
    keeper.open(epoch(1), start + SECOND * 10, true);
    let answered = gate.admit(SECOND).unwrap();
    let abandoned = gate.admit(SECOND * 2).unwrap();
    gate.shut();
    let quiet = gate.quiet();
    tokio::pin!(quiet);
    assert!(quiet.as_mut().now_or_never().is_none());
    answered.finished();
    assert!(quiet.as_mut().now_or_never().is_none());
    drop(abandoned);
    quiet.await;
    assert!(clock.now() >= start + SECOND * 4, "the abandoned write may run for twice its timeout");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_either_refused_or_seen_in_flight_by_whoever_shuts() {
    for _ in 0..200 {
        let (clock, gate, keeper) = gate();
        keeper.open(epoch(1), clock.now() + SECOND * 10, true);
        let writer = std::thread::spawn({
            let gate = gate.clone();
            move || gate.admit(SECOND).ok()
        });
        gate.shut();
        let quiet_at_shut = gate.quiet().now_or_never().is_some();
        let permit = writer.join().unwrap();
        assert!(!(quiet_at_shut && permit.is_some()), "a write went out after the gate was found quiet");
    }
}
