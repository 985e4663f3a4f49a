//! Every fault that metal can meet: a server that refuses, hangs or loses answers, agents, inventories, and a leader
//! killed after each of its writes. Afterwards all is as it should be.
//!
//! A small part of the matrix runs always, the whole of it in [`long`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use quarterdeck_api::cloud::metal::{MetalLoadBalancer, MetalRoute};
use quarterdeck_it::proxy::Faults;
use quarterdeck_it::webhook::{Answer, Scope};
use quarterdeck_it::{ControlPlane, Proxy, Turnstile, Webhook, eventually};
use serde_json::json;

use super::Extent;
use super::metal_world::{Agent, INVENTORY, LONG, World};

/// User of the replicas, whose writes the turnstile counts.
const USER: &str = "quarterdeck";
const GATEWAYS: [&str; 2] = ["gw-1", "gw-2"];

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The server does this with writes of load balancers and routes.
    Writes(Answer),
    /// Bytes are late.
    Slow,
    /// The leader's connections stand still until another replica leads.
    Hung,
    /// The leader's requests arrive, and their answers are lost, until another replica leads.
    AnswersLost,
    /// All connections are cut, again and again.
    Cut,
    /// No agent lives.
    AgentsDead,
    /// The agent of one gateway cannot program anything.
    AgentFails,
    /// Agents take their time.
    AgentsSlow,
    /// The inventory is this; bad, or good and wrong.
    Inventory(fn() -> String),
}

fn faults(extent: Extent) -> Vec<Fault> {
    let mut faults = vec![
        Fault::Writes(Answer::Refuse(503)),
        Fault::AnswersLost,
        Fault::AgentFails,
        Fault::Inventory(|| inventory().replace("10.0.0.11", "10.0.0.311")),
    ];
    if extent.is_whole() {
        faults.extend([429, 500, 403, 409, 422].map(|code| Fault::Writes(Answer::Refuse(code))));
        faults.extend([
            Fault::Writes(Answer::Hold),
            Fault::Slow,
            Fault::Hung,
            Fault::Cut,
            Fault::AgentsDead,
            Fault::AgentsSlow,
            Fault::Inventory(String::new),
            Fault::Inventory(|| "cluster: rack-1\ninstances: []\n".to_owned()),
            Fault::Inventory(|| inventory()[..inventory().len() / 2].to_owned()),
            // Another site's, which has all machines but one.
            Fault::Inventory(|| inventory().replace("rack-1", "rack-2").replace("4c4c4544-0001", "another")),
        ]);
    }
    faults
}

/// The inventory, with a machine for each Node that is made.
fn inventory() -> String {
    let machine = |index| format!("  - {{name: m-{index}, addresses: [{{InternalIP: 10.0.2.{index}}}]}}\n");
    INVENTORY.to_owned() + &(0..100).map(machine).collect::<String>()
}

/// A webhook for writes of load balancers and routes.
async fn reviewed(control_plane: &ControlPlane) -> Result<Webhook> {
    let scope = Scope {
        name: "trouble.quarterdeck.test",
        group: "cloud.quarterdeck.dev",
        resources: &["metalloadbalancers", "metalroutes"],
        operations: &["CREATE", "UPDATE", "DELETE"],
        label: None,
        timeout: Duration::from_secs(2),
    };
    let probe: MetalRoute = serde_json::from_value(json!({ "metadata": { "name": "probe" } }))?;
    Webhook::start(control_plane, scope, async |client| {
        Api::all(client).create(&PostParams { dry_run: true, ..PostParams::default() }, &probe).await?;
        Ok(())
    })
    .await
}

struct Storm {
    world: World,
    webhook: Webhook,
    turnstile: Turnstile,
    proxies: Vec<Proxy>,
    agents: Mutex<BTreeMap<&'static str, Agent>>,
    /// Nodes that live, and the pods' network of each.
    nodes: Mutex<BTreeMap<String, String>>,
    /// uids of Services, by name.
    services: Mutex<BTreeMap<String, String>>,
    _folder: tempfile::TempDir,
}

