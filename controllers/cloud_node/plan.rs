//! What a node gets from its instance. Pure.
//!
//! Behaviour: k8s.io/cloud-provider:controllers/node/node_controller.go and node/helpers v0.36.3.

use std::net::IpAddr;

use quarterdeck_cloud::model::{AddressKind, Instance};
use quarterdeck_cloud::nodes::scheme;
use quarterdeck_runtime::view::{Address, NodeView, Taint, intern};
use serde_json::{Map, Value, json};

/// Taint of a node that waits for its cloud.
pub(super) const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Labels of an instance's properties: the stable key, then the one before it.
const TYPE: [&str; 2] = ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"];
const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];

/// Why a node does not get what its instance has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Without a providerID nothing identifies the instance, and nobody would ever set it later.
    #[error("the cloud names no providerID for it")]
    NoProviderId,
    /// The annotation is no address or pair of addresses.
    #[error(
        "annotation {key} is {value:?}, expected one address or an IPv4 and an IPv6 one: {reason}",
        key = NodeView::PROVIDED_IP
    )]
    BadProvidedIp {
        /// What it says.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The annotation names an address that the instance does not have.
    #[error("annotation {key} names {ip}, which is none of the instance's addresses", key = NodeView::PROVIDED_IP)]
    ForeignProvidedIp {
        /// The address.
        ip: IpAddr,
    },
}

/// What is written to a node that waits for its cloud.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Initialisation {
    /// Merge patch: providerID, labels, and the taints that stay.
    pub(super) patch: Value,
    /// `status.addresses`, if they change.
    pub(super) addresses: Option<Vec<Address>>,
    /// Labels of the provider that are not set, each with the reason.
    pub(super) discarded: Vec<String>,
}

/// Whether the node waits for its cloud.
pub(super) fn is_uninitialized(node: &NodeView) -> bool {
    node.taint(UNINITIALIZED).is_some()
}

/// Whether the addresses of a node are compared with what a cloud with these schemes says.
pub(super) fn is_compared(node: &NodeView, schemes: &[String]) -> bool {
    let scheme = node.provider_id.as_deref().map(scheme);
    let is_own = scheme.is_some_and(|scheme| schemes.iter().any(|own| own == scheme));
    is_own && !node.deleting && !is_uninitialized(node)
}

/// What a node that waits for its cloud gets from its instance.
pub(super) fn initialise(node: &NodeView, instance: &Instance) -> Result<Initialisation, Refusal> {
    let addresses = addresses(node, instance)?;
    if node.provider_id.is_none() && instance.provider_id.is_empty() {
        return Err(Refusal::NoProviderId);
    }
    let (labels, discarded) = labels(node, instance);
    let taints: Vec<&Taint> = node.taints.iter().filter(|taint| &*taint.key != UNINITIALIZED).collect();
    let mut patch = json!({ "metadata": { "labels": labels }, "spec": { "taints": taints } });
    if node.provider_id.is_none() {
        patch["spec"]["providerID"] = json!(instance.provider_id);
    }
    Ok(Initialisation { patch, addresses, discarded })
}

/// The labels to set, and those of the provider that are not.
fn labels(node: &NodeView, instance: &Instance) -> (Map<String, Value>, Vec<String>) {
    let (mut set, mut discarded) = (Map::new(), Vec::new());
    for (keys, value) in [(TYPE, &instance.instance_type), (ZONE, &instance.zone), (REGION, &instance.region)] {
        if value.is_empty() {
            continue;
        }
        if !is_label_value(value) {
            discarded.push(format!("{}={value}: not the value of a label", keys[0]));
            continue;
        }
        set.extend(keys.map(|key| (key.to_owned(), json!(value))));
    }
    for (key, value) in &instance.labels {
        let reason = match node.labels.get(key) {
            _ if is_kubernetes_own(key) => "the key is in a domain of Kubernetes' own",
            Some(present) if present == value => continue,
            Some(_) => "the node has it with another value",
            None if !is_label_key(key) => "not the key of a label",
            None if !is_label_value(value) => "not the value of a label",
            None => {
                set.insert(key.clone(), json!(value));
                continue;
            }
        };
        discarded.push(format!("{key}={value}: {reason}"));
    }
    (set, discarded)
}

