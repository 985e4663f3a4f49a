//! Which gateway announces which address. Pure.
//!
//! An address stays where it is as long as its gateway may be working; it is given to another one only if that one is
//! known to work. Whoever leads the managers plays no part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use quarterdeck_api::cloud::metal;

use super::pulse::Life;

/// A gateway of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    /// Its name.
    pub(super) name: String,
    /// Its addresses in the nodes' network.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether its agent lives.
    pub(super) life: Life,
    /// Whether the agent says that it can take in traffic; `None` if it says nothing.
    pub(super) ready: Option<bool>,
    /// Whether the inventory says that it is shut down.
    pub(super) shutdown: bool,
    /// Load balancers that its agent could not program.
    pub(super) failing: BTreeSet<String>,
    /// Load balancers that its agent has programmed.
    pub(super) working: BTreeSet<String>,
}

/// A load balancer as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Balancer {
    /// Its name.
    pub(super) name: String,
    /// Its addresses, and who announces each.
    pub(super) addresses: Vec<metal::AnnouncedAddress>,
    /// The gateways it lists.
    pub(super) gateways: Vec<metal::Gateway>,
}

/// Everything that is decided on.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// The inventory's gateways.
    pub(super) gateways: Vec<Gateway>,
    /// All load balancers.
    pub(super) balancers: Vec<Balancer>,
}

/// What has to be written into one load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Its name.
    pub(super) balancer: String,
    /// Its addresses, in its own order.
    pub(super) addresses: Vec<metal::AnnouncedAddress>,
    /// The gateways.
    pub(super) gateways: Vec<metal::Gateway>,
    /// Addresses that had a gateway and get another one.
    pub(super) moves: Vec<Move>,
}

/// An address that gets another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The address.
    pub(super) address: IpAddr,
    /// Who had it.
    pub(super) from: String,
    /// Who gets it.
    pub(super) to: String,
    /// Why.
    pub(super) why: &'static str,
}

/// How an address fares with a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It is known to work.
    Good,
    /// It may work.
    Doubtful,
    /// It does not, for this reason.
    Bad(&'static str),
}

/// All load balancers that have one address.
struct Place<'a> {
    address: IpAddr,
    balancers: Vec<&'a str>,
    /// Who announces it, by the order of the load balancers' names.
    holders: Vec<&'a str>,
}

/// What has to be written so that each address has one working gateway, if there is one.
pub(super) fn plan(snapshot: &Snapshot) -> Vec<Change> {
    let gateways: BTreeMap<&str, &Gateway> =
        snapshot.gateways.iter().map(|gateway| (&*gateway.name, gateway)).collect();
    let places = places(snapshot);
    let mut load: BTreeMap<&str, usize> = gateways.keys().map(|name| (*name, 0)).collect();
    let mut decided: BTreeMap<IpAddr, (&str, Option<&'static str>)> = BTreeMap::new();
    let mut open = Vec::new();
    for place in &places {
        let fits = |holder: &str| gateways.get(holder).map_or(NOT_LISTED, |own| fit(own, place));
        if let Some(working) = place.holders.iter().find(|holder| !matches!(fits(holder), Fit::Bad(_))) {
            decided.insert(place.address, (*working, None));
            *load.entry(*working).or_default() += 1;
            continue;
        }
        let holder = place.holders.first().copied();
        let why = holder.map_or("", |holder| if let Fit::Bad(why) = fits(holder) { why } else { "" });
        open.push((place, holder, why));
    }
    for (place, holder, why) in open {
        let good = gateways.values().filter(|gateway| fit(gateway, place) == Fit::Good);
        // One that failed this very load balancer before is left only for one that is known to have it.
        let good = good.filter(|gateway| why != CANNOT_PROGRAM || has_all(gateway, place));
        let best = good.min_by_key(|gateway| (load[&*gateway.name], weight(place.address, &gateway.name)));
        match (best, holder) {
            (Some(best), _) => {
                *load.entry(&best.name).or_default() += 1;
                decided.insert(place.address, (&best.name, Some(why)));
            }
            (None, Some(holder)) => {
                decided.insert(place.address, (holder, None));
            }
            (None, None) => {}
        }
    }
    let listed = listed(&gateways);
    snapshot.balancers.iter().filter_map(|balancer| change(balancer, &decided, &listed)).collect()
}

const NOT_LISTED: Fit = Fit::Bad("the inventory does not list it as a gateway");
const CANNOT_PROGRAM: &str = "its agent cannot program the load balancer";

/// The gateways as load balancers list them.
fn listed(gateways: &BTreeMap<&str, &Gateway>) -> Vec<metal::Gateway> {
    let all = gateways.values();
    all.map(|gateway| metal::Gateway { name: gateway.name.clone(), addresses: gateway.addresses.clone() }).collect()
}

/// The addresses, each with all the load balancers that share it, and who announces it. Where those disagree, the
/// first that may work counts: an address is never on two gateways.
fn places(snapshot: &Snapshot) -> Vec<Place<'_>> {
    let mut sorted: Vec<&Balancer> = snapshot.balancers.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut all: BTreeMap<IpAddr, Place<'_>> = BTreeMap::new();
    for balancer in sorted {
        for own in &balancer.addresses {
            let empty = || Place { address: own.address, balancers: Vec::new(), holders: Vec::new() };
            let place = all.entry(own.address).or_insert_with(empty);
            place.balancers.push(&balancer.name);
            place.holders.extend(own.gateway.as_deref());
        }
    }
    all.into_values().collect()
}

