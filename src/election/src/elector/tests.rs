//! The state machine by table: what it does upon which event.

use super::*;
use crate::{epoch::EpochToken, observer::tests::lease};

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> BootInstant {
    BootInstant::default() + SECOND * 1000 + Duration::from_millis(millis)
}

/// An elector "a" under test, and the server's answers by hand.
struct Desk {
    elector: Elector,
}

impl Desk {
    fn new() -> Self {
        Self { elector: Elector::new("a", Timing::default()) }
    }

    /// One that leads since `at(0)`: token u/1, version 10.
    fn leading() -> Self {
        let mut desk = Self::new();
        desk.elector.step(at(0), Event::Seen(LeaseSight::Is(lease("u", 9, "", 0))));
        let actions = desk.wrote(at(0), Ok(lease("u", 10, "a", 1)));
        assert_eq!(actions, [Action::ProveFence { token: token(1) }]);
        let judged = Event::FenceJudged { token: token(1), may_lead: true };
        let lead = Action::Lead { token: token(1), lease_version: 10, deadline: at(13_500) };
        assert_eq!(desk.elector.step(at(0), judged), [lead]);
        desk
    }

    fn tick(&mut self, now: BootInstant) -> Vec<Action> {
        self.elector.step(now, Event::Tick)
    }

    fn saw(&mut self, now: BootInstant, seen: LeaseView) -> Vec<Action> {
        self.elector.step(now, Event::Seen(LeaseSight::Is(seen)))
    }

    fn wrote(&mut self, now: BootInstant, answer: Result<LeaseView, LeaseError>) -> Vec<Action> {
        let id = self.elector.requests;
        self.elector.step(now, Event::Answered(id, Answer::Wrote(answer)))
    }

    fn got(&mut self, now: BootInstant, answer: Result<Option<LeaseView>, LeaseError>) -> Vec<Action> {
        let id = self.elector.requests;
        self.elector.step(now, Event::Answered(id, Answer::Got(answer)))
    }
}

fn token(transitions: i32) -> EpochToken {
    EpochToken { lease_uid: "u".into(), transitions }
}

fn unknown() -> LeaseError {
    LeaseError::Unknown("no answer".into())
}

/// What the actions ask of the server, in words.
fn asked(actions: &[Action]) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Ask { request: Request::Get, .. } => "get".to_owned(),
        Action::Ask { request: Request::Create { .. }, .. } => "create".to_owned(),
        Action::Ask { request: Request::Replace { base, change, .. }, .. } => format!("{change:?}@{}", base.version),
        Action::ProveFence { .. } => "prove".to_owned(),
        Action::Lead { .. } => "lead".to_owned(),
        Action::Extend { deadline } => format!("extend {}", deadline.since(at(0)).as_millis()),
        Action::StandDown { loss } => format!("stand down: {loss}"),
        Action::Finish => "finish".to_owned(),
    };
    actions.iter().map(word).collect()
}

#[test]
fn looks_first_and_creates_a_lease_that_was_never_there() {
    let mut desk = Desk::new();
    assert_eq!(asked(&desk.tick(at(0))), ["get"]);
    assert_eq!(asked(&desk.got(at(5), Ok(None))), ["create"]);
    // The namespace is missing, or we lack the right: again after a retry period, looking first.
    assert_eq!(asked(&desk.wrote(at(10), Err(LeaseError::Rejected("403".into())))), [] as [&str; 0]);
    assert_eq!(desk.elector.next_wake(), Some(at(2005)));
    assert_eq!(asked(&desk.tick(at(2005))), ["get"]);
    assert_eq!(asked(&desk.got(at(2010), Ok(None))), ["create"]);
    assert_eq!(asked(&desk.wrote(at(2015), Ok(lease("u", 1, "a", 0)))), ["prove"]);
    assert_eq!(desk.elector.activity(), Activity::Proving);
}

#[test]
fn takes_a_released_lease_in_one_round_trip_and_an_expired_one_on_time() {
    let mut desk = Desk::new();
    assert_eq!(asked(&desk.saw(at(0), lease("u", 3, "b", 7))), [] as [&str; 0]);
    assert_eq!(asked(&desk.saw(at(900), lease("u", 4, "", 7))), ["Take@4"]);

    let mut desk = Desk::new();
    desk.saw(at(0), lease("u", 3, "b", 7));
    assert_eq!(asked(&desk.tick(at(14_999))), ["get"], "the holder is silent: look, do not take");
    desk.got(at(14_999), Ok(Some(lease("u", 3, "b", 7))));
    assert_eq!(desk.elector.next_wake(), Some(at(15_000)));
    assert_eq!(asked(&desk.tick(at(15_000))), ["Take@3"]);
}

