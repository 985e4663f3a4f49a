//! Brings the kernel to where the plan has it, and keeps it there.

mod hear;
mod load;
mod network;
mod quick;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_api::cloud::metal::{AgentStatus, LoadBalancerSpec};
use tokio::time::Instant;

use crate::announce::{Bird, announce};
use crate::brake::Brake;
use crate::desired::{ObjectId, Versioned};
use crate::health::Health;
use crate::host::Host;
use crate::kernel::{Kernel, KernelError, forget_udp};
use crate::metrics::Metrics;
use crate::nft::Nft;
use crate::plan::{Check, KernelRoute, Plan, Settings, plan};
use crate::source::Followed;
use crate::store::{Kept, Line, Store};

/// When an address is announced after it came here: the first packets may be lost.
const BURST: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(6)];

/// How long a source is waited for after a start before addresses are announced that the kernel does not hold.
const HOLD: Duration = Duration::from_secs(15);

/// What the engine works with.
pub struct Tools {
    /// What does not change.
    pub settings: Settings,
    /// nftables.
    pub nft: Nft,
    /// rtnetlink.
    pub kernel: Kernel,
    /// The state on disk.
    pub store: Store,
    /// BIRD, if it announces.
    pub bird: Option<Bird>,
    /// Checks.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Metrics,
}

/// The engine: one owner of everything of ours in the kernel.
pub struct Engine {
    tools: Tools,
    kept: Kept,
    /// Whether what is kept differs from what is on disk.
    unsaved: bool,
    /// What was planned last.
    plan: Option<Planned>,
    /// nftables' count of changes when our table held what was planned last, if it does.
    loaded: Option<u32>,
    /// What was told since the last pass.
    news: News,
    brake: Option<Brake>,
    /// Whether the first list of the cluster is taken at its word.
    accepts_first_list: bool,
    /// How the cluster is followed, once it is.
    followed: Option<Followed>,
    /// When what no packet waits for is to be done after small changes.
    owed: Option<(Instant, BTreeSet<String>)>,
    /// When everything is planned again because pools are untidy.
    tidy: Option<Instant>,
    /// Addresses that are planned and there.
    present: BTreeSet<IpAddr>,
    /// Announcements that are to be sent yet.
    bursts: BTreeMap<(IpAddr, u32), Vec<Instant>>,
    /// Links that were up.
    up: BTreeSet<u32>,
    /// Whether BIRD took its file.
    bird_told: bool,
    /// What is wrong with what was told: refused and unreadable objects, an unreadable source.
    refusals: BTreeMap<ObjectId, String>,
    source_error: Option<String>,
    status: AgentStatus,
    gateway: bool,
    looking: bool,
    /// Backends that datagrams were led to.
    datagrams: BTreeSet<SocketAddr>,
    /// When addresses are announced that the kernel does not hold, even if nobody said yet what is wanted: after this
    /// host's own restart they may be another's by now. `None` once the source was heard.
    hold_until: Option<Instant>,
}

/// A plan, and from what it was made.
struct Planned {
    plan: Plan,
    host: Host,
    health: BTreeMap<Check, bool>,
    /// Routes that could not be brought to where they should be.
    routed: BTreeMap<Option<KernelRoute>, KernelError>,
    /// What else went wrong in the last pass.
    problems: Vec<String>,
}

/// What was told since the last pass.
#[derive(Default)]
struct News {
    /// Whether more changed than load balancers' specs.
    everything: bool,
    /// Load balancers whose specs changed; the specs before.
    balancers: BTreeMap<String, Versioned<LoadBalancerSpec>>,
    /// The changes, as the journal has them.
    lines: Vec<Line>,
    /// Since when there is any.
    since: Option<Instant>,
}

impl Engine {
    /// An engine that goes on where the state on disk left off. `brake`: whether objects of which too many vanish at once
    /// stay in force.
    #[must_use]
    pub fn new(tools: Tools, kept: Kept, brake: bool) -> Self {
        let now = Instant::now();
        Self {
            tools,
            kept,
            unsaved: true,
            plan: None,
            loaded: None,
            news: News { everything: true, ..News::default() },
            brake: brake.then(|| Brake::new(now)),
            accepts_first_list: false,
            followed: None,
            owed: None,
            tidy: None,
            present: BTreeSet::new(),
            bursts: BTreeMap::new(),
            up: BTreeSet::new(),
            bird_told: false,
            refusals: BTreeMap::new(),
            source_error: None,
            status: AgentStatus::default(),
            gateway: false,
            looking: false,
            datagrams: BTreeSet::new(),
            hold_until: Some(now + HOLD),
        }
    }

