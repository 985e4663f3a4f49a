//! The rows of upstream's own tests of this controller, by their names
//! (k8s.io/cloud-provider:controllers/node/node_controller_test.go v0.36.3). Rows that it has once for each of its two
//! interfaces of instances stand here once. Where we answer otherwise the row says so, and
//! `docs/controllers/cloud-node-controller.md` says why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quarterdeck_cloud::model::{AddressKind, Instance, NodeAddress};
use quarterdeck_cloud::nodes::node_ref;
use quarterdeck_cloud::provider::SharedProvider;
use quarterdeck_cloud::sim::{Command, NewInstance, Sim};
use quarterdeck_cloud::{Cloud, CloudError};
use quarterdeck_runtime::view::{Address, NodeView, Taint};

use super::find::Found;
use super::plan::{UNINITIALIZED, addresses, differ, initialise, is_compared, is_uninitialized, stale_labels};

type Pairs = &'static [(&'static str, &'static str)];

/// What upstream's fake has for a node in most rows.
const FROM_CLOUD: Pairs =
    &[("Hostname", "node0.cloud.internal"), ("InternalIP", "10.0.0.1"), ("ExternalIP", "132.143.154.163")];
const WITHOUT_NAME: Pairs = &[("InternalIP", "10.0.0.1"), ("ExternalIP", "132.143.154.163")];
const KUBELETS: Pairs = &[("Hostname", "node0.cloud.internal")];
const BOTH_IN_ORDER: Pairs =
    &[("InternalIP", "10.0.0.1"), ("ExternalIP", "132.143.154.163"), ("Hostname", "node0.cloud.internal")];
const ZONES: Pairs = &[
    ("failure-domain.beta.kubernetes.io/region", "us-west"),
    ("failure-domain.beta.kubernetes.io/zone", "us-west-1a"),
    ("topology.kubernetes.io/region", "us-west"),
    ("topology.kubernetes.io/zone", "us-west-1a"),
];

fn taint(key: &str) -> Taint {
    Taint { key: key.into(), value: "true".into(), effect: "NoSchedule".into(), time_added: None }
}

fn list(addresses: Pairs) -> Box<[Address]> {
    addresses.iter().map(|(kind, address)| Address { kind: (*kind).into(), address: (*address).into() }).collect()
}

/// `node0`, which waits for its cloud.
fn node0() -> NodeView {
    NodeView { taints: [taint(UNINITIALIZED)].into(), ..NodeView::named("node0") }
}

/// With a taint of somebody else's, and a providerID.
fn known(provider_id: &str) -> NodeView {
    NodeView {
        taints: [taint("ImproveCoverageTaint"), taint(UNINITIALIZED)].into(),
        provider_id: Some(provider_id.into()),
        ..node0()
    }
}

/// Whose kubelet was told to use this address.
fn told(ip: &str) -> NodeView {
    NodeView {
        annotations: [(NodeView::PROVIDED_IP, ip)].into_iter().collect(),
        addresses: list(KUBELETS),
        ..known("node0.aws.12345")
    }
}

fn instance(provider_id: &str, addresses: Pairs) -> Instance {
    let kind = |word: &str| {
        let all = [AddressKind::Hostname, AddressKind::InternalIp, AddressKind::ExternalIp];
        all.into_iter().find(|kind| kind.as_str() == word).unwrap()
    };
    Instance {
        provider_id: provider_id.to_owned(),
        instance_type: String::new(),
        addresses: addresses
            .iter()
            .map(|(word, address)| NodeAddress { kind: kind(word), address: (*address).to_owned() })
            .collect(),
        zone: String::new(),
        region: String::new(),
        labels: BTreeMap::new(),
        shutdown: false,
    }
}

fn in_zone(labels: Pairs, addresses: Pairs) -> Instance {
    Instance {
        zone: "us-west-1a".to_owned(),
        region: "us-west".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..instance("fake://12345", addresses)
    }
}

fn here(instance: Instance) -> Found {
    Found::Here(Box::new(instance))
}