#[test]
fn looks_only_while_the_watch_is_silent() {
    let mut desk = Desk::new();
    for second in 0..10u64 {
        let mut renewed = lease("u", second, "b", 7);
        renewed.record.duration_seconds = 15 + i32::try_from(second).unwrap();
        assert_eq!(asked(&desk.saw(at(second * 2000), renewed)), [] as [&str; 0]);
        assert_eq!(asked(&desk.tick(at(second * 2000 + 1999))), [] as [&str; 0]);
    }
    let last = 18_000;
    assert_eq!(desk.elector.next_wake(), Some(at(last + 3000)));
    assert_eq!(asked(&desk.tick(at(last + 3000))), ["get"]);
    desk.got(at(last + 3001), Err(unknown()));
    assert_eq!(desk.elector.next_wake(), Some(at(last + 4000)), "again after a second");
}

#[test]
fn a_lost_race_is_read_again_and_an_open_outcome_too() {
    for error in [LeaseError::Conflict, LeaseError::NotFound, unknown()] {
        let mut desk = Desk::new();
        desk.saw(at(0), lease("u", 4, "", 7));
        assert_eq!(asked(&desk.wrote(at(5), Err(error.clone()))), ["get"], "{error}");
        assert_eq!(asked(&desk.got(at(9), Ok(Some(lease("u", 5, "b", 8))))), [] as [&str; 0]);
        assert_eq!(desk.elector.observer().live_holder(at(10)).as_deref(), Some("b"));
    }
    // It went through after all: what it began is not known, so a new epoch begins.
    let mut desk = Desk::new();
    desk.saw(at(0), lease("u", 4, "", 7));
    desk.wrote(at(3875), Err(unknown()));
    assert_eq!(asked(&desk.got(at(3880), Ok(Some(lease("u", 5, "a", 8))))), ["Take@5"]);
    assert_eq!(asked(&desk.wrote(at(3885), Ok(lease("u", 6, "a", 9)))), ["prove"]);
}

#[test]
fn renews_every_retry_period_and_counts_from_the_sending() {
    let mut desk = Desk::leading();
    assert_eq!(desk.elector.next_wake(), Some(at(2000)));
    assert_eq!(asked(&desk.tick(at(2000))), ["Renew@10"]);
    // The answer takes three seconds; the deadline is 13.5 s after the sending all the same, and the next try is due.
    assert_eq!(asked(&desk.wrote(at(5000), Ok(lease("u", 11, "a", 1)))), ["extend 15500", "Renew@11"]);
    assert_eq!(desk.elector.deadline(), Some(at(15_500)));
    assert_eq!(desk.elector.slow_paths(), 0);
}

#[test]
fn a_failed_renewal_reads_and_renews_upon_what_it_read() {
    for error in [LeaseError::Conflict, LeaseError::Rejected("429".into()), unknown()] {
        let mut desk = Desk::leading();
        desk.tick(at(2000));
        assert_eq!(asked(&desk.wrote(at(2100), Err(error.clone()))), ["get"], "{error}");
        assert_eq!(desk.elector.slow_paths(), 1);
        assert_eq!(asked(&desk.got(at(2200), Ok(Some(lease("u", 12, "a", 1))))), ["Renew@12"]);
        assert_eq!(asked(&desk.wrote(at(2300), Ok(lease("u", 13, "a", 1)))), ["extend 15700"]);
        assert_eq!(desk.elector.next_wake(), Some(at(4200)));
    }
}

#[test]
fn steps_down_in_time_and_gives_the_lease_back_only_after_the_workers_are_joined() {
    let mut desk = Desk::leading();
    desk.tick(at(2000));
    assert_eq!(asked(&desk.wrote(at(5875), Err(unknown()))), ["get"]);
    assert_eq!(desk.elector.next_wake(), Some(at(9750)));
    let down = asked(&desk.tick(at(9750)));
    assert_eq!(down, ["stand down: the lease could not be renewed in time"]);
    assert_eq!(desk.elector.activity(), Activity::Draining);
    assert_eq!(asked(&desk.tick(at(60_000))), [] as [&str; 0], "nothing before the workers are joined");
    // A write was under way at the loss: the version is read first.
    assert_eq!(asked(&desk.elector.step(at(60_001), Event::WorkersJoined)), ["get"]);
    assert_eq!(asked(&desk.got(at(60_002), Ok(Some(lease("u", 14, "a", 1))))), ["Release@14"]);
    assert_eq!(asked(&desk.wrote(at(60_003), Ok(lease("u", 15, "", 1)))), ["Take@15"], "follows, and it is free");
}