fn fit(gateway: &Gateway, place: &Place<'_>) -> Fit {
    let why = match gateway.life {
        Life::Left => "its agent gave its Lease back",
        Life::Silent => "its agent's Lease has expired",
        Life::Missing => "its agent has no Lease",
        Life::Alive | Life::Unsure if gateway.shutdown => "the inventory says that it is shut down",
        Life::Alive | Life::Unsure if gateway.ready == Some(false) => {
            "its agent reports that it cannot take in traffic"
        }
        Life::Alive | Life::Unsure if !gateway.addresses.iter().any(|own| own.is_ipv4() == place.address.is_ipv4()) => {
            "it has no address of this family"
        }
        Life::Alive | Life::Unsure if place.balancers.iter().any(|name| gateway.failing.contains(*name)) => {
            CANNOT_PROGRAM
        }
        Life::Unsure => return Fit::Doubtful,
        Life::Alive if gateway.ready.is_none() => return Fit::Doubtful,
        Life::Alive => return Fit::Good,
    };
    Fit::Bad(why)
}

fn has_all(gateway: &Gateway, place: &Place<'_>) -> bool {
    place.balancers.iter().all(|name| gateway.working.contains(*name))
}

/// An order of gateways that differs from address to address, and is the same in every process (FNV-1a).
fn weight(address: IpAddr, gateway: &str) -> u64 {
    let text = format!("{address} {gateway}");
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn change(
    balancer: &Balancer,
    decided: &BTreeMap<IpAddr, (&str, Option<&'static str>)>,
    listed: &[metal::Gateway],
) -> Option<Change> {
    let mut moves = Vec::new();
    let addresses = balancer.addresses.iter().map(|own| {
        let (gateway, why) = decided.get(&own.address).copied().unzip();
        if let (Some(to), Some(from)) = (gateway, own.gateway.as_deref())
            && to != from
        {
            let why = why.flatten().unwrap_or("another load balancer has the address elsewhere");
            moves.push(Move { address: own.address, from: from.to_owned(), to: to.to_owned(), why });
        }
        metal::AnnouncedAddress { address: own.address, gateway: gateway.map(str::to_owned) }
    });
    let addresses: Vec<_> = addresses.collect();
    // One without addresses is withdrawn, and about to be deleted.
    if addresses.is_empty() {
        return None;
    }
    let mut gateways = listed.to_vec();
    // Who keeps an address because nobody could take it goes on taking in its traffic, whatever the inventory lists.
    let keeps = |name: &str| addresses.iter().any(|own| own.gateway.as_deref() == Some(name));
    let unlisted = |own: &&metal::Gateway| listed.iter().all(|one| one.name != own.name);
    gateways.extend(balancer.gateways.iter().filter(unlisted).filter(|own| keeps(&own.name)).cloned());
    gateways.sort_by(|a, b| a.name.cmp(&b.name));
    (addresses != balancer.addresses || gateways != balancer.gateways).then(|| Change {
        balancer: balancer.name.clone(),
        addresses,
        gateways,
        moves,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
