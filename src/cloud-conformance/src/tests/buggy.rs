//! A made-up cloud with one mistake, of the kind that a case is there for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quarterdeck_cloud::error::Result;
use quarterdeck_cloud::model::*;
use quarterdeck_cloud::provider::ProviderInfo;
use quarterdeck_cloud::sim::{Command, Sim};
use quarterdeck_cloud::{CallCtx, CloudError, Instances, LoadBalancers, Provider, Routes};
use tokio_util::sync::CancellationToken;

/// A made-up cloud, and the case whose mistake it makes.
pub struct Buggy {
    sim: Arc<Sim>,
    bug: &'static str,
    calls: AtomicU64,
}

/// Long enough for others to come in between.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

impl Buggy {
    pub fn new(sim: Arc<Sim>, bug: Option<&'static str>) -> Self {
        Self { sim, bug: bug.unwrap_or_default(), calls: AtomicU64::new(0) }
    }

    fn has(&self, bug: &str) -> bool {
        self.bug == bug
    }

    fn count(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The call of somebody who cannot be cancelled.
    fn deaf(&self, call: &CallCtx) -> CallCtx {
        let cancel = if self.has("P4") { CancellationToken::new() } else { call.cancel.clone() };
        CallCtx { cancel, ..call.clone() }
    }

    fn spoil(&self, answer: &mut Lookup) {
        let Lookup::Found(instance) = answer else { return };
        match self.bug {
            "I3" => instance.provider_id = format!("{}-{}", instance.provider_id, self.count()),
            "I4" => *answer = Lookup::Absent(Proof { evidence: "it does not run".to_owned() }),
            "I9" => instance.addresses.reverse(),
            "I10" => drop(instance.labels.insert("node.kubernetes.io/x".to_owned(), String::new())),
            _ => {}
        }
    }
}

#[async_trait]
impl Provider for Buggy {
    async fn info(&self, call: &CallCtx) -> Result<ProviderInfo> {
        let info = self.sim.info(call).await?;
        Ok(ProviderInfo { routes: info.routes && !self.has("P2"), ..info })
    }

