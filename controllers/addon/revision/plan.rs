//! Whether a new revision is given up.

use std::time::Duration;

use super::{Kept, Mode, Verdict};
use crate::addon::parent::State;

/// What a judgement is made from.
#[derive(Clone, Debug)]
pub struct Trial<'a> {
    /// What is done about revisions.
    pub mode: Mode,
    /// The revisions that are known; the first is the one that is tried.
    pub kept: &'a [Kept],
    /// Now, Unix time in milliseconds.
    pub now: i64,
    /// How long a revision is tried.
    pub timeout: Duration,
    /// How the addon is.
    pub state: State,
    /// Whether all of the revision is applied.
    pub applied: bool,
    /// Why it will not come right, where that is known: an object that failed, or was refused for good.
    pub hopeless: Option<&'a str>,
    /// Whether all that the revision asks for is known, and all of it could be looked at.
    pub sure: bool,
    /// Digest of its CustomResourceDefinitions; empty if it has none.
    pub crds: &'a str,
}

/// What becomes of the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// What was said of it stays.
    Stays,
    /// It is tried for so long yet.
    Tried(Duration),
    /// It is good.
    Good,
    /// Its time is over, and it is not given up any more.
    Late,
    /// It is bad, and stays in force.
    Bad {
        /// Why it does.
        reason: String,
    },
    /// It is bad, and given up.
    Back {
        /// The revision that takes its place.
        to: String,
        /// Why.
        reason: String,
    },
}

