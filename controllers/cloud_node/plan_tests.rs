use quarterdeck_cloud::model::{AddressKind, Instance, NodeAddress};
use quarterdeck_runtime::view::{Address, NodeView, Taint};
use serde_json::json;

use super::plan::{Refusal, UNINITIALIZED, addresses, initialise, is_uninitialized, stale_labels};

fn taint(key: &str) -> Taint {
    Taint {
        key: key.into(),
        value: "".into(),
        effect: "NoSchedule".into(),
        time_added: Some("2024-01-01T00:00:00Z".into()),
    }
}

fn waiting() -> NodeView {
    NodeView { taints: [taint("a"), taint(UNINITIALIZED), taint("b")].into(), ..NodeView::named("n1") }
}

fn of(kind: AddressKind, address: &str) -> NodeAddress {
    NodeAddress { kind, address: address.to_owned() }
}

fn instance() -> Instance {
    Instance {
        provider_id: "sim://1".to_owned(),
        instance_type: "m1".to_owned(),
        addresses: vec![of(AddressKind::InternalIp, "10.0.0.1")],
        zone: "z1".to_owned(),
        region: "r1".to_owned(),
        labels: Default::default(),
        shutdown: false,
    }
}

fn with_addresses(list: &[(AddressKind, &str)]) -> Instance {
    Instance { addresses: list.iter().map(|(kind, address)| of(*kind, address)).collect(), ..instance() }
}

fn has(list: &[(&str, &str)]) -> Box<[Address]> {
    list.iter().map(|(kind, address)| Address { kind: (*kind).into(), address: (*address).into() }).collect()
}

fn words(list: &[Address]) -> Vec<String> {
    list.iter().map(|address| format!("{} {}", address.kind, address.address)).collect()
}

#[test]
fn one_write_sets_everything_and_takes_the_taint() {
    let plan = initialise(&waiting(), &instance()).unwrap();
    let expected = json!({
        "metadata": {
            "labels": {
                "node.kubernetes.io/instance-type": "m1", "beta.kubernetes.io/instance-type": "m1",
                "topology.kubernetes.io/zone": "z1", "failure-domain.beta.kubernetes.io/zone": "z1",
                "topology.kubernetes.io/region": "r1", "failure-domain.beta.kubernetes.io/region": "r1",
            },
        },
        "spec": {
            "providerID": "sim://1",
            "taints": [
                { "key": "a", "effect": "NoSchedule", "timeAdded": "2024-01-01T00:00:00Z" },
                { "key": "b", "effect": "NoSchedule", "timeAdded": "2024-01-01T00:00:00Z" },
            ],
        },
    });
    assert_eq!(plan.patch, expected);
    assert_eq!(words(&plan.addresses.unwrap()), ["InternalIP 10.0.0.1"]);
    assert!(plan.discarded.is_empty());
    assert!(is_uninitialized(&waiting()) && !is_uninitialized(&NodeView::named("n1")));
}

#[test]
fn a_provider_id_is_never_replaced_and_never_missing() {
    let known = NodeView { provider_id: Some("sim://own".into()), ..waiting() };
    assert_eq!(initialise(&known, &instance()).unwrap().patch.pointer("/spec/providerID"), None);
    let nameless = Instance { provider_id: String::new(), ..instance() };
    assert_eq!(initialise(&waiting(), &nameless), Err(Refusal::NoProviderId));
    assert!(initialise(&known, &nameless).is_ok(), "the node's own counts");
}

#[test]
fn what_the_instance_does_not_say_is_not_labelled() {
    let bare = Instance { instance_type: String::new(), zone: String::new(), region: String::new(), ..instance() };
    assert_eq!(initialise(&waiting(), &bare).unwrap().patch["metadata"], json!({ "labels": {} }));
    let odd = Instance { zone: "far away".to_owned(), ..instance() };
    let plan = initialise(&waiting(), &odd).unwrap();
    assert_eq!(plan.discarded, ["topology.kubernetes.io/zone=far away: not the value of a label"]);
    assert_eq!(plan.patch.pointer("/metadata/labels/topology.kubernetes.io~1zone"), None);
}

#[test]
fn labels_of_the_provider_never_take_over_anything() {
    let labels = [
        ("example.com/rack", "7"),
        ("rack", "7"),
        ("mine", "cloud"),
        ("same", "1"),
        ("kubernetes.io/role", "x"),
        ("node.kubernetes.io/x", "x"),
        ("k8s.io/x", "x"),
        ("a.k8s.io/x", "x"),
        ("notk8s.io/x", "x"),
        ("bad key", "x"),
        ("bad-value", "x y"),
    ];
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let rich =
        Instance { labels, instance_type: String::new(), zone: String::new(), region: String::new(), ..instance() };
    let node = NodeView { labels: [("mine", "own"), ("same", "1")].into_iter().collect(), ..waiting() };
    let plan = initialise(&node, &rich).unwrap();
    let expected = json!({ "example.com/rack": "7", "rack": "7", "notk8s.io/x": "x" });
    assert_eq!(plan.patch["metadata"]["labels"], expected);
    let discarded: Vec<_> = plan.discarded.iter().filter_map(|text| text.split_once('=')).map(|(key, _)| key).collect();
    let expected =
        ["a.k8s.io/x", "bad key", "bad-value", "k8s.io/x", "kubernetes.io/role", "mine", "node.kubernetes.io/x"];
    assert_eq!(discarded, expected);
}

