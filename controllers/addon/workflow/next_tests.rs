use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::addon::workflow::program::{PodStep, Retry};
use crate::addon::workflow::progress::Outcome;

/// The first second, and so the number of a first attempt.
const FIRST: u32 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(i64::from(FIRST) + seconds).unwrap()
}

fn node(name: &str, after: &[usize]) -> Node {
    let container = [("image".to_owned(), json!(name))].into_iter().collect();
    Node {
        name: name.to_owned(),
        origin: "spec.templates[0]".into(),
        after: after.to_vec(),
        when: When::Run,
        retry: Retry::default(),
        deadline: None,
        account: None,
        continue_on_failure: false,
        action: Action::Pod(Box::new(PodStep { container, ..PodStep::default() })),
        content: None,
    }
    .sealed()
}

fn program(nodes: Vec<Node>) -> Program {
    Program { nodes, ..Program::default() }
}

fn names<'n>(nodes: &[&'n Node]) -> Vec<&'n str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

fn failed() -> Outcome {
    Outcome::Failed { message: "exit code 1".into() }
}

/// Begins what is to begin and ends each with an outcome; what became of the whole.
fn turn(
    program: &Program,
    progress: &mut Progress,
    now: Timestamp,
    outcome: impl Fn(&str) -> Outcome,
) -> (Vec<String>, Phase) {
    let next = next(program, progress, now);
    *progress = serde_json::from_value(json!(next.progress)).unwrap();
    let started: Vec<String> = next.start.iter().map(|node| node.name.clone()).collect();
    for node in next.start {
        progress.begin(node, now);
        progress.end(node, outcome(&node.name), now);
    }
    (started, next.phase)
}

#[test]
fn no_more_steps_run_at_once_than_may() {
    let mut applied = node("applied", &[]);
    applied.action = Action::Apply(crate::addon::workflow::program::Objects::default());
    let mut program = program(vec![node("a", &[]), node("b", &[]), applied, node("c", &[])]);
    program.parallelism = Some(2);
    let first = next(&program, &Progress::new("r"), at(0));
    assert_eq!(names(&first.start), ["a", "b", "applied"]);
    let mut progress = first.progress;
    for index in [0, 1] {
        progress.begin(&program.nodes[index], at(0));
    }
    assert_eq!(names(&next(&program, &progress, at(1)).start), ["applied"]);
    progress.end(&program.nodes[0], Outcome::done(), at(1));
    let second = next(&program, &progress, at(1));
    assert_eq!((names(&second.start), names(&second.running)), (vec!["applied", "c"], vec!["b"]));
}

#[test]
fn steps_run_in_order_and_once() {
    let program = program(vec![node("a", &[]), node("b", &[]), node("c", &[0, 1])]);
    let mut progress = Progress::new("r");
    let first = next(&program, &progress, at(0));
    assert_eq!((names(&first.start), first.phase.clone()), (vec!["a", "b"], Phase::Running));
    progress = first.progress.clone();
    progress.begin(&program.nodes[0], at(0));
    progress.begin(&program.nodes[1], at(0));
    progress.end(&program.nodes[0], Outcome::done(), at(1));
    let second = next(&program, &progress, at(1));
    assert_eq!((names(&second.start), names(&second.running)), (vec![], vec!["b"]));
    progress.end(&program.nodes[1], Outcome::done(), at(2));
    assert_eq!(turn(&program, &mut progress, at(2), |_| Outcome::done()).0, ["c"]);
    let last = next(&program, &progress, at(3));
    assert_eq!((last.phase, last.start.len(), last.wake), (Phase::Succeeded, 0, None));
    // Answers that come late change nothing.
    progress.end(&program.nodes[0], failed(), at(4));
    assert_eq!(next(&program, &progress, at(4)).phase, Phase::Succeeded);
    assert_eq!(next(&program, &Progress::new("r"), at(4)).start.len(), 2);
    assert_eq!(next(&program, &progress.of_revision("r2"), at(4)).start.len(), 2);
}