/// Whether a label's domain is `kubernetes.io`, `k8s.io`, or in one of them.
fn is_kubernetes_own(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

fn is_name(text: &str, longest: usize) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= longest && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value, 63)
}

fn is_label_key(key: &str) -> bool {
    let domain_label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    match key.split_once('/') {
        Some((domain, name)) => domain.len() <= 253 && domain.split('.').all(domain_label) && is_name(name, 63),
        None => is_name(key, 63),
    }
}

/// Labels that have to change so that the stable one of each pair says what the beta one says: upstream takes the
/// beta one for the truth.
pub(super) fn stale_labels(node: &NodeView) -> Map<String, Value> {
    let mut stale = Map::new();
    for [stable, beta] in [ZONE, REGION, TYPE] {
        if let Some(value) = node.labels.get(beta)
            && node.labels.get(stable) != Some(value)
        {
            stale.insert(stable.to_owned(), json!(value));
        }
    }
    stale
}

/// What `status.addresses` should be; `None` if it is that, or the provider names no address.
pub(super) fn addresses(node: &NodeView, instance: &Instance) -> Result<Option<Vec<Address>>, Refusal> {
    let mut wanted: Vec<Address> = Vec::with_capacity(instance.addresses.len() + 1);
    for address in &instance.addresses {
        let address = Address { kind: intern(address.kind.as_str()), address: address.address.as_str().into() };
        if !wanted.contains(&address) {
            wanted.push(address);
        }
    }
    if wanted.is_empty() {
        return match node.annotations.get(NodeView::PROVIDED_IP) {
            Some(text) => enforce(text, Vec::new()).map(|_| None),
            None => Ok(None),
        };
    }
    let hostname = AddressKind::Hostname.as_str();
    if !wanted.iter().any(|address| &*address.kind == hostname) {
        // The kubelet's own word.
        wanted.extend(node.addresses.iter().filter(|address| &*address.kind == hostname).cloned());
    }
    if let Some(text) = node.annotations.get(NodeView::PROVIDED_IP) {
        wanted = enforce(text, wanted)?;
    }
    Ok(Some(wanted).filter(|wanted| differ(&node.addresses, wanted)))
}

/// Whether two lists differ: which addresses of a type there are, and their order, count; the order of types does not.
pub(super) fn differ(present: &[Address], wanted: &[Address]) -> bool {
    let by_type = |list: &[Address]| {
        let mut list: Vec<Address> = list.to_vec();
        list.sort_by(|a, b| a.kind.cmp(&b.kind));
        list
    };
    by_type(present) != by_type(wanted)
}

/// Puts the addresses that the kubelet was told to use first, and drops others of their types.
fn enforce(text: &str, from_cloud: Vec<Address>) -> Result<Vec<Address>, Refusal> {
    let ips = provided_ips(text)?;
    let mut enforced = Vec::with_capacity(from_cloud.len());
    for ip in ips {
        let before = enforced.len();
        enforced.extend(from_cloud.iter().filter(|address| parsed(address) == Some(ip)).cloned());
        if enforced.len() == before {
            return Err(Refusal::ForeignProvidedIp { ip });
        }
    }
    let types: Vec<_> = enforced.iter().map(|address| address.kind.clone()).collect();
    enforced.extend(from_cloud.into_iter().filter(|address| !types.contains(&address.kind)));
    Ok(enforced)
}

fn parsed(address: &Address) -> Option<IpAddr> {
    address.address.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn provided_ips(text: &str) -> Result<Vec<IpAddr>, Refusal> {
    let bad = |reason: String| Refusal::BadProvidedIp { value: text.to_owned(), reason };
    let ips: Vec<IpAddr> = text
        .split(',')
        .map(|ip| ip.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| bad(format!("{ip:?} is no address"))))
        .collect::<Result<_, _>>()?;
    match ips[..] {
        [_] => Ok(ips),
        [one, other] if one.is_ipv6() == other.is_ipv6() => Err(bad("both are of one family".to_owned())),
        [one, other] if one.is_unspecified() || other.is_unspecified() => {
            Err(bad("one of a pair cannot stand for any address".to_owned()))
        }
        [_, _] => Ok(ips),
        _ => Err(bad(format!("there are {}", ips.len()))),
    }
}
