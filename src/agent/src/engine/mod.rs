//! Brings the kernel to where the plan has it, and keeps it there.

mod network;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_api::cloud::metal::AgentStatus;
use tokio::time::Instant;

use crate::announce::{Bird, announce};
use crate::desired::Snapshot;
use crate::health::Health;
use crate::kernel::{Kernel, KernelError, forget_udp};
use crate::metrics::Metrics;
use crate::nft::{self, Nft, NftError, Observed, Ruleset};
use crate::plan::{Plan, Settings, plan};
use crate::store::{Kept, Store};

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
    /// What was last written to disk.
    saved: Kept,
    /// What our table holds, if that is known; and nftables' count of changes then.
    loaded: Option<(Ruleset, u32)>,
    /// Addresses that are planned and there.
    present: BTreeSet<IpAddr>,
    /// Announcements that are to be sent yet.
    bursts: BTreeMap<(IpAddr, u32), Vec<Instant>>,
    /// Links that were up.
    up: BTreeSet<u32>,
    /// Whether BIRD took its file.
    bird_told: bool,
    /// What is wrong with what was told: refused and unreadable objects, an unreadable source.
    refusals: BTreeMap<String, String>,
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

impl Engine {
    /// An engine that goes on where the state on disk left off.
    #[must_use]
    pub fn new(tools: Tools, kept: Kept) -> Self {
        Self {
            tools,
            saved: kept.clone(),
            kept,
            loaded: None,
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
            hold_until: Some(Instant::now() + HOLD),
        }
    }

    /// Takes in what the source told: a complete state, or why there is none.
    pub fn take(&mut self, told: Result<Snapshot, String>) {
        let snapshot = match told {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(error, "the source cannot be read: everything stays as it is");
                self.source_error = Some(error);
                return;
            }
        };
        self.source_error = None;
        self.hold_until = None;
        let mut refusals = snapshot.broken.clone();
        for stale in self.kept.accepted.admit(snapshot) {
            self.tools.metrics.refused.inc();
            refusals.insert(format!("{}/{}", stale.kind, stale.name), stale.to_string());
        }
        for (object, error) in refusals.iter().filter(|(object, error)| self.refusals.get(*object) != Some(*error)) {
            tracing::warn!(object, error, "an object was not accepted: what was in force before stays");
        }
        self.refusals = refusals;
    }

    /// Makes the kernel what it should be, as far as it lets us. Says whether it all worked.
    pub async fn converge(&mut self) -> bool {
        self.hold_until = self.hold_until.filter(|until| *until > Instant::now());
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
        let plan = plan(
            &self.kept.accepted.desired,
            &self.tools.health.verdicts(),
            &host,
            &self.tools.settings,
            &mut self.kept.memory,
        );
        self.tools.health.set(&plan.checks);
        resolve(&plan);

        let withdrawn = self.withdraw(&plan).await;
        let loaded = self.load(&plan).await.map_err(|error| error.to_string());
        let routed = self.route(&plan).await;
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

        self.kept.set_health(&self.tools.health.verdicts());
        self.save(&mut problems);
        let worked = problems.is_empty() && routed.is_empty();
        if !worked {
            self.tools.metrics.failures.inc();
        }
        let status = self.make_status(&plan, &host, problems, &routed);
        for problem in status.problems.iter().filter(|problem| !self.status.problems.contains(problem)) {
            tracing::warn!(problem, "something is wrong");
        }
        self.tools.metrics.show(&status, &plan);
        self.status = status;
        self.gateway = plan.gateway;
        self.looking = !plan.unresolved.is_empty();
        worked
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

    /// Whether somebody changed a table of nftables since we looked at ours.
    #[must_use]
    pub fn tables_changed(&self) -> bool {
        match (&self.loaded, nft::generation()) {
            (Some((_, known)), Ok(now)) => *known != now,
            _ => true,
        }
    }

    /// When the next pass is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.bursts.values().flatten().chain(&self.hold_until).min().copied()
    }

    fn save(&mut self, problems: &mut Vec<String>) {
        if self.kept == self.saved {
            return;
        }
        match self.tools.store.save(&self.kept) {
            Ok(()) => self.saved = self.kept.clone(),
            Err(error) => problems.push(error.to_string()),
        }
    }

    /// Brings our table to where the plan has it, in one transaction.
    async fn load(&mut self, plan: &Plan) -> Result<(), NftError> {
        let generation = nft::generation().ok();
        let believed = self.loaded.take().filter(|(_, known)| generation == Some(*known));
        let there = match &believed {
            // Without anything in it there is no table.
            Some((ruleset, _)) => (*ruleset != Ruleset::default()).then(|| Observed::from(ruleset)),
            None => self.tools.nft.observe().await?,
        };
        let began = std::time::Instant::now();
        let transaction = match &there {
            _ if plan.ruleset == Ruleset::default() && there.is_none() => String::new(),
            _ if plan.ruleset == Ruleset::default() => nft::removal(),
            Some(there) => nft::update(there, &plan.ruleset),
            None => nft::full(&plan.ruleset),
        };
        if !transaction.is_empty() {
            if believed.is_none() && there.is_some() {
                self.tools.metrics.repairs.with_label_values(&["nftables"]).inc();
            }
            let outcome = self.tools.nft.load(&transaction).await;
            if let Err(error) = outcome {
                // Somebody may have changed it in between, in a way that a difference cannot mend.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a change was refused: our table is loaded anew"
                );
                let whole = if plan.ruleset == Ruleset::default() { nft::removal() } else { nft::full(&plan.ruleset) };
                self.tools.nft.load(&whole).await?;
            }
            self.tools.metrics.loads.observe(began.elapsed().as_secs_f64());
        }
        // Read before the next look at the table: a change in between is seen as one.
        if transaction.is_empty() {
            self.loaded = generation.map(|generation| (plan.ruleset.clone(), generation));
        } else {
            let after = nft::generation().ok();
            // One step from what we knew: it was ours.
            let ours = after.filter(|after| generation.is_some_and(|before| before.wrapping_add(1) == *after));
            self.loaded = ours.map(|generation| (plan.ruleset.clone(), generation));
        }
        Ok(())
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
