//! Health checks: `/healthz`, `/livez`, `/readyz`, each as a whole and check by check.
//!
//! Format as upstream's (apiserver:pkg/server/healthz, v1.36.3); unlike there, `/livez`, `/readyz`
//! and the single checks answer too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use http::StatusCode;
use parking_lot::{Mutex, RwLock};
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use super::respond::{Answer, not_found, text};

/// Which of the health endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// `/healthz`: what upstream's managers answer; probes of old manifests ask it.
    Healthz,
    /// `/livez`: whether a restart would help.
    Livez,
    /// `/readyz`: whether this replica could take over.
    Readyz,
}

impl Probe {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Healthz, Self::Livez, Self::Readyz];

    /// Its path, without the slash.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }
}

/// A check: well, or what is wrong. Must not block.
type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Entry {
    probe: Probe,
    name: String,
    check: Check,
}

/// The checks there are. Checks come and go while the process runs.
pub struct Checks {
    entries: RwLock<Vec<Entry>>,
    slis: Registry,
    state: GaugeVec,
    total: IntCounterVec,
    /// What failed when it was run last.
    failing: Mutex<BTreeSet<(Probe, String)>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").field("count", &self.entries.read().len()).finish_non_exhaustive()
    }
}

impl Checks {
    /// `ping` for each probe.
    #[must_use]
    pub fn new() -> Self {
        let slis = Registry::new();
        let state = GaugeVec::new(
            Opts::new("kubernetes_healthcheck", "Result of the last run of a health check: 1 well, 0 not."),
            &["name", "type"],
        )
        .expect("a constant, valid metric");
        let total = IntCounterVec::new(
            Opts::new("kubernetes_healthchecks_total", "Runs of health checks by result."),
            &["name", "type", "status"],
        )
        .expect("a constant, valid metric");
        slis.register(Box::new(state.clone())).expect("the first of its name");
        slis.register(Box::new(total.clone())).expect("the first of its name");
        let checks = Self { entries: RwLock::default(), slis, state, total, failing: Mutex::default() };
        for probe in Probe::ALL {
            checks.add(&[probe], "ping", || Ok(()));
        }
        checks
    }

    /// Adds a check to some probes; one of the same name is replaced. The check must not block.
    pub fn add(
        &self,
        probes: &[Probe],
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let (name, check): (String, Check) = (name.into(), Arc::new(check));
        let mut entries = self.entries.write();
        for probe in probes {
            let entry = Entry { probe: *probe, name: name.clone(), check: Arc::clone(&check) };
            match entries.iter_mut().find(|old| old.probe == *probe && old.name == name) {
                Some(old) => *old = entry,
                None => entries.push(entry),
            }
        }
    }

    /// Removes a check from all probes.
    pub fn remove(&self, name: &str) {
        self.entries.write().retain(|entry| entry.name != name);
    }

    /// Paths of all checks.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let entries = self.entries.read();
        let single = entries.iter().map(|entry| format!("/{}/{}", entry.probe.name(), entry.name));
        Probe::ALL.iter().map(|probe| format!("/{}", probe.name())).chain(single).collect()
    }

    /// The metrics that tell the checks' results.
    pub(crate) fn slis(&self) -> &Registry {
        &self.slis
    }

    /// Forgets the results so far.
    pub(crate) fn reset_slis(&self) {
        self.state.reset();
        self.total.reset();
    }

    /// The checks of a probe; they run outside the lock.
    fn of(&self, probe: Probe) -> Vec<(String, Check)> {
        let entries = self.entries.read();
        entries.iter().filter(|e| e.probe == probe).map(|e| (e.name.clone(), Arc::clone(&e.check))).collect()
    }

    fn run(&self, probe: Probe, name: &str, check: &Check) -> Result<(), String> {
        // A check that panics is not well, and takes nothing with it.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check()))
            .unwrap_or_else(|_| Err("the check panicked".to_owned()));
        let status = if result.is_ok() { "success" } else { "error" };
        self.state.with_label_values(&[name, probe.name()]).set(if result.is_ok() { 1.0 } else { 0.0 });
        self.total.with_label_values(&[name, probe.name(), status]).inc();
        self.tell(probe, name, result.as_ref().err());
        result
    }

    /// A line of the log when a check begins to fail, and one when it is well again: probes come every few seconds.
    fn tell(&self, probe: Probe, name: &str, failed: Option<&String>) {
        let key = (probe, name.to_owned());
        let mut failing = self.failing.lock();
        match failed {
            Some(reason) => {
                if failing.insert(key) {
                    tracing::warn!(probe = probe.name(), check = name, reason, "a health check fails");
                }
            }
            None => {
                if failing.remove(&key) {
                    tracing::info!(probe = probe.name(), check = name, "a health check is well again");
                }
            }
        }
    }

    /// Answers `/healthz`, with the query's `verbose` and `exclude`.
    pub(crate) fn answer(&self, probe: Probe, query: &[(String, String)]) -> Answer {
        let excluded: BTreeSet<&str> =
            query.iter().filter(|(key, _)| key == "exclude").map(|(_, name)| name.as_str()).collect();
        let mut unknown = excluded.clone();
        let (mut lines, mut failed) = (String::new(), false);
        for (name, check) in self.of(probe) {
            let line = if excluded.contains(name.as_str()) {
                unknown.remove(name.as_str());
                format!("[+]{name} excluded: ok")
            } else if self.run(probe, &name, &check).is_err() {
                // Anyone may ask; the reason is in the log, and at the check's own path.
                failed = true;
                format!("[-]{name} failed: reason withheld")
            } else {
                format!("[+]{name} ok")
            };
            writeln!(lines, "{line}").expect("writing to a String cannot fail");
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|name| format!("{name:?}")).collect();
            writeln!(lines, "warn: some health checks cannot be excluded: no matches for {}", names.join(", "))
                .expect("writing to a String cannot fail");
        }
        let title = probe.name();
        if failed {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{title} check failed\n"));
        }
        if !query.iter().any(|(key, _)| key == "verbose") {
            return text(StatusCode::OK, "ok");
        }
        text(StatusCode::OK, format!("{lines}{title} check passed\n"))
    }

    /// Answers `/healthz/<check>`.
    pub(crate) fn answer_one(&self, probe: Probe, name: &str) -> Answer {
        let Some((_, check)) = self.of(probe).into_iter().find(|(known, _)| known == name) else {
            return not_found();
        };
        match self.run(probe, name, &check) {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(reason) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n")),
        }
    }
}
