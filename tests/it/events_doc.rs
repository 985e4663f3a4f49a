//! docs/events.md names the reasons of all Events, and each reason is in a list.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::repository;
use quarterdeck_runtime::events::Reason;

/// Component, reason, type and object of an Event.
type Row = (String, String, String, String);

fn documented() -> Result<BTreeSet<Row>> {
    let page = repository().join("docs/events.md");
    let mut rows = BTreeSet::new();
    for line in std::fs::read_to_string(&page)?.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [reason, kind, about, component, when, what] = cells[..] else {
            anyhow::bail!("{}: six cells: {line}", page.display())
        };
        ensure!(!when.is_empty() && !what.is_empty(), "{line}");
        for link in what.split('(').skip(1).filter_map(|text| text.split_once(')')) {
            ensure!(repository().join("docs").join(link.0).is_file(), "{}: there is no {}", page.display(), link.0);
        }
        let bare = |cell: &str| cell.trim_matches('`').to_owned();
        let row = (bare(component), bare(reason), kind.to_owned(), about.to_owned());
        ensure!(rows.insert(row), "it stands twice: {line}");
    }
    Ok(rows)
}

fn declared() -> BTreeSet<Row> {
    let mut all = quarterdeck_controllers::event_reasons();
    all.push(("quarterdeck", quarterdeck_manager::reasons::ALL));
    let row = |component: &str, reason: &Reason| {
        let kind = reason.kind().as_str();
        (component.to_owned(), reason.name().to_owned(), kind.to_owned(), reason.about().to_owned())
    };
    all.iter().flat_map(|(component, reasons)| reasons.iter().map(move |reason| row(component, reason))).collect()
}

/// All our source files below a folder, tests left out.
pub(super) fn sources(folder: &Path, found: &mut Vec<(String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name != "tests" && name != "target" {
            sources(&path, found)?;
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path)?;
            let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            found.push((path.strip_prefix(repository())?.display().to_string(), text));
        }
    }
    Ok(())
}

#[test]
fn the_page_of_events_names_every_reason() -> Result<()> {
    let (documented, declared) = (documented()?, declared());
    let lacking: Vec<_> = declared.difference(&documented).collect();
    let too_many: Vec<_> = documented.difference(&declared).collect();
    ensure!(lacking.is_empty(), "docs/events.md lacks {lacking:#?}");
    ensure!(too_many.is_empty(), "docs/events.md names what is not there: {too_many:#?}");
    Ok(())
}

/// A list that no table knows of would be one that nobody reads about, and a reason that is made past the macro, too.
#[test]
fn every_list_of_reasons_is_known_and_every_reason_used() -> Result<()> {
    let mut files = Vec::new();
    sources(&repository().join("controllers"), &mut files)?;
    sources(&repository().join("src"), &mut files)?;
    let lists = files.iter().filter(|(_, text)| text.contains("quarterdeck_runtime::reasons! {"));
    let lists: Vec<_> = lists.map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let known = quarterdeck_controllers::event_reasons().len() + 1;
    let paths: Vec<_> = lists.iter().map(|(path, _)| path).filter(|path| !path.ends_with("events/reason.rs")).collect();
    assert_eq!(paths.len(), known, "event_reasons() has as many: {paths:#?}");
    for (path, text) in &files {
        let past = text.contains("Reason::declared") && !path.ends_with("events/reason.rs");
        assert!(!past, "{path}: reasons are declared in a list");
    }
    for (path, list) in lists.iter().filter(|(path, _)| !path.ends_with("events/reason.rs")) {
        let room = path.rsplit_once('/').map(|(folder, _)| folder).with_context(|| (*path).to_owned())?;
        for name in list.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(name, _)| name) {
            let word = |text: &str| {
                let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                text.split(|c| !part(c)).any(|word| word == name)
            };
            let used = files.iter().any(|(file, text)| file.starts_with(room) && file != path && word(text));
            assert!(used, "{path}: nothing tells {name}");
        }
    }
    Ok(())
}
