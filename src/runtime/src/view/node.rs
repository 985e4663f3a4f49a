//! What controllers read of a Node.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::common::{Labels, Ready, Text, WireMeta, or_default, text_bytes};
use crate::object::{Cached, Kind, ObjectKey, Typed};

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
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
    /// `status.allocatable.cpu` in millicores, 0 if unset; topology hints weigh zones by it.
    pub allocatable_cpu_milli: u64,
}

impl NodeView {
    pub(super) fn heap_bytes(&self) -> usize {
        text_bytes(self.key.name()) + text_bytes(&self.uid) + self.resource_version.len() + 32 * self.labels.len()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    metadata: WireMeta<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    status: WireStatus<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus<'a> {
    conditions: Ready,
    #[serde(borrow, deserialize_with = "or_default")]
    allocatable: WireAllocatable<'a>,
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
        let meta = wire.metadata;
        Ok(Self {
            key: meta.key()?,
            uid: (*meta.uid).into(),
            resource_version: (*meta.resource_version).into(),
            labels: meta.labels,
            deleting: meta.deletion_timestamp,
            ready: wire.status.conditions.is_true,
            allocatable_cpu_milli: milli(&wire.status.allocatable.cpu).unwrap_or(0),
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
            r#"{"metadata":{"name":"n1","uid":"u","resourceVersion":"9","labels":{"topology.kubernetes.io/zone":"z"}},
            "spec":{"podCIDR":"10.0.0.0/24"},"status":{"allocatable":{"cpu":"3920m","memory":"1Gi"},
            "conditions":[{"type":"DiskPressure","status":"True"},{"type":"Ready","status":"True"}],
            "images":[{"names":["a"],"sizeBytes":1}]}}"#,
        )
        .unwrap();
        let expected = NodeView {
            key: ObjectKey::cluster("n1"),
            uid: "u".into(),
            resource_version: "9".into(),
            labels: [("topology.kubernetes.io/zone", "z")].into_iter().collect(),
            deleting: false,
            ready: true,
            allocatable_cpu_milli: 3920,
        };
        assert_eq!(read, expected);
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