/// What a row expects of a node.
enum Then {
    /// It is left as it is, and that is no failure.
    Ignored,
    /// It stays tainted, and is tried again.
    Waits,
    /// It is initialised.
    Initialised {
        /// providerID that is written.
        provider_id: Option<&'static str>,
        /// Labels that are written.
        labels: &'static [Pairs],
        /// Addresses afterwards.
        addresses: Pairs,
        /// Taints that are left.
        taints: &'static [&'static str],
    },
}
use Then::{Ignored, Initialised, Waits};

/// A new node of which only addresses and providerID are expected.
fn plain(addresses: Pairs) -> Then {
    Initialised { provider_id: Some("fake://12345"), labels: &[], addresses, taints: &[] }
}

fn same_id(labels: &'static [Pairs], addresses: Pairs) -> Then {
    Initialised { provider_id: None, labels, addresses, taints: &["ImproveCoverageTaint"] }
}

#[test]
fn sync_node() {
    let named = |name: Pairs| NodeView { addresses: list(name), ..node0() };
    let unknown = || Found::Unknown(CloudError::Other("metadata error".to_owned()));
    let cloud = || here(instance("fake://12345", FROM_CLOUD));
    let bare = || here(instance("fake://12345", WITHOUT_NAME));
    let discarded = in_zone(
        &[
            ("topology.kubernetes.io/region", "us-other-west"),
            ("topology.k8s.io/region", "us-other-west"),
            ("kubernetes.io/region", "us-other-west"),
            ("k8s.io/region", "us-other-west"),
            ("my.custom.label/foo", "bar"),
            ("my.custom.label/bar", "foo"),
            ("app.k8snio/bar", "foo"),
            ("k8snio/bar", "foo"),
        ],
        WITHOUT_NAME,
    );
    let labelled = NodeView {
        labels: [("my.custom.label/foo", "fizz"), ("my.custom.label/bar", "foo")].into_iter().collect(),
        ..told("10.0.0.1")
    };
    let rows: Vec<(&str, NodeView, Found, Then)> = vec![
        ("node initialized with hostname", named(&[("Hostname", "nodeoverriden")]), cloud(), plain(FROM_CLOUD)),
        (
            "node initialized with hostname and cloud provider missing hostname",
            named(&[("Hostname", "nodeoverriden")]),
            bare(),
            plain(&[("InternalIP", "10.0.0.1"), ("ExternalIP", "132.143.154.163"), ("Hostname", "nodeoverriden")]),
        ),
        ("node initialized with provider ID", node0(), cloud(), plain(FROM_CLOUD)),
        (
            "[instanceV2] node initialized with provider ID",
            NodeView { provider_id: Some("fake://12345".into()), ..node0() },
            cloud(),
            Initialised { provider_id: None, labels: &[], addresses: FROM_CLOUD, taints: &[] },
        ),
        ("node ignored", NodeView::named("node0"), cloud(), Ignored),
        (
            "zone/region topology labels added",
            node0(),
            here(in_zone(&[], FROM_CLOUD)),
            Initialised { provider_id: Some("fake://12345"), labels: &[ZONES], addresses: FROM_CLOUD, taints: &[] },
        ),
        (
            "node addresses",
            NodeView { provider_id: None, ..known("") },
            cloud(),
            Initialised {
                provider_id: Some("fake://12345"),
                labels: &[],
                addresses: FROM_CLOUD,
                taints: &["ImproveCoverageTaint"],
            },
        ),
        // There it is skipped until the node changes; here it is tried again.
        ("nil instanceMetadata provided by InstanceV2", told("10.0.0.1"), unknown(), Waits),
        ("provided node IP address", told("10.0.0.1"), bare(), same_id(&[], BOTH_IN_ORDER)),
        ("provided node IP address is not valid", told("invalid-ip"), bare(), Waits),
        ("provided node IP address is not present", told("10.0.0.2"), bare(), Waits),
        (
            "provider ID already set",
            known("test-provider-id"),
            here(instance("another-id", FROM_CLOUD)),
            same_id(&[], FROM_CLOUD),
        ),
        // There a provider of the older interface may do without; here nothing would identify the instance.
        ("provider ID not implemented", node0(), here(instance("", &[])), Waits),
        ("[instanceV2] provider ID not implemented", node0(), here(instance("", &[])), Waits),
        (
            "[instanceV2] provided additional labels",
            told("10.0.0.1"),
            here(in_zone(&[("topology.k8s.cp/zone-id", "az1"), ("my.custom.label/foo", "bar")], WITHOUT_NAME)),
            same_id(&[ZONES, &[("topology.k8s.cp/zone-id", "az1"), ("my.custom.label/foo", "bar")]], BOTH_IN_ORDER),
        ),
        (
            "[instanceV2] provided additional labels with labels to discard",
            labelled,
            here(discarded),
            same_id(&[ZONES, &[("app.k8snio/bar", "foo"), ("k8snio/bar", "foo")]], BOTH_IN_ORDER),
        ),
        ("[instanceV2] error getting InstanceMetadata", node0(), unknown(), Waits),
    ];
    for (row, node, found, then) in rows {
        check(row, &node, &found, &then);
    }
}

