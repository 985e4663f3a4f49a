//! What cases have in common: calls, waiting, and cleaning up.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use quarterdeck_cloud::model::*;
use quarterdeck_cloud::provider::SharedProvider;
use quarterdeck_cloud::{CallCtx, CloudError, Instances, LoadBalancers, Routes};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cases::Case;
use crate::known::{Balancers, Known, Machine, Paths};
use crate::report::{Line, Report, Verdict};
use crate::steering::{Described, Steering};

/// Why a case ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It needs what the tested cloud does not offer.
    NotApplicable(String),
    /// The provider does not do as it should.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Stop {
    /// Any error, with its causes.
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(crate) fn from_any(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

/// What a step of a case yields.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Ends a case as failed unless something holds.
macro_rules! check {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::suite::Stop::Failed(format!($($why)+)));
        }
    };
}
pub(crate) use check;

/// A provider that is tested.
pub struct Suite {
    /// It.
    pub provider: SharedProvider,
    /// What exists in its cloud.
    pub known: Known,
    /// What may be done to it.
    pub steering: Box<dyn Steering>,
    /// How far from its deadline a call may end.
    pub tolerance: Duration,
    /// For how long something in the making is waited for.
    pub patience: Duration,
    run: String,
    epoch: AtomicU64,
    made: Mutex<Vec<Owner>>,
    /// uids and clusters of owners that have an address reserved, each at its place among the addresses.
    reserved: Mutex<Vec<(String, ClusterId)>>,
    routed: Mutex<Vec<(String, Route)>>,
}

/// A load balancer that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Where clients call.
    pub ingress: Vec<Ingress>,
    /// What the provider calls it.
    pub handle: Handle,
    /// What its configuration looks like.
    pub fingerprint: String,
}

