//! Load balancers: made step by step, so that a fault can end the making after any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::faults::Twist;
use super::state::{Balancer, Phase, Reservation, State};
use crate::error::{CloudError, Result};
use crate::model::{
    ClusterId, Deletion, ExternalTraffic, Handle, Ingress, IngressPoint, LbOutcome, LoadBalancerSpec,
    OwnedLoadBalancer, Owner,
};

/// What a load balancer is made in; `fail at step 2` leaves the address and the object.
pub const STEPS: [&str; 6] = ["address", "object", "listeners", "members", "firewall", "health"];

/// What the annotations that this cloud looks at begin with; others of this prefix are refused.
pub const ANNOTATIONS: &str = "sim.quarterdeck.dev/";
/// Annotation: clients are told this name instead of the addresses.
pub const HOSTNAME: &str = "sim.quarterdeck.dev/hostname";
/// Annotation: `true` has the cloud say that somebody else implements this load balancer.
pub const ELSEWHERE: &str = "sim.quarterdeck.dev/implemented-elsewhere";

/// Whether the tags of two owners name the same load balancer.
pub(super) fn same(one: &Owner, other: &Owner) -> bool {
    one.uid == other.uid && one.cluster == other.cluster
}

impl Balancer {
    fn new(id: String, owner: Owner, now: u64) -> Self {
        Self {
            id,
            owner,
            addresses: Vec::new(),
            ports: Vec::new(),
            source_ranges: Vec::new(),
            external_traffic: ExternalTraffic::default(),
            health_check_node_port: 0,
            affinity: None,
            backends: Vec::new(),
            hostname: String::new(),
            revision: 1,
            phase: Phase::Active,
            made_at: now,
        }
    }

    /// Changes with every change, and tells duplicates apart.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{}/{}", self.id, self.revision)
    }

    /// What clients are told.
    #[must_use]
    pub fn ingress(&self) -> Vec<Ingress> {
        if !self.hostname.is_empty() {
            return vec![Ingress { at: IngressPoint::Hostname(self.hostname.clone()), proxy_mode: false }];
        }
        let told = self.addresses.iter().map(|address| Ingress { at: IngressPoint::Ip(*address), proxy_mode: false });
        told.collect()
    }

    fn show(&self, now: u64) -> OwnedLoadBalancer {
        OwnedLoadBalancer {
            owner: self.owner.clone(),
            handle: Handle(self.id.clone()),
            fingerprint: self.fingerprint(),
            age: Some(Duration::from_millis(now.saturating_sub(self.made_at))),
        }
    }

    /// Does one step; says whether it changed anything.
    fn step(&mut self, step: &str, spec: &LoadBalancerSpec, addresses: &[IpAddr]) -> bool {
        match step {
            "object" => {
                let hostname = spec.annotations.get(HOSTNAME).map_or("", String::as_str);
                set(&mut self.owner, &spec.owner)
                    | set(&mut self.hostname, &hostname.to_owned())
                    | set(&mut self.addresses, &addresses.to_vec())
            }
            "listeners" => set(&mut self.ports, &spec.ports),
            "members" => set(&mut self.backends, &spec.backends),
            "firewall" => set(&mut self.source_ranges, &spec.source_ranges),
            _ => {
                set(&mut self.external_traffic, &spec.external_traffic)
                    | set(&mut self.health_check_node_port, &spec.health_check_node_port)
                    | set(&mut self.affinity, &spec.affinity)
            }
        }
    }
}

fn set<T: PartialEq + Clone>(place: &mut T, value: &T) -> bool {
    let differs = place != value;
    if differs {
        place.clone_from(value);
    }
    differs
}

/// Refuses what makes no sense, as a cloud does before it does anything.
fn check(state: &State, cluster: &ClusterId, spec: &LoadBalancerSpec) -> Result<()> {
    check_owner(cluster, &spec.owner)?;
    for (key, value) in &spec.annotations {
        let known = [HOSTNAME, ELSEWHERE].contains(&key.as_str());
        if key.starts_with(ANNOTATIONS) && !known {
            return Err(CloudError::Invalid(format!("annotation {key} means nothing to sim")));
        }
        if key == ELSEWHERE && value == "true" {
            return Err(CloudError::ImplementedElsewhere(format!("load balancer of {}", spec.owner.name)));
        }
    }
    if spec.ports.is_empty() {
        return Err(CloudError::Invalid("a load balancer needs a port".to_owned()));
    }
    let mut ports = BTreeSet::new();
    if let Some(twice) = spec.ports.iter().find(|port| !ports.insert((port.protocol, port.port))) {
        return Err(CloudError::Invalid(format!("port {} is there twice", twice.port)));
    }
    if state.settings.needs_addresses && spec.addresses.is_empty() {
        return Err(CloudError::Invalid("it needs addresses that are chosen for it".to_owned()));
    }
    Ok(())
}