#[test]
fn the_stable_label_follows_the_beta_one() {
    let node = NodeView {
        labels: [
            ("failure-domain.beta.kubernetes.io/zone", "new"),
            ("topology.kubernetes.io/zone", "old"),
            ("failure-domain.beta.kubernetes.io/region", "r"),
            ("node.kubernetes.io/instance-type", "only stable"),
        ]
        .into_iter()
        .collect(),
        ..NodeView::named("n1")
    };
    let expected = json!({ "topology.kubernetes.io/zone": "new", "topology.kubernetes.io/region": "r" });
    assert_eq!(json!(stale_labels(&node)), expected);
    let settled = [("failure-domain.beta.kubernetes.io/zone", "z"), ("topology.kubernetes.io/zone", "z")];
    let settled = NodeView { labels: settled.into_iter().collect(), ..NodeView::named("n1") };
    assert!(stale_labels(&settled).is_empty());
}

#[test]
fn the_kubelets_hostname_stays() {
    use AddressKind::{Hostname, InternalIp};
    let node = NodeView { addresses: has(&[("Hostname", "kubelet"), ("InternalIP", "10.9.9.9")]), ..waiting() };
    let got = addresses(&node, &with_addresses(&[(InternalIp, "10.0.0.1")])).unwrap().unwrap();
    assert_eq!(words(&got), ["InternalIP 10.0.0.1", "Hostname kubelet"]);
    let got = addresses(&node, &with_addresses(&[(InternalIp, "10.0.0.1"), (Hostname, "cloud")])).unwrap().unwrap();
    assert_eq!(words(&got), ["InternalIP 10.0.0.1", "Hostname cloud"]);
    assert_eq!(addresses(&node, &with_addresses(&[])), Ok(None), "no word from the cloud is no change");
}

/// cloud-provider's comparison keeps one address of each type, so that the second one of a dual-stack node is
/// "changed" in every round (defect 9).
#[test]
fn two_addresses_of_a_type_are_compared_as_two() {
    use AddressKind::{ExternalIp, InternalIp};
    let node = |list: &[(&str, &str)]| NodeView { addresses: has(list), ..NodeView::named("n1") };
    let cloud = with_addresses(&[(InternalIp, "10.0.0.1"), (InternalIp, "fd00::1"), (ExternalIp, "1.1.1.1")]);
    let (a, b, c) = (("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1"), ("ExternalIP", "1.1.1.1"));
    for (case, list, changed) in [
        ("the same", vec![a, b, c], false),
        ("types in another order", vec![c, a, b], false),
        ("the other family first", vec![b, a, c], true),
        ("one is missing", vec![a, c], true),
        ("one is too many", vec![a, b, c, ("InternalIP", "10.0.0.2")], true),
        ("another one", vec![a, ("InternalIP", "fd00::2"), c], true),
    ] {
        assert_eq!(addresses(&node(&list), &cloud).unwrap().is_some(), changed, "{case}");
    }
    let twice = with_addresses(&[(InternalIp, "10.0.0.1"), (InternalIp, "10.0.0.1")]);
    assert_eq!(words(&addresses(&node(&[]), &twice).unwrap().unwrap()), ["InternalIP 10.0.0.1"]);
}

#[test]
fn the_address_that_the_kubelet_was_told_to_use_comes_first_and_alone() {
    use AddressKind::{ExternalIp, InternalIp};
    let cloud = with_addresses(&[
        (InternalIp, "10.0.0.1"),
        (InternalIp, "10.0.0.2"),
        (InternalIp, "fd00::2"),
        (ExternalIp, "1.1.1.1"),
    ]);
    let node = |text: &str| NodeView {
        annotations: [(NodeView::PROVIDED_IP, text)].into_iter().collect(),
        ..NodeView::named("n1")
    };
    let got = |text: &str| addresses(&node(text), &cloud).map(|list| words(&list.unwrap()));
    assert_eq!(got("10.0.0.2").unwrap(), ["InternalIP 10.0.0.2", "ExternalIP 1.1.1.1"]);
    assert_eq!(got("fd00::2,10.0.0.1").unwrap(), ["InternalIP fd00::2", "InternalIP 10.0.0.1", "ExternalIP 1.1.1.1"]);
    assert_eq!(got("10.0.0.9"), Err(Refusal::ForeignProvidedIp { ip: "10.0.0.9".parse().unwrap() }));
    for bad in ["", "x", "10.0.0.1,10.0.0.2", "10.0.0.1, fd00::2", "0.0.0.0,fd00::2", "10.0.0.1,fd00::2,fd00::3"] {
        assert!(matches!(got(bad), Err(Refusal::BadProvidedIp { .. })), "{bad:?}");
        let tainted = NodeView { taints: [taint(UNINITIALIZED)].into(), ..node(bad) };
        assert!(initialise(&tainted, &cloud).is_err(), "{bad:?}: the taint stays");
    }
    assert!(addresses(&node("10.0.0.9"), &with_addresses(&[])).is_err(), "also if the cloud names none");
}
