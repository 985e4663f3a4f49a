//! What a Service asks of its load balancer.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use quarterdeck_api::cloud::range::canonical;
use quarterdeck_cloud::model::{ClusterId, ExternalTraffic, LoadBalancerSpec, Owner, Port, Protocol};
use sha2::{Digest as _, Sha256};

use super::complaint::{Complaint, Reason};
use super::record::RECORD;

/// Annotation: addresses that the load balancer has to have, one of each family at most, with commas between them.
pub(super) const ADDRESSES: &str = "quarterdeck.dev/load-balancer-ips";
/// Annotation: the `AddressPool` that its addresses come from.
pub(super) const POOL: &str = "quarterdeck.dev/address-pool";
/// Annotation: a key; Services with the same one may share an address.
pub(super) const SHARING_KEY: &str = "quarterdeck.dev/allow-shared-ip";
/// Upstream's annotation beside `spec.loadBalancerSourceRanges`.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// What `kubectl apply` writes; no provider's business.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How long a client sticks to a backend unless the Service says otherwise.
const AFFINITY_SECONDS: i32 = 10_800;
/// A source range from which nobody connects.
const NOBODY: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32));

/// What a Service asks of its load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The load balancer, without addresses and backends.
    pub(super) spec: LoadBalancerSpec,
    /// Addresses that are asked for, at most one of each family; or why what is asked for makes no sense.
    pub(super) requested: Result<Vec<IpAddr>, BadWish>,
    /// What else makes no sense. Nothing may be made of this wish then; [`Self::spec`] serves for calls that change
    /// nothing but backends.
    pub(super) nonsense: Option<BadWish>,
    /// Pool that is asked for.
    pub(super) pool: Option<String>,
    /// Key under which addresses may be shared; none where sharing is not possible.
    pub(super) sharing_key: Option<String>,
    /// Whether one family is as good as two.
    pub(super) one_family_will_do: bool,
}

/// What a Service asks for makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadWish {
    /// Text that is no address.
    #[error("{field}: {text:?} is not an IP address")]
    Address {
        /// Where it stands.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// An address of a family that the Service does not have.
    #[error("{field}: {address} is of no family in spec.ipFamilies")]
    Family {
        /// Where it stands.
        field: &'static str,
        /// The address.
        address: IpAddr,
    },
    /// Two addresses of one family.
    #[error("{field}: {address} is the second address of its family")]
    Second {
        /// Where it stands.
        field: &'static str,
        /// The address.
        address: IpAddr,
    },
    /// Text that is no CIDR.
    #[error("{field}: {text:?} is not a CIDR such as 192.0.2.0/24")]
    SourceRange {
        /// Where it stands.
        field: &'static str,
        /// The text.
        text: String,
    },
}

impl BadWish {
    /// As a Service is told of it.
    pub(super) fn complaint(&self) -> Complaint {
        let reason = match self {
            Self::SourceRange { .. } => Reason::InvalidSourceRange,
            _ => Reason::InvalidAddress,
        };
        Complaint::new(reason, self.to_string())
    }
}

/// The owner of a Service's load balancer.
pub(super) fn owner(service: &Service, cluster: &ClusterId) -> Owner {
    let meta = &service.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Owner { cluster: cluster.clone(), namespace: text(&meta.namespace), name: text(&meta.name), uid: text(&meta.uid) }
}