    /// Makes the kernel what it should be, as far as it lets us. Says whether it all worked.
    pub async fn converge(&mut self) -> bool {
        self.hold_until = self.hold_until.filter(|until| *until > Instant::now());
        self.brake();
        // On disk before it is in the kernel: after a crash it is applied again, never an older one.
        let mut problems = Vec::new();
        self.save(&mut problems);
        let host = match self.tools.kernel.host().await {
            Ok(host) => host,
            Err(error) => {
                problems.push(error.to_string());
                self.tools.metrics.failures.inc();
                self.status.problems = problems;
                return false;
            }
        };
        let health = self.tools.health.verdicts();
        let (news, before) = (std::mem::take(&mut self.news), self.plan.take());
        self.owed = None;
        let is_due = self.tidy.is_some_and(|at| at <= Instant::now());
        let same = |before: &Planned| before.host == host && before.health == health;
        let (plan, rules) = match before {
            Some(before) if !news.everything && news.balancers.is_empty() && !is_due && same(&before) => {
                (before.plan, None)
            }
            before => {
                let memory = self.kept.memory.clone();
                let desired = &self.kept.accepted.desired;
                let plan = plan(desired, &health, &host, &self.tools.settings, &mut self.kept.memory);
                self.unsaved |= memory != self.kept.memory;
                self.tidy = None;
                (plan, Some(before.map(|before| before.plan.ruleset).unwrap_or_default()))
            }
        };
        self.tools.health.set(&plan.checks);
        resolve(&plan);

        let withdrawn = self.withdraw(&plan).await;
        let loaded = self.load(&plan, rules.as_ref()).await.map_err(|error| error.to_string());
        let routed = self.route(&plan).await;
        if let Some(since) = news.since {
            self.tools.metrics.changes.with_label_values(&["pass"]).observe(since.elapsed().as_secs_f64());
        }
        // An address comes last: what arrives for it is taken care of by then.
        let before = self.present.clone();
        let added = self.add(&plan, loaded.is_ok()).await;
        let bird = self.tell_bird(&plan, loaded.is_ok()).await;
        problems.extend(withdrawn.into_iter().chain(added).map(|error| error.to_string()));
        if loaded.is_ok() {
            problems.extend(self.forget_flows(&plan).await);
        }
        problems.extend(loaded.err());
        problems.extend(bird.err());
        let up: BTreeSet<u32> = host.links.iter().filter(|(_, link)| link.up).map(|(index, _)| *index).collect();
        self.plan_bursts(&plan, &before, &up);
        self.up = up;
        self.send_bursts(&host);

        let verdicts = self.tools.health.verdicts();
        if self.kept.health() != verdicts {
            self.kept.set_health(&verdicts);
            self.unsaved = true;
        }
        self.save(&mut problems);
        let worked = problems.is_empty() && routed.is_empty();
        if !worked {
            self.tools.metrics.failures.inc();
        }
        self.gateway = plan.gateway;
        self.looking = !plan.unresolved.is_empty();
        self.plan = Some(Planned { plan, host, health, routed, problems });
        self.tell();
        worked
    }

    /// Makes the report, and what else is shown.
    fn tell(&mut self) {
        let Some(planned) = &self.plan else { return };
        let status = self.make_status(&planned.plan, &planned.host, planned.problems.clone(), &planned.routed);
        for problem in status.problems.iter().filter(|problem| !self.status.problems.contains(problem)) {
            tracing::warn!(problem, "something is wrong");
        }
        self.tools.metrics.show(&status, &planned.plan);
        self.status = status;
    }

    /// What is to be told of this host.
    #[must_use]
    pub fn status(&self) -> &AgentStatus {
        &self.status
    }

