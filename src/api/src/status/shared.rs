//! What single controllers and facilities tell: addons and clouds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One addon, as its inventory in the cluster says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddonPart {
    /// Its name in its source.
    pub name: String,
    /// Where it comes from: `directory`, `channel`, `objects` and such.
    pub source: String,
    /// Version that was applied last.
    pub version: String,
    /// How it is: `ready`, `progressing`, `held`, `degraded`, `observing`, `blocked`, `paused`, `deleting`, or `unknown`
    /// before anybody looked.
    pub state: String,
    /// Objects that it manages.
    pub objects: usize,
    /// Objects that are not healthy.
    pub unhealthy: usize,
    /// Objects that somebody changed and that are left so.
    pub drifted: usize,
    /// How often an object was put back since its status began.
    pub repaired: u64,
    /// Objects whose removal waits for a person.
    pub held: usize,
    /// The first thing that is wrong with it.
    pub message: Option<String>,
}

/// One cloud provider, as `docs/cloud/guard.md` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderPart {
    /// Its name.
    pub provider: String,
    /// Its breaker: `closed`, `open`, `half_open`.
    pub breaker: String,
    /// Seconds for which it is left alone, if it is.
    pub left_alone_for_seconds: Option<u64>,
    /// What is wrong with it as a whole.
    pub trouble: Option<String>,
    /// Calls that run, by class.
    pub in_flight: BTreeMap<String, usize>,
    /// Those of them for which nobody waits any more.
    pub abandoned: usize,
    /// Those of these that block their thread.
    pub stuck: usize,
    /// Calls a second that are begun at most at present, by class.
    pub calls_per_second: BTreeMap<String, f64>,
    /// Account or project that it works in.
    pub account: Option<String>,
    /// Seconds since the last good answer about nodes.
    pub nodes_read_seconds_ago: Option<u64>,
    /// Its last error.
    pub last_error: Option<String>,
    /// The method that gave it.
    pub last_error_of: Option<String>,
    /// Seconds since then.
    pub last_error_seconds_ago: Option<u64>,
}
