//! docs/logs.md names the messages that are logged, with their levels and fields.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use quarterdeck_it::repository;

use super::events_doc::sources;

/// Levels and fields of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) levels: BTreeSet<String>,
    pub(super) fields: BTreeSet<String>,
}

/// What the page says, by message.
pub(super) fn documented() -> Result<BTreeMap<String, Line>> {
    let mut lines = BTreeMap::new();
    for row in
        std::fs::read_to_string(repository().join("docs/logs.md"))?.lines().filter(|line| line.starts_with("| `"))
    {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [message, levels, fields, when] = cells[..] else { anyhow::bail!("four cells: {row}") };
        ensure!(!when.is_empty(), "{row}");
        let words = |cell: &str| {
            cell.split(", ").filter(|word| *word != "–").map(|word| word.trim_matches('`').to_owned()).collect()
        };
        let line = Line { levels: words(levels), fields: words(fields) };
        ensure!(lines.insert(message.trim_matches('`').to_owned(), line).is_none(), "it stands twice: {row}");
    }
    Ok(lines)
}

/// The arguments of a macro call, which begins after its bracket, and where they end; strings and nested brackets are
/// whole.
fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut depth, mut string, mut now) = (Vec::new(), 0, false, String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if string => {
                // The end of a line in a string, with the blanks that follow, is nothing.
                if chars.peek() == Some(&'\n') {
                    while chars.peek().is_some_and(|c| c.is_whitespace()) {
                        chars.next();
                    }
                } else {
                    now.extend(chars.next());
                }
                continue;
            }
            '"' => string = !string,
            _ if string => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(std::mem::take(&mut now).trim().to_owned());
                continue;
            }
            _ => {}
        }
        now.push(c);
    }
    all.push(now.trim().to_owned());
    all.retain(|argument| !argument.is_empty());
    all
}

/// What one call logs: its message and the names of its fields.
fn read(arguments: &[String]) -> Option<(String, BTreeSet<String>)> {
    let mut fields = BTreeSet::new();
    for argument in arguments {
        if let Some(message) = argument.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            return Some((message.to_owned(), fields));
        }
        let (name, value) = argument.split_once('=').map_or((&**argument, None), |(name, value)| (name, Some(value)));
        let name = name.trim().trim_start_matches(['%', '?']);
        // A field without a value is called after the last part of it.
        let name = if value.is_some() { name } else { name.rsplit('.').next().unwrap_or(name) };
        fields.insert(name.to_owned());
    }
    None
}

/// What the source logs above debug, by message.
fn logged() -> Result<BTreeMap<String, Line>> {
    let mut files = Vec::new();
    for room in ["controllers", "src/election", "src/runtime", "src/manager", "src/cloud"] {
        sources(&repository().join(room), &mut files)?;
    }
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for (path, text) in &files {
        for level in ["info", "warn", "error"] {
            let call = format!("{level}!(");
            for (at, _) in text.match_indices(&call) {
                let before = text[..at].chars().next_back().unwrap_or(' ');
                if before.is_alphanumeric() || before == '_' {
                    continue;
                }
                let arguments = arguments(&text[at + call.len()..]);
                let Some((message, fields)) = read(&arguments) else {
                    anyhow::bail!("{path}: a log line without a message: {arguments:?}")
                };
                ensure!(!message.contains('{'), "{path}: what differs belongs into a field: {message}");
                let line = lines.entry(message).or_default();
                line.levels.insert(level.to_owned());
                line.fields.extend(fields);
            }
        }
    }
    Ok(lines)
}

#[test]
fn the_page_of_the_log_names_every_message() -> Result<()> {
    let (documented, logged) = (documented()?, logged()?);
    ensure!(logged.len() > 100, "{}", logged.len());
    for (message, line) in &logged {
        match documented.get(message) {
            Some(said) => assert_eq!(said, line, "docs/logs.md: {message}"),
            None => anyhow::bail!("docs/logs.md lacks {message:?}: {line:?}"),
        }
    }
    let too_many: Vec<_> = documented.keys().filter(|message| !logged.contains_key(*message)).collect();
    ensure!(too_many.is_empty(), "docs/logs.md names what is not logged: {too_many:#?}");
    Ok(())
}

#[test]
fn a_call_is_read_as_the_compiler_does() {
    let call = "a = f(\"x, y\"), %b.c, ?d, error = &e as &dyn Error, \"one, \\\n    two (three)\");\n rest(\"no\")";
    let (message, fields) = read(&arguments(call)).unwrap();
    assert_eq!(message, "one, two (three)");
    assert_eq!(fields, ["a", "c", "d", "error"].map(str::to_owned).into());
    assert_eq!(read(&arguments("a = 1)")), None);
}