#[test]
fn a_failure_is_retried_for_ever_with_growing_waits() {
    let program = program(vec![node("a", &[]), node("b", &[0]), node("c", &[])]);
    let mut progress = Progress::new("r");
    let outcome = |name: &str| if name == "a" { failed() } else { Outcome::done() };
    assert_eq!(turn(&program, &mut progress, at(0), outcome).0, ["a", "c"]);
    let mut now = at(0);
    let mut waits = Vec::new();
    for round in 1..12 {
        let (started, phase) = turn(&program, &mut progress, now, outcome);
        let Phase::Failed { message, retry_at } = phase else { panic!("{phase:?}") };
        assert_eq!((started.len(), message.as_str()), (0, "step a: exit code 1"));
        assert_eq!(progress.failed_rounds, round);
        waits.push(retry_at.duration_since(now));
        // Until then nothing happens, however often it is asked.
        let early = next(&program, &progress, retry_at - SignedDuration::from_nanos(1));
        assert!(early.start.is_empty() && early.wake == Some(retry_at) && early.progress == progress);
        now = retry_at;
        let (started, _) = turn(&program, &mut progress, now, outcome);
        assert_eq!(started, ["a"], "what finished is not run again");
    }
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1].saturating_add(SignedDuration::from_secs(80))), "{waits:?}");
    assert!(waits[0] >= SignedDuration::from_secs(5) && waits[10] <= SignedDuration::from_secs(375), "{waits:?}");
    assert_eq!(progress.attempt(&program.nodes[0]), FIRST + 12);
    let (_, phase) = turn(&program, &mut progress, now, outcome);
    let Phase::Failed { retry_at, .. } = phase else { panic!("{phase:?}") };
    assert_eq!(turn(&program, &mut progress, retry_at, |_| Outcome::done()).0, ["a"]);
    assert_eq!(turn(&program, &mut progress, retry_at, |_| Outcome::done()).0, ["b"]);
    assert_eq!(turn(&program, &mut progress, retry_at, |_| Outcome::done()).1, Phase::Succeeded);
}

#[test]
fn a_retry_strategy_is_used_up_before_the_round_has_failed() {
    let mut step = node("a", &[]);
    step.retry = Retry { limit: Some(2), backoff: Duration::from_secs(10), factor: 2, max: None, given: true };
    let program = program(vec![step]);
    let mut progress = Progress::new("r");
    assert_eq!(turn(&program, &mut progress, at(0), |_| failed()).0, ["a"]);
    assert_eq!(turn(&program, &mut progress, at(9), |_| failed()).1, Phase::Waiting { until: at(10) });
    assert_eq!(turn(&program, &mut progress, at(10), |_| failed()).0, ["a"]);
    assert_eq!(turn(&program, &mut progress, at(10), |_| failed()).1, Phase::Waiting { until: at(30) });
    assert_eq!(turn(&program, &mut progress, at(30), |_| failed()).0, ["a"]);
    assert!(matches!(turn(&program, &mut progress, at(30), |_| failed()).1, Phase::Failed { .. }));
    let mut short = program.clone();
    short.nodes[0].retry.max = Some(Duration::from_secs(15));
    let mut progress = Progress::new("r");
    turn(&short, &mut progress, at(0), |_| failed());
    turn(&short, &mut progress, at(10), |_| failed());
    assert!(matches!(next(&short, &progress, at(10)).phase, Phase::Failed { .. }), "no attempt after its time");
}

#[test]
fn once_a_step_has_failed_nothing_new_begins_and_what_runs_is_seen_to_its_end() {
    let program = program(vec![node("a", &[]), node("b", &[]), node("c", &[1])]);
    let mut progress = next(&program, &Progress::new("r"), at(0)).progress;
    progress.begin(&program.nodes[0], at(0));
    progress.begin(&program.nodes[1], at(0));
    progress.end(&program.nodes[0], failed(), at(1));
    let waiting = next(&program, &progress, at(1));
    assert_eq!((names(&waiting.running), waiting.phase), (vec!["b"], Phase::Running));
    progress.end(&program.nodes[1], Outcome::done(), at(2));
    let over = next(&program, &progress, at(2));
    assert!(over.start.is_empty() && matches!(over.phase, Phase::Failed { .. }), "{over:?}");
}

#[test]
fn a_failure_that_is_passed_over_stops_nothing() {
    let mut step = node("a", &[]);
    step.continue_on_failure = true;
    let program = program(vec![step, node("b", &[0])]);
    let mut progress = Progress::new("r");
    turn(&program, &mut progress, at(0), |_| failed());
    assert_eq!(progress.known()["a"].ended.as_str(), "Failed");
    assert_eq!(turn(&program, &mut progress, at(0), |_| Outcome::done()).0, ["b"]);
    assert_eq!(turn(&program, &mut progress, at(0), |_| Outcome::done()).1, Phase::Succeeded);
}

