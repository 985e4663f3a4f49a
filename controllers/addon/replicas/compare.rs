//! In what another replica's reading of a source differs from ours.

use std::collections::BTreeMap;
use std::fmt;

use super::record::Record;

/// Differences that are told of one replica; there may be as many as files.
pub const MOST_TOLD: usize = 10;
/// Letters of a foreign file's name that are shown.
const NAME_LETTERS: usize = 200;

/// How a file differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The other replica lacks it.
    Lacks,
    /// Only the other replica has it.
    Extra,
    /// Both have it, with different contents.
    Content,
    /// The other replica has other files, too many to be named.
    Many {
        /// How many it has.
        count: usize,
    },
    /// The other replica cannot read its directory whole, for this reason.
    Unreadable(String),
}

/// One difference between a replica's reading of a source and ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The other replica.
    pub replica: String,
    /// Path of the file below the directory; empty where it is about all of them.
    pub file: String,
    /// In what it differs.
    pub what: What,
}

/// Prints `master-2 lacks a.yaml`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, file, what } = self;
        match what {
            What::Lacks => write!(f, "{replica} lacks {file}"),
            What::Extra => write!(f, "{replica} has {file}, which is not here"),
            What::Content => write!(f, "{replica} has another {file}"),
            What::Many { count } => write!(f, "{replica} has other content in its {count} files"),
            What::Unreadable(reason) => write!(f, "{replica} cannot read all of its own: {reason}"),
        }
    }
}

/// In what `theirs` differs from `ours`.
#[must_use]
pub fn differences(replica: &str, ours: &Record, theirs: &Record) -> Vec<Difference> {
    let difference = |file: &str, what| Difference { replica: replica.to_owned(), file: shown(file), what };
    if let Some(reason) = &theirs.problem {
        return vec![difference("", What::Unreadable(shown(reason)))];
    }
    if ours.digest == theirs.digest {
        return Vec::new();
    }
    let (Some(here), Some(there)) = (&ours.files, &theirs.files) else {
        return vec![difference("", What::Many { count: theirs.count })];
    };
    let lacks = here.keys().filter(|file| !there.contains_key(*file)).map(|file| difference(file, What::Lacks));
    let extra = there.keys().filter(|file| !here.contains_key(*file)).map(|file| difference(file, What::Extra));
    let other = |(file, hash): &(&String, &String)| there.get(*file).is_some_and(|theirs| theirs != *hash);
    let content = here.iter().filter(other).map(|(file, _)| difference(file, What::Content));
    let mut all: Vec<Difference> = lacks.chain(extra).chain(content).collect();
    if all.is_empty() {
        // The digests say that something differs, though nothing that was told.
        all.push(difference("", What::Many { count: theirs.count }));
    }
    all.sort();
    all
}

/// All of it in one line for people, or nothing if there is nothing to tell.
#[must_use]
pub fn text(differences: &[Difference]) -> Option<String> {
    let mut told: Vec<String> = differences.iter().take(MOST_TOLD).map(ToString::to_string).collect();
    match differences.len().checked_sub(MOST_TOLD) {
        _ if told.is_empty() => return None,
        Some(more) if more > 0 => told.push(format!("and {more} more differences")),
        _ => {}
    }
    Some(told.join("; "))
}

/// Differences by replica.
#[must_use]
pub fn by_replica(differences: &[Difference]) -> BTreeMap<&str, Vec<Difference>> {
    let mut all: BTreeMap<&str, Vec<Difference>> = BTreeMap::new();
    for difference in differences {
        all.entry(&difference.replica).or_default().push(difference.clone());
    }
    all
}

/// A foreign text that cannot break a line or fill a page.
fn shown(text: &str) -> String {
    text.chars().take(NAME_LETTERS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(files: &[(&str, &str)]) -> Record {
        let files: BTreeMap<String, String> =
            files.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect();
        Record { digest: format!("{files:?}"), count: files.len(), problem: None, files: Some(files) }
    }

    #[test]
    fn every_difference_is_named() {
        let ours = record(&[("a.yaml", "1"), ("b.yaml", "1"), ("c.yaml", "1")]);
        let theirs = record(&[("a.yaml", "1"), ("b.yaml", "2"), ("d.yaml", "1")]);
        let all = differences("m2", &ours, &theirs);
        assert_eq!(
            text(&all).expect("some"),
            "m2 has another b.yaml; m2 lacks c.yaml; m2 has d.yaml, which is not here"
        );
        assert_eq!(differences("m2", &ours, &ours), []);
        assert_eq!(text(&[]), None);
    }

    #[test]
    fn too_many_files_and_unreadable_directories_are_told_as_such() {
        let ours = record(&[("a.yaml", "1")]);
        let many = Record { files: None, digest: "x".to_owned(), count: 9000, problem: None };
        assert_eq!(differences("m2", &ours, &many)[0].what, What::Many { count: 9000 });
        let broken = Record { problem: Some("permission\ndenied".to_owned()), ..ours.clone() };
        assert_eq!(
            text(&differences("m2", &ours, &broken)).expect("one"),
            "m2 cannot read all of its own: permission\u{fffd}denied"
        );
        // A record whose digest and files do not fit each other.
        let odd = Record { digest: "x".to_owned(), ..ours.clone() };
        assert_eq!(differences("m2", &ours, &odd)[0].what, What::Many { count: 1 });
    }

    #[test]
    fn the_text_is_bounded() {
        let many: Vec<(String, &str)> = (0..1000).map(|n| (format!("{n}{}", "x".repeat(1000)), "1")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, hash)| (name.as_str(), *hash)).collect();
        let text = text(&differences("m2", &record(&[]), &record(&many))).expect("some");
        assert!(text.len() < 3000 && text.ends_with("and 990 more differences"), "{text}");
    }
}
