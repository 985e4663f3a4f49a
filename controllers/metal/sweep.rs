//! What agents leave behind whose hosts are gone: their reports and Leases are deleted.
//!
//! That a host is gone is proven by everything that knows hosts: a good inventory does not list it, its agent has been
//! silent for long while others renewed their Leases, and the server itself said twice, [`SPACING`] apart, that it has
//! no such Node. Anything else, errors above all, begins the proof anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use parking_lot::Mutex;
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, MetalAgent};
use quarterdeck_cloud::metal::inventory::View;
use quarterdeck_runtime::client::{DeletePrecondition, Propagation};
use quarterdeck_runtime::controller::{Cx, Error, SetupError};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey, Typed};
use tokio::time::Instant;

use super::{Desk, reasons};

/// How far apart the two answers are that there is no Node.
const SPACING: Duration = Duration::from_secs(15);

/// Flags of the metal controller.
#[derive(clap::Args, Clone, Debug)]
pub struct MetalConfig {
    /// How long the agent of a host has to be silent before its report and its Lease are deleted, if the host is neither
    /// in the inventory nor a Node; 0: they are kept.
    #[arg(long, value_name = "DURATION", default_value = "1h", help_heading = "Metal controller")]
    pub metal_agent_retention: SignedDuration,
}

impl MetalConfig {
    /// How long an agent has to be silent; `None` if what it left is kept.
    pub(super) fn retention(&self) -> Result<Option<Duration>, SetupError> {
        let retention = Duration::try_from(self.metal_agent_retention).map_err(|_| SetupError {
            flag: "metal-agent-retention",
            reason: "must not be less than zero".to_owned(),
        })?;
        Ok(Some(retention).filter(|retention| !retention.is_zero()))
    }
}

/// What speaks against a host being there.
#[derive(Clone, Copy, Debug)]
struct Sight {
    /// Since when its agent has been known to be silent, and the inventory to lack it.
    since: Instant,
    /// When the server first said that it has no such Node.
    no_node: Option<Instant>,
}

/// Agents that may be of hosts that are gone.
#[derive(Debug, Default)]
struct Sights(BTreeMap<String, Sight>);

impl Sights {
    /// Takes in of which agents everything but the Node says that their hosts are gone: those and no others. Returns
    /// those of which it has for so long.
    fn look(&mut self, gone: BTreeSet<String>, retention: Duration, now: Instant) -> Vec<String> {
        self.0.retain(|name, _| gone.contains(name));
        for name in gone {
            self.0.entry(name).or_insert(Sight { since: now, no_node: None });
        }
        let long = self.0.iter().filter(|(_, sight)| now.duration_since(sight.since) >= retention);
        long.map(|(name, _)| name.clone()).collect()
    }

    /// Takes in whether the server has the Node of a host, if it said so. Returns whether the host is proven to be gone.
    fn hear(&mut self, name: &str, has_node: Option<bool>, now: Instant) -> bool {
        let Some(sight) = self.0.get_mut(name) else { return false };
        if has_node != Some(false) {
            sight.no_node = None;
            return false;
        }
        now.duration_since(*sight.no_node.get_or_insert(now)) >= SPACING
    }

    /// When to look again.
    fn next(&self, retention: Duration, now: Instant) -> Option<Instant> {
        let due = |sight: &Sight| match sight.no_node {
            Some(first) => first + SPACING,
            // A Node that is there goes at some time, which nobody tells.
            None if now.duration_since(sight.since) >= retention => now + retention.max(SPACING),
            None => sight.since + retention,
        };
        self.0.values().map(due).min()
    }
}

/// Deletes what agents left behind.
pub(super) struct Sweeper {
    retention: Option<Duration>,
    sights: Mutex<Sights>,
}

impl Sweeper {
    pub(super) fn new(retention: Option<Duration>) -> Self {
        Self { retention, sights: Mutex::default() }
    }
}

impl Desk {
    /// Deletes what agents left behind whose hosts are proven to be gone. Returns when to look again.
    pub(super) async fn sweep(&self, cx: &Cx, view: &View) -> Result<Option<Instant>, Error> {
        let Some(retention) = self.sweeper.retention else { return Ok(None) };
        let readable = self.agents.has_synced() && self.leases.has_synced() && self.leases.refusal().is_none();
        let Some(inventory) = view.good.as_ref().filter(|_| readable && view.is_certain()) else {
            self.sweeper.sights.lock().0.clear();
            return Ok(None);
        };
        let now = Instant::now();
        let mut names: BTreeSet<String> = self.agents.all().iter().map(|agent| agent.name().to_owned()).collect();
        names.extend(
            self.leases.all().iter().filter(|lease| is_agents(lease)).map(|lease| lease.key().name().to_owned()),
        );
        names.retain(|name| self.pulses.of(name, now).is_over());
        for machine in &inventory.machines {
            names.remove(&machine.name);
        }
        let due = self.sweeper.sights.lock().look(names, retention, now);
        let mut trouble = None;
        for name in due {
            let node = cx.api.get_metadata(&Kind::of::<Node>(), &ObjectKey::cluster(name.as_str())).await;
            let has_node = node.as_ref().ok().map(Option::is_some);
            let proven = self.sweeper.sights.lock().hear(&name, has_node, Instant::now());
            let ended = match node {
                Err(error) => Err(error.into()),
                Ok(_) if proven => self.forget(cx, &name).await,
                Ok(_) => Ok(()),
            };
            if let Err(error) = ended {
                trouble.get_or_insert(error);
            }
        }
        match trouble {
            Some(error) => Err(error),
            None => Ok(self.sweeper.sights.lock().next(retention, Instant::now())),
        }
    }