#[test]
fn one_that_could_not_renew_lets_others_go_first() {
    let mut desk = Desk::leading();
    desk.tick(at(2000));
    desk.wrote(at(2001), Err(unknown()));
    desk.got(at(2002), Err(unknown()));
    assert_eq!(desk.elector.next_wake(), Some(at(4000)));
    assert_eq!(asked(&desk.tick(at(9750)))[0], "stand down: the lease could not be renewed in time");
    assert_eq!(asked(&desk.elector.step(at(9751), Event::WorkersJoined)), ["Release@10"]);
    assert_eq!(asked(&desk.wrote(at(9760), Ok(lease("u", 15, "", 1)))), [] as [&str; 0]);
    assert_eq!(asked(&desk.tick(at(11_749))), [] as [&str; 0]);
    assert_eq!(asked(&desk.tick(at(11_750))), ["Take@15"]);
}

#[test]
fn ends_the_tenure_when_the_lease_is_seen_to_be_anothers() {
    let cases = [
        (LeaseSight::Is(lease("u", 11, "b", 2)), "the lease was taken by b"),
        (LeaseSight::Is(lease("u", 11, "", 1)), "the lease was released by somebody else"),
        (LeaseSight::Is(lease("u", 11, "a", 2)), "the lease was taken by a"),
        (LeaseSight::Is(lease("v", 11, "a", 1)), "the lease was deleted"),
        (LeaseSight::Gone(Some(11)), "the lease was deleted"),
        (LeaseSight::Gone(None), "the lease was deleted"),
    ];
    for (sight, reason) in cases {
        let mut desk = Desk::leading();
        assert_eq!(asked(&desk.elector.step(at(500), Event::Seen(sight.clone()))), [format!("stand down: {reason}")]);
        // The same by the slow path.
        let mut desk = Desk::leading();
        desk.tick(at(2000));
        desk.wrote(at(2001), Err(LeaseError::Conflict));
        let read = match sight {
            LeaseSight::Is(lease) => Some(lease),
            LeaseSight::Gone(_) => None,
        };
        assert_eq!(asked(&desk.got(at(2002), Ok(read))), [format!("stand down: {reason}")]);
    }
}

#[test]
fn old_news_and_our_own_do_not_end_it() {
    let mut desk = Desk::leading();
    for sight in [
        LeaseSight::Is(lease("u", 9, "b", 0)),
        LeaseSight::Gone(Some(3)),
        LeaseSight::Is(lease("u", 10, "a", 1)),
        LeaseSight::Is(lease("u", 12, "a", 1)),
    ] {
        assert_eq!(asked(&desk.elector.step(at(500), Event::Seen(sight))), [] as [&str; 0]);
    }
    assert_eq!(desk.elector.activity(), Activity::Leading);
}

#[test]
fn one_whose_lease_was_deleted_may_create_it_at_once_and_others_wait() {
    let mut desk = Desk::leading();
    desk.elector.step(at(500), Event::Seen(LeaseSight::Gone(Some(11))));
    assert_eq!(asked(&desk.elector.step(at(600), Event::WorkersJoined)), ["create"]);

    let mut desk = Desk::new();
    desk.saw(at(0), lease("u", 3, "b", 7));
    desk.elector.step(at(500), Event::Seen(LeaseSight::Gone(Some(4))));
    assert_eq!(asked(&desk.tick(at(15_499)))[..], ["get"]);
    desk.got(at(15_499), Ok(None));
    assert_eq!(asked(&desk.tick(at(15_500))), ["create"]);

    // Too late to be sure that nobody had it in between.
    let mut desk = Desk::leading();
    assert!(asked(&desk.tick(at(20_000)))[0].starts_with("stand down"));
    desk.elector.step(at(20_001), Event::Seen(LeaseSight::Gone(Some(50))));
    let after = asked(&desk.elector.step(at(20_002), Event::WorkersJoined));
    assert_eq!(after, ["Release@10"]);
    assert_eq!(asked(&desk.wrote(at(20_003), Err(LeaseError::NotFound))), [] as [&str; 0]);
    assert_eq!(asked(&desk.tick(at(22_003))), [] as [&str; 0]);
    assert!(desk.elector.next_wake() < Some(at(35_001)));
}

#[test]
fn stopping_drains_releases_and_ends() {
    let mut desk = Desk::leading();
    assert_eq!(asked(&desk.elector.step(at(100), Event::Stop)), ["stand down: the process is stopping"]);
    assert_eq!(asked(&desk.elector.step(at(150), Event::WorkersJoined)), ["Release@10"]);
    // Somebody annotated the Lease meanwhile.
    assert_eq!(asked(&desk.wrote(at(160), Err(LeaseError::Conflict))), ["get"]);
    assert_eq!(asked(&desk.got(at(170), Ok(Some(lease("u", 12, "a", 1))))), ["Release@12"]);
    assert_eq!(asked(&desk.wrote(at(180), Ok(lease("u", 13, "", 1)))), ["finish"]);
    assert_eq!(desk.elector.next_wake(), None);
}

