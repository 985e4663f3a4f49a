//! What came of the cases.

use std::fmt;

use serde::Serialize;

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The provider does as it should.
    Passed,
    /// It does not: how.
    Failed(String),
    /// Nothing is known: why not.
    NotApplicable(String),
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Id of the case.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of the cases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// A line a case, in order.
    pub cases: Vec<Line>,
}

impl Report {
    /// Ids of the cases that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = self.cases.iter().filter(|line| matches!(line.verdict, Verdict::Failed(_)));
        failed.map(|line| line.id).collect()
    }

    /// Ids of the cases that were not applicable.
    #[must_use]
    pub fn not_applicable(&self) -> Vec<&'static str> {
        let left_out = self.cases.iter().filter(|line| matches!(line.verdict, Verdict::NotApplicable(_)));
        left_out.map(|line| line.id).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.cases.iter().map(|line| line.title.len()).max().unwrap_or_default();
        for Line { id, title, verdict } in &self.cases {
            match verdict {
                Verdict::Passed => writeln!(f, "{id:<4} {title:<width$}  passed")?,
                Verdict::Failed(why) => writeln!(f, "{id:<4} {title:<width$}  FAILED: {why}")?,
                Verdict::NotApplicable(why) => writeln!(f, "{id:<4} {title:<width$}  not applicable: {why}")?,
            }
        }
        let (failed, left_out) = (self.failed().len(), self.not_applicable().len());
        let passed = self.cases.len() - failed - left_out;
        write!(f, "{passed} passed, {failed} failed, {left_out} not applicable")
    }
}