    /// Deletes the report and the Lease of an agent, as they were when its host was found to be gone.
    async fn forget(&self, cx: &Cx, name: &str) -> Result<(), Error> {
        let (agent, lease) = (ObjectKey::cluster(name), ObjectKey::new(AGENTS_NAMESPACE, name));
        if let Some(agent) = self.agents.get(&agent) {
            delete::<MetalAgent>(cx, &agent).await?;
        }
        if let Some(lease) = self.leases.get(&lease).filter(|lease| is_agents(lease)) {
            delete::<Lease>(cx, &lease).await?;
        }
        tracing::info!(agent = name, "deleted what the agent of a host left that is gone");
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(AGENTS_NAMESPACE.to_owned()),
            namespace: Some(AGENTS_NAMESPACE.to_owned()),
            ..ObjectReference::default()
        };
        let message = format!(
            "Deleted the report and the Lease of agent {name}: it is silent, and its host is neither in the inventory nor \
             a Node"
        );
        cx.recorder.event(&about, reasons::AGENT_FORGOTTEN, message);
        self.sweeper.sights.lock().0.remove(name);
        Ok(())
    }
}

/// Whether a Lease is an agent's: it holds it itself, or gave it back.
fn is_agents(lease: &Lease) -> bool {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    holder.is_empty() || holder == lease.key().name()
}

async fn delete<K: Typed>(cx: &Cx, object: &K) -> Result<(), Error> {
    let precondition = DeletePrecondition {
        uid: object.uid().to_owned(),
        // An agent that is back has written it.
        resource_version: Some(object.resource_version().to_owned()),
    };
    match cx.api.delete(&Kind::of::<K>(), &object.key(), &precondition, Propagation::Background).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn gone(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_host_is_gone_when_everybody_said_so_for_long_and_the_server_twice() {
        let (mut sights, start) = (Sights::default(), Instant::now());
        assert!(sights.look(gone(&["a", "b"]), HOUR, start).is_empty());
        assert_eq!(sights.next(HOUR, start), Some(start + HOUR));
        let later = start + HOUR;
        assert_eq!(sights.look(gone(&["a", "b"]), HOUR, later), ["a", "b"]);
        assert!(!sights.hear("a", Some(false), later), "once is not enough");
        assert!(!sights.hear("b", Some(true), later));
        assert_eq!(sights.next(HOUR, later), Some(later + SPACING));
        let soon = later + SPACING - Duration::from_millis(1);
        assert!(!sights.hear("a", Some(false), soon), "twice at once is not enough");
        assert!(sights.hear("a", Some(false), later + SPACING));
        assert!(!sights.hear("b", Some(false), later + SPACING), "its Node was there a moment ago");
    }

    #[test]
    fn an_error_or_a_sign_of_life_begins_the_proof_anew() {
        let (mut sights, start) = (Sights::default(), Instant::now());
        sights.look(gone(&["a"]), HOUR, start);
        let later = start + HOUR;
        assert_eq!(sights.look(gone(&["a"]), HOUR, later), ["a"]);
        assert!(!sights.hear("a", Some(false), later));
        assert!(!sights.hear("a", None, later + SPACING), "an error says nothing");
        assert!(!sights.hear("a", Some(false), later + SPACING));
        assert!(sights.look(gone(&[]), HOUR, later + SPACING).is_empty(), "it renewed its Lease");
        assert!(sights.look(gone(&["a"]), HOUR, later + SPACING * 2).is_empty(), "it is silent since just now");
        assert!(!sights.hear("unknown", Some(false), later + SPACING * 2));
    }

    #[test]
    fn retention_is_told_from_nonsense() {
        let of = |seconds| MetalConfig { metal_agent_retention: SignedDuration::from_secs(seconds) }.retention();
        assert_eq!(of(3600).unwrap(), Some(HOUR));
        assert_eq!(of(0).unwrap(), None);
        assert!(of(-1).unwrap_err().to_string().starts_with("--metal-agent-retention: "));
    }

    #[test]
    fn leases_of_others_are_none_of_ours() {
        let held_by = |holder: &str| -> Lease {
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": "a" }, "spec": { "holderIdentity": holder },
            }))
            .expect("a Lease")
        };
        assert!(is_agents(&held_by("a")) && is_agents(&held_by("")) && !is_agents(&held_by("somebody")));
    }
}
