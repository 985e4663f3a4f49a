//! The status of a pool: how many addresses it has and how many are used.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use quarterdeck_api::cloud::pool::{AddressPool, AddressPoolStatus, EXHAUSTED, INVALID};
use quarterdeck_runtime::client::PatchPrecondition;
use quarterdeck_runtime::controller::{Action, Cx, Error};
use quarterdeck_runtime::object::{Cached as _, Kind, ObjectKey};
use serde_json::json;

use super::Addresses;

impl Addresses {
    /// Brings the status of a pool up to date.
    ///
    /// # Errors
    /// When it could not be written.
    pub(in crate::service_lb) async fn sync_pool(&self, cx: &Cx, name: &str) -> Result<Action, Error> {
        let key = ObjectKey::cluster(name);
        let Some(pool) = self.pools.get(&key).filter(|pool| !pool.is_deleting()) else { return Ok(Action::Done) };
        let reserved: Vec<IpAddr> =
            self.reservations.all().iter().filter_map(|reservation| reservation.spec.ip()).collect();
        let status = status(&pool, &reserved, Timestamp::now());
        if pool.status.as_ref() == Some(&status) {
            return Ok(Action::Done);
        }
        let precondition = PatchPrecondition::ResourceVersion {
            uid: pool.uid().to_owned(),
            resource_version: pool.resource_version().to_owned(),
        };
        let patch = json!({ "status": status });
        match cx.api.merge_patch(&Kind::of::<AddressPool>(), &key, Some("status"), &patch, &precondition).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        }
    }
}

/// The status of a pool while these addresses are reserved. Times of conditions that did not change stay.
fn status(pool: &AddressPool, reserved: &[IpAddr], now: Timestamp) -> AddressPoolStatus {
    let (ranges, bad) = pool.spec.ranges();
    let count = |ipv6: bool| {
        let ours = ranges.iter().filter(|range| range.is_ipv6() == ipv6);
        let total = ours.clone().fold(0_u128, |sum, range| sum.saturating_add(range.size()));
        let used = reserved.iter().filter(|address| ours.clone().any(|range| range.contains(**address))).count();
        (total, u128::try_from(used).unwrap_or(u128::MAX))
    };
    let families = [("IPv4", count(false)), ("IPv6", count(true))];
    let full: Vec<&str> =
        families.iter().filter(|(_, (total, used))| *total > 0 && used >= total).map(|(family, _)| *family).collect();
    let exhausted = match full[..] {
        [] => ("False", "AddressesLeft", "there are addresses left".to_owned()),
        _ => ("True", "NoAddressLeft", format!("all {} addresses are in use", full.join(" and "))),
    };
    let mut wanted = vec![(EXHAUSTED, exhausted)];
    if !bad.is_empty() {
        let texts: Vec<String> = bad.iter().map(ToString::to_string).collect();
        wanted.push((INVALID, ("True", "UnreadableAddresses", format!("left out: {}", texts.join("; ")))));
    }
    let before = pool.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    let generation = pool.metadata.generation;
    let condition = |(kind, (value, reason, message)): (&str, (&str, &str, String))| {
        let same = before.iter().find(|condition| condition.type_ == kind && condition.status == value);
        Condition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: same.map_or(Time(seconds(now)), |same| same.last_transition_time.clone()),
        }
    };
    let sum = |pick: fn(&(u128, u128)) -> u128| {
        let sum = families.iter().fold(0_u128, |sum, (_, counts)| sum.saturating_add(pick(counts)));
        i64::try_from(sum).unwrap_or(i64::MAX)
    };
    AddressPoolStatus {
        observed_generation: generation.unwrap_or(0),
        total: sum(|(total, _)| *total),
        used: sum(|(_, used)| *used),
        conditions: wanted.into_iter().map(condition).collect(),
    }
}

/// Times are stored in whole seconds.
fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use quarterdeck_api::cloud::pool::AddressPoolSpec;

    use super::*;

    fn pool(addresses: &[&str]) -> AddressPool {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        AddressPool { spec: AddressPoolSpec { addresses, ..AddressPoolSpec::default() }, ..AddressPool::default() }
    }

    #[test]
    fn a_pool_counts_what_is_used() {
        let now = Timestamp::from_second(100).unwrap();
        let reserved: Vec<IpAddr> =
            ["192.0.2.1", "192.0.2.9", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
        let cases = [
            (&["192.0.2.0/30"][..], (4, 1), "False", 1),
            (&["192.0.2.1", "192.0.2.1-192.0.2.1"], (1, 1), "True", 1),
            (&["192.0.2.1", "2001:db8::/126"], (5, 2), "True", 1),
            (&["::/0"], (i64::MAX, 1), "False", 1),
            (&["192.0.2.0/30", "x"], (4, 1), "False", 2),
        ];
        for (addresses, counts, exhausted, conditions) in cases {
            let status = status(&pool(addresses), &reserved, now);
            assert_eq!((status.total, status.used), counts, "{addresses:?}");
            assert_eq!(status.conditions[0].status, exhausted, "{addresses:?}");
            assert_eq!(status.conditions.len(), conditions, "{addresses:?}");
        }
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut pool = pool(&["192.0.2.1"]);
        pool.status = Some(status(&pool, &[], at(100)));
        assert_eq!(pool.status, Some(status(&pool, &[], at(200))), "nothing is written");
        let full = status(&pool, &["192.0.2.1".parse().unwrap()], at(300));
        assert_eq!(full.conditions[0].last_transition_time, Time(at(300)));
    }
}
