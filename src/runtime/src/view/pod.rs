//! What controllers read of a Pod.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::common::{Labels, Ready, Text, WireMeta, each, or_default, text_bytes};
use super::intern;
use crate::object::{Cached, Kind, ObjectKey, Typed};

/// A Pod's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PodPhase {
    /// Accepted, not all containers run yet.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well, for good.
    Succeeded,
    /// All containers ended, at least one of them badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A named container port, of a container or a restartable init container, in the order in which
/// upstream resolves names (containers, then restartable init containers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Port name; ports without a name are not kept.
    pub name: Arc<str>,
    /// Port number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// An address of a pod, in canonical form.
pub type PodIp = IpAddr;

/// What controllers read of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.nodeName`, none until scheduled.
    pub node: Option<Arc<str>>,
    /// `spec.hostname`, none when empty.
    pub hostname: Option<Arc<str>>,
    /// `spec.subdomain`, none when empty.
    pub subdomain: Option<Arc<str>>,
    /// Named ports, in order of resolution.
    pub ports: Box<[PortView]>,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
    /// When the condition `Ready` last changed, whole seconds since 1970; for the trigger-time
    /// annotation.
    pub ready_changed: Option<i64>,
    /// `metadata.creationTimestamp`, whole seconds since 1970.
    pub created: i64,
    /// `status.podIPs` (or `status.podIP` alone), in order; unparsable ones are left out.
    pub ips: Box<[PodIp]>,
}

/// An IP address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl PodView {
    /// The number of a named port; the first match in order of resolution counts (upstream's
    /// `FindPort`, kubernetes:pkg/api/v1/pod/util.go).
    #[must_use]
    pub fn named_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports.iter().find(|port| &*port.name == name && port.protocol == protocol).map(|port| port.port)
    }

    /// The first address of a family.
    #[must_use]
    pub fn ip_of_family(&self, family: IpFamily) -> Option<PodIp> {
        self.ips.iter().copied().find(|ip| IpFamily::of(*ip) == family)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let texts = text_bytes(self.key.name()) + text_bytes(&self.uid) + self.resource_version.len();
        texts + size_of_val(&*self.ports) + size_of_val(&*self.ips)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    metadata: WireMeta<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    spec: WireSpec<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    status: WireStatus<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSpec<'a> {
    #[serde(borrow)]
    node_name: Text<'a>,
    #[serde(borrow)]
    hostname: Text<'a>,
    #[serde(borrow)]
    subdomain: Text<'a>,
    #[serde(deserialize_with = "ports_of_containers")]
    containers: Vec<PortView>,
    #[serde(deserialize_with = "ports_of_init_containers")]
    init_containers: Vec<PortView>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireStatus<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    conditions: Ready,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Text<'a>,
    #[serde(rename = "podIPs")]
    pod_ips: Ips,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireContainer<'a> {
    ports: Ports,
    #[serde(borrow)]
    restart_policy: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WirePort<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(deserialize_with = "or_default")]
    container_port: u16,
    #[serde(borrow)]
    protocol: Text<'a>,
}

fn ports_of_containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PortView>, D::Error> {
    let mut all = Vec::new();
    each(deserializer, |mut container: WireContainer<'de>| all.append(&mut container.ports.0))?;
    Ok(all)
}

fn ports_of_init_containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PortView>, D::Error> {
    let mut all = Vec::new();
    each(deserializer, |mut container: WireContainer<'de>| {
        if &*container.restart_policy == "Always" {
            all.append(&mut container.ports.0);
        }
    })?;
    Ok(all)
}

#[derive(Default)]
struct Ports(Vec<PortView>);

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut named = Vec::new();
        each(deserializer, |port: WirePort<'de>| {
            if let (false, Some(protocol)) = (port.name.is_empty(), Protocol::parse(&port.protocol)) {
                named.push(PortView { name: intern(&port.name), port: port.container_port, protocol });
            }
        })?;
        Ok(Self(named))
    }
}

impl Protocol {
    /// The protocol as a port spells it; empty means TCP.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As a port spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

#[derive(Default)]
struct Ips(Vec<PodIp>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireIp<'a> {
    #[serde(borrow)]
    ip: Text<'a>,
}

impl<'de> Deserialize<'de> for Ips {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut ips = Vec::new();
        each(deserializer, |entry: WireIp<'de>| ips.extend(parse_ip(&entry.ip)))?;
        Ok(Self(ips))
    }
}

/// An address as Go's `ParseIPSloppy` reads it: IPv4 octets may have leading zeros, and an IPv4
/// address in IPv6 clothes is an IPv4 address.
fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    if parts.next().is_some() { None } else { Some(IpAddr::from(octets)) }
}

fn phase(text: &str) -> PodPhase {
    match text {
        "Running" => PodPhase::Running,
        "Succeeded" => PodPhase::Succeeded,
        "Failed" => PodPhase::Failed,
        "Unknown" => PodPhase::Unknown,
        _ => PodPhase::Pending,
    }
}

