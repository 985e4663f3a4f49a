//! What a replica says of itself on `/statusz`, as JSON: written by the manager, read by the status page, by
//! `addonctl` and by scripts.
//!
//! Reading is tolerant, so that a client can ask a server of another version: a field that is missing has its default,
//! one that is not known is passed over. Times are RFC 3339; how long ago something was is in seconds, by the clock of
//! the replica that tells, so that the clocks of two machines are never compared.

mod master;
mod problem;
mod shared;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use master::{MasterPart, RefusalPart, TermNote, TermPart, history};
pub use problem::{Problem, Severity, problems};
pub use shared::{AddonPart, ProviderPart};

/// The object that `/statusz` answers with, as upstream's pages have it, with our own part within.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statusz<S = Status> {
    /// `Statusz`.
    pub kind: String,
    /// `config.k8s.io/v1beta1`.
    pub api_version: String,
    /// `name`: the program.
    pub metadata: BTreeMap<String, String>,
    /// When the process started.
    pub start_time: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The program's version.
    pub binary_version: String,
    /// Paths that are served.
    pub paths: Vec<String>,
    /// How the replica is.
    pub status: S,
}

/// The status of a replica.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The API server's `host:port`.
    pub server: String,
    /// Who leads, as this replica sees it; `None` without election.
    pub election: Option<ElectionPart>,
    /// The controllers of the table.
    pub controllers: Vec<ControllerPart>,
    /// The caches.
    pub informers: Vec<InformerPart>,
    /// What the gate let out and refused.
    pub gate: GatePart,
    /// The replicas of this election, by name.
    pub masters: Vec<MasterPart>,
    /// Why the replicas cannot be told, if they cannot.
    pub masters_unknown: Option<String>,
    /// Who led when, newest first.
    pub history: Vec<TermPart>,
    /// The last writes that gate or fence refused, newest first.
    pub refusals: Vec<RefusalPart>,
    /// The addons, by source and name; `None` where no addon controller runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addons: Option<Vec<AddonPart>>,
    /// The cloud providers; `None` without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<Vec<ProviderPart>>,
    /// What else controllers share or tell, each part under its own name.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// Who leads, as a replica sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ElectionPart {
    /// Whether this replica leads.
    pub leading: bool,
    /// What its elector is doing: `standby`, `proving`, `leading`, `draining`, `releasing`, `ended`.
    pub activity: String,
    /// This replica's name in the Lease.
    pub identity: String,
    /// Who holds the Lease.
    pub holder: Option<String>,
    /// The Lease, `namespace/name`.
    pub lease: String,
    /// How often the Lease changed hands.
    pub transitions: Option<i32>,
    /// When the holder last renewed, by the holder's clock.
    pub renewed: Option<String>,
    /// Seconds left until the last moment for a write of this tenure; 0 while not leading.
    pub deadline_seconds: f64,
    /// When this replica last began to lead.
    pub began: Option<String>,
    /// When this replica last stopped leading.
    pub stopped: Option<String>,
    /// Why it did.
    pub stopped_because: Option<String>,
    /// What is known of the fence: `verified`, `absent`, `broken: <why>`; `None` while not leading.
    pub fence: Option<String>,
    /// Renewals that had to read the Lease first.
    pub slow_paths: u64,
    /// The last failed exchange about the Lease.
    pub last_error: Option<String>,
}

/// One controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerPart {
    /// Canonical name.
    pub name: String,
    /// State on this replica: `disabled`, `blocked`, `warming`, `standby`, `running`, `draining`, `failed`.
    pub state: String,
    /// Why it is in that state.
    pub reason: Option<String>,
    /// Its queue; `None` for disabled ones.
    pub queue: Option<QueuePart>,
    /// Seconds for which it has had work and finished nothing.
    pub stuck_seconds: Option<f64>,
    /// Its slowest reconciles of late.
    pub slowest: Vec<SlowPart>,
}

/// What a queue looks like from outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueuePart {
    /// Keys that wait for a worker.
    pub depth: usize,
    /// Keys that wait for a time: retries and delayed looks.
    pub delayed: usize,
    /// Keys in workers' hands.
    pub in_flight: usize,
    /// Keys that wait until a cache shows our own write.
    pub parked: usize,
    /// The key that has waited longest, and for how many seconds.
    pub oldest: Option<(String, f64)>,
    /// Seconds since a worker last finished a key, if one ever did.
    pub idle_seconds: Option<f64>,
    /// Keys that became ready, a second, over about the last minute.
    pub added_per_second: f64,
    /// Keys that workers finished, a second, over about the last minute.
    pub done_per_second: f64,
}

/// A reconcile that took long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlowPart {
    /// Its key.
    pub key: String,
    /// How many seconds it took.
    pub seconds: f64,
}

/// One cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InformerPart {
    /// What it reads: `services`, `endpointslices.discovery.k8s.io`.
    pub resource: String,
    /// The form it keeps.
    pub form: String,
    /// Which objects, when not all.
    pub selection: Option<String>,
    /// What it is doing: `listing`, `watching`, `retrying: <why>`, `forbidden: <why>` and such.
    pub state: String,
    /// Whether it has had a complete list.
    pub synced: bool,
    /// Number of objects.
    pub objects: usize,
    /// Estimate of the bytes they take.
    pub bytes: u64,
    /// Newest version seen.
    pub version: String,
    /// Complete lists after the first.
    pub relists: u64,
    /// Objects that could not be decoded.
    pub decode_errors: u64,
}

/// What the gate let out and refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatePart {
    /// Writes let out.
    pub admitted: u64,
    /// This replica did not lead.
    pub not_leading: u64,
    /// The write could not have ended before the deadline.
    pub too_late: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_version_is_read() {
        let text = r#"{"kind":"Statusz","paths":["/statusz"],"new":1,"status":{"server":"a:1","later":{"x":[1]},
            "controllers":[{"name":"a","state":"running","reason":null,"queue":{"depth":2,"oldest":["ns/a",1.5]},"slowest":[]}]}}"#;
        let statusz: Statusz = serde_json::from_str(text).expect("it is tolerant");
        let queue = statusz.status.controllers[0].queue.clone().expect("it has one");
        assert_eq!((queue.depth, queue.oldest), (2, Some(("ns/a".to_owned(), 1.5))));
        assert_eq!(statusz.status.others["later"]["x"][0], 1);
        assert!(statusz.status.addons.is_none() && statusz.status.election.is_none());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut status = Status { server: "a:1".to_owned(), ..Status::default() };
        status.addons = Some(vec![AddonPart { name: "coredns".to_owned(), ..AddonPart::default() }]);
        status.others.insert("mine".to_owned(), serde_json::json!({"a": 1.5}));
        let text = serde_json::to_string(&status).expect("it is plain data");
        let read: Status = serde_json::from_str(&text).expect("it was just written");
        assert_eq!(serde_json::to_string(&read).expect("it is plain data"), text);
        assert!(!text.contains("cloud"), "nothing is said of clouds where there are none");
    }
}
