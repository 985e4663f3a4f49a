//! Which addresses a Service gets; pure.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use quarterdeck_api::cloud::pool::{AddressReservation, HeldPort};
use quarterdeck_api::cloud::range::AddressRange;

use crate::service_lb::complaint::{Complaint, Reason};

/// What a Service asks for.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// uid of the Service.
    pub(super) uid: &'a str,
    /// Name of the provider.
    pub(super) provider: &'a str,
    /// Whether the provider cannot do without.
    pub(super) needed: bool,
    /// `true` for IPv6, the first one preferred.
    pub(super) families: &'a [bool],
    /// Addresses it wants, at most one of each family.
    pub(super) requested: &'a [IpAddr],
    /// Pool that it wants.
    pub(super) pool: Option<&'a str>,
    /// Key under which it would share an address.
    pub(super) sharing_key: Option<&'a str>,
    /// Whether one family is as good as two.
    pub(super) one_family_will_do: bool,
    /// Its ports, in order.
    pub(super) ports: &'a [HeldPort],
    /// Addresses that its status shows.
    pub(super) shown: &'a [IpAddr],
    /// Addresses that it got just now, which the cache may not show.
    pub(super) acquired: &'a [IpAddr],
}

/// A pool, as one Service sees it.
pub(super) struct PoolView {
    /// Its name.
    pub(super) name: String,
    /// Its addresses.
    pub(super) ranges: Vec<AddressRange>,
    /// Whether the Service may have them.
    pub(super) serves: bool,
    /// Whether it may have them unasked.
    pub(super) auto: bool,
}

impl PoolView {
    fn holds(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }
}

/// What there is.
pub(super) struct World<'a> {
    /// The pools, in the order of their names.
    pub(super) pools: &'a [PoolView],
    /// The reservations.
    pub(super) reserved: &'a BTreeMap<IpAddr, &'a Arc<AddressReservation>>,
    /// Addresses that somebody reached for just now.
    pub(super) taken: &'a HashSet<IpAddr>,
}

impl World<'_> {
    /// The pool of this name has to be there.
    fn named(&self, name: &str) -> Result<(), Complaint> {
        if self.pools.iter().any(|pool| pool.name == name) {
            return Ok(());
        }
        Err(Complaint::new(Reason::NoSuchPool, format!("there is no AddressPool {name}")))
    }
}

/// One address for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It has it.
    Have {
        /// The address.
        address: IpAddr,
    },
    /// It has it, with other ports or another key.
    Rewrite {
        /// The address.
        address: IpAddr,
    },
    /// It shares it with those who have it.
    Join {
        /// The address.
        address: IpAddr,
    },
    /// Nobody has it.
    Take {
        /// The address.
        address: IpAddr,
        /// The pool it is from; empty if it is in none.
        pool: String,
    },
}

impl Choice {
    /// The address.
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Have { address }
            | Self::Rewrite { address }
            | Self::Join { address }
            | Self::Take { address, .. } => *address,
        }
    }
}

/// An address for each family that needs one, in the order of the families.
///
/// # Errors
/// Why there is none.
pub(super) fn choose(ask: &Ask<'_>, world: &World<'_>) -> Result<Vec<Choice>, Complaint> {
    let mut choices = Vec::new();
    let mut missing = None;
    for &ipv6 in ask.families {
        match of_family(ask, world, ipv6) {
            Ok(choice) => choices.extend(choice),
            Err(why) if ask.one_family_will_do => missing = missing.or(Some(why)),
            Err(why) => return Err(why),
        }
    }
    match missing {
        Some(why) if choices.is_empty() => Err(why),
        _ => Ok(choices),
    }
}

