use super::super::{FailKind, Fault, Moment, Rule, STEPS};
use super::*;

async fn ensure(sim: &Sim, uid: &str) -> crate::error::Result<LbOutcome> {
    sim.ensure(&call("a", 1), &spec(owner("a", uid)), None).await
}

#[tokio::test]
async fn every_error_can_be_had_before_and_after_the_change() {
    for kind in FailKind::ALL {
        let sim = Sim::default();
        let fail =
            |at| Rule::new("loadbalancers.ensure", Fault::Fail { error: kind, retry_after_ms: Some(7), at }).times(1);
        sim.add_fault(fail(Moment::Before));
        assert_eq!(ensure(&sim, "1").await.unwrap_err(), kind.error(Some(7)));
        assert!(sim.state().balancers.is_empty());
        sim.add_fault(fail(Moment::After));
        assert_eq!(ensure(&sim, "1").await.unwrap_err(), kind.error(Some(7)));
        assert_eq!(sim.state().balancers.len(), 1, "the reply was lost, the change was made");
        ready(ensure(&sim, "1").await.unwrap());
    }
    assert_eq!(FailKind::Throttled.error(Some(7)).retry_after(), Some(Duration::from_millis(7)));
}

#[tokio::test]
async fn rules_choose_their_calls() {
    let sim = Sim::default();
    let fail = Fault::Fail { error: FailKind::Quota, retry_after_ms: None, at: Moment::Before };
    sim.add_fault(Rule::new("loadbalancers.*", fail.clone()).skip(1).times(1).about("service-1"));
    sim.add_fault(Rule::new("routes.*", fail));
    ready(ensure(&sim, "2").await.unwrap());
    ready(ensure(&sim, "1").await.unwrap());
    ready(ensure(&sim, "2").await.unwrap());
    ensure(&sim, "1").await.unwrap_err();
    ready(ensure(&sim, "1").await.unwrap());
}

#[tokio::test]
async fn a_held_call_goes_on_and_a_hung_one_fails_when_the_fault_is_gone() {
    for (fault, at, made, answered) in [
        (Fault::Hold { at: Moment::Before }, Moment::Before, 0, true),
        (Fault::Hold { at: Moment::After }, Moment::After, 1, true),
        (Fault::Hang { at: Moment::Before }, Moment::Before, 0, false),
        (Fault::Hang { at: Moment::After }, Moment::After, 1, false),
    ] {
        let sim = Arc::new(Sim::default());
        sim.add_fault(Rule::new("loadbalancers.ensure", fault.clone()).times(1));
        let calling = {
            let sim = Arc::clone(&sim);
            tokio::spawn(async move { ensure(&sim, "1").await })
        };
        while sim.held().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((sim.held()[0].at, sim.state().balancers.len()), (at, made), "{fault:?}");
        sim.clear_faults(None);
        assert_eq!(calling.await.unwrap().is_ok(), answered, "{fault:?}");
        assert!(sim.held().is_empty());
    }
}

#[tokio::test]
async fn a_call_that_its_caller_abandons_while_held_does_nothing_more() {
    let sim = Arc::new(Sim::default());
    sim.add_fault(Rule::new("*", Fault::Hold { at: Moment::Before }));
    let calling = {
        let sim = Arc::clone(&sim);
        tokio::spawn(async move { ensure(&sim, "1").await })
    };
    while sim.held().is_empty() {
        tokio::task::yield_now().await;
    }
    calling.abort();
    calling.await.unwrap_err();
    sim.clear_faults(None);
    assert!(sim.held().is_empty() && sim.state().balancers.is_empty());
    assert_eq!(sim.calls()[0].outcome.as_deref(), Some("abandoned"));
}

