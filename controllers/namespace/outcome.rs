//! What a pass over a namespace found, and what follows: finish, look again, or fail. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quarterdeck_runtime::object::Kind;

use super::content::Report;
use super::discovery::Failure;

/// Shortest time between two looks.
const SOONEST: Duration = Duration::from_millis(50);
/// Longest time between two looks while something is on its way.
const LATEST: Duration = Duration::from_secs(5);
/// Longest time between two looks while pods take their grace period.
const LATEST_GRACEFUL: Duration = Duration::from_secs(30);
/// How long an API group may be silent before an event says so.
const SILENT_GROUP: Duration = Duration::from_secs(2);
/// How long finalizers may take before an event names them.
const SLOW_FINALIZER: Duration = Duration::from_secs(10);
/// Longest message of an event that the server takes is 1024 bytes.
const EVENT_LIMIT: usize = 1000;

/// What one pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Group versions that did not tell what they serve.
    pub failures: Vec<Failure>,
    /// Group versions whose name makes no sense.
    pub unparsable: Vec<String>,
    /// Every kind that was looked at.
    pub reports: Vec<Report>,
    /// Whether the pass itself deleted nothing: every kind there is was empty when it was first
    /// looked at.
    pub untouched: bool,
}

impl Outcome {
    /// Whether the server told everything it serves and nothing is left of it.
    pub(super) fn is_clear(&self) -> bool {
        self.failures.is_empty() && self.unparsable.is_empty() && self.reports.iter().all(Report::is_clear)
    }

    /// All that went wrong, in order.
    pub(super) fn errors(&self) -> Vec<String> {
        let discovery = self.failures.iter().map(|f| format!("{}: {}", f.group_version, f.reason));
        let names = self.unparsable.iter().map(|name| format!("unexpected group version {name:?}"));
        let content = self.reports.iter().flat_map(|r| r.errors.iter().cloned());
        discovery.chain(names).chain(content).collect()
    }

    /// The kinds that the next look must see again.
    pub(super) fn left(&self) -> Vec<Kind> {
        self.reports.iter().filter(|report| !report.is_clear()).map(|report| report.kind.clone()).collect()
    }

    fn remaining(&self) -> usize {
        self.reports.iter().map(|report| report.survey.remaining).sum()
    }
}

/// Times that a verdict rests on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long ago the namespace was first seen deleting, when the pass began.
    pub waited: Duration,
    /// How long the pass took.
    pub took: Duration,
    /// How long to go on looking for late creations.
    pub settle: Duration,
    /// Longest time between two looks that the flags allow.
    pub at_most: Duration,
}

/// What follows from a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is left: remove our finalizer.
    Finish,
    /// Look again after this time.
    Again(Duration),
    /// Nothing moves by itself: let the queue back off.
    Failed(String),
}

/// What follows from a pass.
///
/// A namespace is finished only by a pass that found it empty from the start and began after
/// `settle`: an API server that has not heard of the deletion yet may have let an object in.
pub(super) fn verdict(outcome: &Outcome, times: Times) -> Verdict {
    if outcome.is_clear() {
        return if outcome.untouched && times.waited >= times.settle {
            Verdict::Finish
        } else {
            let since = times.waited + times.took;
            Verdict::Again(times.settle.saturating_sub(since).max(Duration::from_millis(1)))
        };
    }
    if outcome.remaining() == 0 || outcome.reports.iter().all(|r| r.survey.is_clear() || !r.errors.is_empty()) {
        return Verdict::Failed(outcome.errors().join("; "));
    }
    Verdict::Again(pace(outcome, times))
}

/// When to look again at what is on its way: after a fifth of the time already waited, so that the
/// end of a short wait is seen at once and a long one costs little.
fn pace(outcome: &Outcome, times: Times) -> Duration {
    let grace = outcome.reports.iter().map(|r| r.survey.grace).max().unwrap_or(0);
    let latest = LATEST.max(Duration::from_secs(grace) / 10).min(LATEST_GRACEFUL).min(times.at_most);
    (times.waited / 5).clamp(SOONEST.min(latest), latest)
}

/// What blocks the deletion, for an event; none while all goes as it should. It holds no counts, so
/// that it changes only when what blocks changes.
pub(super) fn blocked(outcome: &Outcome, waited: Duration) -> Option<String> {
    let mut causes = Vec::new();
    if waited >= SILENT_GROUP {
        for failure in &outcome.failures {
            causes.push(format!("API group {} does not answer: {}", failure.group_version, failure.reason));
        }
        for name in &outcome.unparsable {
            causes.push(format!("unexpected group version {name:?}"));
        }
        for report in &outcome.reports {
            causes.extend(report.errors.first().map(|error| format!("{}: {error}", report.kind)));
        }
    }
    if waited >= SLOW_FINALIZER {
        let mut kinds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for report in &outcome.reports {
            for finalizer in report.survey.finalizers.keys() {
                kinds.entry(finalizer).or_default().insert(report.kind.to_string());
            }
        }
        for (finalizer, kinds) in kinds {
            let kinds: Vec<_> = kinds.into_iter().collect();
            causes.push(format!("finalizer {finalizer} on {}", kinds.join(", ")));
        }
    }
    for report in &outcome.reports {
        let survey = &report.survey;
        let overdue = Duration::from_secs(survey.grace) + SLOW_FINALIZER;
        if survey.grace > 0 && survey.finalizers.is_empty() && waited >= overdue {
            causes.push(format!("{} past their grace period", report.kind));
        }
    }
    if causes.is_empty() {
        return None;
    }
    let mut message = format!("Deletion waits for: {}", causes.join("; "));
    if message.len() > EVENT_LIMIT {
        message.truncate(message.floor_char_boundary(EVENT_LIMIT - 3));
        message.push_str("...");
    }
    Some(message)
}
