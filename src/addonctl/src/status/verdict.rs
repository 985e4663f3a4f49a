//! Whether all is well.

use quarterdeck_api::status::{Problem, Severity, problems};

use super::page::Page;
use crate::exit::Exit;

/// What is wrong, and what that comes to.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// What is wrong, the worst first.
    pub(crate) problems: Vec<Problem>,
}

impl Verdict {
    /// The judgement on what a manager tells, which is the one that its status page shows.
    pub(crate) fn of(page: &Page) -> Self {
        let mut problems = problems(page.status());
        if page.told_by.is_none() {
            let text = "no replica is heard of, and nothing is known but what the Leases say".to_owned();
            problems.insert(
                0,
                Problem {
                    severity: Severity::Critical,
                    subject: "masters".to_owned(),
                    text,
                    runbook: Some("QuarterdeckNoLeader".to_owned()),
                },
            );
        }
        Self { problems }
    }

    /// How many problems are this bad.
    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    /// Whether nothing is wrong that somebody has to do something about.
    pub(crate) fn is_healthy(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity == Severity::Notice)
    }

    /// How a command that looked ends.
    pub(crate) fn exit(&self) -> Exit {
        if self.is_healthy() { Exit::Fine } else { Exit::Unhealthy }
    }

    /// It in a few words.
    pub(crate) fn headline(&self) -> String {
        let several = |count: usize, one: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {one}s")),
        };
        let counts = [
            several(self.count(Severity::Critical), "critical problem"),
            several(self.count(Severity::Warning), "warning"),
            several(self.count(Severity::Notice), "notice"),
        ];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        let health = if self.is_healthy() { "healthy" } else { "unhealthy" };
        if counts.is_empty() { health.to_owned() } else { format!("{health}: {}", counts.join(", ")) }
    }

    /// The colour of the whole.
    pub(crate) fn colour(&self) -> &'static str {
        if self.count(Severity::Critical) > 0 {
            colour(Severity::Critical)
        } else if self.count(Severity::Warning) > 0 {
            colour(Severity::Warning)
        } else {
            "32"
        }
    }
}

/// The colour of a severity, as a terminal's code.
pub(crate) fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "31",
        Severity::Warning => "33",
        Severity::Notice => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(severities: &[Severity]) -> Verdict {
        let problem = |severity: &Severity| Problem {
            severity: *severity,
            subject: "x".to_owned(),
            text: "y".to_owned(),
            runbook: None,
        };
        Verdict { problems: severities.iter().map(problem).collect() }
    }

    #[test]
    fn what_somebody_has_to_look_at_is_unhealthy() {
        use Severity::{Critical, Notice, Warning};
        let cases: [(&[Severity], Exit, &str, &str); 5] = [
            (&[], Exit::Fine, "healthy", "32"),
            (&[Notice], Exit::Fine, "healthy: 1 notice", "32"),
            (&[Warning, Warning, Notice], Exit::Unhealthy, "unhealthy: 2 warnings, 1 notice", "33"),
            (&[Critical], Exit::Unhealthy, "unhealthy: 1 critical problem", "31"),
            (&[Critical, Critical, Warning], Exit::Unhealthy, "unhealthy: 2 critical problems, 1 warning", "31"),
        ];
        for (severities, exit, headline, colour) in cases {
            let verdict = verdict(severities);
            assert_eq!((verdict.exit(), &*verdict.headline(), verdict.colour()), (exit, headline, colour));
        }
    }

    #[test]
    fn silence_is_critical() {
        let page = Page { whole: serde_json::Value::Null, statusz: Default::default(), told_by: None };
        let verdict = Verdict::of(&page);
        assert_eq!((verdict.exit(), &*verdict.problems[0].subject), (Exit::Unhealthy, "masters"));
    }
}