#[test]
fn a_skipped_step_counts_as_ended_and_asks_for_another_look() {
    let mut skipped = node("a", &[]);
    skipped.when = When::Skip;
    let mut later = node("b", &[0]);
    later.when = When::Unknown("step a has not ended".into());
    let mut both = program(vec![skipped, later]);
    let first = next(&both, &Progress::new("r"), at(0));
    assert!(first.compile_again && first.start.is_empty());
    assert_eq!(first.progress.known()["a"].ended.as_str(), "Skipped");
    // Known now: it runs.
    let progress = first.progress.clone();
    both.nodes[1].when = When::Run;
    assert_eq!(names(&next(&both, &progress, at(0)).start), ["b"]);
    // Still not known although all before it has ended: it never will be.
    both.nodes[1].when = When::Unknown("step a was skipped and left no result".into());
    let failed = next(&both, &progress, at(0));
    assert!(failed.compile_again);
    let Phase::Failed { message, .. } = next(&both, &failed.progress, at(0)).phase else { panic!("{failed:?}") };
    assert_eq!(message, "step b: step a was skipped and left no result");
}

#[test]
fn deadlines_of_steps_and_of_the_whole_end_attempts() {
    let mut all = program(vec![node("a", &[]), node("b", &[0])]);
    all.nodes[0].deadline = Some(Duration::from_secs(30));
    let mut progress = next(&all, &Progress::new("r"), at(0)).progress;
    progress.begin(&all.nodes[0], at(0));
    // A Pod has a little longer: the kubelet ends it, and says why.
    let running = next(&all, &progress, at(59));
    assert_eq!((names(&running.running), running.wake), (vec!["a"], Some(at(60))));
    let over = next(&all, &progress, at(60));
    assert_eq!(names(&over.stop), ["a"]);
    let Phase::Failed { message, .. } = &over.phase else { panic!("{over:?}") };
    assert_eq!(message, "step a: it took longer than its 30 s");
    let mut deleting = all.clone();
    deleting.nodes[0].action = Action::Delete(Default::default());
    deleting.nodes[0] = deleting.nodes[0].clone().sealed();
    let mut waiting = next(&deleting, &Progress::new("r"), at(0)).progress;
    waiting.begin(&deleting.nodes[0], at(0));
    assert_eq!(next(&deleting, &waiting, at(29)).wake, Some(at(30)));
    assert!(matches!(next(&deleting, &waiting, at(30)).phase, Phase::Failed { .. }));
    all.nodes[0].deadline = None;
    all.deadline = Some(Duration::from_secs(60));
    assert_eq!(next(&all, &progress, at(59)).wake, Some(at(60)));
    let late = next(&all, &progress, at(60));
    assert_eq!((names(&late.running), late.stop.len(), late.wake), (vec!["a"], 0, Some(at(90))));
    let mut ended = late.progress.clone();
    ended.end(&all.nodes[0], Outcome::done(), at(61));
    assert!(matches!(next(&all, &ended, at(61)).phase, Phase::Failed { .. }), "nothing begins after its time");
    let over = next(&all, &progress, at(90));
    assert_eq!(names(&over.stop), ["a"]);
    assert!(matches!(over.phase, Phase::Failed { .. }));
    // The next round has its own time.
    let Phase::Failed { retry_at, .. } = over.phase else { unreachable!() };
    assert_eq!(names(&next(&all, &over.progress, retry_at).start), ["a"]);
    // Between two steps, too.
    progress.end(&all.nodes[0], Outcome::done(), at(59));
    let over = next(&all, &progress, at(61));
    assert!(over.start.is_empty() && matches!(over.phase, Phase::Failed { .. }), "{over:?}");
}

#[test]
fn steps_of_on_exit_run_once_for_each_way_to_end() {
    let mut all = program(vec![node("a", &[])]);
    all.exit = vec![node("onExit.bye", &[])];
    let mut progress = Progress::new("r");
    turn(&all, &mut progress, at(0), |_| failed());
    let ended = next(&all, &progress, at(0));
    assert!(ended.compile_again && ended.start.is_empty());
    progress = ended.progress;
    assert_eq!(progress.status.as_deref(), Some("Failed"));
    assert_eq!(turn(&all, &mut progress, at(0), |_| Outcome::done()).0, ["onExit.bye"]);
    let bye = progress.last_attempt(&all.exit[0]);
    let (_, Phase::Failed { retry_at, .. }) = turn(&all, &mut progress, at(0), |_| Outcome::done()) else { panic!() };
    // The same end does not run it again.
    assert_eq!(turn(&all, &mut progress, retry_at, |_| failed()).0, ["a"]);
    let (started, Phase::Failed { retry_at, .. }) = turn(&all, &mut progress, retry_at, |_| failed()) else { panic!() };
    assert_eq!(started.len(), 0);
    assert_eq!(turn(&all, &mut progress, retry_at, |_| Outcome::done()).0, ["a"]);
    progress = next(&all, &progress, retry_at).progress;
    assert_eq!(progress.status.as_deref(), Some("Succeeded"));
    assert_eq!(turn(&all, &mut progress, retry_at, |_| failed()).0, ["onExit.bye"]);
    assert_eq!(progress.last_attempt(&all.exit[0]), bye + 1, "in another Pod");
    let (_, Phase::Failed { retry_at, .. }) = turn(&all, &mut progress, retry_at, |_| Outcome::done()) else {
        panic!()
    };
    assert_eq!(turn(&all, &mut progress, retry_at, |_| Outcome::done()).0, ["onExit.bye"], "it alone is tried again");
    assert_eq!(turn(&all, &mut progress, retry_at, |_| Outcome::done()).1, Phase::Succeeded);
}

