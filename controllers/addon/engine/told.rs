//! Events with the reasons of keiko's addon-manager, beside ours: `Created`, `Submitted`, `Completed`,
//! `Pending` and `Failed` (`keikoproj/addon-manager:controllers/addon_controller.go`,
//! `pkg/workflows/workflow_lifecycle.go`). Each is told once, when what it says becomes so.

use quarterdeck_api::addon::{LifecycleStep, Phase};
use quarterdeck_runtime::events::Reason;

use crate::addon::lifecycle::{Book, Lifecycle};
use crate::addon::parent::LifecycleState;
use crate::addon::reasons::{COMPLETED, FAILED, LACKS, PENDING, SUBMITTED};

/// One event.
type Told = (Reason, String);

/// What is to be told of an Addon that stood as `before` and stands as `now`. `waits` says that it
/// waits for what may come by itself.
pub(super) fn told(
    name: &str,
    lifecycle: &Lifecycle,
    before: &LifecycleState,
    now: &LifecycleState,
    waits: &dyn Fn() -> bool,
) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    if before == now {
        return told;
    }
    let revision = &*lifecycle.checksum;
    let same = before.checksum == now.checksum;
    let (book_before, book) = (Book::read(&before.progress, revision), Book::read(&now.progress, revision));
    let begun = |book: &Book, step| book.has(step);
    if !same && now.installed == Some(Phase::Succeeded) && book.is_adopted() {
        return vec![(COMPLETED, format!("Addon {name} is taken over as it is; nothing is run."))];
    }
    let works = |state: &LifecycleState, book: &Book| {
        state.installed == Some(Phase::Succeeded) || LifecycleStep::ALL.iter().any(|step| begun(book, *step))
    };
    if works(now, &book) && !(same && works(before, &book_before)) && !lifecycle.deleting {
        told.push((COMPLETED, format!("Addon {name} is valid.")));
    }
    for step in LifecycleStep::ALL {
        if begun(&book, step) && !(same && begun(&book_before, step)) {
            told.push((SUBMITTED, format!("Submitted {step} of {name}.")));
        }
    }
    let succeeded = |phase: Option<Phase>| phase == Some(Phase::Succeeded);
    let prereqs = begun(&book, LifecycleStep::Prereqs) && succeeded(now.prereqs);
    if prereqs && !(same && succeeded(before.prereqs)) {
        told.push((COMPLETED, format!("Completed prereqs of {name}.")));
    }
    if succeeded(now.installed) && !(same && succeeded(before.installed)) {
        told.push((COMPLETED, format!("Completed install of {name}.")));
    }
    let news = (before.installed, &before.reason) != (now.installed, &now.reason);
    match now.installed {
        Some(Phase::Pending) if news && !now.reason.is_empty() && !works(now, &book) => {
            told.push((PENDING, format!("Addon {name}: {}", now.reason)));
        }
        Some(Phase::Failed | Phase::ValidationFailed | Phase::DeleteFailed) if news => {
            // A dependency that is missing is nobody's fault, upstream.
            let reason = if waits() { LACKS } else { FAILED };
            told.push((reason, format!("Addon {name}: {}", now.reason)));
        }
        _ => {}
    }
    told
}

#[cfg(test)]
mod tests {
    use quarterdeck_api::addon::Addon;
    use serde_json::{Value, json};

    use super::*;

    fn state(installed: Phase, reason: &str, prereqs: Option<Phase>, begun: &[&str], checksum: &str) -> LifecycleState {
        let progress: serde_json::Map<String, Value> =
            begun.iter().map(|step| ((*step).to_owned(), json!({"revision": checksum}))).collect();
        LifecycleState {
            checksum: checksum.to_owned(),
            installed: Some(installed),
            prereqs,
            reason: reason.to_owned(),
            progress: progress.into(),
            ..LifecycleState::default()
        }
    }

    #[test]
    fn each_step_of_a_life_is_told_once() {
        let addon: Addon = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"pkgName": "p", "pkgVersion": "1", "params": {"namespace": "x"},
                "lifecycle": {"prereqs": {"template": "t"}, "install": {"template": "t"}}},
        }))
        .unwrap();
        let lifecycle = Lifecycle::read(&addon);
        let revision = &*lifecycle.checksum;
        let done = Some(Phase::Succeeded);
        let pending = Some(Phase::Pending);
        let life = [
            (LifecycleState::default(), false, ""),
            (state(Phase::ValidationFailed, "no net", None, &[], revision), true, "Normal Failed"),
            (state(Phase::Pending, "net is not ready", pending, &[], revision), false, "Normal Pending"),
            (
                state(Phase::Pending, "", pending, &["prereqs"], revision),
                false,
                "Normal Completed valid, Normal Submitted prereqs",
            ),
            (state(Phase::Failed, "no", pending, &["prereqs"], revision), false, "Warning Failed"),
            (
                state(Phase::Pending, "x runs", done, &["prereqs", "install"], revision),
                false,
                "Normal Submitted install, Normal Completed prereqs",
            ),
            (state(Phase::Succeeded, "", done, &["prereqs", "install"], revision), false, "Normal Completed install"),
            (state(Phase::Succeeded, "", done, &["prereqs", "install"], revision), false, ""),
            (state(Phase::DeleteFailed, "stuck", done, &["prereqs", "install"], revision), false, "Warning Failed"),
        ];
        for pair in life.windows(2) {
            let (now, waits, expected) = &pair[1];
            let told = told("n/a", &lifecycle, &pair[0].0, now, &|| *waits);
            let words = ["valid", "prereqs", "install"];
            let short = told.iter().map(|(reason, text)| {
                let spoken = ![FAILED, LACKS, PENDING].contains(reason);
                let word = words.into_iter().find(|word| spoken && text.contains(word)).unwrap_or_default();
                format!("{} {} {word}", reason.kind().as_str(), reason.name()).trim_end().to_owned()
            });
            assert_eq!(short.collect::<Vec<_>>().join(", "), *expected, "{now:?}");
        }
        let old = state(Phase::Succeeded, "", done, &[], "1a2b3c4d");
        let mut adopted = state(Phase::Succeeded, "", done, &[], revision);
        adopted.progress = Book::adopted(&lifecycle).to_value();
        let told = told("n/a", &lifecycle, &old, &adopted, &|| false);
        let [(COMPLETED, text)] = &told[..] else { panic!("{told:?}") };
        assert!(text.contains("nothing is run"), "{text}");
    }
}
