//! Ours against what the Go libraries say of thousands of generated texts (`hack/vectors`).
//!
//! A line holds columns divided by tabs; texts are JSON strings. `versions.tsv`: a text and what
//! `Parse`, `ParseTolerant` and `NewVersion` make of it, `-` for an error. `orders.tsv`: a version
//! and how it compares to the version of each line, by Masterminds and by blang. `ranges.tsv`,
//! `constraints.tsv`: first the versions that are asked about, then a text and the answers, packed
//! four to a digit.

use std::cmp::Ordering;

use super::{Constraint, Range, Version, VersionError};

const VERSIONS: &str = include_str!("../../testdata/version/versions.tsv");
const ORDERS: &str = include_str!("../../testdata/version/orders.tsv");
const RANGES: &str = include_str!("../../testdata/version/ranges.tsv");
const CONSTRAINTS: &str = include_str!("../../testdata/version/constraints.tsv");

fn text(column: &str) -> String {
    serde_json::from_str(column).expect(column)
}

fn lines(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().map(|line| line.split('\t').collect())
}

#[test]
fn versions_are_read_alike() {
    type Parse = fn(&str) -> Result<Version, VersionError>;
    let ways: [(&str, Parse); 3] =
        [("Parse", Version::parse), ("ParseTolerant", Version::parse_tolerant), ("NewVersion", Version::parse_loose)];
    let mut wrong = Vec::new();
    for columns in lines(VERSIONS) {
        let input = text(columns[0]);
        for ((way, parse), expected) in ways.iter().zip(&columns[1..]) {
            let ours = parse(&input).map(|version| version.to_string());
            let theirs = (*expected != "-").then(|| text(expected));
            if ours.as_ref().ok() != theirs.as_ref() {
                wrong.push(format!("{way} {input:?}: ours {ours:?}, theirs {theirs:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

#[test]
fn versions_are_ordered_alike() {
    let texts: Vec<String> = lines(ORDERS).map(|columns| text(columns[0])).collect();
    let ordering = |sign: u8| match sign {
        b'<' => Ordering::Less,
        b'=' => Ordering::Equal,
        _ => Ordering::Greater,
    };
    for (left, columns) in texts.iter().zip(lines(ORDERS)) {
        type Parse = fn(&str) -> Result<Version, VersionError>;
        for (parse, signs) in [(Version::parse_loose as Parse, columns[1]), (Version::parse_tolerant, columns[2])] {
            for (right, sign) in texts.iter().zip(signs.bytes()).filter(|(_, sign)| *sign != b'-') {
                let ours = parse(left).expect(left).precedence(&parse(right).expect(right));
                assert_eq!(ours, ordering(sign), "{left} to {right}");
            }
        }
    }
}

/// Holds answers about sets of versions to those in a file; `panic` stands for any error.
fn hold(file: &str, minimum: usize, answer: impl Fn(&str, &[Version]) -> Result<Vec<bool>, String>) {
    let (probes, rest) = file.split_once('\n').expect("a first line");
    let probes: Vec<Version> = probes.split(' ').map(|probe| Version::parse(probe).expect(probe)).collect();
    let (mut wrong, mut readable) = (Vec::new(), 0);
    for columns in lines(rest) {
        let input = text(columns[0]);
        let ours = answer(&input, &probes);
        let theirs = match columns[1] {
            "-" | "panic" => None,
            packed => Some(unpack(packed, probes.len())),
        };
        readable += usize::from(theirs.is_some());
        if ours.as_ref().ok() != theirs.as_ref() {
            let differs = match (&ours, &theirs) {
                (Ok(ours), Some(theirs)) => {
                    let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs).unwrap_or_default();
                    format!("{}: ours {}", probes[at], ours[at])
                }
                (ours, theirs) => format!("ours {:?}, theirs {:?}", ours.as_ref().map(|_| ()), theirs.is_some()),
            };
            wrong.push(format!("{input:?}: {differs}"));
        }
    }
    assert!(readable >= minimum, "only {readable} texts are readable");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

fn unpack(packed: &str, count: usize) -> Vec<bool> {
    let digits = packed.chars().map(|digit| digit.to_digit(16).expect("a digit"));
    digits.flat_map(|digit| (0..4).rev().map(move |bit| digit >> bit & 1 == 1)).take(count).collect()
}

#[test]
fn ranges_hold_the_same_versions() {
    hold(RANGES, 2000, |input, probes| {
        let range = Range::parse(input).map_err(|error| error.to_string())?;
        Ok(probes.iter().map(|probe| range.contains(probe)).collect())
    });
}

#[test]
fn constraints_hold_the_same_versions() {
    hold(CONSTRAINTS, 2000, |input, probes| {
        let constraint = Constraint::parse(input).map_err(|error| error.to_string())?;
        Ok(probes.iter().map(|probe| constraint.contains(probe)).collect())
    });
}