#[tokio::test]
async fn making_that_fails_at_any_step_leaves_parts_that_the_next_one_completes_and_deleting_removes() {
    for step in 0..STEPS.len() {
        for delete in [false, true] {
            let sim = Sim::default();
            sim.add_fault(Rule::new("loadbalancers.ensure", Fault::FailAtStep { step }).times(1));
            ensure(&sim, "1").await.unwrap_err();
            let state = sim.state();
            assert_eq!(
                (state.reservations.len(), state.balancers.len()),
                (usize::from(step > 0), usize::from(step > 1))
            );
            if delete {
                sim.ensure_deleted(&call("a", 1), &owner("a", "1"), None).await.unwrap();
                assert!(sim.state().reservations.is_empty() && sim.state().balancers.is_empty());
            } else {
                ready(ensure(&sim, "1").await.unwrap());
                assert_eq!(sim.state().balancers.values().next().unwrap().ports.len(), 1);
            }
        }
    }
    let sim = Sim::default();
    ready(ensure(&sim, "1").await.unwrap());
    sim.add_fault(Rule::new("loadbalancers.ensure_deleted", Fault::FailAtStep { step: 1 }).times(1));
    sim.ensure_deleted(&call("a", 1), &owner("a", "1"), None).await.unwrap_err();
    assert_eq!(sim.state().leftovers().len(), 1, "what get does not see");
    sim.ensure_deleted(&call("a", 1), &owner("a", "1"), None).await.unwrap();
    assert!(sim.state().leftovers().is_empty());
}

#[tokio::test]
async fn a_balancer_that_is_stuck_or_failed_recovers_when_the_fault_is_gone() {
    for fault in [Fault::StuckPending, Fault::ErrorLb] {
        let sim = Sim::default();
        sim.add_fault(Rule::new("loadbalancers.ensure", fault.clone()));
        for _ in 0..2 {
            let outcome = ensure(&sim, "1").await;
            assert!(!matches!(outcome, Ok(LbOutcome::Ready { .. })), "{fault:?}: {outcome:?}");
        }
        sim.clear_faults(None);
        ready(ensure(&sim, "1").await.unwrap());
        assert_eq!(sim.state().balancers.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn reads_lag_and_delays_pass() {
    let sim = Sim::default();
    sim.add_fault(Rule::new("loadbalancers.get", Fault::ReadLag { ms: 30_000 }));
    sim.add_fault(Rule::new("loadbalancers.ensure", Fault::Delay { ms: 5_000, at: Moment::After }));
    let start = Instant::now();
    ready(ensure(&sim, "1").await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let seen = async || sim.get(&call("a", 0), &owner("a", "1")).await.unwrap().len();
    assert_eq!(seen().await, 0);
    tokio::time::advance(Duration::from_secs(24)).await;
    assert_eq!(seen().await, 0);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(seen().await, 1);
}

#[test]
fn faults_can_be_said_in_words() {
    let read = |text: &str| text.parse::<Rule>().unwrap();
    let hang = Rule::new("loadbalancers.ensure", Fault::Hang { at: Moment::After }).times(1).about("default/web");
    assert_eq!(read("loadbalancers.ensure=hang:at=after,times=1,subject=default/web"), hang);
    assert_eq!(read("*=delay:ms=2s"), Rule::new("*", Fault::Delay { ms: 2_000, at: Moment::Before }));
    let throttled = Fault::Fail { error: FailKind::Throttled, retry_after_ms: Some(60_000), at: Moment::Before };
    assert_eq!(read("routes.*=throttle:retry-after=1m"), Rule::new("routes.*", throttled));
    let denied = Fault::Fail { error: FailKind::Denied, retry_after_ms: None, at: Moment::Before };
    assert_eq!(read("*=fail:error=denied,skip=3"), Rule::new("*", denied).skip(3));
    assert_eq!(read("*=wrong-account:account=x").fault, Fault::WrongAccount { account: "x".to_owned() });
    assert_eq!(read("*=fail-at-step:step=2").fault, Fault::FailAtStep { step: 2 });
    for bad in [
        "x",
        "*=x",
        "*=delay",
        "*=delay:ms=1h",
        "*=fail",
        "*=fail:error=x",
        "*=hang:at=x",
        "*=hang:x=1",
        "*=hang:times=x",
    ] {
        let error = bad.parse::<Rule>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("fault {bad:?}: ")), "{error}");
    }
}