impl Storm {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let turnstile = Turnstile::start(lane_of).await?;
        let control_plane = ControlPlane::builder()
            .audit(Turnstile::policy(USER))
            .apiserver_args(turnstile.apiserver_args(folder.path())?)
            .start()
            .await?;
        let url = control_plane.apiserver(0).url().to_owned();
        let server: SocketAddr = url.trim_start_matches("https://").trim_end_matches('/').parse().context(url)?;
        let proxies = vec![Proxy::start(server).await?, Proxy::start(server).await?];
        let urls: Vec<String> = proxies.iter().map(Proxy::url).collect();
        let quick = [
            "--load-balancer-audit-period=1s",
            "--route-reconciliation-period=1s",
            "--node-monitor-period=1s",
            "--cloud-node-deletion-grace=1s",
        ];
        let world = World::on(control_plane, &quick, &urls).await?;
        std::fs::write(&world.inventory, inventory())?;
        let webhook = reviewed(world.control_plane()).await?;
        let agents = GATEWAYS.map(|name| (name, Agent::start(&world.client, name))).into();
        let pool = json!({
            "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
            "metadata": { "name": "all" }, "spec": { "addresses": ["192.0.2.10-192.0.2.60"] },
        });
        let pools: Api<quarterdeck_api::cloud::pool::AddressPool> = Api::all(world.client.clone());
        pools.patch("all", &PatchParams::apply("test"), &Patch::Apply(pool)).await?;
        let (nodes, services) = Default::default();
        let agents = Mutex::new(agents);
        Ok(Self { world, webhook, turnstile, proxies, agents, nodes, services, _folder: folder })
    }

    /// Has something go wrong from now on.
    async fn begin(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Writes(answer) => self.webhook.set(answer),
            Fault::Slow => {
                let late = Duration::from_millis(120);
                let faults = Faults { delay_to_server: late, delay_to_client: late, ..Faults::none() };
                self.proxies.iter().for_each(|proxy| proxy.set(faults));
            }
            Fault::Hung | Fault::AnswersLost => {
                let faults = if matches!(fault, Fault::Hung) { Faults::partition() } else { Faults::lost_answers() };
                self.proxies[self.world.deck.leader(LONG).await?].set(faults);
            }
            Fault::Cut => self.proxies.iter().for_each(Proxy::cut),
            Fault::AgentsDead => self.agents.lock().clear(),
            Fault::AgentFails => self.agents.lock()[GATEWAYS[0]].fails.store(true, Ordering::Release),
            Fault::AgentsSlow => self.start_agents(Duration::from_secs(4)),
            Fault::Inventory(text) => {
                // The cloud is asked about nodes that are not ready.
                let nodes: Vec<_> = self.nodes.lock().keys().cloned().collect();
                for name in nodes {
                    self.ready(&name, false).await?;
                }
                std::fs::write(&self.world.inventory, text())?;
            }
        }
        Ok(())
    }

    fn start_agents(&self, pause: Duration) {
        let start = |name| (name, Agent::reporting_every(&self.world.client, name, pause));
        *self.agents.lock() = GATEWAYS.map(start).into();
    }

    /// Waits until what went wrong has had an effect, and ends it.
    async fn heal(&self, fault: Fault, before: &Before, what: &str) -> Result<()> {
        let awaited = format!("{what}: {fault:?} has an effect");
        let reached = eventually(&awaited, LONG, async || {
            match fault {
                Fault::Writes(_) => {
                    let struck = self.webhook.struck() - before.struck;
                    ensure!(struck >= 2, "{struck} writes");
                }
                Fault::Hung | Fault::AnswersLost => {
                    let now = self.world.deck.leader(Duration::from_secs(1)).await?;
                    ensure!(now != before.leader, "quarterdeck-{now} still leads");
                }
                Fault::Cut => {
                    self.proxies.iter().for_each(Proxy::cut);
                    let accepted: u64 = self.proxies.iter().map(Proxy::accepted).sum();
                    ensure!(accepted >= before.accepted + 20, "{accepted} connections");
                }
                Fault::Inventory(_) => {
                    let leader = self.world.deck.leader(Duration::from_secs(5)).await?;
                    let good = self.world.deck.replica(leader).metric("quarterdeck_metal_inventory_good", &[]).await?;
                    let refused = self.refusals().await?;
                    ensure!(good < 0.5 || refused > before.refused, "it counts, and no deletion was refused");
                }
                Fault::Slow | Fault::AgentsDead | Fault::AgentFails | Fault::AgentsSlow => {}
            }
            Ok(())
        });
        reached.await.with_context(|| self.world.logs())?;
        self.webhook.set(Answer::Admit);
        self.proxies.iter().for_each(|proxy| proxy.set(Faults::none()));
        match fault {
            // Connections that lost bytes are of no use any more.
            Fault::AnswersLost => self.proxies.iter().for_each(Proxy::cut),
            Fault::AgentsDead | Fault::AgentsSlow => self.start_agents(Duration::from_millis(200)),
            Fault::AgentFails => self.agents.lock()[GATEWAYS[0]].fails.store(false, Ordering::Release),
            Fault::Inventory(_) => {
                std::fs::write(&self.world.inventory, inventory())?;
                let nodes: Vec<_> = self.nodes.lock().keys().cloned().collect();
                for name in nodes {
                    self.ready(&name, true).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn before(&self) -> Result<Before> {
        Ok(Before {
            struck: self.webhook.struck(),
            leader: self.world.deck.leader(LONG).await?,
            accepted: self.proxies.iter().map(Proxy::accepted).sum(),
            refused: self.refusals().await?,
        })
    }

    /// How often the deletion of a Node was refused, or an inventory said to be bad.
    async fn refusals(&self) -> Result<i32> {
        let events: Api<Event> = Api::all(self.world.client.clone());
        let mut count = 0;
        for reason in ["NodeDeletionRefused", "InventoryInvalid"] {
            let all = events.list(&ListParams::default().fields(&format!("reason={reason}"))).await?.items;
            count += all.iter().map(|event| event.count.unwrap_or(1)).sum::<i32>();
        }
        Ok(count)
    }

    async fn make_service(&self, name: &str) -> Result<()> {
        let uid = self.world.service(name).await?;
        self.services.lock().insert(name.to_owned(), uid);
        Ok(())
    }

    async fn delete_service(&self, name: &str) -> Result<()> {
        self.services.lock().remove(name);
        self.world.services().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Makes a Node of the inventory, as its kubelet registers it.
    async fn make_node(&self, name: &str, network: usize) -> Result<()> {
        let cidr = format!("10.244.{network}.0/24");
        let taint = "node.cloudprovider.kubernetes.io/uninitialized";
        let node = json!({
            "metadata": { "name": name },
            "spec": {
                "podCIDR": cidr, "podCIDRs": [cidr],
                "taints": [{ "key": taint, "value": "true", "effect": "NoSchedule" }],
            },
        });
        let node: Node = serde_json::from_value(node)?;
        self.world.nodes().create(&PostParams::default(), &node).await?;
        self.nodes.lock().insert(name.to_owned(), cidr);
        self.ready(name, true).await
    }

    async fn ready(&self, name: &str, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "Unknown" };
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        self.world.nodes().patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// One load balancer a Service, none without; finalizers gone; routes as podCIDRs; all Nodes there.
    async fn is_as_it_should_be(&self, what: &str) -> Result<()> {
        let (balancers, routes): (Api<MetalLoadBalancer>, Api<MetalRoute>) =
            (self.world.balancers(), Api::all(self.world.client.clone()));
        let awaited = format!("{what}: all is as it should be");
        let held = eventually(&awaited, LONG, async || {
            let wanted: BTreeMap<String, String> = self.services.lock().clone();
            let services = self.world.services().list(&ListParams::default()).await?.items;
            let there: BTreeSet<_> = services.iter().filter_map(|one| one.metadata.name.clone()).collect();
            ensure!(there == wanted.keys().cloned().collect(), "Services {there:?}, wanted {:?}", wanted.keys());
            let stored = balancers.list(&ListParams::default()).await?.items;
            let mut owners: Vec<&String> = stored.iter().map(|one| &one.spec.owner.uid).collect();
            let mut uids: Vec<&String> = wanted.values().collect();
            owners.sort();
            uids.sort();
            ensure!(owners == uids, "load balancers of {owners:?}, Services {uids:?}");
            let addresses: Vec<_> = stored.iter().flat_map(|one| &one.spec.addresses).collect();
            let once: BTreeSet<_> = addresses.iter().map(|one| one.address).collect();
            ensure!(once.len() == addresses.len(), "an address twice: {addresses:?}");
            ensure!(addresses.iter().all(|one| one.gateway.is_some()), "an address without a gateway: {addresses:?}");
            let cidrs: BTreeMap<String, String> = self.nodes.lock().clone();
            let mut led = BTreeMap::new();
            for route in routes.list(&ListParams::default()).await?.items {
                let to: Vec<String> = route.spec.destinations.iter().map(ToString::to_string).collect();
                led.insert(route.name().to_owned(), to.join(","));
            }
            ensure!(led == cidrs, "routes {led:?}, networks {cidrs:?}");
            for name in cidrs.keys() {
                let node = self.world.nodes().get_opt(name).await?;
                ensure!(
                    node.is_some_and(|node| node.metadata.deletion_timestamp.is_none()),
                    "{name} lives, and its Node was deleted"
                );
            }
            Ok(())
        });
        held.await.with_context(|| self.world.logs())?;
        let names: Vec<String> = self.services.lock().keys().cloned().collect();
        for name in names {
            self.world.address(&name).await.context(what.to_owned())?;
        }
        Ok(())
    }

    /// Has so many writes about load balancers pass, kills the leader before the next one, and has the other lead.
    async fn kill_leader_after(&self, writes: usize, what: &str) -> Result<bool> {
        let awaited = format!("{what}: {writes} writes");
        let stands = eventually(&awaited, LONG, async || {
            let (standing, passed) = (self.turnstile.standing(), self.turnstile.passed(0));
            ensure!(!standing.is_empty() || passed.len() > writes, "{passed:?}");
            Ok(!standing.is_empty())
        });
        let stands = stands.await.with_context(|| self.world.logs())?;
        let leader = self.world.deck.leader(LONG).await?;
        self.world.deck.replica(leader).process().kill().await?;
        self.turnstile.open();
        let next = self.world.deck.leader(LONG).await?;
        ensure!(next != leader, "{what}: quarterdeck-{leader} is dead, and leads");
        self.world.deck.replica(leader).restart()?;
        self.world.deck.replica(leader).ready(LONG).await?;
        Ok(stands)
    }
}

/// How things were before something went wrong.
struct Before {
    struck: usize,
    leader: usize,
    accepted: u64,
    refused: i32,
}

/// Writes about Services and what belongs to their load balancers are counted.
fn lane_of(path: &str) -> Option<usize> {
    let counted = ["/services/", "/metalloadbalancers", "/addressreservations"];
    counted.iter().any(|part| path.contains(part)).then_some(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metal_is_as_it_should_be_after_every_fault() -> Result<()> {
    metal_after_faults(Extent::Core).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_metal_killed_after_any_write_leaves_one_load_balancer_and_no_finalizer() -> Result<()> {
    leaders_killed(Extent::Core).await
}

/// The whole matrix.
mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn metal_is_as_it_should_be_after_every_fault() -> Result<()> {
        metal_after_faults(Extent::Whole).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_leader_of_metal_killed_after_any_write_leaves_one_load_balancer_and_no_finalizer() -> Result<()> {
        leaders_killed(Extent::Whole).await
    }
}

async fn metal_after_faults(extent: Extent) -> Result<()> {
    let storm = Storm::start().await?;
    storm.make_service("steady").await?;
    storm.make_node("n-1", 1).await?;
    storm.is_as_it_should_be("at first").await?;
    for (index, fault) in faults(extent).into_iter().enumerate() {
        let (name, what) = (format!("f-{index}"), format!("{index}, made under {fault:?}"));
        let before = storm.before().await?;
        storm.begin(fault).await?;
        storm.make_service(&name).await?;
        storm.make_node(&format!("m-{index}"), 100 + index).await?;
        storm.heal(fault, &before, &what).await?;
        storm.is_as_it_should_be(&what).await?;

        let what = format!("{index}, deleted under {fault:?}");
        let before = storm.before().await?;
        // An inventory says nothing about Services; to refuse a deletion takes its time.
        let again = matches!(fault, Fault::Inventory(_)) && !extent.is_whole();
        if !again {
            storm.begin(fault).await?;
        }
        storm.delete_service(&name).await?;
        if !again {
            storm.heal(fault, &before, &what).await?;
        }
        storm.is_as_it_should_be(&what).await?;
    }
    Ok(())
}

async fn leaders_killed(extent: Extent) -> Result<()> {
    let storm = Storm::start().await?;
    storm.make_node("n-1", 1).await?;
    storm.make_service("steady").await?;
    storm.is_as_it_should_be("at first").await?;
    // Finalizer, reservation, load balancer, its gateway, conditions, status; and a deletion has fewer.
    let (makes, deletes) = if extent.is_whole() { (0..8, 0..4) } else { (2..3, 1..2) };
    let mut reached = 0;
    for writes in makes {
        let (name, what) = (format!("k-{writes}"), format!("made, killed after {writes} writes"));
        storm.turnstile.limit(BTreeMap::from([(0, writes)]));
        storm.make_service(&name).await?;
        reached += usize::from(storm.kill_leader_after(writes, &what).await?);
        storm.is_as_it_should_be(&what).await?;
    }
    for writes in deletes {
        let (name, what) = (format!("k-{}", 2 + writes), format!("deleted, killed after {writes} writes"));
        if !storm.services.lock().contains_key(&name) {
            storm.make_service(&name).await?;
            storm.is_as_it_should_be(&what).await?;
        }
        storm.turnstile.limit(BTreeMap::from([(0, writes)]));
        storm.delete_service(&name).await?;
        reached += usize::from(storm.kill_leader_after(writes, &what).await?);
        storm.is_as_it_should_be(&what).await?;
    }
    if reached == 0 {
        bail!("no leader was killed between two writes");
    }
    Ok(())
}