/// What this Service asks for.
pub(super) fn wish(service: &Service, cluster: &ClusterId) -> Wish {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let annotation = |key: &str| {
        let text = service.metadata.annotations.as_ref()?.get(key)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let external_traffic = match spec.external_traffic_policy.as_deref() {
        Some("Local") => ExternalTraffic::Local,
        _ => ExternalTraffic::Cluster,
    };
    let local = external_traffic == ExternalTraffic::Local;
    let families: Vec<bool> = match spec.ip_families.as_deref() {
        Some(families) if !families.is_empty() => families.iter().map(|family| family == "IPv6").collect(),
        _ => vec![false],
    };
    let mut annotations = service.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != RECORD && key != LAST_APPLIED);
    let requested = requested(annotation(ADDRESSES), spec, &families);
    let (source_ranges, nonsense) = match source_ranges(annotation(SOURCE_RANGES).as_deref(), spec) {
        Ok(ranges) => (ranges, None),
        // Closed, should anybody take it for what is wanted.
        Err(bad) => (vec![NOBODY], Some(bad)),
    };
    Wish {
        spec: LoadBalancerSpec {
            owner: owner(service, cluster),
            ports: spec.ports.iter().flatten().map(port).collect(),
            ipv6: families,
            addresses: Vec::new(),
            source_ranges,
            external_traffic,
            health_check_node_port: number(spec.health_check_node_port.filter(|_| local)),
            affinity: affinity(spec),
            annotations,
            backends: Vec::new(),
        },
        requested,
        nonsense,
        pool: annotation(POOL),
        // Nodes tell a Local Service's endpoints by a port of its own: two of them cannot be told apart at one address.
        sharing_key: annotation(SHARING_KEY).filter(|_| !local),
        one_family_will_do: spec.ip_family_policy.as_deref() == Some("PreferDualStack"),
    }
}

/// A digest of everything but the backends.
pub(super) fn digest(spec: &LoadBalancerSpec) -> String {
    let spec = LoadBalancerSpec { backends: Vec::new(), ..spec.clone() };
    let text = serde_json::to_vec(&spec).expect("texts and numbers are JSON");
    Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

fn requested(annotation: Option<String>, spec: &ServiceSpec, families: &[bool]) -> Result<Vec<IpAddr>, BadWish> {
    let of_spec = || spec.load_balancer_ip.clone().filter(|text| !text.trim().is_empty());
    let (field, text) = match (annotation, of_spec()) {
        (Some(text), _) => (ADDRESSES, text),
        (None, Some(text)) => ("spec.loadBalancerIP", text),
        (None, None) => return Ok(Vec::new()),
    };
    let mut all: Vec<IpAddr> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = plain(part).parse().map(canonical);
        let address = address.map_err(|_| BadWish::Address { field, text: part.to_owned() })?;
        if !families.contains(&address.is_ipv6()) {
            return Err(BadWish::Family { field, address });
        }
        if all.iter().any(|other| other.is_ipv6() == address.is_ipv6()) {
            return Err(BadWish::Second { field, address });
        }
        all.push(address);
    }
    Ok(all)
}

/// `spec.loadBalancerSourceRanges`, else upstream's annotation (cloud-provider:service/helpers/helper.go v0.36.3).
fn source_ranges(annotation: Option<&str>, spec: &ServiceSpec) -> Result<Vec<IpNet>, BadWish> {
    let listed = spec.load_balancer_source_ranges.clone().unwrap_or_default();
    let (field, texts) = if listed.is_empty() {
        (SOURCE_RANGES, annotation.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect())
    } else {
        ("spec.loadBalancerSourceRanges", listed)
    };
    let parse = |text: &String| {
        let net: Result<IpNet, _> = plain(text.trim()).parse();
        net.map(|net| net.trunc()).map_err(|_| BadWish::SourceRange { field, text: text.clone() })
    };
    let mut all = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Without leading zeros, which the server accepts in IPv4 addresses and prefixes of objects that have them already
/// (`k8s.io/utils:net/parse.go` `ParseCIDRSloppy`).
fn plain(text: &str) -> String {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" if digits(part) => "0".to_owned(),
        rest if digits(part) => rest.to_owned(),
        _ => part.to_owned(),
    };
    let address = if address.contains(':') {
        address.to_owned()
    } else {
        address.split('.').map(strip).collect::<Vec<_>>().join(".")
    };
    match prefix {
        Some(prefix) => format!("{address}/{}", strip(prefix)),
        None => address,
    }
}