#[test]
fn a_revision_that_comes_back_has_attempts_of_its_own() {
    let all = program(vec![node("a", &[])]);
    let run = |progress: Progress, now| {
        let mut progress = next(&all, &progress, now).progress;
        progress.begin(&all.nodes[0], now);
        let number = progress.attempt(&all.nodes[0]);
        progress.end(&all.nodes[0], Outcome::done(), now);
        (progress, number)
    };
    let (progress, first) = run(Progress::new("r"), at(0));
    let (progress, _) = run(progress.of_revision("s"), at(10));
    let (_, again) = run(progress.of_revision("r"), at(20));
    assert_ne!(first, again, "the Pod of the first time says nothing of the second");
}

#[test]
fn another_content_is_another_step() {
    let mut all = program(vec![node("a", &[])]);
    let mut progress = Progress::new("r");
    turn(&all, &mut progress, at(0), |_| Outcome::done());
    all.nodes[0] = node("a", &[]);
    assert_eq!(next(&all, &progress, at(0)).phase, Phase::Succeeded);
    all.nodes[0] = Node { name: "a".into(), ..node("other", &[]) };
    assert_eq!(names(&next(&all, &progress, at(0)).start), ["a"]);
    assert_eq!(progress.attempt(&all.nodes[0]), FIRST + 1, "under another name");
}

#[test]
fn what_an_attempt_did_is_known_to_the_next_one() {
    let all = program(vec![node("a", &[])]);
    let mut progress = next(&all, &Progress::new("r"), at(0)).progress;
    let marks = BTreeMap::from([("ConfigMap/a/b".to_owned(), "uid".to_owned())]);
    progress.begin(&all.nodes[0], at(0));
    progress.note(&all.nodes[0], "waiting", marks.clone());
    progress.end(&all.nodes[0], failed(), at(1));
    let Phase::Failed { retry_at, .. } = next(&all, &progress, at(1)).phase else { panic!() };
    progress = next(&all, &next(&all, &progress, at(1)).progress, retry_at).progress;
    progress.begin(&all.nodes[0], retry_at);
    assert_eq!(progress.marks(&all.nodes[0]), marks);
    assert_eq!((progress.attempt(&all.nodes[0]), progress.last_attempt(&all.nodes[0])), (FIRST + 1, FIRST + 1));
}

#[test]
fn nothing_of_an_adopted_addon_runs() {
    let mut all = program(vec![node("a", &[]), node("b", &[0])]);
    all.exit = vec![node("onExit.bye", &[])];
    let progress = Progress::adopted(&all, "r");
    let next = next(&all, &progress, at(0));
    assert_eq!((next.start.len(), next.phase), (0, Phase::Succeeded));
}

#[test]
fn progress_is_small_and_read_back() {
    let all = program(vec![node("a", &[])]);
    let mut progress = next(&all, &Progress::new("r"), at(0)).progress;
    progress.begin(&all.nodes[0], at(0));
    progress.note(&all.nodes[0], "ImagePullBackOff", BTreeMap::new());
    let message = "é".repeat(1_000_000);
    assert_eq!(json!(progress)["nodes"]["a"]["message"], "ImagePullBackOff");
    let outputs = [("x".to_owned(), message.clone())].into();
    progress.end(&all.nodes[0], Outcome::Succeeded { outputs, result: Some(message.clone()), message }, at(1));
    let written = json!(progress);
    assert!(written.to_string().len() < 20_000);
    assert_eq!(written["started"], "2023-11-14T22:13:20Z");
    assert_eq!(serde_json::from_value::<Progress>(written).unwrap(), progress);
    assert_eq!(serde_json::from_value::<Progress>(json!({})).unwrap(), Progress::default());
}

