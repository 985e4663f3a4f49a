//! Which revisions are kept, and what a person's word means for them.

use super::{Kept, MOST, Mode, Revisions, RollBack, Verdict};

/// What a person asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The revision to go back to, as the annotation names it.
    pub to: String,
    /// The revision that the source asked for when that was said: it counts for no other.
    pub from: String,
}

/// Notes that a revision comes into force: it is the newest from now on. Returns whether anything
/// changed. What was good of it stays good; what was bad is tried again.
pub fn begin(kept: &mut Vec<Kept>, hash: &str, version: &str, now: i64) -> bool {
    if kept.first().is_some_and(|first| first.hash == hash) {
        return false;
    }
    let known = kept.iter().position(|kept| kept.hash == hash).map(|at| kept.remove(at));
    let mut new = known.unwrap_or_else(|| Kept { hash: hash.to_owned(), ..Kept::default() });
    new.version = version.to_owned();
    new.time = now;
    new.reason.clear();
    if new.verdict != Verdict::Good {
        new.verdict = Verdict::New;
    }
    kept.insert(0, new);
    if kept.len() > MOST {
        // The newest good one is what all is kept for.
        let good = kept.iter().position(|kept| kept.verdict == Verdict::Good).filter(|at| *at >= MOST);
        if let Some(at) = good {
            kept.swap(MOST - 1, at);
        }
        kept.truncate(MOST);
    }
    true
}

/// The one revision whose hash begins so.
#[must_use]
pub fn find<'a>(kept: &'a [Kept], hash: &str) -> Option<&'a Kept> {
    let mut found = kept.iter().filter(|kept| !hash.is_empty() && kept.hash.starts_with(hash));
    found.next().filter(|_| found.next().is_none())
}

/// What is to be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// What the source asks for.
    Source,
    /// An older revision in its place.
    Back(RollBack),
}

