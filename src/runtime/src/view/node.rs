//! What controllers read of a Node.

use std::sync::Arc;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::common::{Labels, Seconds, Text, each, key, or_default, present, text_bytes};
use super::intern::intern;
use crate::object::{Cached, Kind, ObjectKey, Typed};

/// Annotations that are kept: the address that the kubelet was told to use, and the account of the cloud in which the
/// node's instance was found.
const KEPT_ANNOTATIONS: [&str; 1] = [NodeView::PROVIDED_IP];

/// What controllers read of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Name; nodes have no namespace.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`, those that some controller reads.
    pub annotations: Labels,
    /// `metadata.creationTimestamp`, in seconds since 1970; 0 if unset.
    pub created: i64,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.providerID`.
    pub provider_id: Option<Arc<str>>,
    /// `spec.podCIDRs`, or `spec.podCIDR` alone, as they stand there.
    pub pod_cidrs: Box<[Box<str>]>,
    /// `spec.taints`, whole: who changes one has to write all of them.
    pub taints: Box<[Taint]>,
    /// `status.addresses`, in their order.
    pub addresses: Box<[Address]>,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
    /// When the status of the condition `Ready` last changed, in seconds since 1970.
    pub ready_changed: Option<i64>,
    /// The condition `NetworkUnavailable`.
    pub network_unavailable: Option<Condition>,
    /// `status.allocatable.cpu` in millicores, 0 if unset; topology hints weigh zones by it.
    pub allocatable_cpu_milli: u64,
}

/// One entry of `spec.taints`; serializes as it stands there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// `key`.
    #[serde(deserialize_with = "shared")]
    pub key: Arc<str>,
    /// `value`, may be empty.
    #[serde(default, deserialize_with = "shared", skip_serializing_if = "str::is_empty")]
    pub value: Arc<str>,
    /// `effect`.
    #[serde(default, deserialize_with = "shared")]
    pub effect: Arc<str>,
    /// `timeAdded`, as the server wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Box<str>>,
}

/// One entry of `status.addresses`; serializes as it stands there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Address {
    /// `type`, such as `InternalIP`.
    #[serde(rename = "type", deserialize_with = "shared")]
    pub kind: Arc<str>,
    /// `address`.
    #[serde(default, deserialize_with = "shared")]
    pub address: Arc<str>,
}

/// A condition of `status.conditions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `status`: `True`, `False` or `Unknown`.
    pub status: Arc<str>,
    /// `reason`, may be empty.
    pub reason: Arc<str>,
}

impl NodeView {
    /// Annotation with the address, or two, that the kubelet was told to use
    /// (k8s.io/cloud-provider:api/well_known_annotations.go v0.36.3).
    pub const PROVIDED_IP: &'static str = "alpha.kubernetes.io/provided-node-ip";

    /// A node of this name of which nothing is known, for tests to fill in.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            key: ObjectKey::cluster(name),
            uid: "".into(),
            resource_version: "".into(),
            labels: Labels::default(),
            annotations: Labels::default(),
            created: 0,
            deleting: false,
            provider_id: None,
            pod_cidrs: Box::default(),
            taints: Box::default(),
            addresses: Box::default(),
            ready: false,
            ready_changed: None,
            network_unavailable: None,
            allocatable_cpu_milli: 0,
        }
    }

    /// The taint with this key, whatever its effect.
    #[must_use]
    pub fn taint(&self, key: &str) -> Option<&Taint> {
        self.taints.iter().find(|taint| &*taint.key == key)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        // Keys, values and effects of taints, types of addresses and lone labels are shared.
        let taints =
            self.taints.iter().map(|taint| size_of::<Taint>() + taint.time_added.as_deref().map_or(0, str::len));
        let addresses = self.addresses.iter().map(|address| size_of::<Address>() + text_bytes(&address.address));
        text_bytes(self.key.name())
            + text_bytes(&self.uid)
            + self.resource_version.len()
            + 32 * (self.labels.len() + self.annotations.len())
            + self.provider_id.as_deref().map_or(0, text_bytes)
            + self.pod_cidrs.iter().map(|cidr| size_of::<Box<str>>() + cidr.len()).sum::<usize>()
            + taints.chain(addresses).sum::<usize>()
    }
}