/// A random program: each step waits for some before it.
fn programs() -> impl Strategy<Value = Program> {
    let step = (prop::collection::vec(any::<prop::sample::Index>(), 0..3), 0..4_u32, 0..6_u8);
    let exits = 0..2_usize;
    (prop::collection::vec(step, 1..7), exits, prop::option::of(20..400_u64)).prop_map(|(steps, exits, deadline)| {
        let nodes = steps.into_iter().enumerate().map(|(index, (waits, tries, kind))| {
            let after: BTreeSet<usize> = waits.iter().filter(|_| index > 0).map(|wait| wait.index(index)).collect();
            let mut node = node(&format!("n{index}"), &after.into_iter().collect::<Vec<_>>());
            if tries > 0 {
                let backoff = Duration::from_secs(3);
                node.retry = Retry { limit: Some(tries - 1), backoff, factor: 2, max: None, given: true };
            }
            node.continue_on_failure = kind == 0;
            if kind == 1 {
                node.when = When::Skip;
            }
            node.deadline = (kind == 2).then_some(Duration::from_secs(15));
            node
        });
        let exit = (0..exits).map(|index| node(&format!("onExit.{index}"), &[])).collect();
        Program { nodes: nodes.collect(), exit, deadline: deadline.map(Duration::from_secs), ..Program::default() }
    })
}

#[derive(Clone, Debug)]
enum Event {
    /// Begins one of the steps that may begin.
    Start(prop::sample::Index),
    /// Ends one of those under way, well or not.
    End(prop::sample::Index, bool),
    /// Time passes, seconds.
    Wait(i64),
    /// The process is replaced.
    Restart,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<prop::sample::Index>().prop_map(Event::Start),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, well)| Event::End(which, well)),
        2 => (1..400_i64).prop_map(Event::Wait),
        1 => Just(Event::Restart),
    ]
}

fn is_ended(progress: &Progress, node: &Node) -> bool {
    progress.of(node).is_some_and(|recorded| recorded.ended().is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_happens_nothing_that_finished_runs_again_and_order_is_kept(
        all in programs(),
        events in prop::collection::vec(events(), 0..60),
    ) {
        let mut progress = Progress::new("r");
        let mut now = at(0);
        let mut succeeded: BTreeMap<String, u32> = BTreeMap::new();
        for event in events {
            let next = next(&all, &progress, now);
            prop_assert_eq!(super::next(&all, &progress, now), next.clone(), "the same question has the same answer");
            for node in &next.start {
                prop_assert!(next.progress.retry_at.is_none());
                prop_assert!(node.name.starts_with("onExit") || !succeeded.contains_key(&node.name), "{} again", node.name);
                prop_assert!(node.after.iter().all(|at| is_ended(&next.progress, &all.nodes[*at])), "{} too early", node.name);
                if node.name.starts_with("onExit") {
                    prop_assert!(all.nodes.iter().all(|node| !is_running(&next.progress, node)));
                }
            }
            progress = next.progress;
            match event {
                Event::Start(which) if !next.start.is_empty() => progress.begin(next.start[which.index(next.start.len())], now),
                Event::End(which, well) if !next.running.is_empty() => {
                    let node = next.running[which.index(next.running.len())];
                    progress.end(node, if well { Outcome::done() } else { failed() }, now);
                    if well {
                        *succeeded.entry(node.name.clone()).or_default() += 1;
                    }
                }
                Event::Wait(seconds) => now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap(),
                Event::Restart => progress = serde_json::from_value(json!(progress)).unwrap(),
                Event::Start(_) | Event::End(..) => {}
            }
            for name in succeeded.keys().filter(|name| !name.starts_with("onExit")) {
                prop_assert_eq!(progress.nodes[name].state, State::Succeeded);
            }
        }
        // From wherever it is, it ends well once everything goes well.
        let mut turns = 0;
        loop {
            let next = next(&all, &progress, now);
            progress = next.progress.clone();
            if next.phase == Phase::Succeeded {
                break;
            }
            for node in next.start.iter().chain(&next.running) {
                progress.begin(node, now);
                progress.end(node, Outcome::done(), now);
            }
            if let (true, true, Some(wake)) = (next.start.is_empty(), next.running.is_empty(), next.wake) {
                now = wake;
            }
            turns += 1;
            prop_assert!(turns < 200, "it never ends: {:?}", progress);
        }
        prop_assert!(all.nodes.iter().all(|node| is_ended(&progress, node)));
    }
}

fn is_running(progress: &Progress, node: &Node) -> bool {
    progress.of(node).is_some_and(|recorded| recorded.state == State::Running)
}
