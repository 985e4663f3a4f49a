//! The two runs: with the fence, and where none is installed.

use quarterdeck_it::audit::Event;
use quarterdeck_it::checker::{History, Law, Violation, check, unfenced};

use super::arena::Arena;
use super::mishaps::{self, SLOW};
use super::pauses;

/// How often writes are held on their way at most, until one of them needs its precondition.
const TRIES: usize = 5;

#[track_caller]
fn assert_lawful(history: &History, law: Law) {
    assert!(history.orphans.is_empty(), "nobody's: {:?}", history.orphans);
    let violations: Vec<_> = check(history, law).iter().map(Violation::to_string).collect();
    assert!(violations.is_empty(), "{law:?}: {violations:#?}\n{:#?}", history.tenures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_fence_nothing_of_a_past_tenure_lands() {
    let arena = Arena::open().await.unwrap();
    let fighters = arena.enter(arena.deck().args(["--fence=required"])).await.unwrap();
    mishaps::partition(&arena, &fighters).await.unwrap();
    mishaps::server_dies(&arena, &fighters).await.unwrap();
    pauses::paused_at_work(&arena, &fighters).await.unwrap();
    let late = pauses::held_on_the_way(&arena, &fighters).await.unwrap();
    // Of some the fence says so; others the server refuses before it asks the fence, for their resourceVersion.
    assert!(!late.iter().any(Event::succeeded), "late writes were taken: {late:#?}");
    mishaps::wrong_clocks(&arena, &fighters).await.unwrap();

    let history = arena.history().await.unwrap();
    assert!(history.working_tenures() >= 6, "{:#?}", history.tenures);
    assert_lawful(&history, Law::NothingLate);
    let unfenced = unfenced(&history);
    assert!(unfenced.is_empty(), "without a token: {unfenced:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fence_nothing_lands_late_but_by_pauses_and_nothing_is_undone() {
    let arena = Arena::open().await.unwrap();
    arena.remove_fence().await.unwrap();
    let fighters = arena.enter_with(arena.deck(), SLOW.timing).await.unwrap();
    mishaps::slow_renewals(&arena, &fighters, &SLOW).await.unwrap();
    fighters.leave().await.unwrap();

    let fighters = arena.enter(arena.deck()).await.unwrap();
    mishaps::partition(&arena, &fighters).await.unwrap();
    mishaps::black_hole(&arena, &fighters).await.unwrap();
    mishaps::lost_answers(&arena, &fighters).await.unwrap();
    mishaps::server_dies(&arena, &fighters).await.unwrap();
    let history = arena.history().await.unwrap();
    assert!(history.working_tenures() >= 7, "{:#?}", history.tenures);
    assert_lawful(&history, Law::NothingLate);

    pauses::paused_at_work(&arena, &fighters).await.unwrap();
    let mut late = Vec::new();
    for _ in 0..TRIES {
        // What is on its way may happen to be a creation alone, of a slice that its successor does not need.
        late.extend(pauses::held_on_the_way(&arena, &fighters).await.unwrap());
        if late.iter().any(|event| event.code() == 409) {
            break;
        }
    }
    assert!(late.iter().any(|event| event.code() == 409), "no precondition was needed: {late:#?}");
    let history = arena.history().await.unwrap();
    assert!(history.writes.iter().all(|write| write.token.is_none()), "there is no fence");
    assert_lawful(&history, Law::NothingUndone);
}
