//! What is wrong, in words: the same judgement on the status page and in the terminal.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AddonPart, ControllerPart, ElectionPart, InformerPart, MasterPart, ProviderPart, Status};

/// A controller that has had work and finished nothing for this long is stuck, in seconds (as `/livez` judges).
const STUCK_SECONDS: f64 = 120.0;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Work is not done.
    Critical,
    /// Something does not work as it should, or will not for long.
    Warning,
    /// Worth knowing; nothing has to be done, or it mends itself.
    Notice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        })
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: `election`, a controller, an addon.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// Name of the page in `docs/runbooks` that says what to do.
    pub runbook: Option<String>,
}

/// What is wrong with what a replica tells, the worst first. A pure function of the status: who asks another replica
/// may hear something else of controllers and caches.
#[must_use]
pub fn problems(status: &Status) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    if let Some(part) = &status.election {
        election(part, &status.masters, &mut found);
    }
    masters(status, &mut found);
    status.controllers.iter().for_each(|part| controller(part, &mut found));
    status.informers.iter().for_each(|part| informer(part, &mut found));
    status.addons.iter().flatten().for_each(|part| addon(part, &mut found));
    status.cloud.iter().flatten().for_each(|part| provider(part, &mut found));
    // Stable: within a severity the order is that of the page.
    found.0.sort_by_key(|problem| problem.severity);
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, severity: Severity, subject: &str, text: String, runbook: Option<&str>) {
        let (subject, runbook) = (subject.to_owned(), runbook.map(str::to_owned));
        self.0.push(Problem { severity, subject, text, runbook });
    }
}

fn election(part: &ElectionPart, masters: &[MasterPart], found: &mut Found) {
    let subject = "election";
    if let Some(holder) = &part.holder {
        let gone = masters.iter().find(|master| master.leads && !master.alive);
        if let Some(master) = gone {
            found.add(
                Severity::Warning,
                subject,
                format!(
                    "{} holds the lease and is not heard of; another replica takes over when it runs out",
                    master.name
                ),
                Some("QuarterdeckNoLeader"),
            );
        }
        if *holder == part.identity && !part.leading {
            let text = format!("this replica holds the lease and does not lead yet: it is {}", part.activity);
            found.add(Severity::Notice, subject, text, None);
        }
    } else {
        let text = format!("nobody holds the lease {}: no controller works", part.lease);
        found.add(Severity::Critical, subject, text, Some("QuarterdeckNoLeader"));
    }
    match part.fence.as_deref() {
        Some("absent") => {
            let text = "no fence is installed: the server cannot refuse the writes of a past leader".to_owned();
            found.add(Severity::Warning, "fence", text, Some("QuarterdeckFenceAbsent"));
        }
        Some(broken) if broken.starts_with("broken") => {
            found.add(Severity::Critical, "fence", format!("the fence is {broken}"), Some("QuarterdeckFenceBroken"));
        }
        _ => {}
    }
    if let Some(error) = part.last_error.as_ref().filter(|_| !part.leading && part.holder.is_none()) {
        found.add(Severity::Warning, subject, format!("the last exchange about the lease failed: {error}"), None);
    }
}

fn masters(status: &Status, found: &mut Found) {
    if let Some(reason) = &status.masters_unknown {
        let text = format!("the other replicas are not known: {reason}");
        found.add(Severity::Warning, "masters", text, Some("QuarterdeckReplicaDown"));
    }
    for master in status.masters.iter().filter(|master| !master.alive && !master.leads) {
        // One that left in an orderly way is no problem; its line on the page says that it left.
        if master.identity.is_some() {
            let text = format!("not heard of for {}", ago(master.seen_seconds));
            found.add(Severity::Warning, &master.name, text, Some("QuarterdeckReplicaDown"));
        }
    }
    let alive = status.masters.iter().filter(|master| master.alive).count();
    if status.election.is_some() && alive == 1 && status.masters.len() > 1 {
        let text = "one replica is left: nobody would take over from it".to_owned();
        found.add(Severity::Warning, "masters", text, Some("QuarterdeckReplicaDown"));
    }
}

fn controller(part: &ControllerPart, found: &mut Found) {
    let reason = part.reason.as_deref().unwrap_or("no reason is known");
    match part.state.as_str() {
        "failed" => {
            let text = format!("failed: {reason}");
            found.add(Severity::Critical, &part.name, text, Some("QuarterdeckControllerBlocked"));
        }
        "blocked" => {
            let text = format!("blocked: {reason}");
            found.add(Severity::Warning, &part.name, text, Some("QuarterdeckControllerBlocked"));
        }
        "warming" => found.add(Severity::Notice, &part.name, "its caches are being filled".to_owned(), None),
        _ => {}
    }
    if let Some(seconds) = part.stuck_seconds.filter(|seconds| *seconds > STUCK_SECONDS) {
        let text = format!("has work and has finished none for {}", ago(seconds));
        found.add(Severity::Critical, &part.name, text, Some("QuarterdeckQueueStuck"));
    }
}

fn informer(part: &InformerPart, found: &mut Found) {
    let subject = format!("cache of {}", part.resource);
    if ["retrying", "forbidden", "notserved"].iter().any(|state| part.state.starts_with(state)) {
        let state = part.state.replacen("notserved", "not served by the cluster", 1);
        found.add(Severity::Warning, &subject, state, Some("QuarterdeckControllerBlocked"));
    }
    if part.decode_errors > 0 {
        let text = format!("{} objects could not be read", part.decode_errors);
        found.add(Severity::Warning, &subject, text, None);
    }
}