/// What a Service goes on with whose request cannot be met: the addresses that it has, of each family that has one.
///
/// # Errors
/// Why it cannot even go on with those: it no longer gets along with others who have them.
pub(super) fn stay(
    ask: &Ask<'_>,
    reserved: &BTreeMap<IpAddr, &Arc<AddressReservation>>,
) -> Result<Vec<Choice>, Complaint> {
    let (pools, taken) = (&[][..], &HashSet::new());
    let (ask, world) = (Ask { pool: None, ..*ask }, World { pools, reserved, taken });
    let held = ask.families.iter().filter_map(|&ipv6| held(&ask, &world, ipv6));
    held.map(|(address, reservation)| keep(&ask, address, reservation)).collect()
}

fn of_family(ask: &Ask<'_>, world: &World<'_>, ipv6: bool) -> Result<Option<Choice>, Complaint> {
    let of_family = |address: &&IpAddr| address.is_ipv6() == ipv6;
    if let Some(&address) = ask.acquired.iter().find(of_family) {
        return Ok(Some(Choice::Have { address }));
    }
    if let Some(&address) = ask.requested.iter().find(of_family) {
        return requested(ask, world, address).map(Some);
    }
    if !ask.needed && ask.pool.is_none() {
        return Ok(None);
    }
    if let Some((address, reservation)) = held(ask, world, ipv6) {
        return keep(ask, address, reservation).map(Some);
    }
    automatic(ask, world, ipv6).map(Some)
}

/// What the Service has already: it stays there, whatever became of the pool. What its status shows comes first.
fn held<'a>(ask: &Ask<'_>, world: &World<'a>, ipv6: bool) -> Option<(IpAddr, &'a AddressReservation)> {
    let reserved = world.reserved.iter().filter(|(address, _)| address.is_ipv6() == ipv6);
    let mine = reserved.filter(|(_, reservation)| reservation.spec.holder(ask.uid).is_some());
    let wanted = mine.filter(|(_, reservation)| ask.pool.is_none_or(|pool| pool == reservation.spec.pool));
    wanted
        .map(|(address, reservation)| (*address, &***reservation))
        .min_by_key(|(address, _)| (!ask.shown.contains(address), *address))
}

/// Stays where it is, unless it does not get along with those it shares the address with.
fn keep(ask: &Ask<'_>, address: IpAddr, reservation: &AddressReservation) -> Result<Choice, Complaint> {
    if let Some(why) = collision(ask, reservation) {
        return Err(at(address, why));
    }
    let spec = &reservation.spec;
    let alone = spec.holders.len() == 1;
    let as_written = spec.holder(ask.uid).is_some_and(|holder| holder.ports == ask.ports)
        && (!alone || (spec.sharing_key == ask.sharing_key.unwrap_or_default() && spec.provider == ask.provider));
    Ok(if as_written { Choice::Have { address } } else { Choice::Rewrite { address } })
}

/// Says of which address somebody complains.
fn at(address: IpAddr, mut complaint: Complaint) -> Complaint {
    complaint.message = format!("{address}: {}", complaint.message);
    complaint
}

fn requested(ask: &Ask<'_>, world: &World<'_>, address: IpAddr) -> Result<Choice, Complaint> {
    let reservation = world.reserved.get(&address);
    if let Some(reservation) = reservation.filter(|reservation| reservation.spec.holder(ask.uid).is_some()) {
        return keep(ask, address, reservation);
    }
    let holding: Vec<&PoolView> = world.pools.iter().filter(|pool| pool.holds(address)).collect();
    let named = |pool: &&&PoolView| ask.pool.is_none_or(|name| name == pool.name);
    let pool = holding.iter().find(|pool| pool.serves && named(pool));
    let outside = |why: &str| Err(Complaint::new(Reason::OutsidePool, format!("{address} is {why}")));
    match (pool, ask.pool) {
        (None, Some(name)) => {
            world.named(name)?;
            return outside(&format!("not in pool {name}, or that does not serve this Service"));
        }
        (None, None) if !holding.is_empty() => return outside("in no pool that serves this Service"),
        (None, None) if ask.needed => return outside("in no AddressPool"),
        _ => {}
    }
    match reservation {
        Some(reservation) => match collision(ask, reservation) {
            None => Ok(Choice::Join { address }),
            Some(why) => Err(at(address, why)),
        },
        None if world.taken.contains(&address) => {
            Err(Complaint::new(Reason::InUse, format!("{address} is being given to another Service")))
        }
        None => Ok(Choice::Take { address, pool: pool.map(|pool| pool.name.clone()).unwrap_or_default() }),
    }
}