fn check(row: &str, node: &NodeView, found: &Found, then: &Then) {
    assert_eq!(is_uninitialized(node), !matches!(then, Ignored), "{row}");
    let plan = match found {
        Found::Here(instance) => initialise(node, instance).ok(),
        _ => None,
    };
    let Initialised { provider_id, labels, addresses, taints } = then else {
        assert!(plan.is_none() || matches!(then, Ignored), "{row}: {plan:?}");
        return;
    };
    let plan = plan.unwrap_or_else(|| panic!("{row}: it stays tainted"));
    let written = plan.patch.pointer("/spec/providerID").and_then(|id| id.as_str());
    assert_eq!(written, *provider_id, "{row}: providerID");
    let expected: BTreeMap<&str, &str> = labels.iter().copied().flatten().copied().collect();
    assert_eq!(plan.patch["metadata"]["labels"], serde_json::json!(expected), "{row}: labels");
    let left = plan.patch["spec"]["taints"].as_array().unwrap().iter().map(|taint| taint["key"].as_str().unwrap());
    assert_eq!(left.collect::<Vec<_>>(), *taints, "{row}: taints");
    assert_eq!(plan.addresses.as_deref(), Some(&*list(addresses)), "{row}: addresses");
}

#[test]
fn reconcile_node_labels() {
    const BETA: Pairs = &[
        ("failure-domain.beta.kubernetes.io/zone", "foo"),
        ("failure-domain.beta.kubernetes.io/region", "bar"),
        ("beta.kubernetes.io/instance-type", "the-best-type"),
    ];
    const STABLE: Pairs = &[
        ("topology.kubernetes.io/zone", "foo"),
        ("topology.kubernetes.io/region", "bar"),
        ("node.kubernetes.io/instance-type", "the-best-type"),
    ];
    const WRONG: Pairs = &[
        ("topology.kubernetes.io/zone", "wrongfoo"),
        ("topology.kubernetes.io/region", "wrongbar"),
        ("node.kubernetes.io/instance-type", "the-wrong-type"),
    ];
    for (row, more, written) in [
        ("requires reconcile", &[] as Pairs, STABLE),
        ("doesn't require reconcile", STABLE, &[]),
        ("require reconcile -- secondary labels are different from primary", WRONG, STABLE),
    ] {
        let node = NodeView { labels: BETA.iter().chain(more).copied().collect(), ..NodeView::named("node01") };
        let expected: BTreeMap<&str, &str> = written.iter().copied().collect();
        assert_eq!(serde_json::json!(stale_labels(&node)), serde_json::json!(expected), "{row}");
    }
}