fn addon(part: &AddonPart, found: &mut Found) {
    let subject = format!("addon {} ({})", part.name, part.source);
    let message = part.message.as_deref().unwrap_or("its status tells more");
    match part.state.as_str() {
        "degraded" | "blocked" => {
            let text = format!("{}: {message}", part.state);
            found.add(Severity::Warning, &subject, text, Some("QuarterdeckAddonFailing"));
        }
        "held" => {
            let text = format!("{} objects wait for a person to let them go: {message}", part.held);
            found.add(Severity::Warning, &subject, text, Some("QuarterdeckAddonFailing"));
        }
        _ if part.drifted > 0 => {
            let text = format!("{} objects were changed and are left so", part.drifted);
            found.add(Severity::Notice, &subject, text, None);
        }
        _ => {}
    }
}

fn provider(part: &ProviderPart, found: &mut Found) {
    let subject = format!("cloud {}", part.provider);
    if let Some(trouble) = &part.trouble {
        let runbook =
            if trouble.starts_with("denied") { "QuarterdeckCloudDenied" } else { "QuarterdeckCloudBreakerOpen" };
        found.add(Severity::Critical, &subject, trouble.clone(), Some(runbook));
    }
    if part.breaker == "open" {
        let error = part.last_error.as_deref().unwrap_or("no error is known");
        let text = match part.left_alone_for_seconds {
            Some(seconds) => format!("left alone for {seconds} s more: {error}"),
            None => format!("left alone: {error}"),
        };
        found.add(Severity::Warning, &subject, text, Some("QuarterdeckCloudBreakerOpen"));
    }
    if part.stuck > 0 {
        let text = format!("{} calls do not end", part.stuck);
        found.add(Severity::Warning, &subject, text, Some("QuarterdeckCloudCallsAbandoned"));
    }
}

/// A time as people say it.
fn ago(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hours, never below zero")]
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min", whole / 60),
        _ => format!("{} h", whole / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::QueuePart;

    fn well() -> Status {
        let master = |name: &str| MasterPart {
            name: name.to_owned(),
            identity: Some(format!("{name}_1")),
            alive: true,
            leads: name == "a",
            ..MasterPart::default()
        };
        let controller = ControllerPart {
            name: "namespace-controller".to_owned(),
            state: "running".to_owned(),
            queue: Some(QueuePart::default()),
            ..ControllerPart::default()
        };
        Status {
            election: Some(ElectionPart {
                leading: true,
                identity: "a_1".to_owned(),
                holder: Some("a_1".to_owned()),
                fence: Some("verified".to_owned()),
                ..ElectionPart::default()
            }),
            masters: ["a", "b"].map(master).into(),
            controllers: vec![controller],
            ..Status::default()
        }
    }

    /// What breaks, how bad that is, and the runbook that says what to do.
    type Fault = (fn(&mut Status), Severity, &'static str);

    fn runbooks(status: &Status) -> Vec<(Severity, String)> {
        problems(status).into_iter().map(|p| (p.severity, p.runbook.unwrap_or_default())).collect()
    }

    #[test]
    fn a_replica_that_is_well_has_none() {
        assert_eq!(problems(&well()), []);
    }

    #[test]
    fn each_fault_is_told_with_what_to_do() {
        let change: [Fault; 9] = [
            (|s| s.election.as_mut().expect("set").holder = None, Severity::Critical, "QuarterdeckNoLeader"),
            (
                |s| s.election.as_mut().expect("set").fence = Some("broken: x".to_owned()),
                Severity::Critical,
                "QuarterdeckFenceBroken",
            ),
            (
                |s| s.election.as_mut().expect("set").fence = Some("absent".to_owned()),
                Severity::Warning,
                "QuarterdeckFenceAbsent",
            ),
            (|s| s.masters[1].alive = false, Severity::Warning, "QuarterdeckReplicaDown"),
            (|s| s.controllers[0].state = "blocked".to_owned(), Severity::Warning, "QuarterdeckControllerBlocked"),
            (|s| s.controllers[0].stuck_seconds = Some(121.0), Severity::Critical, "QuarterdeckQueueStuck"),
            (
                |s| {
                    s.addons = Some(vec![AddonPart { state: "degraded".to_owned(), ..AddonPart::default() }]);
                },
                Severity::Warning,
                "QuarterdeckAddonFailing",
            ),
            (
                |s| {
                    s.cloud = Some(vec![ProviderPart { breaker: "open".to_owned(), ..ProviderPart::default() }]);
                },
                Severity::Warning,
                "QuarterdeckCloudBreakerOpen",
            ),
            (
                |s| {
                    let trouble = Some("denied: no".to_owned());
                    s.cloud = Some(vec![ProviderPart { trouble, ..ProviderPart::default() }]);
                },
                Severity::Critical,
                "QuarterdeckCloudDenied",
            ),
        ];
        for (number, (change, severity, runbook)) in change.into_iter().enumerate() {
            let mut status = well();
            change(&mut status);
            let found = runbooks(&status);
            assert!(found.contains(&(severity, runbook.to_owned())), "{number}: {found:?}");
        }
    }

    #[test]
    fn the_worst_comes_first() {
        let mut status = well();
        status.addons = Some(vec![AddonPart { state: "held".to_owned(), ..AddonPart::default() }]);
        status.controllers[0].state = "warming".to_owned();
        status.election.as_mut().expect("set").fence = Some("broken: x".to_owned());
        let order: Vec<_> = problems(&status).into_iter().map(|problem| problem.severity).collect();
        assert_eq!(order, [Severity::Critical, Severity::Warning, Severity::Notice]);
    }

    #[test]
    fn a_replica_that_left_in_order_is_no_problem() {
        let mut status = well();
        status.masters.push(MasterPart { name: "c".to_owned(), ..MasterPart::default() });
        assert_eq!(problems(&status), []);
    }
}