fn check_owner(cluster: &ClusterId, owner: &Owner) -> Result<()> {
    if owner.cluster != *cluster || owner.uid.is_empty() {
        let Owner { namespace, name, uid, cluster: tagged } = owner;
        let whose = format!("{namespace}/{name} (uid {uid:?}) of cluster {tagged}");
        return Err(CloudError::Denied(format!("{whose} is not {cluster}'s")));
    }
    Ok(())
}

impl State {
    fn of(&self, owner: &Owner) -> impl Iterator<Item = &Balancer> {
        self.balancers.values().filter(move |one| same(&one.owner, owner))
    }

    /// Load balancers that carry this owner's tags.
    pub(super) fn get(&self, owner: &Owner, now: u64) -> Vec<OwnedLoadBalancer> {
        self.of(owner).map(|one| one.show(now)).collect()
    }

    /// Load balancers of a cluster, by id.
    pub(super) fn balancers_of(&self, cluster: &ClusterId, now: u64) -> Vec<(String, OwnedLoadBalancer)> {
        let own = self.balancers.values().filter(|one| one.owner.cluster == *cluster);
        own.map(|one| (one.id.clone(), one.show(now))).collect()
    }

    /// Which of an owner's load balancers is the one: the one that is known, else the oldest.
    fn chosen(&self, owner: &Owner, known: Option<&Handle>) -> Option<&Balancer> {
        let known = known.and_then(|handle| self.of(owner).find(|one| one.id == handle.0));
        known.or_else(|| self.of(owner).min_by_key(|one| (one.made_at, one.id.len(), one.id.clone())))
    }

    /// Makes or changes a load balancer.
    ///
    /// # Errors
    /// When the request makes no sense, the cloud is in the way, or the twist ends it after some steps, which stay done.
    pub(super) fn ensure(
        &mut self,
        cluster: &ClusterId,
        spec: &LoadBalancerSpec,
        known: Option<&Handle>,
        now: u64,
        twist: &Twist,
    ) -> Result<LbOutcome> {
        check(self, cluster, spec)?;
        let chosen = self.chosen(&spec.owner, known).map(|one| (one.id.clone(), one.phase));
        if let Some((id, Phase::Deleting(_))) = &chosen {
            return Err(CloudError::Conflict(format!("{id} is being deleted")));
        }
        let addresses = self.addresses_for(spec)?;
        let mut id = chosen.map(|(id, _)| id);
        for (done, step) in STEPS.iter().enumerate() {
            if twist.stop_after.is_some_and(|most| done >= most) {
                return Err(CloudError::Other(format!("making the load balancer stopped before its {step}")));
            }
            if done == 0 {
                self.reserve(&spec.owner, &addresses);
                continue;
            }
            let id = id.get_or_insert_with(|| self.make(&spec.owner, now)).clone();
            let Some(one) = self.balancers.get_mut(&id) else { continue };
            if one.step(step, spec, &addresses) {
                one.revision += 1;
                self.touch();
            }
        }
        self.advance(&id.unwrap_or_default(), now, twist)
    }

    fn make(&mut self, owner: &Owner, now: u64) -> String {
        let id = self.next_id("lb");
        let mut one = Balancer::new(id.clone(), owner.clone(), now);
        if self.settings.provision_ms > 0 {
            one.phase = Phase::Pending(now.saturating_add(self.settings.provision_ms));
        }
        self.balancers.insert(id.clone(), one);
        self.touch();
        id
    }