#[test]
fn stopping_ends_in_every_phase() {
    let mut follower = Desk::new();
    follower.saw(at(0), lease("u", 3, "b", 7));
    assert_eq!(asked(&follower.elector.step(at(1), Event::Stop)), ["finish"]);

    let mut taking = Desk::new();
    taking.saw(at(0), lease("u", 3, "", 7));
    assert_eq!(asked(&taking.elector.step(at(1), Event::Stop)), ["get"]);
    assert_eq!(asked(&taking.got(at(2), Ok(Some(lease("u", 4, "a", 8))))), ["Release@4"]);

    let mut proving = Desk::new();
    proving.saw(at(0), lease("u", 3, "", 7));
    proving.wrote(at(1), Ok(lease("u", 4, "a", 8)));
    assert_eq!(asked(&proving.elector.step(at(2), Event::Stop)), ["Release@4"]);

    // A worker that will not join: its writes have ended by then, so the lease is given back.
    let mut stuck = Desk::leading();
    stuck.elector.step(at(0), Event::Stop);
    assert_eq!(stuck.elector.next_wake(), Some(at(9500)));
    assert_eq!(asked(&stuck.tick(at(9500))), ["Release@10"]);

    // The server is away: tried until the renew deadline, then it ends all the same.
    let mut away = Desk::leading();
    away.elector.step(at(0), Event::Stop);
    away.elector.step(at(0), Event::WorkersJoined);
    assert_eq!(asked(&away.wrote(at(1), Err(unknown()))), [] as [&str; 0]);
    assert_eq!(away.elector.next_wake(), Some(at(250)));
    assert_eq!(asked(&away.tick(at(250))), ["get"]);
    assert_eq!(asked(&away.tick(at(10_000))), ["finish"]);
}

#[test]
fn without_the_fence_it_requires_it_gives_the_lease_back_and_waits() {
    let mut desk = Desk::new();
    desk.saw(at(0), lease("u", 9, "", 0));
    desk.wrote(at(1), Ok(lease("u", 10, "a", 1)));
    let judged = Event::FenceJudged { token: token(1), may_lead: false };
    assert_eq!(asked(&desk.elector.step(at(1000), judged)), ["Release@10"]);
    assert_eq!(asked(&desk.wrote(at(1001), Ok(lease("u", 11, "", 1)))), [] as [&str; 0]);
    desk.saw(at(15_999), lease("u", 11, "", 1));
    assert_eq!(asked(&desk.tick(at(15_999))), [] as [&str; 0]);
    assert_eq!(asked(&desk.tick(at(16_000))), ["Take@11"]);
}

#[test]
fn a_judgement_of_another_tenure_changes_nothing() {
    let mut desk = Desk::leading();
    let judged = Event::FenceJudged { token: token(0), may_lead: false };
    assert_eq!(asked(&desk.elector.step(at(1), judged)), [] as [&str; 0]);
    assert_eq!(desk.elector.activity(), Activity::Leading);
}

#[test]
fn doubt_renews_at_once() {
    let mut desk = Desk::leading();
    assert_eq!(asked(&desk.elector.step(at(300), Event::Doubt)), ["Renew@10"]);
    assert_eq!(asked(&desk.elector.step(at(301), Event::Doubt)), [] as [&str; 0], "one at a time");
}

#[test]
fn a_proof_that_took_too_long_begins_nothing() {
    let mut desk = Desk::new();
    desk.saw(at(0), lease("u", 9, "", 0));
    desk.wrote(at(1), Ok(lease("u", 10, "a", 1)));
    let judged = Event::FenceJudged { token: token(1), may_lead: true };
    let late = asked(&desk.elector.step(at(9750), judged));
    assert_eq!(late, ["Release@10"], "no renewal went through meanwhile");
}

#[test]
fn answers_to_requests_given_up_are_ignored() {
    let mut desk = Desk::leading();
    desk.tick(at(2000));
    let renewal = desk.elector.requests;
    desk.elector.step(at(2001), Event::Stop);
    let late = Event::Answered(renewal, Answer::Wrote(Ok(lease("u", 11, "a", 1))));
    assert_eq!(asked(&desk.elector.step(at(2002), late)), [] as [&str; 0]);
    assert_eq!(desk.elector.activity(), Activity::Draining);
}
