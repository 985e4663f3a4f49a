//! What a load balancer is configured as.

use std::time::Duration;

use quarterdeck_cloud::model::{ExternalTraffic, LbOutcome, LoadBalancerSpec, Protocol};

use crate::steering::Described;
use crate::suite::{Outcome, Served, Stop, Suite, backend, check, port};

/// Makes a load balancer, changes it, and changes it back; each time the address stays, what is configured is what
/// was asked for, and asking again changes nothing.
async fn changes(
    suite: &Suite,
    name: &str,
    change: impl FnOnce(&mut LoadBalancerSpec),
    holds: impl Fn(&Described, &LoadBalancerSpec) -> bool,
) -> Outcome {
    let before = suite.spec(suite.owner(name));
    let mut after = before.clone();
    change(&mut after);
    let first = suite.ensure(&before, None).await?;
    let mut last: Option<Served> = None;
    for spec in [&before, &after, &before] {
        let served = suite.ensure(spec, Some(&first.handle)).await?;
        check!(served.ingress == first.ingress, "the address became {:?}, was {:?}", served.ingress, first.ingress);
        let again = suite.ensure(spec, Some(&first.handle)).await?;
        check!(again.fingerprint == served.fingerprint, "asking again changed {:?}", served.fingerprint);
        let described = suite.described(&spec.owner).await?;
        if let Some(described) = &described {
            check!(holds(described, spec), "it is configured as {described:?}");
        }
        if let Some(last) = last.replace(served.clone()) {
            if described.is_none() && served.fingerprint.is_empty() {
                return Err(Stop::NotApplicable(
                    "the provider has no fingerprints, and nobody sees its load balancers".to_owned(),
                ));
            }
            let same = last.fingerprint == served.fingerprint;
            check!(!same || served.fingerprint.is_empty(), "the change does not show: {:?}", served.fingerprint);
        }
    }
    Ok(())
}

pub async fn l4_ports(suite: &Suite) -> Outcome {
    let wanted =
        |spec: &LoadBalancerSpec| -> Vec<_> { spec.ports.iter().map(|port| (port.protocol, port.port)).collect() };
    changes(
        suite,
        "l4",
        |spec| spec.ports = vec![port(Protocol::Tcp, 443), port(Protocol::Tcp, 53), port(Protocol::Udp, 53)],
        |described, spec| described.ports == wanted(spec),
    )
    .await?;
    let owner = suite.owner("l4");
    let count = suite.owned(&owner).await?.len();
    check!(count == 1, "{count} load balancers for two protocols");
    Ok(())
}

pub async fn l5_backends(suite: &Suite) -> Outcome {
    let (one, two) = (suite.running(0)?, suite.running(1)?);
    let mut spec = suite.spec(suite.owner("l5"));
    spec.backends = vec![backend(one)];
    let made = suite.ensure(&spec, None).await?;
    let mut other = spec.clone();
    other.backends = vec![backend(one), backend(two)];
    // A change that is none of this call's business.
    other.ports = vec![port(Protocol::Tcp, 81)];
    let (balancers, _) = suite.balancers()?;
    let updated = match balancers.update_backends(&suite.change(), &other, &made.handle).await? {
        LbOutcome::Ready { ingress, handle, fingerprint } => Served { ingress, handle, fingerprint },
        LbOutcome::Provisioning { .. } => {
            let wanted = LoadBalancerSpec { backends: other.backends.clone(), ..spec.clone() };
            suite.ensure(&wanted, Some(&made.handle)).await?
        }
    };
    check!(updated.ingress == made.ingress, "the address became {:?}, was {:?}", updated.ingress, made.ingress);
    check!(updated.handle == made.handle, "it became {:?}, was {:?}", updated.handle, made.handle);
    if let Some(described) = suite.described(&spec.owner).await? {
        check!(described.backends.len() == 2, "traffic goes to {:?}", described.backends);
        check!(described.ports == [(Protocol::Tcp, 80)], "the ports became {:?}", described.ports);
    }
    spec.backends = other.backends;
    let after = suite.ensure(&spec, Some(&made.handle)).await?;
    check!(after.fingerprint == updated.fingerprint, "more, or less, than the backends was changed");
    let lost = quarterdeck_cloud::model::Handle("conformance-no-such-load-balancer".to_owned());
    let answer = balancers.update_backends(&suite.change(), &suite.spec(suite.owner("l5-none")), &lost).await;
    check!(answer.is_err(), "backends of a load balancer that never was are said to be updated");
    Ok(())
}

pub async fn l6_no_nodes(suite: &Suite) -> Outcome {
    let owner = suite.owner("l6");
    changes(
        suite,
        "l6",
        |spec| spec.backends.clear(),
        |described, spec| described.backends.len() == spec.backends.len(),
    )
    .await?;
    let mut empty = suite.spec(owner.clone());
    empty.backends.clear();
    suite.ensure(&empty, None).await?;
    check!(suite.owned(&owner).await?.len() == 1, "without nodes it is gone");
    Ok(())
}

pub async fn l7_source_ranges(suite: &Suite) -> Outcome {
    let ranges = ["192.0.2.0/24", "198.51.100.7/32"].map(|range| range.parse().expect("it is a network"));
    changes(
        suite,
        "l7",
        |spec| spec.source_ranges = ranges.to_vec(),
        |described, spec| described.source_ranges == spec.source_ranges,
    )
    .await
}

pub async fn l8_health_port(suite: &Suite) -> Outcome {
    changes(
        suite,
        "l8",
        |spec| (spec.external_traffic, spec.health_check_node_port) = (ExternalTraffic::Local, 31_234),
        |described, spec| {
            described.health_check_node_port == Some(spec.health_check_node_port).filter(|port| *port > 0)
        },
    )
    .await
}

pub async fn l9_affinity(suite: &Suite) -> Outcome {
    changes(
        suite,
        "l9",
        |spec| spec.affinity = Some(Duration::from_secs(600)),
        |described, spec| described.affinity == spec.affinity,
    )
    .await
}