    /// Tells how far a load balancer is; a twist holds it there.
    fn advance(&mut self, id: &str, now: u64, twist: &Twist) -> Result<LbOutcome> {
        let fresh = now.saturating_add(self.settings.provision_ms);
        let poll = self.settings.poll_ms;
        let Some(one) = self.balancers.get_mut(id) else {
            return Err(CloudError::NotFound(format!("there is no load balancer {id}")));
        };
        let before = one.phase;
        let is_new = one.phase != Phase::Active || one.made_at == now;
        one.phase = match one.phase {
            _ if twist.error_lb && is_new => Phase::Error,
            _ if twist.stuck && is_new => Phase::Pending(u64::MAX),
            Phase::Error | Phase::Pending(u64::MAX) if fresh > now => Phase::Pending(fresh),
            Phase::Error | Phase::Pending(u64::MAX) => Phase::Active,
            phase => phase,
        };
        let (phase, handle) = (one.phase, Handle(one.id.clone()));
        let (ingress, fingerprint) = (one.ingress(), one.fingerprint());
        if phase != before {
            self.touch();
        }
        match phase {
            Phase::Active => Ok(LbOutcome::Ready { ingress, handle, fingerprint }),
            Phase::Pending(until) => {
                let left = until.saturating_sub(now).clamp(1, poll.max(1));
                Ok(LbOutcome::Provisioning { poll_after: Duration::from_millis(left), handle: Some(handle) })
            }
            Phase::Error => Err(CloudError::Other(format!("load balancer {id} is in state ERROR"))),
            Phase::Deleting(_) => Err(CloudError::Conflict(format!("{id} is being deleted"))),
        }
    }

    /// Changes which nodes get traffic.
    ///
    /// # Errors
    /// When there is no such load balancer of this owner.
    pub(super) fn update_backends(
        &mut self,
        cluster: &ClusterId,
        spec: &LoadBalancerSpec,
        known: &Handle,
        now: u64,
        twist: &Twist,
    ) -> Result<LbOutcome> {
        check_owner(cluster, &spec.owner)?;
        let Some(one) = self.balancers.get_mut(&known.0).filter(|one| same(&one.owner, &spec.owner)) else {
            return Err(CloudError::NotFound(format!("{} has no load balancer {}", spec.owner.name, known.0)));
        };
        if set(&mut one.backends, &spec.backends) {
            one.revision += 1;
            self.touch();
        }
        self.advance(&known.0, now, twist)
    }

    /// Removes everything of an owner's: load balancers, duplicates, addresses.
    ///
    /// # Errors
    /// When the owner is not of this cluster, or the twist ends it half-way.
    pub(super) fn ensure_deleted(
        &mut self,
        cluster: &ClusterId,
        owner: &Owner,
        now: u64,
        twist: &Twist,
    ) -> Result<Deletion> {
        check_owner(cluster, owner)?;
        let stopped = |what: &str| Err(CloudError::Other(format!("deleting stopped before the {what}")));
        if twist.stop_after == Some(0) {
            return stopped("object");
        }
        let mut until = None;
        if self.settings.delete_ms > 0 {
            let end = now.saturating_add(self.settings.delete_ms);
            for one in self.balancers.values_mut().filter(|one| same(&one.owner, owner)) {
                if !matches!(one.phase, Phase::Deleting(_)) {
                    one.phase = Phase::Deleting(end);
                    self.version += 1;
                }
                if let Phase::Deleting(end) = one.phase {
                    until = until.max(Some(end));
                }
            }
        }
        if let Some(until) = until {
            let left = until.saturating_sub(now).clamp(1, self.settings.poll_ms.max(1));
            return Ok(Deletion::InProgress(Duration::from_millis(left)));
        }
        let before = self.balancers.len();
        self.balancers.retain(|_, one| !same(&one.owner, owner));
        if self.balancers.len() != before {
            self.touch();
        }
        if twist.stop_after.is_some() {
            return stopped("addresses");
        }
        self.release(owner);
        Ok(Deletion::Gone)
    }

    /// Has these addresses, and no others, taken by an owner.
    fn reserve(&mut self, owner: &Owner, addresses: &[IpAddr]) {
        let before = self.reservations.clone();
        self.reservations.retain(|one| !same(&one.owner, owner) || addresses.contains(&one.address));
        for address in addresses {
            if !self.reservations.iter().any(|one| one.address == *address && same(&one.owner, owner)) {
                self.reservations.push(Reservation { address: *address, owner: owner.clone() });
            }
        }
        if self.reservations != before {
            self.touch();
        }
    }

