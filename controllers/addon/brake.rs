//! The brake: which removals of a pass go at once, and which wait for a person.
//!
//! One file taken from a complete directory is proof for that file. Many at once look like an
//! unmounted disk, a bad copy or a wrong path, and wait. So do edits that take out a large part of
//! everything. What waits stays waiting until it is released or comes back: never a restart, and
//! never a directory that fills up again file by file, lets it go.

use std::sync::Arc;

/// Removals of this many objects are never too many.
const FREE: usize = 10;
/// Removals of more than this share of a source's objects are too many, percent.
const SHARE: usize = 30;

/// What one addon would lose in this pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The addon.
    pub addon: Arc<str>,
    /// Whether its file is gone; otherwise objects were taken out of it.
    pub gone: bool,
    /// How many objects it would lose.
    pub objects: usize,
    /// Whether the brake already holds it.
    pub held: bool,
}

/// A pass over a source.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Objects of the source before the pass, those to be removed included.
    pub objects: usize,
    /// Files that are there.
    pub files: usize,
    /// What would be lost.
    pub losses: &'a [Loss],
    /// Files that went, and were let go, a moment ago: a slow `rm *` is one removal.
    pub recent_files: usize,
    /// Objects that were let go a moment ago.
    pub recent_objects: usize,
}

/// Why removals wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Several files went and none is left.
    NoFileLeft,
    /// The pass would remove more than it may.
    TooMany {
        /// What it would remove.
        objects: usize,
        /// What it may.
        limit: usize,
    },
    /// The addon was held before, and nothing has released it.
    HeldBefore,
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoFileLeft => f.write_str("several files went and none is left"),
            Self::TooMany { objects, limit } => write!(f, "{objects} objects would go at once; {limit} may"),
            Self::HeldBefore => f.write_str("held since an earlier pass"),
        }
    }
}

/// How many objects a source of `objects` may lose in one pass.
#[must_use]
pub fn limit(objects: usize) -> usize {
    FREE.max(objects * SHARE / 100)
}

/// For each loss, in order, why it waits; `None` lets it go.
#[must_use]
pub fn decide(pass: &Pass<'_>) -> Vec<Option<Hold>> {
    let count =
        |gone: bool| pass.losses.iter().filter(move |loss| loss.gone == gone).map(|loss| loss.objects).sum::<usize>();
    let files = pass.losses.iter().filter(|loss| loss.gone).count() + pass.recent_files;
    let limit = limit(pass.objects + pass.recent_objects);
    let edits = count(false);
    let all = count(true) + edits + pass.recent_objects;
    let too_many = |objects: usize| (objects > limit).then_some(Hold::TooMany { objects, limit });
    let several = if files >= 2 { (pass.files == 0).then_some(Hold::NoFileLeft).or(too_many(all)) } else { None };
    let edited = several.or_else(|| too_many(edits + pass.recent_objects));
    pass.losses
        .iter()
        .map(|loss| {
            let now = if loss.gone { several } else { edited };
            now.or(loss.held.then_some(Hold::HeldBefore))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(objects: usize) -> Loss {
        Loss { addon: "f".into(), gone: true, objects, held: false }
    }

    fn edit(objects: usize) -> Loss {
        Loss { gone: false, ..gone(objects) }
    }

    fn held(loss: Loss) -> Loss {
        Loss { held: true, ..loss }
    }

    #[test]
    fn the_rules_of_the_brake() {
        type Row = (&'static str, usize, usize, Vec<Loss>, (usize, usize), Vec<bool>);
        let table: Vec<Row> = vec![
            ("one file, however large", 100, 5, vec![gone(90)], (0, 0), vec![false]),
            ("the last file", 3, 0, vec![gone(3)], (0, 0), vec![false]),
            ("the last two files", 2, 0, vec![gone(1), gone(1)], (0, 0), vec![true, true]),
            ("two of three small files", 6, 1, vec![gone(2), gone(2)], (0, 0), vec![false, false]),
            ("ten objects are free", 10, 1, vec![gone(5), gone(5)], (0, 0), vec![false, false]),
            ("eleven of twelve are not", 12, 1, vec![gone(5), gone(6)], (0, 0), vec![true, true]),
            ("30 of 100 are the share", 100, 9, vec![gone(15), gone(15)], (0, 0), vec![false, false]),
            ("31 of 100 are more", 100, 9, vec![gone(15), gone(16)], (0, 0), vec![true, true]),
            ("edits under the count", 100, 9, vec![edit(20), edit(10)], (0, 0), vec![false, false]),
            ("edits over the count", 100, 9, vec![edit(20), edit(11)], (0, 0), vec![true, true]),
            ("one edited file over the count", 20, 9, vec![edit(11)], (0, 0), vec![true]),
            ("one file gone beside large edits", 100, 9, vec![gone(5), edit(31)], (0, 0), vec![false, true]),
            (
                "files and edits count together",
                100,
                9,
                vec![gone(10), gone(10), edit(11)],
                (0, 0),
                vec![true, true, true],
            ),
            ("a slow removal counts as one", 88, 7, vec![gone(12)], (1, 12), vec![false]),
            ("a slow removal over the count", 81, 7, vec![gone(12)], (1, 19), vec![true]),
            ("a slow removal of everything", 1, 0, vec![gone(1)], (1, 1), vec![true]),
            ("held stays held alone", 100, 9, vec![held(gone(1))], (0, 0), vec![true]),
            ("held does not hold another", 100, 8, vec![held(gone(1)), gone(1)], (0, 0), vec![true, false]),
            ("held edit stays", 100, 9, vec![held(edit(1)), edit(1)], (0, 0), vec![true, false]),
            ("nothing", 0, 0, vec![], (0, 0), vec![]),
        ];
        for (name, objects, files, losses, (recent_files, recent_objects), expected) in table {
            let pass = Pass { objects, files, losses: &losses, recent_files, recent_objects };
            let held: Vec<bool> = decide(&pass).iter().map(Option::is_some).collect();
            assert_eq!(held, expected, "{name}");
        }
    }

    proptest::proptest! {
        /// Whatever the pass, it lets at most one whole file, or at most the limit, go.
        #[test]
        fn no_pass_lets_many_go(sizes in proptest::collection::vec((1_usize..40, proptest::bool::ANY), 0..20), files in 0_usize..5, rest in 0_usize..200) {
            let losses: Vec<Loss> = sizes.iter().map(|(objects, gone)| Loss { addon: "f".into(), gone: *gone, objects: *objects, held: false }).collect();
            let objects = rest + losses.iter().map(|loss| loss.objects).sum::<usize>();
            let pass = Pass { objects, files, losses: &losses, recent_files: 0, recent_objects: 0 };
            let free: Vec<&Loss> = losses.iter().zip(decide(&pass)).filter(|(_, hold)| hold.is_none()).map(|(loss, _)| loss).collect();
            let edits: usize = free.iter().filter(|loss| !loss.gone).map(|loss| loss.objects).sum();
            let all: usize = free.iter().map(|loss| loss.objects).sum();
            let gone = free.iter().filter(|loss| loss.gone).count();
            proptest::prop_assert!(gone <= 1 || all <= limit(objects));
            proptest::prop_assert!(edits <= limit(objects));
        }
    }
}
