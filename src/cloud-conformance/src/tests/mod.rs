mod buggy;

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_cloud::sim::Sim;

use crate::steering::ByCommand;
use crate::{CASES, Known, Report, Suite, Unsteered, Verdict, made_up};
use buggy::Buggy;

/// Runs the suite against a made-up cloud with the bug that is named after a case, if any.
async fn run(bug: Option<&'static str>, only: Option<&str>) -> Report {
    let sim = Arc::new(Sim::default());
    let known = made_up::populate(&sim).await.unwrap();
    let provider = Arc::new(Buggy::new(Arc::clone(&sim), bug));
    let mut suite = Suite::new(provider, known, Box::new(ByCommand::new(sim)));
    // Tests assert no timing.
    suite.tolerance = Duration::from_secs(60);
    suite.patience = Duration::from_secs(60);
    let cases: Vec<_> = CASES.iter().filter(|case| only.is_none_or(|only| case.id == only)).copied().collect();
    suite.run(&cases).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_made_up_cloud_passes_every_case() {
    let report = run(None, None).await;
    assert_eq!(report.cases.len(), 41);
    let wrong: Vec<_> = report.cases.iter().filter(|line| line.verdict != Verdict::Passed).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_catches_the_bug_that_is_named_after_it() {
    let mut missed = Vec::new();
    for case in CASES {
        let report = run(Some(case.id), Some(case.id)).await;
        if report.failed() != [case.id] {
            missed.push(report.cases[0].clone());
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fixture_what_is_not_seen_does_not_count_as_passed() {
    let suite = Suite::new(Arc::new(Sim::default()), Known::default(), Box::new(Unsteered::default()));
    let report = suite.run(CASES).await;
    assert!(report.failed().is_empty(), "{report}");
    let passed = report.cases.iter().filter(|line| line.verdict == Verdict::Passed).map(|line| line.id);
    assert_eq!(passed.collect::<Vec<_>>(), ["P1", "P2"], "{report}");
}

#[test]
fn a_report_is_read_by_people_and_by_programs() {
    let line = |id, verdict| crate::report::Line { id, title: "title", verdict };
    let report = Report {
        cases: vec![
            line("I1", Verdict::Passed),
            line("I2", Verdict::Failed("because".to_owned())),
            line("I3", Verdict::NotApplicable("no".to_owned())),
        ],
    };
    let text = report.to_string();
    assert!(text.contains("FAILED: because") && text.ends_with("1 passed, 1 failed, 1 not applicable"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["cases"][0]["verdict"], "passed");
    assert_eq!(json["cases"][1]["verdict"]["failed"], "because");
}
