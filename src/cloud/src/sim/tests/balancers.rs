use super::super::{ELSEWHERE, HOSTNAME};
use super::*;

#[tokio::test]
async fn a_second_ensure_changes_nothing_and_each_change_shows() {
    let sim = Sim::default();
    let mut want = spec(owner("a", "1"));
    let (ingress, handle, first) = ready(sim.ensure(&call("a", 1), &want, None).await.unwrap());
    let version = sim.state().version;
    assert_eq!(ready(sim.ensure(&call("a", 1), &want, None).await.unwrap()).2, first);
    assert_eq!(sim.state().version, version);
    let mut seen = vec![first];
    let mut changed = async |want: &LoadBalancerSpec| {
        let (same, _, fingerprint) = ready(sim.ensure(&call("a", 1), want, None).await.unwrap());
        assert_eq!(same, ingress, "it keeps its address");
        assert!(!seen.contains(&fingerprint), "{want:?}");
        seen.push(fingerprint);
    };
    want.ports[0].port = 81;
    changed(&want).await;
    want.source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    changed(&want).await;
    want.affinity = Some(Duration::from_secs(10_800));
    changed(&want).await;
    (want.external_traffic, want.health_check_node_port) = (ExternalTraffic::Local, 31_000);
    changed(&want).await;
    want.backends.clear();
    changed(&want).await;
    want.owner.name = "renamed".to_owned();
    changed(&want).await;
    want.backends = spec(owner("a", "1")).backends;
    ready(sim.update_backends(&call("a", 1), &want, &handle).await.unwrap());
    assert_eq!(sim.state().balancers[&handle.0].backends, want.backends);
}

#[tokio::test]
async fn clusters_and_uids_never_share() {
    let sim = Sim::default();
    let mut handles = Vec::new();
    for (cluster, uid) in [("a", "1"), ("b", "1"), ("a", "2")] {
        handles.push(ready(sim.ensure(&call(cluster, 1), &spec(owner(cluster, uid)), None).await.unwrap()).1);
    }
    handles.sort();
    handles.dedup();
    assert_eq!(handles.len(), 3);
    let foreign = sim.ensure_deleted(&call("b", 1), &owner("a", "1"), None).await.unwrap_err();
    assert_eq!(foreign.outcome(), "denied");
    sim.ensure_deleted(&call("a", 1), &owner("a", "1"), None).await.unwrap();
    assert_eq!(sim.state().balancers.len(), 2);
    assert_eq!(sim.list_owned(&call("a", 0), None).await.unwrap().items.len(), 1);
    let gone = sim.update_backends(&call("a", 1), &spec(owner("a", "1")), &handles[0]).await.unwrap_err();
    assert_eq!(gone.outcome(), "not_found");
}