impl<'de> Deserialize<'de> for PodView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, mut spec, mut status } = Wire::deserialize(deserializer)?;
        spec.containers.append(&mut spec.init_containers);
        if status.pod_ips.0.is_empty() {
            status.pod_ips.0.extend(parse_ip(&status.pod_ip));
        }
        Ok(Self {
            key: metadata.key()?,
            uid: (*metadata.uid).into(),
            resource_version: (*metadata.resource_version).into(),
            labels: metadata.labels,
            deleting: metadata.deletion_timestamp,
            node: spec.node_name.interned(),
            hostname: spec.hostname.interned(),
            subdomain: spec.subdomain.interned(),
            ports: spec.containers.into(),
            phase: phase(&status.phase),
            ready: status.conditions.is_true,
            ready_changed: status.conditions.changed,
            created: metadata.creation_timestamp.map_or(0, |time| time.0),
            ips: status.pod_ips.0.into(),
        })
    }
}

impl Cached for PodView {
    fn key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }

    fn is_deleting(&self) -> bool {
        self.deleting
    }

    fn each_label(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self.labels.iter() {
            visit(key, value);
        }
    }
}

impl Typed for PodView {
    fn kind() -> Kind {
        Kind::of::<k8s_openapi::api::core::v1::Pod>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-1","generateName":"web-",
        "namespace":"a","uid":"11111111-2222-3333-4444-555555555555","resourceVersion":"4711",
        "creationTimestamp":"2026-01-02T03:04:05Z","labels":{"app":"web","tier":"front"},
        "managedFields":[{"manager":"kubelet","operation":"Update","fieldsV1":{"f:status":{"f:podIP":{}}}}]},
        "spec":{"nodeName":"n1","hostname":"h","subdomain":"s","volumes":[{"name":"v","emptyDir":{}}],
        "initContainers":[{"name":"once","ports":[{"name":"setup","containerPort":1}]},
        {"name":"side","restartPolicy":"Always","ports":[{"name":"admin","containerPort":9000,"protocol":"TCP"}]}],
        "containers":[{"name":"c","image":"i","env":[{"name":"X","value":"a \"quoted\" one"}],
        "ports":[{"name":"http","containerPort":8080},{"containerPort":1234},
        {"name":"dns","containerPort":53,"protocol":"UDP"},{"name":"dns","containerPort":54,"protocol":"TCP"}]},
        {"name":"d","ports":null}]},
        "status":{"phase":"Running","podIP":"10.0.0.7","podIPs":[{"ip":"10.0.0.7"},{"ip":"fd00::0007"}],
        "conditions":[{"type":"Initialized","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},
        {"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:09Z"}]}}"#;

    fn parse(json: &str) -> PodView {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn reads_what_controllers_need() {
        let port = |name: &str, port, protocol| PortView { name: name.into(), port, protocol };
        let expected = PodView {
            key: ObjectKey::new("a", "web-1"),
            uid: "11111111-2222-3333-4444-555555555555".into(),
            resource_version: "4711".into(),
            labels: [("app", "web"), ("tier", "front")].into_iter().collect(),
            deleting: false,
            node: Some("n1".into()),
            hostname: Some("h".into()),
            subdomain: Some("s".into()),
            ports: [
                port("http", 8080, Protocol::Tcp),
                port("dns", 53, Protocol::Udp),
                port("dns", 54, Protocol::Tcp),
                port("admin", 9000, Protocol::Tcp),
            ]
            .into(),
            phase: PodPhase::Running,
            ready: true,
            ready_changed: Some(1_767_323_049),
            created: 1_767_323_045,
            ips: ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()].into(),
        };
        assert_eq!(parse(POD), expected);
    }

    #[test]
    fn agrees_with_a_decode_through_a_value() {
        let value: serde_json::Value = serde_json::from_str(POD).unwrap();
        assert_eq!(serde_json::from_value::<PodView>(value).unwrap(), parse(POD));
    }

    #[test]
    fn ports_are_found_by_name_and_protocol() {
        let pod = parse(POD);
        assert_eq!(pod.named_port("dns", Protocol::Tcp), Some(54));
        assert_eq!(pod.named_port("dns", Protocol::Udp), Some(53));
        assert_eq!(pod.named_port("admin", Protocol::Tcp), Some(9000));
        assert_eq!(pod.named_port("setup", Protocol::Tcp), None);
        assert_eq!(pod.named_port("http", Protocol::Sctp), None);
    }

    #[test]
    fn addresses_are_found_by_family() {
        let pod = parse(POD);
        assert_eq!(pod.ip_of_family(IpFamily::V4), Some("10.0.0.7".parse().unwrap()));
        assert_eq!(pod.ip_of_family(IpFamily::V6), Some("fd00::7".parse().unwrap()));
        let old = parse(r#"{"metadata":{"name":"p"},"status":{"podIP":"10.0.0.9"}}"#);
        assert_eq!(*old.ips, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(old.ip_of_family(IpFamily::V6), None);
    }

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        let cases = [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.0.001", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("FD00:0:0::1", Some("fd00::1")),
            ("", None),
            ("10.0.0", None),
            ("10.0.0.256", None),
            ("10.0.0.+1", None),
            ("1.2.3.4.5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_ip(text).map(|ip| ip.to_string()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_bare_pod_reads_as_pending() {
        let pod = parse(r#"{"metadata":{"name":"p","creationTimestamp":null},"spec":{"containers":null},"status":{}}"#);
        assert_eq!((pod.phase, pod.ready, pod.node, pod.created), (PodPhase::Pending, false, None, 0));
    }

    #[test]
    fn a_wrong_type_is_an_error_that_says_where() {
        let error = serde_json::from_str::<PodView>(r#"{"metadata":{"name":7}}"#).unwrap_err();
        assert!(error.to_string().contains("expected a string"), "{error}");
    }
}