/// What is to be in force when the source asks for `key`, and what is worth telling. `asked` is a
/// person's word as it stands now; `revisions.asked` learns for which revision it counts.
pub fn wish(
    revisions: &mut Revisions,
    mode: Mode,
    key: &str,
    asked: Option<(&str, Option<&str>)>,
) -> (Wish, Option<String>) {
    if mode == Mode::Off {
        return (Wish::Source, asked.map(|_| "a roll-back was asked for, and none is kept (rollback: off)".to_owned()));
    }
    let holds = revisions.back.clone().filter(|back| back.from == key);
    let automatic = holds.filter(|back| !back.by_person);
    let otherwise = || automatic.clone().map_or(Wish::Source, Wish::Back);
    let Some((to, from)) = asked else {
        revisions.asked = None;
        return (otherwise(), None);
    };
    let known = revisions.asked.as_ref().filter(|known| known.to == to);
    let from = match (from, known) {
        (Some(from), _) => from.to_owned(),
        (None, Some(known)) => known.from.clone(),
        (None, None) => key.to_owned(),
    };
    let counts = from == key;
    revisions.asked = Some(Asked { to: to.to_owned(), from });
    if !counts {
        let text =
            format!("the roll-back to {to} is without effect: the source asks for another revision by now, {key}");
        return (otherwise(), Some(text));
    }
    match find(&revisions.kept, to) {
        // What the source asks for is asked for by a person, too: it is tried, good or bad.
        Some(kept) if kept.hash == key => (Wish::Source, None),
        Some(kept) if kept.is_stored() => {
            let back = RollBack {
                from: key.to_owned(),
                to: kept.hash.clone(),
                by_person: true,
                reason: "asked for".to_owned(),
            };
            (Wish::Back(back), None)
        }
        Some(kept) => (otherwise(), Some(format!("cannot go back to {kept}: its content is not stored"))),
        None => {
            let all: Vec<&str> = revisions.kept.iter().map(|kept| kept.hash.as_str()).collect();
            (otherwise(), Some(format!("cannot go back to {to:?}: kept are {}", all.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(hash: &str, verdict: Verdict) -> Kept {
        Kept { hash: hash.into(), verdict, digest: "d".into(), ..Kept::default() }
    }

    fn hashes(kept: &[Kept]) -> Vec<&str> {
        kept.iter().map(|kept| kept.hash.as_str()).collect()
    }

    #[test]
    fn three_are_kept_and_always_the_newest_good_one() {
        let mut all = Vec::new();
        assert!(begin(&mut all, "a", "1", 1));
        assert!(!begin(&mut all, "a", "1", 2), "it is in force already");
        assert_eq!((all[0].time, all[0].verdict), (1, Verdict::New));
        all[0].verdict = Verdict::Good;
        for (at, hash) in ["b", "c", "d", "e"].into_iter().enumerate() {
            begin(&mut all, hash, "2", 10 + i64::try_from(at).expect("small"));
            all[0].verdict = Verdict::Bad;
        }
        assert_eq!(hashes(&all), ["e", "d", "a"]);
        all[0].verdict = Verdict::Good;
        begin(&mut all, "f", "3", 20);
        assert_eq!(hashes(&all), ["f", "e", "d"]);
    }

    #[test]
    fn what_comes_again_is_tried_again_unless_it_was_good() {
        let mut all = vec![kept("c", Verdict::New), kept("b", Verdict::Bad), kept("a", Verdict::Good)];
        all[1].reason = "broken".into();
        begin(&mut all, "b", "2", 7);
        assert_eq!((hashes(&all), all[0].verdict, all[0].reason.as_str()), (vec!["b", "c", "a"], Verdict::New, ""));
        begin(&mut all, "a", "1", 8);
        assert_eq!((hashes(&all), all[0].verdict, all[0].time), (vec!["a", "b", "c"], Verdict::Good, 8));
    }

    #[test]
    fn a_word_counts_for_the_revision_it_was_said_about() {
        let all = vec![kept("c3", Verdict::New), kept("b2", Verdict::Bad), kept("a1", Verdict::Good)];
        let mut revisions = Revisions { kept: all, ..Revisions::default() };
        let to = |wish: Wish| match wish {
            Wish::Source => None,
            Wish::Back(back) => Some((back.to, back.by_person)),
        };
        let auto = Mode::Auto;
        assert_eq!(to(wish(&mut revisions, auto, "c3", None).0), None);
        // By hand, without the revision that it is about.
        assert_eq!(to(wish(&mut revisions, auto, "c3", Some(("a", None))).0), Some(("a1".into(), true)));
        assert_eq!(revisions.asked, Some(Asked { to: "a".into(), from: "c3".into() }));
        let (next, told) = wish(&mut revisions, auto, "d4", Some(("a", None)));
        assert_eq!(to(next), None);
        assert!(told.expect("a text").contains("without effect"));
        // Said again about what the source asks for now.
        assert_eq!(to(wish(&mut revisions, auto, "d4", Some(("a", Some("d4")))).0), Some(("a1".into(), true)));
        let (next, told) = wish(&mut revisions, auto, "d4", Some(("x", None)));
        assert_eq!((to(next), told.expect("a text").contains("kept are c3, b2, a1")), (None, true));
        assert!(wish(&mut revisions, Mode::Off, "d4", Some(("a", None))).1.is_some());

        // An automatic roll-back holds while nobody says otherwise.
        revisions.back = Some(RollBack { from: "c3".into(), to: "a1".into(), ..RollBack::default() });
        assert_eq!(to(wish(&mut revisions, auto, "c3", None).0), Some(("a1".into(), false)));
        assert_eq!(to(wish(&mut revisions, auto, "d4", None).0), None);
        assert_eq!(to(wish(&mut revisions, auto, "c3", Some(("c3", Some("c3")))).0), None, "tried all the same");
        assert_eq!(to(wish(&mut revisions, auto, "c3", Some(("b2", Some("c3")))).0), Some(("b2".into(), true)));
        // What is not stored cannot be gone back to.
        revisions.kept[1].digest.clear();
        let (next, told) = wish(&mut revisions, auto, "c3", Some(("b2", Some("c3"))));
        assert_eq!((to(next), told.expect("a text").contains("not stored")), (Some(("a1".into(), false)), true));
    }
}