    /// Frees the addresses of an owner.
    pub(super) fn release(&mut self, owner: &Owner) {
        let before = self.reservations.len();
        self.reservations.retain(|one| !same(&one.owner, owner));
        if self.reservations.len() != before {
            self.touch();
        }
    }

    /// The addresses that a load balancer should have: those asked for, else those it has, else free ones.
    fn addresses_for(&self, spec: &LoadBalancerSpec) -> Result<Vec<IpAddr>> {
        if !spec.addresses.is_empty() {
            for address in &spec.addresses {
                self.may_take(*address, spec)?;
            }
            return Ok(spec.addresses.clone());
        }
        let mine: Vec<IpAddr> =
            self.reservations.iter().filter(|one| same(&one.owner, &spec.owner)).map(|one| one.address).collect();
        let families = if spec.ipv6.is_empty() { &[false][..] } else { &spec.ipv6[..] };
        let address = |ipv6: &bool| {
            let kept = mine.iter().find(|address| address.is_ipv6() == *ipv6);
            kept.copied().map_or_else(|| self.free_address(*ipv6), Ok)
        };
        families.iter().map(address).collect()
    }

    /// Whether an owner may have this address: nobody else has it, or only others of its cluster at other ports.
    fn may_take(&self, address: IpAddr, spec: &LoadBalancerSpec) -> Result<()> {
        let taken = |whose: &Owner| {
            CloudError::Conflict(format!(
                "{address} belongs to the load balancer of {}/{}",
                whose.namespace, whose.name
            ))
        };
        let others = self.reservations.iter().filter(|one| one.address == address && !same(&one.owner, &spec.owner));
        for other in others {
            let collides = self.of(&other.owner).any(|one| {
                let theirs: BTreeMap<_, _> = one.ports.iter().map(|port| ((port.protocol, port.port), ())).collect();
                spec.ports.iter().any(|port| theirs.contains_key(&(port.protocol, port.port)))
            });
            if other.owner.cluster != spec.owner.cluster || collides {
                return Err(taken(&other.owner));
            }
        }
        Ok(())
    }

    /// The lowest address of 198.18.0.0/15 or 2001:db8:5::/64 that nobody has.
    fn free_address(&self, ipv6: bool) -> Result<IpAddr> {
        let taken: BTreeSet<IpAddr> = self.reservations.iter().map(|one| one.address).collect();
        let nth = |n: u32| -> IpAddr {
            if ipv6 {
                let base = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0));
                Ipv6Addr::from(base + u128::from(n)).into()
            } else {
                Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + n).into()
            }
        };
        let free = (1..131_071).map(nth).find(|address| !taken.contains(address));
        free.ok_or_else(|| CloudError::Quota("all addresses are taken".to_owned()))
    }

    /// Makes a second load balancer with an owner's tags, as two managers do that race.
    ///
    /// # Errors
    /// When there is none to copy.
    pub fn duplicate_balancer(&mut self, uid: &str) -> Result<String> {
        let mut copy = self.by_uid(uid)?.clone();
        copy.id = self.next_id("lb");
        copy.revision = 1;
        let address = self.free_address(false)?;
        self.reservations.push(Reservation { address, owner: copy.owner.clone() });
        copy.addresses = vec![address];
        let id = copy.id.clone();
        self.balancers.insert(id.clone(), copy);
        self.touch();
        Ok(id)
    }

    /// Removes an owner's load balancers behind everybody's back; their addresses stay taken.
    ///
    /// # Errors
    /// When there are none.
    pub fn lose_balancer(&mut self, uid: &str) -> Result<()> {
        self.by_uid(uid)?;
        self.balancers.retain(|_, one| one.owner.uid != uid);
        self.touch();
        Ok(())
    }

    /// Takes the ports of an owner's load balancers away behind everybody's back.
    ///
    /// # Errors
    /// When there are none.
    pub fn spoil_balancer(&mut self, uid: &str) -> Result<()> {
        self.by_uid(uid)?;
        for one in self.balancers.values_mut().filter(|one| one.owner.uid == uid) {
            one.ports.clear();
            one.revision += 1;
        }
        self.touch();
        Ok(())
    }

    fn by_uid(&self, uid: &str) -> Result<&Balancer> {
        let found = self.balancers.values().find(|one| one.owner.uid == uid);
        found.ok_or_else(|| CloudError::NotFound(format!("no load balancer has the owner uid {uid}")))
    }
}
