//! The shape of the source: who may use whom, and how long a file may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quarterdeck_it::repository;

/// Lines at which a file is two things.
const LONGEST: usize = 600;

/// All Rust files under a folder of the repository, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    collect(&path, files);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(repository()).unwrap().to_owned(), text));
            }
        }
    }
    let mut files = Vec::new();
    collect(&repository().join(folder), &mut files);
    assert!(!files.is_empty(), "no source under {folder}");
    files
}

/// The lines of a file that are not comments, each with its number.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The paths that a line of code names under `crate::` or `super::…` from a file `depth` folders
/// below the crate's root, as the first segment from that root.
fn named_rooms(line: &str, depth: usize) -> Vec<String> {
    let from_root = line.match_indices("crate::").map(|(at, found)| &line[at + found.len()..]);
    let up = "super::".repeat(depth);
    let by_parents = line.match_indices(&up).map(|(at, found)| &line[at + found.len()..]);
    from_root
        .chain(by_parents.filter(|_| depth > 0))
        .flat_map(|rest| match rest.strip_prefix('{') {
            // use crate::{a::b, c}: only the outermost names count.
            Some(list) => outermost(list),
            None => vec![segment(rest)],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn segment(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn outermost(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0_u32, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            _ if start && !c.is_whitespace() => {
                names.push(segment(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn no_controller_uses_another() {
    let rooms: BTreeSet<String> = std::fs::read_dir(repository().join("controllers"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(rooms.len() > 1, "{rooms:?}");
    let mut wrong = Vec::new();
    for room in &rooms {
        for (path, text) in sources(&format!("controllers/{room}")) {
            // controllers/addon/mod.rs is the module addon, whose parent is the root; a file beside it is one deeper.
            let folders = path.components().count() - 2;
            let depth = if path.ends_with("mod.rs") { folders } else { folders + 1 };
            // An inner module (tests) is one deeper again.
            for (number, line) in code(&text) {
                let named = named_rooms(line, depth).into_iter().chain(named_rooms(line, depth + 1));
                wrong.extend(
                    named
                        .filter(|name| name != room && rooms.contains(name))
                        .map(|name| format!("{}:{number} uses {name}: {line}", path.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn paths_are_found() {
    let cases: [(&str, usize, &[&str]); 6] = [
        ("use crate::endpoints::plan;", 1, &["endpoints"]),
        ("    crate::endpoints::run()", 2, &["endpoints"]),
        ("use crate::{addon, endpoints::{a, b}};", 1, &["addon", "endpoints"]),
        ("use super::super::endpoints::x;", 2, &["endpoints"]),
        ("use super::plan;", 2, &[]),
        ("use quarterdeck_runtime::x;", 1, &[]),
    ];
    for (line, depth, expected) in cases {
        assert_eq!(named_rooms(line, depth), expected, "{line}");
    }
}

#[test]
fn each_crate_uses_only_those_below_it() {
    let allowed: [(&str, &[&str]); 5] = [
        ("src/api", &[]),
        ("src/election", &[]),
        ("src/runtime", &["quarterdeck_api", "quarterdeck_election"]),
        ("src/manager", &["quarterdeck_api", "quarterdeck_election", "quarterdeck_runtime"]),
        ("controllers", &["quarterdeck_api", "quarterdeck_runtime"]),
    ];
    let ours = ["api", "election", "runtime", "manager", "controllers", "it"].map(|name| format!("quarterdeck_{name}"));
    let mut wrong = Vec::new();
    for (folder, allowed) in allowed {
        let own = format!("quarterdeck_{}", folder.rsplit('/').next().unwrap_or(folder));
        let forbidden = || ours.iter().filter(|name| **name != own && !allowed.contains(&name.as_str()));
        for (path, text) in sources(folder) {
            for (number, line) in code(&text) {
                let named = forbidden().filter(|name| line.contains(&format!("{name}::")));
                wrong.extend(named.map(|name| format!("{}:{number} uses {name}", path.display())));
            }
        }
        let manifest = std::fs::read_to_string(repository().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.lines().filter(|line| !line.starts_with("name"));
        for line in dependencies {
            let named = forbidden().filter(|name| line.starts_with(name.as_str()));
            wrong.extend(named.map(|name| format!("{folder}/Cargo.toml: {name}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_two_things() {
    let all = ["src", "controllers", "tests"].into_iter().flat_map(sources);
    let long: Vec<_> = all
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "split them at {LONGEST} lines:\n{}", long.join("\n"));
}
