//! The log of a replica, as a machine reads it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::Deck;
use serde_json::Value;

use crate::logs_doc;

/// The lines that a replica has logged.
pub(super) struct Log(pub(super) Vec<Value>);

impl Log {
    /// What the first replica has logged so far. A line that is being written is left out.
    pub(super) fn read(deck: &Deck) -> Result<Self> {
        let text = deck.replica(0).process().log_text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
        Ok(Self(lines.collect::<Result<_>>()?))
    }

    /// The lines with this message and these fields.
    pub(super) fn of<'a>(&'a self, message: &'a str, fields: &'a [(&'a str, &'a str)]) -> Vec<&'a Value> {
        let is_it = |line: &&Value| {
            line["message"] == message && fields.iter().all(|(name, value)| line[*name].as_str() == Some(*value))
        };
        self.0.iter().filter(is_it).collect()
    }

    /// Every line of ours is on the page, with its level and no field that the page does not name.
    pub(super) fn is_as_documented(&self) -> Result<()> {
        let documented = logs_doc::documented()?;
        for line in &self.0 {
            let object = line.as_object().context("an object")?;
            for always in ["timestamp", "level", "message", "target"] {
                ensure!(object[always].is_string(), "{always}: {line}");
            }
            if !line["target"].as_str().is_some_and(|target| target.starts_with("quarterdeck")) {
                continue;
            }
            let message = line["message"].as_str().unwrap_or_default();
            let said = documented.get(message).with_context(|| format!("docs/logs.md lacks {line}"))?;
            let level = line["level"].as_str().unwrap_or_default().to_lowercase();
            ensure!(said.levels.contains(&level), "docs/logs.md: level {level}: {line}");
            for field in object.keys() {
                let ours = said.fields.contains(field);
                ensure!(ours || ["timestamp", "level", "message", "target"].contains(&&**field), "{field}: {line}");
            }
        }
        Ok(())
    }

    /// The lines with this message tell of changes, by what they are about: each begins where the one before ended, and
    /// ends elsewhere.
    pub(super) fn is_a_chain(&self, message: &str, about: &str) -> Result<()> {
        let mut states: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for line in self.of(message, &[]) {
            let (from, state) = (line["from"].as_str(), line["state"].as_str());
            let last = states.entry(line[about].as_str().context("whose?")?).or_default();
            ensure!(from == *last && from != state, "after {last:?}: {line}");
            *last = state;
        }
        ensure!(!states.is_empty(), "no line: {message}");
        Ok(())
    }
}
