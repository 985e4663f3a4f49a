//! The five conditions of a namespace that is being deleted. Pure.
//!
//! Types, reasons and the shape of the messages are upstream's
//! (kubernetes/kubernetes:pkg/controller/namespace/deletion/status_condition_utils.go v1.36.3):
//! people and tools read them. Unlike there, all five tell what is true at each pass.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::outcome::Outcome;

/// A condition's type and what it says when all is well.
struct Spec {
    type_: &'static str,
    good_reason: &'static str,
    good_message: &'static str,
    bad_reason: &'static str,
}

const DISCOVERY: Spec = Spec {
    type_: "NamespaceDeletionDiscoveryFailure",
    good_reason: "ResourcesDiscovered",
    good_message: "All resources successfully discovered",
    bad_reason: "DiscoveryFailed",
};
const PARSING: Spec = Spec {
    type_: "NamespaceDeletionGroupVersionParsingFailure",
    good_reason: "ParsedGroupVersions",
    good_message: "All legacy kube types successfully parsed",
    bad_reason: "GroupVersionParsingFailed",
};
const CONTENT: Spec = Spec {
    type_: "NamespaceDeletionContentFailure",
    good_reason: "ContentDeleted",
    good_message: "All content successfully deleted, may be waiting on finalization",
    bad_reason: "ContentDeletionFailed",
};
const REMAINING: Spec = Spec {
    type_: "NamespaceContentRemaining",
    good_reason: "ContentRemoved",
    good_message: "All content successfully removed",
    bad_reason: "SomeResourcesRemain",
};
const FINALIZERS: Spec = Spec {
    type_: "NamespaceFinalizersRemaining",
    good_reason: "ContentHasNoFinalizers",
    good_message: "All content-preserving finalizers finished",
    bad_reason: "SomeFinalizersRemain",
};

/// The conditions after a pass, those of others kept; none when nothing changes. `now` becomes the
/// transition time of those whose status changes.
pub(super) fn update(
    current: &[NamespaceCondition],
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let wanted = [
        (DISCOVERY, discovery(outcome)),
        (PARSING, parsing(outcome)),
        (CONTENT, content(outcome)),
        (REMAINING, remaining(outcome)),
        (FINALIZERS, finalizers(outcome)),
    ];
    let mut next = current.to_vec();
    for (spec, bad) in wanted {
        let (status, reason, message) = match bad {
            Some(message) => ("True", spec.bad_reason, message),
            None => ("False", spec.good_reason, spec.good_message.to_owned()),
        };
        let since = || Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
        match next.iter_mut().find(|condition| condition.type_ == spec.type_) {
            None => next.push(NamespaceCondition {
                type_: spec.type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: since(),
            }),
            Some(condition) => {
                if condition.status != status {
                    condition.last_transition_time = since();
                }
                status.clone_into(&mut condition.status);
                condition.reason = Some(reason.to_owned());
                condition.message = Some(message);
            }
        }
    }
    (next != current).then_some(next)
}

/// Whether any of the five stands in `current`.
pub(super) fn present(current: &[NamespaceCondition]) -> bool {
    let types = [DISCOVERY.type_, PARSING.type_, CONTENT.type_, REMAINING.type_, FINALIZERS.type_];
    current.iter().any(|condition| types.contains(&condition.type_.as_str()))
}

fn discovery(outcome: &Outcome) -> Option<String> {
    let failures: Vec<_> = outcome.failures.iter().map(|f| format!("{}: {}", f.group_version, f.reason)).collect();
    (!failures.is_empty())
        .then(|| format!("Discovery failed for some groups, {} failing: {}", failures.len(), failures.join(", ")))
}

fn parsing(outcome: &Outcome) -> Option<String> {
    let names: Vec<_> = outcome.unparsable.iter().map(|n| format!("unexpected group version {n:?}")).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn content(outcome: &Outcome) -> Option<String> {
    let mut errors: Vec<_> = outcome
        .reports
        .iter()
        .flat_map(|report| report.errors.iter().map(move |error| format!("{}: {error}", report.kind)))
        .collect();
    errors.sort();
    (!errors.is_empty())
        .then(|| format!("Failed to delete all resource types, {} remaining: {}", errors.len(), errors.join(", ")))
}

fn remaining(outcome: &Outcome) -> Option<String> {
    let mut kinds: Vec<_> = outcome
        .reports
        .iter()
        .filter(|report| report.survey.remaining > 0)
        .map(|report| {
            let (kind, survey) = (&report.kind, &report.survey);
            let about = if survey.exact { "" } else { "at least " };
            // Upstream ends the core group's resources with a dot, too.
            format!("{}.{} has {about}{} resource instances", kind.plural, kind.group, survey.remaining)
        })
        .collect();
    kinds.sort();
    (!kinds.is_empty()).then(|| format!("Some resources are remaining: {}", kinds.join(", ")))
}

fn finalizers(outcome: &Outcome) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in outcome.reports.iter().flat_map(|report| &report.survey.finalizers) {
        *counts.entry(finalizer).or_default() += count;
    }
    let counts: Vec<_> =
        counts.into_iter().map(|(finalizer, n)| format!("{finalizer} in {n} resource instances")).collect();
    (!counts.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", counts.join(", ")))
}