/// What becomes of the revision that is tried.
#[must_use]
pub fn plan(trial: &Trial<'_>) -> Judgement {
    let Some((this, others)) = trial.kept.split_first() else { return Judgement::Stays };
    if trial.mode == Mode::Off {
        return Judgement::Stays;
    }
    let timeout = i64::try_from(trial.timeout.as_millis()).unwrap_or(i64::MAX);
    // A clock that was set back ends no trial, and makes none longer than it is.
    let past = trial.now.saturating_sub(this.time).max(0);
    let left = timeout.saturating_sub(past);
    let is_well = matches!(trial.state, State::Ready | State::Held) && trial.applied && trial.sure;
    match this.verdict {
        Verdict::Good if is_well => return Judgement::Stays,
        // It was good for a moment only.
        Verdict::Good if left > 0 => {}
        Verdict::Good => return Judgement::Stays,
        _ if is_well => return Judgement::Good,
        Verdict::Bad | Verdict::Late => return Judgement::Stays,
        Verdict::New => {}
    }
    if trial.mode != Mode::Auto || !trial.sure {
        return Judgement::Stays;
    }
    let over = left <= 0;
    let reason = match trial.hopeless {
        Some(reason) => reason.to_owned(),
        None if over && trial.state == State::Degraded => "it did not become healthy in time".to_owned(),
        None if over => return Judgement::Late,
        None => return Judgement::Tried(Duration::from_millis(u64::try_from(left).unwrap_or_default())),
    };
    let Some(good) = others.iter().find(|kept| kept.verdict == Verdict::Good && kept.is_stored()) else {
        return Judgement::Bad { reason: format!("{reason}; not rolled back: no good revision is kept") };
    };
    if good.crds != trial.crds {
        let reason = format!(
            "{reason}; not rolled back to {good}: the CustomResourceDefinitions differ, and objects would be lost"
        );
        return Judgement::Bad { reason };
    }
    Judgement::Back { to: good.hash.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(hash: &str, verdict: Verdict, crds: &str) -> Kept {
        Kept { hash: hash.into(), verdict, crds: crds.into(), digest: "d".into(), time: 1_000, ..Kept::default() }
    }

    /// What a test says of a trial: verdict, ms since it began, state, applied, hopeless.
    type Case = (Verdict, i64, State, bool, Option<&'static str>);

    fn judge(case: Case, edit: impl FnOnce(&mut Vec<Kept>, &mut Trial<'_>)) -> Judgement {
        let (verdict, past, state, applied, hopeless) = case;
        let mut all = vec![kept("c", verdict, ""), kept("b", Verdict::Bad, ""), kept("a", Verdict::Good, "")];
        let mut trial = Trial {
            mode: Mode::Auto,
            kept: &[],
            now: 1_000 + past,
            timeout: Duration::from_secs(10),
            state,
            applied,
            hopeless,
            sure: true,
            crds: "",
        };
        edit(&mut all, &mut trial);
        plan(&Trial { kept: &all, ..trial })
    }

    #[test]
    fn a_revision_is_given_up_only_while_it_is_tried() {
        use State::{Degraded, Held, Progressing, Ready};
        use Verdict::{Bad, Good, Late, New};
        let back = |reason: &str| Judgement::Back { to: "a".into(), reason: reason.into() };
        let late = || back("it did not become healthy in time");
        let tried = |seconds| Judgement::Tried(Duration::from_secs(seconds));
        let broken = Some("broken");
        for (case, expected) in [
            ((New, 0, Progressing, false, None), tried(10)),
            ((New, 4_000, Degraded, false, None), tried(6)),
            ((New, 4_000, Degraded, false, broken), back("broken")),
            ((New, 4_000, Progressing, true, broken), back("broken")),
            ((New, 4_000, Ready, true, None), Judgement::Good),
            ((New, 4_000, Held, true, None), Judgement::Good),
            ((New, 4_000, Ready, false, None), tried(6)),
            ((New, 10_000, Degraded, true, None), late()),
            ((New, 99_000, Degraded, true, None), late()),
            ((New, 10_000, Progressing, false, None), Judgement::Late),
            ((New, -5_000, Progressing, false, None), tried(10)),
            ((Good, 4_000, Ready, true, None), Judgement::Stays),
            ((Good, 4_000, Degraded, true, broken), back("broken")),
            ((Good, 4_000, Progressing, true, None), tried(6)),
            ((Good, 10_000, Degraded, true, broken), Judgement::Stays),
            ((Bad, 4_000, Degraded, true, broken), Judgement::Stays),
            ((Bad, 4_000, Ready, true, None), Judgement::Good),
            ((Late, 4_000, Degraded, true, broken), Judgement::Stays),
            ((Late, 90_000, Ready, true, None), Judgement::Good),
        ] {
            assert_eq!(judge(case, |_, _| ()), expected, "{case:?}");
        }
    }

    #[test]
    fn there_has_to_be_a_way_back() {
        let failed = (Verdict::New, 1_000, State::Degraded, true, Some("broken"));
        let stays = |judgement, words: &str| match judgement {
            Judgement::Bad { reason } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        };
        stays(judge(failed, |all, _| all.truncate(2)), "no good revision");
        stays(judge(failed, |all, _| all[2].digest.clear()), "no good revision");
        stays(judge(failed, |all, _| all[2].crds = "x".into()), "CustomResourceDefinitions differ");
        stays(judge(failed, |_, trial| trial.crds = "x"), "CustomResourceDefinitions differ");
        let same = judge(failed, |all, trial| {
            all[2].crds = "x".into();
            trial.crds = "x";
        });
        assert!(matches!(same, Judgement::Back { .. }));
        let manual = |trial: &mut Trial<'_>| trial.mode = Mode::Manual;
        assert_eq!(judge(failed, |_, trial| manual(trial)), Judgement::Stays);
        let well = (Verdict::New, 1_000, State::Ready, true, None);
        assert_eq!(judge(well, |_, trial| manual(trial)), Judgement::Good, "for people to choose from");
        assert_eq!(judge(well, |_, trial| trial.mode = Mode::Off), Judgement::Stays);
        assert_eq!(judge(failed, |_, trial| trial.sure = false), Judgement::Stays);
        assert_eq!(judge(failed, |all, _| all.clear()), Judgement::Stays);
    }
}