impl Suite {
    /// A suite for a provider.
    #[must_use]
    pub fn new(provider: SharedProvider, known: Known, steering: Box<dyn Steering>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            provider,
            known,
            steering,
            tolerance: Duration::from_millis(250),
            patience: Duration::from_secs(300),
            run: Uuid::new_v4().simple().to_string()[..8].to_owned(),
            // Later than that of every run before, as tenures are.
            epoch: AtomicU64::new(since_1970.as_secs()),
            made: Mutex::default(),
            reserved: Mutex::default(),
            routed: Mutex::default(),
        }
    }

    /// Runs these cases, one after the other.
    pub async fn run(&self, cases: &[Case]) -> Report {
        let mut report = Report::default();
        for case in cases {
            let verdict = match tokio::time::timeout(self.patience * 2, (case.run)(self)).await {
                Ok(Ok(())) => Verdict::Passed,
                Ok(Err(Stop::NotApplicable(why))) => Verdict::NotApplicable(why),
                Ok(Err(Stop::Failed(why))) => Verdict::Failed(why),
                Err(_) => Verdict::Failed(format!("it did not end within {:?}", self.patience * 2)),
            };
            let verdict = match self.clean_up().await {
                Err(Stop::Failed(why) | Stop::NotApplicable(why)) if verdict == Verdict::Passed => {
                    Verdict::Failed(format!("cleaning up: {why}"))
                }
                _ => verdict,
            };
            report.cases.push(Line { id: case.id, title: case.title, verdict });
        }
        report
    }

    /// Removes what a case made.
    async fn clean_up(&self) -> Outcome {
        self.steering.heal().await?;
        let (owners, routes) = (std::mem::take(&mut *self.made.lock()), std::mem::take(&mut *self.routed.lock()));
        let mut done = Ok(());
        for owner in owners {
            done = done.and(self.delete(&owner).await);
        }
        for (cluster, route) in routes {
            let deleted = self.routes()?.delete(&self.change_of(&cluster), &route).await;
            done = done.and(deleted.map_err(Stop::from));
        }
        done
    }

    fn call_of(&self, cluster: &str, epoch: u64) -> CallCtx {
        CallCtx {
            deadline: Instant::now() + Duration::from_secs(60),
            cancel: CancellationToken::new(),
            lease_epoch: epoch,
            op_id: Uuid::new_v4(),
            cluster: ClusterId(cluster.into()),
        }
    }

    /// A call that changes nothing.
    pub fn read(&self) -> CallCtx {
        self.call_of(&self.known.cluster, 0)
    }

    /// A call that changes something.
    pub fn change(&self) -> CallCtx {
        self.change_of(&self.known.cluster)
    }

    /// A call of another cluster that changes something.
    pub fn change_of(&self, cluster: &str) -> CallCtx {
        self.call_of(cluster, self.epoch.load(Ordering::Relaxed))
    }

    /// The provider's instances.
    pub fn instances(&self) -> Outcome<&dyn Instances> {
        self.provider.instances().ok_or_else(|| Stop::NotApplicable("the provider has no instances".to_owned()))
    }

    /// The provider's load balancers.
    pub fn balancers(&self) -> Outcome<(&dyn LoadBalancers, &Balancers)> {
        let may = self.known.load_balancers.as_ref();
        let may = may.ok_or_else(|| Stop::NotApplicable("the fixture allows no load balancers".to_owned()))?;
        let has = self.provider.load_balancers();
        Ok((has.ok_or_else(|| Stop::NotApplicable("the provider has no load balancers".to_owned()))?, may))
    }

    /// The provider's routes.
    pub fn routes(&self) -> Outcome<&dyn Routes> {
        self.provider.routes().ok_or_else(|| Stop::NotApplicable("the provider has no routes".to_owned()))
    }

    /// Where routes may be made.
    pub fn paths(&self) -> Outcome<&Paths> {
        self.known.routes.as_ref().ok_or_else(|| Stop::NotApplicable("the fixture allows no routes".to_owned()))
    }

    /// A running machine; panics never: a missing one is not applicable.
    pub fn running(&self, index: usize) -> Outcome<&Machine> {
        let lacks = || Stop::NotApplicable(format!("the fixture has fewer than {} running machines", index + 1));
        self.known.running.get(index).ok_or_else(lacks)
    }

    /// Asks for one node.
    pub async fn look_up(&self, name: &str, provider_id: Option<&str>) -> Outcome<Lookup> {
        let node = NodeRef { name: name.into(), provider_id: provider_id.map(Into::into) };
        let mut answers = self.instances()?.get_many(&self.read(), std::slice::from_ref(&node)).await?;
        let answer = answers.nodes.remove(&node);
        Ok(answer.ok_or_else(|| Stop::Failed(format!("no answer for {name}")))??)
    }

    /// Asks for a machine that has to be there.
    pub async fn found(&self, machine: &Machine) -> Outcome<Instance> {
        match self.look_up(&machine.name, Some(&machine.provider_id)).await? {
            Lookup::Found(instance) => Ok(*instance),
            other => Err(Stop::Failed(format!("{}: {other:?} instead of an instance", machine.provider_id))),
        }
    }

    /// An owner that nobody else has; what is made for it is removed after the case.
    pub fn owner(&self, name: &str) -> Owner {
        self.owner_in(&self.known.cluster, name, &format!("{}-{name}", self.run))
    }

    /// An owner for whom nothing is made.
    pub fn nobody(&self) -> Owner {
        Owner {
            cluster: ClusterId(self.known.cluster.as_str().into()),
            namespace: "conformance".to_owned(),
            name: "nobody".to_owned(),
            uid: format!("{}-nobody", self.run),
        }
    }

    /// An owner in a cluster, with a uid.
    pub fn owner_in(&self, cluster: &str, name: &str, uid: &str) -> Owner {
        let owner = Owner {
            cluster: ClusterId(cluster.into()),
            namespace: "conformance".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        self.made.lock().push(owner.clone());
        owner
    }

    /// A load balancer for an owner: TCP port 80 to all running machines that are known.
    pub fn spec(&self, owner: Owner) -> LoadBalancerSpec {
        let annotations = self.known.load_balancers.as_ref().map(|may| may.annotations.clone());
        let addresses = self.reserved_for(&owner);
        LoadBalancerSpec {
            owner,
            ports: vec![port(Protocol::Tcp, 80)],
            ipv6: vec![false],
            addresses,
            source_ranges: Vec::new(),
            external_traffic: ExternalTraffic::Cluster,
            health_check_node_port: 0,
            affinity: None,
            annotations: annotations.unwrap_or_default(),
            backends: self.known.running.iter().map(backend).collect(),
        }
    }

    /// The address that is reserved for an owner, as a controller does for providers that need one.
    fn reserved_for(&self, owner: &Owner) -> Vec<IpAddr> {
        let Some(network) = self.known.load_balancers.as_ref().and_then(|may| may.addresses) else {
            return Vec::new();
        };
        let who = (owner.uid.clone(), owner.cluster.clone());
        let mut reserved = self.reserved.lock();
        let place = reserved.iter().position(|one| *one == who).unwrap_or_else(|| {
            reserved.push(who);
            reserved.len() - 1
        });
        network.hosts().nth(place).into_iter().collect()
    }

    /// Makes or changes a load balancer, and waits until it serves.
    pub async fn ensure(&self, spec: &LoadBalancerSpec, known: Option<&Handle>) -> Outcome<Served> {
        let (balancers, _) = self.balancers()?;
        let end = Instant::now() + self.patience;
        let mut known = known.cloned();
        loop {
            let call = self.change_of(&spec.owner.cluster.0);
            match balancers.ensure(&call, spec, known.as_ref()).await? {
                LbOutcome::Ready { ingress, handle, fingerprint } => {
                    check!(!ingress.is_empty(), "{} is said to serve, without an address", spec.owner.name);
                    return Ok(Served { ingress, handle, fingerprint });
                }
                LbOutcome::Provisioning { poll_after, handle } => {
                    check!(Instant::now() < end, "{} is still being made after {:?}", spec.owner.name, self.patience);
                    known = handle.or(known);
                    tokio::time::sleep(poll_after.min(Duration::from_secs(5))).await;
                }
            }
        }
    }

    /// Deletes a load balancer, and waits until nothing of it is left.
    pub async fn delete(&self, owner: &Owner) -> Outcome {
        let (balancers, _) = self.balancers()?;
        let end = Instant::now() + self.patience;
        loop {
            match balancers.ensure_deleted(&self.change_of(&owner.cluster.0), owner, None).await? {
                Deletion::Gone => return Ok(()),
                Deletion::InProgress(poll_after) => {
                    check!(Instant::now() < end, "{} is still being deleted after {:?}", owner.name, self.patience);
                    tokio::time::sleep(poll_after.min(Duration::from_secs(5))).await;
                }
            }
        }
    }

    /// The owner's load balancers.
    pub async fn owned(&self, owner: &Owner) -> Outcome<Vec<OwnedLoadBalancer>> {
        Ok(self.balancers()?.0.get(&self.call_of(&owner.cluster.0, 0), owner).await?)
    }

    /// The load balancers of a cluster, and in how many pages they came.
    pub async fn listed(&self, cluster: &str) -> Outcome<(Vec<OwnedLoadBalancer>, usize)> {
        let (balancers, _) = self.balancers()?;
        let (mut all, mut pages, mut next): (Vec<_>, _, Option<String>) = (Vec::new(), 0, None);
        loop {
            let page = match balancers.list_owned(&self.call_of(cluster, 0), next.as_deref()).await {
                Err(CloudError::NotImplemented(what)) => {
                    return Err(Stop::NotApplicable(format!("the provider does not implement {what}")));
                }
                page => page?,
            };
            all.extend(page.items);
            (pages, next) = (pages + 1, page.next);
            check!(pages < 10_000, "the list of load balancers does not end");
            if next.is_none() {
                return Ok((all, pages));
            }
        }
    }

    /// The load balancers of a cluster; `None` if the provider has no such list.
    pub async fn listed_if_it_can(&self, cluster: &str) -> Outcome<Option<Vec<OwnedLoadBalancer>>> {
        match self.listed(cluster).await {
            Ok((listed, _)) => Ok(Some(listed)),
            Err(Stop::NotApplicable(_)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// What the owner's one load balancer is configured as; `None` if nobody can see.
    pub async fn described(&self, owner: &Owner) -> Outcome<Option<Described>> {
        let mut all = match self.steering.described(owner).await {
            Ok(all) => all,
            Err(Stop::NotApplicable(_)) => return Ok(None),
            Err(failed) => return Err(failed),
        };
        check!(all.len() == 1, "{} load balancers instead of one", all.len());
        Ok(all.pop())
    }

    /// The cluster's routes, and in how many pages they came.
    pub async fn routes_of(&self, cluster: &str) -> Outcome<(Vec<Route>, usize)> {
        let (mut all, mut pages, mut next): (Vec<_>, _, Option<String>) = (Vec::new(), 0, None);
        loop {
            let page = self.routes()?.list(&self.call_of(cluster, 0), next.as_deref()).await?;
            all.extend(page.items);
            (pages, next) = (pages + 1, page.next);
            check!(pages < 10_000, "the list of routes does not end");
            if next.is_none() {
                return Ok((all, pages));
            }
        }
    }

    /// A route to a machine; what is made of it is removed after the case.
    pub fn route(&self, network: usize, machine: &Machine) -> Outcome<Route> {
        let within = self.paths()?.within;
        let mut networks =
            within.subnets(24.max(within.prefix_len())).map_err(|error| Stop::Failed(error.to_string()))?;
        let lacks = || Stop::NotApplicable(format!("{within} has no {}th network of /24", network + 1));
        let destination = networks.nth(network).ok_or_else(lacks)?;
        let route = Route {
            name: format!("conformance-{}-{network}", self.run),
            destination,
            node: machine.name.clone(),
            provider_id: machine.provider_id.clone(),
            next_hops: machine.addresses.clone(),
            blackhole: false,
        };
        self.routed.lock().push((self.known.cluster.clone(), route.clone()));
        Ok(route)
    }

    /// The one route to where this one leads.
    pub async fn route_to(&self, route: &Route) -> Outcome<Option<Route>> {
        let (all, _) = self.routes_of(&self.known.cluster).await?;
        let mut found: Vec<Route> = all.into_iter().filter(|one| one.destination == route.destination).collect();
        check!(found.len() < 2, "{} routes to {}", found.len(), route.destination);
        Ok(found.pop())
    }

    /// Waits until the provider answers.
    pub async fn until_available(&self) -> Outcome {
        let end = Instant::now() + self.patience;
        loop {
            let Err(error) = self.provider.probe(&self.read()).await else { return Ok(()) };
            check!(Instant::now() < end, "it is not available again after {:?}: {error}", self.patience);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether a call failed for want of the ability.
    pub fn is_unable<T>(answer: &Result<T, CloudError>) -> bool {
        matches!(answer, Err(CloudError::NotImplemented(_)))
    }
}

/// A port that nodes serve 30000 above.
pub fn port(protocol: Protocol, number: u16) -> Port {
    Port {
        name: String::new(),
        protocol,
        port: number,
        node_port: 30_000 + number % 2_000,
        app_protocol: String::new(),
    }
}

/// A machine as a backend.
pub fn backend(machine: &Machine) -> Backend {
    Backend {
        name: machine.name.clone(),
        provider_id: machine.provider_id.clone(),
        addresses: machine.addresses.clone(),
    }
}
