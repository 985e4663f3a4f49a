use std::time::Duration;

use super::*;

fn spec() -> model::LoadBalancerSpec {
    let port = |port, protocol| model::Port {
        name: format!("p{port}"),
        protocol,
        port,
        node_port: 30_000 + port,
        app_protocol: String::new(),
    };
    let backend = |name: &str, address: &str| model::Backend {
        name: name.into(),
        provider_id: format!("metal://{name}"),
        addresses: vec![address.parse().unwrap()],
    };
    model::LoadBalancerSpec {
        owner: Owner { cluster: ClusterId("c".into()), namespace: "shop".into(), name: "web".into(), uid: "u".into() },
        ports: vec![port(80, model::Protocol::Tcp), port(53, model::Protocol::Udp)],
        ipv6: vec![false, true],
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()],
        source_ranges: vec!["198.51.100.0/24".parse().unwrap()],
        external_traffic: model::ExternalTraffic::Local,
        health_check_node_port: 32_000,
        affinity: Some(Duration::from_secs(10_800)),
        annotations: std::collections::BTreeMap::new(),
        backends: vec![backend("n2", "10.0.0.12"), backend("n1", "10.0.0.11"), backend("n2", "10.0.0.12")],
    }
}

fn created(epoch: u64) -> MetalLoadBalancer {
    match plan_balancer(None, wanted(&spec()).unwrap(), epoch) {
        Ok(Plan::Create(object)) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_withdrawn_claims_nothing_and_stays_its_owners() {
    let stored = created(7);
    let next = withdrawn(&stored, 9).expect("it claims addresses");
    assert!(is_withdrawn(&next.spec) && next.spec.ports.is_empty() && next.spec.backends.is_empty());
    assert_eq!((next.spec.epoch, &next.spec.owner, &next.metadata), (9, &stored.spec.owner, &stored.metadata));
    assert_eq!(withdrawn(&next, 9), None);
    // Wanted again before it is deleted, it is as it was.
    let Ok(Plan::Replace(again)) = plan_balancer(Some(next), wanted(&spec()).unwrap(), 9) else {
        panic!("it is written")
    };
    assert_eq!(again.spec, LoadBalancerSpec { epoch: 9, ..stored.spec });
}

#[test]
fn what_a_service_asks_for_is_all_in_its_object() {
    let object = created(7);
    assert_eq!((object.name(), object.spec.epoch), ("u", 7));
    assert_eq!(object.metadata.labels.as_ref().unwrap()[CLUSTER_LABEL], "c");
    assert_eq!(
        serde_json::to_value(&object.spec).unwrap(),
        serde_json::json!({
            "epoch": 7,
            "owner": {"cluster": "c", "namespace": "shop", "name": "web", "uid": "u"},
            "addresses": [{"address": "192.0.2.1"}, {"address": "2001:db8::1"}],
            "gateways": [],
            "ports": [
                {"name": "p80", "protocol": "TCP", "port": 80, "nodePort": 30080},
                {"name": "p53", "protocol": "UDP", "port": 53, "nodePort": 30053},
            ],
            "backends": [{"name": "n1", "addresses": ["10.0.0.11"]}, {"name": "n2", "addresses": ["10.0.0.12"]}],
            "sourceRanges": ["198.51.100.0/24"],
            "affinitySeconds": 10800,
            "externalTraffic": "Local",
            "healthCheckNodePort": 32000,
        })
    );
}

#[test]
fn nothing_is_written_where_nothing_changed_and_gateways_are_left_alone() {
    let mut stored = created(7);
    stored.spec.addresses[0].gateway = Some("gw".into());
    stored.spec.gateways = vec![quarterdeck_api::cloud::metal::Gateway { name: "gw".into(), addresses: Vec::new() }];
    let print = fingerprint(&stored.spec);
    assert_eq!(print, fingerprint(&created(9).spec), "neither the tenure nor who announces is part of it");
    // A later tenure finds it as it should be: a failover writes nothing.
    let kept = plan_balancer(Some(stored.clone()), wanted(&spec()).unwrap(), 9);
    assert_eq!(kept, Ok(Plan::Keep(stored.clone())));

    let mut changed = spec();
    changed.addresses.remove(1);
    changed.addresses.push("192.0.2.9".parse().unwrap());
    changed.backends.pop();
    let Ok(Plan::Replace(next)) = plan_balancer(Some(stored.clone()), wanted(&changed).unwrap(), 9) else {
        panic!("it changed")
    };
    assert_eq!(next.spec.epoch, 9);
    assert_eq!(next.spec.gateways, stored.spec.gateways);
    let holders: Vec<_> = next.spec.addresses.iter().map(|own| own.gateway.as_deref()).collect();
    assert_eq!(holders, [Some("gw"), None]);
    assert_ne!(fingerprint(&next.spec), print);
    // Somebody changed it by hand: the fingerprint tells, and it is put right.
    stored.spec.ports.pop();
    assert_ne!(fingerprint(&stored.spec), print);
    let Ok(Plan::Replace(next)) = plan_balancer(Some(stored), wanted(&spec()).unwrap(), 9) else { panic!("drift") };
    assert_eq!(fingerprint(&next.spec), print);
}

#[test]
fn a_past_tenure_and_another_cluster_change_nothing() {
    let stored = created(7);
    let plan = |stored: &MetalLoadBalancer, epoch| plan_balancer(Some(stored.clone()), wanted(&spec()).unwrap(), epoch);
    assert!(matches!(plan(&stored, 6), Err(CloudError::Superseded(text)) if text.contains('7') && text.contains('6')));
    assert!(plan(&stored, 0).is_ok(), "without an election there is no tenure");
    let mut foreign = stored.clone();
    foreign.spec.owner.cluster = "d".into();
    assert!(matches!(plan(&foreign, 8), Err(CloudError::Conflict(_))));
    assert!(check_balancer(&foreign, "c", 8).is_err());
    let mut going = stored;
    going.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    assert!(matches!(plan(&going, 8), Err(CloudError::Conflict(_))));
}

#[test]
fn what_metal_cannot_do_is_refused_by_name() {
    let mut without = spec();
    without.addresses.clear();
    assert!(wanted(&without).is_err_and(|error| error.to_string().contains("AddressPool")));
    let mut without = spec();
    without.ports[1].node_port = 0;
    assert!(wanted(&without).is_err_and(|error| error.to_string().contains("port 53 has no node port")));
}

fn route(node: &str, destination: &str, hops: &[&str]) -> Route {
    Route {
        name: "hint".into(),
        destination: destination.parse().unwrap(),
        node: node.into(),
        provider_id: String::new(),
        next_hops: hops.iter().map(|hop| hop.parse().unwrap()).collect(),
        blackhole: false,
    }
}

#[test]
fn a_nodes_routes_share_one_object() {
    let (four, six) = (route("n1", "10.4.1.0/24", &["10.0.0.11"]), route("n1", "fd01::/64", &["10.0.0.11"]));
    let Ok(Plan::Create(first)) = plan_route(None, &four, "c", 7) else { panic!("it is new") };
    assert_eq!((first.name(), first.spec.epoch), ("n1", 7));
    let Ok(Plan::Replace(both)) = plan_route(Some(first), &six, "c", 8) else { panic!("another network") };
    let listed: Vec<_> = routes(&both).map(|route| (route.name, route.node)).collect();
    assert_eq!(listed, [("n1/10.4.1.0/24".into(), "n1".into()), ("n1/fd01::/64".into(), "n1".to_owned())]);
    assert_eq!(plan_route(Some(both.clone()), &four, "c", 9), Ok(Plan::Keep(both.clone())));
    assert!(matches!(plan_route(Some(both.clone()), &four, "c", 7), Err(CloudError::Superseded(_))));

    // The node got another address.
    let moved = route("n1", "10.4.1.0/24", &["10.0.0.99"]);
    let Ok(Plan::Replace(led)) = plan_route(Some(both.clone()), &moved, "c", 9) else { panic!("another hop") };
    assert_eq!((led.spec.next_hops, led.spec.destinations.len()), (moved.next_hops.clone(), 2));

    let Ok(Plan::Replace(one)) = plan_no_route(Some(both.clone()), &six, "c", 9) else { panic!("one stays") };
    assert_eq!(one.spec.destinations, [four.destination]);
    assert_eq!(plan_no_route(Some(one.clone()), &six, "c", 9), Ok(Plan::Keep(one.clone())));
    assert_eq!(plan_no_route(Some(one.clone()), &four, "c", 9), Ok(Plan::Delete(one.clone())));
    assert_eq!(plan_no_route(None, &four, "c", 9), Ok(Plan::Nothing));
    // Written by hand, or by another cluster: not ours to delete.
    assert_eq!(plan_no_route(Some(one), &four, "d", 9), Ok(Plan::Nothing));
    assert!(plan_route(None, &route("n1", "10.4.1.0/24", &[]), "c", 7).is_err());
    assert!(plan_route(None, &route("", "10.4.1.0/24", &["10.0.0.1"]), "c", 7).is_err());
}