    /// Whether this host takes in traffic.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.gateway
    }

    /// Whether gateways' link-layer addresses are being looked for.
    #[must_use]
    pub fn is_looking(&self) -> bool {
        self.looking
    }

    /// When the next pass is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let brake = self.brake.as_ref().and_then(|brake| brake.due(&self.kept.accepted.desired));
        self.bursts.values().flatten().chain(&self.hold_until).chain(&self.tidy).chain(&brake).min().copied()
    }

    fn save(&mut self, problems: &mut Vec<String>) {
        if !self.unsaved {
            return;
        }
        match self.tools.store.save(&mut self.kept) {
            Ok(()) => self.unsaved = false,
            Err(error) => problems.push(error.to_string()),
        }
    }

    /// Has flows of UDP to backends that are gone begin anew. Says what went wrong.
    async fn forget_flows(&mut self, plan: &Plan) -> Option<String> {
        let lost: BTreeSet<SocketAddr> = self.datagrams.difference(&plan.datagrams).copied().collect();
        if !lost.is_empty() {
            let work = tokio::task::spawn_blocking(move || forget_udp(&lost)).await;
            match work.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(flows) => self.tools.metrics.flows.inc_by(flows as u64),
                // They are looked for again.
                Err(error) => return Some(format!("flows of UDP to backends that are gone: {error}")),
            }
        }
        self.datagrams = plan.datagrams.clone();
        None
    }

    async fn tell_bird(&mut self, plan: &Plan, ready: bool) -> Result<(), String> {
        let Some(bird) = &self.tools.bird else { return Ok(()) };
        // BIRD has announced on its own since it was told last.
        if !ready || self.hold_until.is_some() {
            return Ok(());
        }
        let addresses: BTreeSet<IpAddr> = plan.addresses.keys().copied().collect();
        let told = bird.announce(&addresses, !self.bird_told).await;
        self.bird_told = told.is_ok();
        told.map_err(|error| error.to_string())
    }

    fn plan_bursts(&mut self, plan: &Plan, before: &BTreeSet<IpAddr>, up: &BTreeSet<u32>) {
        let now = Instant::now();
        if self.tools.bird.is_some() {
            return;
        }
        let wanted: BTreeSet<(IpAddr, u32)> =
            plan.addresses.iter().filter_map(|(address, planned)| Some((*address, planned.link?))).collect();
        let wanted: BTreeSet<_> = wanted.into_iter().filter(|(address, _)| self.present.contains(address)).collect();
        self.bursts.retain(|key, _| wanted.contains(key));
        for (address, link) in wanted {
            // Also when the cable was plugged in again: the switch may have forgotten.
            let is_new = !before.contains(&address);
            let came_up = up.contains(&link) && !self.up.contains(&link);
            if is_new || came_up {
                self.bursts.insert((address, link), BURST.iter().map(|after| now + *after).collect());
            }
        }
    }

    /// Sends the announcements that are due.
    fn send_bursts(&mut self, host: &crate::host::Host) {
        let now = Instant::now();
        for ((address, index), due) in &mut self.bursts {
            if !due.iter().any(|at| *at <= now) {
                continue;
            }
            due.retain(|at| *at > now);
            let Some((link, mac)) = host.links.get(index).and_then(|link| Some((link, link.mac?))) else { continue };
            if let Err(error) = announce(*address, &link.name, mac) {
                tracing::warn!(%address, link = link.name, error = &error as &dyn std::error::Error, "not announced");
            } else {
                self.tools.metrics.announcements.inc();
            }
        }
        self.bursts.retain(|_, due| !due.is_empty());
    }

    /// Removes everything of ours from the kernel and from disk.
    ///
    /// # Errors
    /// All that could not be removed.
    pub async fn clean_up(&mut self) -> Result<(), Vec<String>> {
        let nothing = Plan::default();
        self.hold_until = None;
        let mut errors: Vec<String> = self.withdraw(&nothing).await.iter().map(ToString::to_string).collect();
        errors.extend(self.tell_bird(&nothing, true).await.err());
        errors.extend(self.route(&nothing).await.into_values().map(|error: KernelError| error.to_string()));
        errors.extend(self.tools.nft.remove().await.err().map(|error| error.to_string()));
        if errors.is_empty() {
            errors.extend(self.tools.store.clear().err().map(|error| error.to_string()));
        }
        self.loaded = None;
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Has the kernel find out the link-layer address of gateways: it asks when something is sent to them.
fn resolve(plan: &Plan) {
    for address in &plan.unresolved {
        let any: IpAddr = if address.is_ipv6() {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        };
        // To the discard port; that it does not arrive is no matter.
        let _ = UdpSocket::bind((any, 0)).and_then(|socket| socket.send_to(&[0], (*address, 9)));
    }
}
