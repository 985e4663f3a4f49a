//! The plan in words and colours.

use std::fmt::Write as _;

use super::ask::{Fate, Outcome};
use super::diff::{Line, lines};
use crate::output::paint;

/// How many objects would be touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    created: usize,
    changed: usize,
    same: usize,
    pruned: usize,
    /// What could not be planned.
    pub(crate) failed: usize,
}

impl Count {
    /// Counts in an addon.
    pub(crate) fn add(&mut self, outcome: &Outcome<'_>) {
        self.failed += outcome.subject.problems.len();
        for (_, fate) in &outcome.objects {
            match fate {
                Fate::Create { .. } => self.created += 1,
                Fate::Change { .. } => self.changed += 1,
                Fate::Same => self.same += 1,
                Fate::Prune { .. } => self.pruned += 1,
                Fate::Failed(_) => self.failed += 1,
            }
        }
    }

    /// Objects that would be touched.
    pub(crate) fn changes(&self) -> usize {
        self.created + self.changed + self.pruned
    }

    /// The last line of a plan.
    pub(crate) fn text(&self) -> String {
        let Self { created, changed, same, pruned, failed } = self;
        let failed = if *failed == 0 { String::new() } else { format!(", {failed} not known") };
        if self.changes() == 0 && failed.is_empty() {
            return format!("No changes: {same} objects are as they should be\n");
        }
        format!("Plan: {created} to create, {changed} to change, {pruned} to prune, {same} as they should be{failed}\n")
    }
}

/// The plan of one addon; nothing is said about objects that stay as they are.
pub(crate) fn text(outcome: &Outcome<'_>) -> String {
    let subject = outcome.subject;
    let mut text = paint("1", &subject.title);
    text.push('\n');
    let mut say = |colour: &str, line: &str| {
        let _ = writeln!(text, "{}", paint(colour, line));
    };
    for problem in &subject.problems {
        say("31", &format!("  ! {problem}"));
    }
    for note in &subject.notes {
        say("33", &format!("  * {note}"));
    }
    for (object, fate) in &outcome.objects {
        match fate {
            Fate::Same => {}
            Fate::Create { note } => {
                let note = note.map_or_else(String::new, |note| format!(" ({note})"));
                say("32", &format!("  + create {object}{note}"));
            }
            Fate::Prune { asks } => {
                let note = if *asks { " (waits until a person confirms)" } else { "" };
                say("31", &format!("  - prune  {object}{note}"));
            }
            Fate::Failed(why) => say("31", &format!("  ! {object}: {why}")),
            Fate::Change { before, after } => {
                say("33", &format!("  ~ change {object}"));
                for line in lines(before, after) {
                    match line {
                        Line::Same(line) => say("", &format!("      {line}")),
                        Line::Gone(line) => say("31", &format!("    - {line}")),
                        Line::New(line) => say("32", &format!("    + {line}")),
                        Line::Skipped(_) => say("2", "      …"),
                    }
                }
            }
        }
    }
    for step in &subject.steps {
        say("36", &format!("  > {step}"));
    }
    text
}