/// A text of which there is one copy.
fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    Text::deserialize(deserializer).map(|text| intern(&text))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    metadata: WireMeta<'a>,
    #[serde(deserialize_with = "or_default")]
    spec: WireSpec,
    #[serde(borrow, deserialize_with = "or_default")]
    status: WireStatus<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    resource_version: Text<'a>,
    labels: Labels,
    annotations: Kept,
    creation_timestamp: Option<Seconds>,
    #[serde(deserialize_with = "present")]
    deletion_timestamp: bool,
}

/// The annotations that are kept; the others are never built.
#[derive(Default)]
struct Kept(Labels);

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Kept;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kept, A::Error> {
                let mut kept: Vec<(&str, Text<'de>)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    kept.extend(KEPT_ANNOTATIONS.into_iter().find(|wanted| **wanted == *key).map(|key| (key, value)));
                }
                Ok(Kept(kept.iter().map(|(key, value)| (*key, &**value)).collect()))
            }

            fn visit_unit<E: Error>(self) -> Result<Kept, E> {
                Ok(Kept::default())
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSpec {
    #[serde(rename = "providerID", deserialize_with = "or_default")]
    provider_id: Box<str>,
    #[serde(rename = "podCIDR", deserialize_with = "or_default")]
    pod_cidr: Box<str>,
    #[serde(rename = "podCIDRs", deserialize_with = "or_default")]
    pod_cidrs: Box<[Box<str>]>,
    #[serde(deserialize_with = "or_default")]
    taints: Box<[Taint]>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus<'a> {
    #[serde(deserialize_with = "or_default")]
    addresses: Box<[Address]>,
    conditions: Conditions,
    #[serde(borrow, deserialize_with = "or_default")]
    allocatable: WireAllocatable<'a>,
}

/// One entry of `status.conditions`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireCondition<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    status: Text<'a>,
    #[serde(borrow)]
    reason: Text<'a>,
    last_transition_time: Option<Seconds>,
}

/// The conditions that are kept.
#[derive(Default)]
struct Conditions {
    ready: bool,
    ready_changed: Option<i64>,
    network_unavailable: Option<Condition>,
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut kept = Self::default();
        each(deserializer, |condition: WireCondition<'de>| match &*condition.kind {
            "Ready" => {
                kept.ready = &*condition.status == "True";
                kept.ready_changed = condition.last_transition_time.map(|time| time.0);
            }
            "NetworkUnavailable" => {
                let (status, reason) = (intern(&condition.status), intern(&condition.reason));
                kept.network_unavailable = Some(Condition { status, reason });
            }
            _ => {}
        })?;
        Ok(kept)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireAllocatable<'a> {
    #[serde(borrow)]
    cpu: Text<'a>,
}

impl<'de> Deserialize<'de> for NodeView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let (meta, spec, status) = (wire.metadata, wire.spec, wire.status);
        let pod_cidrs = match spec.pod_cidrs {
            none if none.is_empty() && !spec.pod_cidr.is_empty() => Box::new([spec.pod_cidr]),
            cidrs => cidrs,
        };
        Ok(Self {
            key: key("", &meta.name)?,
            uid: (*meta.uid).into(),
            resource_version: (*meta.resource_version).into(),
            labels: meta.labels,
            annotations: meta.annotations.0,
            created: meta.creation_timestamp.map_or(0, |time| time.0),
            deleting: meta.deletion_timestamp,
            provider_id: Some(spec.provider_id).filter(|id| !id.is_empty()).map(Arc::from),
            pod_cidrs,
            taints: spec.taints,
            addresses: status.addresses,
            ready: status.conditions.ready,
            ready_changed: status.conditions.ready_changed,
            network_unavailable: status.conditions.network_unavailable,
            allocatable_cpu_milli: milli(&status.allocatable.cpu).unwrap_or(0),
        })
    }
}

/// A quantity in thousandths, rounded up as upstream's `MilliValue` does (apimachinery
/// `pkg/api/resource/quantity.go`); `None` when it is negative or not a quantity.
fn milli(quantity: &str) -> Option<u64> {
    let number = quantity.trim_start_matches('+');
    let digits = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (mantissa, suffix) = number.split_at(digits);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    let unscaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (binary, decimal) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    let scaled = unscaled.checked_mul(1_u128 << binary)?;
    let power = decimal.checked_add(3)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let ten = 10_u128.checked_pow(power.unsigned_abs());
    let value = match (power >= 0, ten) {
        (true, Some(ten)) => scaled.checked_mul(ten)?,
        (true, None) => return None,
        (false, Some(ten)) => scaled.div_ceil(ten),
        (false, None) => u128::from(scaled > 0),
    };
    u64::try_from(value).ok()
}