    async fn probe(&self, call: &CallCtx) -> Result<()> {
        if self.has("P1") {
            return Err(CloudError::NotImplemented("probing".to_owned()));
        }
        self.sim.probe(call).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Buggy {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> Result<Answers> {
        if self.has("I8") && nodes.iter().any(|node| node.provider_id.as_deref() == Some("no-scheme")) {
            return Err(CloudError::Invalid("no-scheme is malformed".to_owned()));
        }
        if self.has("P3") {
            return Err(CloudError::Unavailable("given up before anything was tried".to_owned()));
        }
        let asked: Vec<NodeRef> = match self.bug {
            "I1" => nodes.iter().map(|node| NodeRef { provider_id: None, ..node.clone() }).collect(),
            _ => nodes.to_vec(),
        };
        let found = self.sim.get_many(call, &asked).await;
        let mut answers = match found {
            Err(CloudError::Unavailable(_)) if self.has("P5") => Answers::default(),
            found => found?,
        };
        answers.nodes = nodes
            .iter()
            .zip(&asked)
            .filter_map(|(node, asked)| Some((node.clone(), answers.nodes.get(asked)?.clone())))
            .collect();
        for (node, answer) in &mut answers.nodes {
            let Ok(lookup) = answer else { continue };
            let absent = || Lookup::Absent(Proof { evidence: "not found".to_owned() });
            match (self.bug, &*lookup) {
                ("I2", Lookup::Found(_)) if node.provider_id.is_none() => *lookup = Lookup::NotMine,
                ("I5", Lookup::Absent(_)) => *lookup = Lookup::NotMine,
                ("I6", Lookup::NotMine) => *lookup = absent(),
                ("I7", Lookup::Found(_)) if nodes.len() > 1 => *lookup = absent(),
                _ => self.spoil(lookup),
            }
        }
        Ok(answers)
    }
}

#[async_trait]
impl LoadBalancers for Buggy {
    async fn get(&self, call: &CallCtx, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        let found = self.sim.get(call, owner).await?;
        Ok(if self.has("L1") { Vec::new() } else { found })
    }

    async fn ensure(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: Option<&Handle>) -> Result<LbOutcome> {
        let mut asked = spec.clone();
        let call = &self.deaf(call);
        match self.bug {
            "L2" => asked.affinity = Some(Duration::from_secs(self.count())),
            "L3" => {
                // Looks, then makes: others do so meanwhile.
                let there = !self.sim.get(call, &spec.owner).await?.is_empty();
                a_moment().await;
                let made = self.sim.ensure(call, spec, known).await;
                if !there && self.count() > 0 {
                    self.sim.command(Command::DuplicateLoadBalancer { uid: spec.owner.uid.clone() })?;
                }
                return made;
            }
            "L4" => asked.ports.truncate(1),
            "L6" if spec.backends.is_empty() => {
                self.sim.ensure_deleted(call, &spec.owner, None).await?;
            }
            "L7" => asked.source_ranges.clear(),
            "L8" => asked.health_check_node_port = 0,
            "L9" => asked.affinity = None,
            // Once known, it is not made again.
            "L10" if known.is_some() => {
                let handle = known.cloned().unwrap_or(Handle(String::new()));
                let at = IngressPoint::Hostname("cached".to_owned());
                let ingress = vec![Ingress { at, proxy_mode: false }];
                return Ok(LbOutcome::Ready { ingress, handle, fingerprint: String::new() });
            }
            // Known by its name.
            "L13" => asked.owner.uid = format!("{}-{}", asked.owner.uid, asked.owner.name),
            "L15" => asked.owner.uid = asked.owner.name.clone(),
            "L17" => asked.annotations = BTreeMap::new(),
            _ => {}
        }
        let asking = if self.has("L14") {
            asked.owner.cluster = ClusterId("everybody".into());
            CallCtx { cluster: asked.owner.cluster.clone(), ..call.clone() }
        } else {
            call.clone()
        };
        if self.has("L6") && spec.backends.is_empty() {
            asked.addresses = vec!["192.0.2.200".parse().expect("it is an address")];
        }
        self.sim.ensure(&asking, &asked, known).await
    }

    async fn update_backends(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: &Handle) -> Result<LbOutcome> {
        match self.bug {
            "L5" => self.sim.ensure(call, spec, Some(known)).await,
            "L16" => {
                // The handle counts, whoever owns it.
                let owner = self.sim.state().balancers.get(&known.0).map(|one| one.owner.clone());
                let spec = LoadBalancerSpec {
                    owner: owner.unwrap_or(spec.owner.clone()),
                    backends: Vec::new(),
                    ..spec.clone()
                };
                self.sim.update_backends(call, &spec, known).await
            }
            _ => self.sim.update_backends(call, spec, known).await,
        }
    }

    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, known: Option<&Handle>) -> Result<Deletion> {
        match self.bug {
            "L11" if self.sim.get(call, owner).await?.is_empty() => {
                return Err(CloudError::NotFound("there is no such load balancer".to_owned()));
            }
            // Deletes only what get sees.
            "L12" if self.sim.get(call, owner).await?.is_empty() => return Ok(Deletion::Gone),
            _ => {}
        }
        self.sim.ensure_deleted(call, owner, known).await
    }

    async fn list_owned(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<OwnedLoadBalancer>> {
        let mut listed = self.sim.list_owned(call, page).await?;
        if self.has("L18") && listed.next.is_some() {
            listed.items.pop();
        }
        Ok(listed)
    }
}

#[async_trait]
impl Routes for Buggy {
    async fn list(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<Route>> {
        let mut listed = self.sim.list(call, page).await?;
        match self.bug {
            "R1" => listed.items.clear(),
            "R5" => listed.items.iter_mut().for_each(|route| route.blackhole = false),
            "R8" => listed.next = None,
            _ => {}
        }
        Ok(listed)
    }

    async fn create(&self, call: &CallCtx, route: &Route) -> Result<()> {
        let there = self.sim.state().routes.values().any(|one| one.destination == route.destination);
        if self.has("R2") && there {
            return Err(CloudError::Conflict("there is such a route already".to_owned()));
        }
        // One route a node: the one before is lost.
        if self.has("R7") {
            for other in self.sim.list(call, None).await?.items.iter().filter(|other| other.node == route.node) {
                self.sim.delete(call, other).await?;
            }
        }
        self.sim.create(call, route).await
    }

    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> Result<()> {
        if self.has("R6") {
            self.sim.delete(call, old).await?;
            a_moment().await;
            return self.sim.create(call, new).await;
        }
        self.sim.replace(call, old, new).await
    }

    async fn delete(&self, call: &CallCtx, route: &Route) -> Result<()> {
        let there = self.sim.state().routes.values().any(|one| one.destination == route.destination);
        if self.has("R3") && !there {
            return Err(CloudError::NotFound("there is no such route".to_owned()));
        }
        // Whose it is, is not asked.
        if self.has("R4") {
            self.sim.command(Command::LoseRoutes { destination: route.destination })?;
        }
        self.sim.delete(call, route).await
    }
}