/// One that can be shared, else the first free one.
fn automatic(ask: &Ask<'_>, world: &World<'_>, ipv6: bool) -> Result<Choice, Complaint> {
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    let wanted = |pool: &&PoolView| match ask.pool {
        Some(name) => name == pool.name,
        None => pool.auto,
    };
    let ours: Vec<&PoolView> = world.pools.iter().filter(wanted).filter(|pool| pool.serves).collect();
    let has_family = |pool: &&&PoolView| pool.ranges.iter().any(|range| range.is_ipv6() == ipv6);
    if !ours.iter().any(|pool| has_family(&pool)) {
        let why = match ask.pool {
            Some(name) => {
                world.named(name)?;
                format!("pool {name} does not serve this Service, or has no {family} addresses")
            }
            None => format!("no AddressPool with {family} addresses serves this Service"),
        };
        return Err(Complaint::new(Reason::NoPool, why));
    }
    if ask.sharing_key.is_some() {
        let shared = world.reserved.iter().find(|(address, reservation)| {
            address.is_ipv6() == ipv6
                && reservation.spec.sharing_key == ask.sharing_key.unwrap_or_default()
                && ours.iter().any(|pool| pool.holds(**address))
                && collision(ask, reservation).is_none()
        });
        if let Some((address, _)) = shared {
            return Ok(Choice::Join { address: *address });
        }
    }
    let free = |address: &IpAddr| !world.reserved.contains_key(address) && !world.taken.contains(address);
    for pool in &ours {
        let mut addresses =
            pool.ranges.iter().filter(|range| range.is_ipv6() == ipv6).flat_map(AddressRange::addresses);
        if let Some(address) = addresses.find(free) {
            return Ok(Choice::Take { address, pool: pool.name.clone() });
        }
    }
    let names: Vec<&str> = ours.iter().filter(|pool| has_family(pool)).map(|pool| pool.name.as_str()).collect();
    Err(Complaint::new(Reason::Exhausted, format!("no {family} address is left in pool {}", names.join(", "))))
}

/// Why a Service cannot have an address together with its other holders.
fn collision(ask: &Ask<'_>, reservation: &AddressReservation) -> Option<Complaint> {
    let spec = &reservation.spec;
    let others: Vec<_> = spec.holders.iter().filter(|holder| holder.uid != ask.uid).collect();
    let first = others.first()?;
    let by = format!("{}/{}", first.namespace, first.name);
    match ask.sharing_key {
        Some(key) if key == spec.sharing_key => {}
        _ => {
            let shared = !spec.sharing_key.is_empty() && (ask.sharing_key.is_some() || spec.holder(ask.uid).is_some());
            let reason = if shared { Reason::SharingConflict } else { Reason::InUse };
            let why =
                format!("it is in use by {by}, and the two do not share by one key and externalTrafficPolicy Cluster");
            return Some(Complaint::new(reason, why));
        }
    }
    let conflict = |why| Some(Complaint::new(Reason::SharingConflict, why));
    if spec.provider != ask.provider {
        return conflict(format!("it is in use by {by}, whose load balancer is another provider's"));
    }
    let same = |port: &&HeldPort| others.iter().any(|holder| holder.ports.contains(port));
    let port = ask.ports.iter().find(same)?;
    conflict(format!("port {}/{} is in use by another Service that shares it", port.protocol, port.port))
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