#[tokio::test]
async fn duplicates_are_shown_one_is_adopted_and_all_are_deleted() {
    let sim = Sim::default();
    let want = spec(owner("a", "1"));
    let first = ready(sim.ensure(&call("a", 1), &want, None).await.unwrap()).1;
    let second = Handle(sim.command(Command::DuplicateLoadBalancer { uid: "1".to_owned() }).unwrap().id);
    assert_eq!(sim.get(&call("a", 0), &want.owner).await.unwrap().len(), 2);
    assert_eq!(ready(sim.ensure(&call("a", 1), &want, None).await.unwrap()).1, first);
    assert_eq!(ready(sim.ensure(&call("a", 1), &want, Some(&second)).await.unwrap()).1, second);
    assert_eq!(sim.state().balancers.len(), 2);
    assert_eq!(sim.ensure_deleted(&call("a", 1), &want.owner, None).await.unwrap(), Deletion::Gone);
    let state = sim.state();
    assert!(state.balancers.is_empty() && state.reservations.is_empty(), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn making_and_deleting_take_the_time_they_are_told_to() {
    let sim = Sim::default();
    set(&sim, Settings { provision_ms: 2_000, delete_ms: 1_000, ..Settings::default() });
    let want = spec(owner("a", "1"));
    let outcome = sim.ensure(&call("a", 1), &want, None).await.unwrap();
    let LbOutcome::Provisioning { poll_after, handle: Some(handle) } = outcome else { panic!("{outcome:?}") };
    assert_eq!(poll_after, Duration::from_millis(500));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ready(sim.ensure(&call("a", 1), &want, None).await.unwrap()).1, handle);
    let going = sim.ensure_deleted(&call("a", 1), &want.owner, None).await.unwrap();
    assert_eq!(going, Deletion::InProgress(Duration::from_millis(500)));
    assert_eq!(sim.ensure(&call("a", 1), &want, None).await.unwrap_err().outcome(), "conflict");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(sim.ensure_deleted(&call("a", 1), &want.owner, None).await.unwrap(), Deletion::Gone);
    assert!(sim.state().reservations.is_empty());
}

#[tokio::test]
async fn addresses_are_chosen_asked_for_or_shared() {
    let sim = Sim::default();
    let ensure = async |uid: &str, port: u16, address: &str| {
        let mut want = spec(owner("a", uid));
        want.ports[0].port = port;
        want.addresses = vec![address.parse().unwrap()];
        sim.ensure(&call("a", 1), &want, None).await
    };
    ready(ensure("1", 80, "198.18.0.9").await.unwrap());
    ready(ensure("2", 81, "198.18.0.9").await.unwrap());
    assert_eq!(ensure("3", 80, "198.18.0.9").await.unwrap_err().outcome(), "conflict");
    let mut want = spec(owner("b", "1"));
    want.addresses = vec!["198.18.0.9".parse().unwrap()];
    assert_eq!(sim.ensure(&call("b", 1), &want, None).await.unwrap_err().outcome(), "conflict");
    want.addresses.clear();
    want.ipv6 = vec![true, false];
    let (ingress, ..) = ready(sim.ensure(&call("b", 1), &want, None).await.unwrap());
    let told: Vec<_> = ingress.into_iter().map(|one| one.at).collect();
    let ip = |text: &str| IngressPoint::Ip(text.parse().unwrap());
    assert_eq!(told, [ip("2001:db8:5::1"), ip("198.18.0.1")]);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_before_anything_is_done() {
    let sim = Sim::default();
    let refused = async |change: fn(&mut LoadBalancerSpec)| {
        let mut want = spec(owner("a", "1"));
        change(&mut want);
        sim.ensure(&call("a", 1), &want, None).await.unwrap_err().outcome()
    };
    assert_eq!(refused(|want| want.ports.clear()).await, "invalid");
    assert_eq!(refused(|want| want.ports.extend(want.ports.clone())).await, "invalid");
    assert_eq!(
        refused(|want| drop(want.annotations.insert("sim.quarterdeck.dev/x".into(), "".into()))).await,
        "invalid"
    );
    assert_eq!(
        refused(|want| drop(want.annotations.insert(ELSEWHERE.into(), "true".into()))).await,
        "implemented_elsewhere"
    );
    assert_eq!(refused(|want| want.owner.uid.clear()).await, "denied");
    set(&sim, Settings { needs_addresses: true, ..Settings::default() });
    assert_eq!(refused(|_| {}).await, "invalid");
    let state = sim.state();
    assert!(state.balancers.is_empty() && state.reservations.is_empty());
    let mut named = spec(owner("a", "1"));
    named.addresses = vec!["192.0.2.1".parse().unwrap()];
    named.annotations.insert(HOSTNAME.into(), "lb.example".into());
    let (ingress, ..) = ready(sim.ensure(&call("a", 1), &named, None).await.unwrap());
    assert_eq!(ingress[0].at, IngressPoint::Hostname("lb.example".to_owned()));
}

#[tokio::test]
async fn what_is_done_behind_everybodys_back_shows_and_is_repaired() {
    let sim = Sim::default();
    let want = spec(owner("a", "1"));
    let (ingress, handle, fingerprint) = ready(sim.ensure(&call("a", 1), &want, None).await.unwrap());
    sim.command(Command::SpoilLoadBalancer { uid: "1".to_owned() }).unwrap();
    assert_ne!(sim.get(&call("a", 0), &want.owner).await.unwrap()[0].fingerprint, fingerprint);
    ready(sim.ensure(&call("a", 1), &want, Some(&handle)).await.unwrap());
    assert_eq!(sim.state().balancers[&handle.0].ports, want.ports);
    sim.command(Command::LoseLoadBalancer { uid: "1".to_owned() }).unwrap();
    assert!(sim.get(&call("a", 0), &want.owner).await.unwrap().is_empty());
    assert_eq!(sim.state().leftovers().len(), 1);
    let (again, new, _) = ready(sim.ensure(&call("a", 1), &want, Some(&handle)).await.unwrap());
    assert_eq!(again, ingress, "its address was still its own");
    assert_ne!(new, handle);
}