impl Cached for NodeView {
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

impl Typed for NodeView {
    fn kind() -> Kind {
        Kind::of::<k8s_openapi::api::core::v1::Node>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_controllers_need() {
        let read: NodeView = serde_json::from_str(
            r#"{"metadata":{"name":"n1","uid":"u","resourceVersion":"9","labels":{"topology.kubernetes.io/zone":"z"},
                "creationTimestamp":"1970-01-01T00:01:00Z",
                "annotations":{"else":"x",
                    "alpha.kubernetes.io/provided-node-ip":"10.0.0.1"}},
            "spec":{"podCIDR":"10.0.0.0/24","podCIDRs":["10.0.0.0/24","fd00::/64"],"providerID":"sim://1",
                "taints":[{"key":"k","effect":"NoSchedule","timeAdded":"1970-01-01T00:01:00Z"},
                    {"key":"v","value":"1","effect":"NoExecute"}]},
            "status":{"allocatable":{"cpu":"3920m","memory":"1Gi"},
            "addresses":[{"type":"InternalIP","address":"10.0.0.1"},{"type":"InternalIP","address":"fd00::1"}],
            "conditions":[{"type":"DiskPressure","status":"True"},
                {"type":"Ready","status":"True","lastTransitionTime":"1970-01-01T00:00:05Z"},
                {"type":"NetworkUnavailable","status":"False","reason":"RouteCreated"}],
            "images":[{"names":["a"],"sizeBytes":1}]}}"#,
        )
        .unwrap();
        let address = |address: &str| Address { kind: "InternalIP".into(), address: address.into() };
        let expected = NodeView {
            uid: "u".into(),
            resource_version: "9".into(),
            labels: [("topology.kubernetes.io/zone", "z")].into_iter().collect(),
            annotations: [(NodeView::PROVIDED_IP, "10.0.0.1")].into_iter().collect(),
            created: 60,
            provider_id: Some("sim://1".into()),
            pod_cidrs: ["10.0.0.0/24".into(), "fd00::/64".into()].into(),
            taints: [
                Taint {
                    key: "k".into(),
                    value: "".into(),
                    effect: "NoSchedule".into(),
                    time_added: Some("1970-01-01T00:01:00Z".into()),
                },
                Taint { key: "v".into(), value: "1".into(), effect: "NoExecute".into(), time_added: None },
            ]
            .into(),
            addresses: [address("10.0.0.1"), address("fd00::1")].into(),
            ready: true,
            ready_changed: Some(5),
            network_unavailable: Some(Condition { status: "False".into(), reason: "RouteCreated".into() }),
            allocatable_cpu_milli: 3920,
            ..NodeView::named("n1")
        };
        assert_eq!(read, expected);
        let written = serde_json::to_value(&read.taints).unwrap();
        let taints = serde_json::json!([
            {"key": "k", "effect": "NoSchedule", "timeAdded": "1970-01-01T00:01:00Z"},
            {"key": "v", "value": "1", "effect": "NoExecute"},
        ]);
        assert_eq!(written, taints, "taints are written back as they were");
    }

    #[test]
    fn what_is_null_or_missing_reads_as_empty() {
        let read: NodeView = serde_json::from_str(
            r#"{"metadata":{"name":"n1","annotations":null},
            "spec":{"podCIDR":"10.0.0.0/24","taints":null,"providerID":""},
            "status":{"addresses":null}}"#,
        )
        .unwrap();
        assert_eq!(read, NodeView { pod_cidrs: ["10.0.0.0/24".into()].into(), ..NodeView::named("n1") });
    }

    #[test]
    fn quantities_are_thousandths_rounded_up() {
        let cases = [
            ("4", Some(4000)),
            ("3920m", Some(3920)),
            ("1.5", Some(1500)),
            ("0.0001", Some(1)),
            ("100u", Some(1)),
            ("2k", Some(2_000_000)),
            ("1Ki", Some(1_024_000)),
            ("1e2", Some(100_000)),
            ("15E-1", Some(1500)),
            ("+1", Some(1000)),
            ("", None),
            (".", None),
            ("-1", None),
            ("4x", None),
            ("1e99", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(text), expected, "{text:?}");
        }
    }
}