#[test]
fn node_addresses_change_detected() {
    let (internal, external, name) =
        (("InternalIP", "10.0.0.1"), ("ExternalIP", "132.143.154.164"), ("Hostname", "hostname.zone.region.aws.test"));
    type Listed = Vec<(&'static str, &'static str)>;
    let rows: [(&str, Listed, Listed, bool); 5] = [
        ("the same", vec![internal, external], vec![internal, external], false),
        ("another address", vec![internal, external], vec![internal, ("ExternalIP", "132.143.154.163")], true),
        ("one less", vec![internal, external, name], vec![internal, external], true),
        ("one more", vec![internal, external], vec![internal, external, name], true),
        (
            "types swapped",
            vec![("ExternalIP", "10.0.0.1"), ("InternalIP", "132.143.154.163")],
            vec![internal, ("ExternalIP", "132.143.154.163")],
            true,
        ),
    ];
    let all = |pairs: &[(&str, &str)]| -> Vec<Address> {
        pairs.iter().map(|(kind, address)| Address { kind: (*kind).into(), address: (*address).into() }).collect()
    };
    for (row, one, other, changed) in rows {
        assert_eq!(differ(&all(&one), &all(&other)), changed, "{row}");
    }
}

/// Upstream has it twice, once for each interface.
#[test]
fn node_addresses_not_update() {
    let schemes = ["fake".to_owned()];
    let done = NodeView { provider_id: Some("fake://12345".into()), ..NodeView::named("node0") };
    let waits = NodeView { provider_id: Some("fake://12345".into()), ..node0() };
    assert!(is_compared(&done, &schemes));
    assert!(!is_compared(&waits, &schemes), "a node that waits for its cloud is not compared");
    // What the comparison would have found.
    assert!(addresses(&waits, &instance("fake://12345", FROM_CLOUD)).unwrap().is_some());
}

#[test]
fn get_instance_metadata() {
    let own = |id: Option<&str>| NodeView { provider_id: id.map(Into::into), ..node0() };
    for (row, node, from_cloud, expected) in [
        ("cloud implemented with Instances and provider ID", own(None), "fake://12345", Some("fake://12345")),
        // There nodes may do without a providerID.
        ("cloud implemented with Instances (providerID not implemented)", own(None), "", None),
        (
            "cloud implemented with Instances (providerID not implemented) and node with providerID",
            own(Some("fake://asdasd")),
            "",
            Some("fake://asdasd"),
        ),
        ("cloud implemented with InstancesV2 (with providerID)", own(None), "fake://12345", Some("fake://12345")),
        ("cloud implemented with InstancesV2 (without providerID)", own(None), "", None),
        (
            "cloud implemented with InstancesV2 (without providerID) and node with providerID",
            own(Some("fake://12345")),
            "",
            Some("fake://12345"),
        ),
    ] {
        let plan = initialise(&node, &instance(from_cloud, FROM_CLOUD)).ok();
        let written =
            plan.map(|plan| plan.patch.pointer("/spec/providerID").and_then(|id| id.as_str().map(str::to_owned)));
        let id = written.map(|written| written.or_else(|| node.provider_id.as_deref().map(str::to_owned)).unwrap());
        assert_eq!(id.as_deref(), expected, "{row}");
    }
}

/// There 100 nodes are 100 calls, whatever the number of workers; here they are one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_node_status() {
    for (row, nodes) in [("single thread", 1), ("5 workers", 5), ("10 workers", 10), ("30 workers", 100)] {
        let sim = Arc::new(Sim::default());
        let nodes: Vec<NodeView> = (0..nodes)
            .map(|index| {
                let name = format!("node0{index}");
                let id = sim.command(Command::AddInstance(NewInstance::named(&name))).unwrap().id;
                NodeView { provider_id: Some(id.as_str().into()), ..NodeView::named(&name) }
            })
            .collect();
        let cloud = Cloud::of(vec![("sim", Arc::clone(&sim) as SharedProvider)], "cluster");
        let refs: Vec<_> = nodes.iter().map(node_ref).collect();
        let seen = cloud.providers()[0].look_up(&refs, Duration::from_secs(30)).await.unwrap();
        assert!(seen.len() == nodes.len() && seen.iter().all(|one| one.lookup.is_ok()), "{row}");
        let calls = sim.calls().iter().filter(|call| call.method == "instances.get_many").count();
        assert_eq!(calls, 1, "{row}");
    }
}