fn port(port: &ServicePort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        port: number(Some(port.port)),
        node_port: number(port.node_port),
        app_protocol: port.app_protocol.clone().unwrap_or_default(),
    }
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn number(port: Option<i32>) -> u16 {
    port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn read(annotations: Value, mut spec: Value) -> Wish {
        spec["ports"] = json!([{ "port": 80, "nodePort": 30080 }, { "port": 53, "protocol": "UDP" }]);
        let metadata = json!({ "namespace": "a", "name": "web", "uid": "u", "annotations": annotations });
        let service: Service = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        wish(&service, &ClusterId("c".into()))
    }

    #[test]
    fn a_service_is_read() {
        let annotations = json!({ RECORD: "{}", LAST_APPLIED: "{}", "x": "y", SHARING_KEY: "k" });
        let wish = read(
            annotations.clone(),
            json!({
                "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack", "sessionAffinity": "ClientIP",
                "loadBalancerSourceRanges": ["10.0.0.1/8 ", "10.0.0.0/8"], "loadBalancerIP": "::ffff:192.0.2.1",
            }),
        );
        assert_eq!((wish.spec.owner.uid.as_str(), &wish.spec.ipv6[..]), ("u", &[true, false][..]));
        assert_eq!(wish.requested, Ok(vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(wish.nonsense, None);
        assert_eq!(wish.spec.source_ranges, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert_eq!(wish.spec.affinity, Some(Duration::from_secs(10_800)));
        assert_eq!(wish.spec.annotations.keys().collect::<Vec<_>>(), [SHARING_KEY, "x"]);
        assert_eq!((wish.sharing_key.as_deref(), wish.one_family_will_do), (Some("k"), true));
        let ports: Vec<_> = wish.spec.ports.iter().map(|port| (port.protocol, port.port, port.node_port)).collect();
        assert_eq!(ports, [(Protocol::Tcp, 80, 30080), (Protocol::Udp, 53, 0)]);
        let local = read(annotations, json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000 }));
        assert_eq!((local.sharing_key, local.spec.health_check_node_port), (None, 31000), "Local is not shared");
    }

    #[test]
    fn the_annotation_comes_before_the_field() {
        let both = json!({ ADDRESSES: "192.0.2.2, 2001:db8::2" });
        let spec = json!({ "ipFamilies": ["IPv4", "IPv6"], "loadBalancerIP": "192.0.2.1" });
        let requested = read(both, spec).requested.unwrap();
        assert_eq!(requested.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.2", "2001:db8::2"]);
    }

    #[test]
    fn leading_zeros_mean_nothing() {
        let spec = json!({ "loadBalancerIP": "192.000.002.010", "loadBalancerSourceRanges": ["010.0.0.0/08", "::/0"] });
        let wish = read(json!({}), spec);
        assert_eq!(wish.requested, Ok(vec!["192.0.2.10".parse().unwrap()]));
        let ranges: Vec<String> = wish.spec.source_ranges.iter().map(ToString::to_string).collect();
        assert_eq!((ranges, wish.nonsense), (vec!["10.0.0.0/8".to_owned(), "::/0".to_owned()], None));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let cases = [
            (json!({ ADDRESSES: "x" }), json!({}), r#"quarterdeck.dev/load-balancer-ips: "x" is not an IP address"#),
            (json!({ ADDRESSES: "2001:db8::1" }), json!({}), "no family"),
            (json!({ ADDRESSES: "192.0.2.1,192.0.2.2" }), json!({}), "second address"),
            (json!({}), json!({ "loadBalancerIP": "y" }), "spec.loadBalancerIP"),
            (json!({ SOURCE_RANGES: "10.0.0.0/8,z" }), json!({}), r#""z" is not a CIDR"#),
            (json!({}), json!({ "loadBalancerSourceRanges": ["1"] }), "spec.loadBalancerSourceRanges"),
        ];
        for (annotations, spec, part) in cases {
            let wish = read(annotations, spec);
            if wish.nonsense.is_some() {
                assert_eq!(wish.spec.source_ranges, [NOBODY], "closed rather than open");
            }
            let error = wish.nonsense.or(wish.requested.err()).unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_digest_is_of_all_but_the_backends() {
        let wish = read(json!({}), json!({}));
        let mut other = wish.spec.clone();
        other.backends.push(quarterdeck_cloud::model::Backend {
            name: "n".into(),
            provider_id: String::new(),
            addresses: Vec::new(),
        });
        assert_eq!(digest(&wish.spec), digest(&other));
        other.addresses.push("192.0.2.1".parse().unwrap());
        assert_ne!(digest(&wish.spec), digest(&other));
    }
}
