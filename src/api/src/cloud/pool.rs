//! Addresses of load balancers: `AddressPool`, from which they are given, and `AddressReservation`, which says who has
//! one. A reservation is named after its address, so that the server lets an address be given once.

use std::net::IpAddr;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::range::{AddressRange, BadRange, canonical, merged};

/// The definition of `AddressPool`, as YAML.
pub const POOL_CRD: &str = include_str!("../../../../deploy/crds/addresspools.cloud.quarterdeck.dev.yaml");
/// The definition of `AddressReservation`, as YAML.
pub const RESERVATION_CRD: &str =
    include_str!("../../../../deploy/crds/addressreservations.cloud.quarterdeck.dev.yaml");
/// Type of the condition that says that a pool has nothing left.
pub const EXHAUSTED: &str = "Exhausted";
/// Type of the condition that says that entries of a pool cannot be read.
pub const INVALID: &str = "Invalid";

/// Addresses that load balancers may be given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AddressPool {
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What there is, and for whom.
    #[serde(default)]
    pub spec: AddressPoolSpec,
    /// What is used.
    #[serde(default)]
    pub status: Option<AddressPoolStatus>,
}

kind!(AddressPool, "addresspools", ClusterResourceScope);

/// What a pool has, and for whom.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// CIDRs, ranges `first-last` and single addresses, of either family.
    pub addresses: Vec<String>,
    /// Namespaces whose Services may have them; with none and no [`Self::namespace_selector`], all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Namespaces besides those named, by label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Services that may have them, by label; all if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<LabelSelector>,
    /// Whether Services get them without asking for this pool or for an address of it.
    pub auto_assign: bool,
}

impl Default for AddressPoolSpec {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            namespaces: Vec::new(),
            namespace_selector: None,
            service_selector: None,
            auto_assign: true,
        }
    }
}

/// What is used of a pool.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// `metadata.generation` that this was made of.
    pub observed_generation: i64,
    /// Addresses it has, `i64::MAX` for more than that.
    pub total: i64,
    /// Addresses of it that are reserved.
    pub used: i64,
    /// [`EXHAUSTED`] and [`INVALID`].
    pub conditions: Vec<Condition>,
}

impl AddressPoolSpec {
    /// Its ranges, each address once, and the entries that are none.
    #[must_use]
    pub fn ranges(&self) -> (Vec<AddressRange>, Vec<BadRange>) {
        let (mut ranges, mut bad) = (Vec::new(), Vec::new());
        for entry in &self.addresses {
            match entry.parse() {
                Ok(range) => ranges.push(range),
                Err(error) => bad.push(error),
            }
        }
        (merged(ranges), bad)
    }

    /// Whether a Service with these labels, in a namespace of this name and these labels, may have its addresses.
    #[must_use]
    pub fn serves(&self, namespace: &str, of_namespace: &Labels<'_>, of_service: &Labels<'_>) -> bool {
        let anywhere = self.namespaces.is_empty() && self.namespace_selector.is_none();
        let named = || self.namespaces.iter().any(|name| name == namespace);
        let selected = || self.namespace_selector.as_ref().is_some_and(|selector| selects(selector, of_namespace));
        (anywhere || named() || selected())
            && self.service_selector.as_ref().is_none_or(|selector| selects(selector, of_service))
    }
}

/// Looks a label up.
pub type Labels<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// Whether a selector selects these labels (apimachinery:pkg/apis/meta/v1/helpers.go v0.36.3); an operator that does not
/// exist selects nothing.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &Labels<'_>) -> bool {
    let equal = |(key, value): (&String, &String)| labels(key) == Some(value);
    selector.match_labels.iter().flatten().all(equal)
        && selector.match_expressions.iter().flatten().all(|term| {
            let values = term.values.as_deref().unwrap_or_default();
            let label = labels(&term.key);
            let among = |label: &str| values.iter().any(|value| value == label);
            match term.operator.as_str() {
                "In" => label.is_some_and(among),
                "NotIn" => !label.is_some_and(among),
                "Exists" => label.is_some(),
                "DoesNotExist" => label.is_none(),
                _ => false,
            }
        })
}

/// Says who has an address. Made before the address is used, and deleted when no load balancer has it any more.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AddressReservation {
    /// Standard metadata; the name is [`reservation_name`] of the address.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Who has it.
    #[serde(default)]
    pub spec: AddressReservationSpec,
    /// Never set: the kind has no status.
    #[serde(skip)]
    pub status: Option<()>,
}

kind!(AddressReservation, "addressreservations", ClusterResourceScope);

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AddressReservationSpec {
    /// The address.
    pub address: String,
    /// Pool that it was given from; empty if a Service asked for an address outside all pools.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// Provider, as in `--cloud-provider`, whose load balancers have it.
    pub provider: String,
    /// Key under which others may share it; empty: nobody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sharing_key: String,
    /// Services that have it.
    pub holders: Vec<Holder>,
}

/// A Service that has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Ports that it serves there.
    pub ports: Vec<HeldPort>,
}

/// A port at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeldPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: u16,
}

impl AddressReservationSpec {
    /// The address, unless somebody wrote nonsense.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.parse().ok().map(canonical)
    }

    /// The entry of the Service with this uid.
    #[must_use]
    pub fn holder(&self, uid: &str) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.uid == uid)
    }
}

/// Name of the reservation of an address: `192.0.2.1`, `2001-0db8-0000-0000-0000-0000-0000-0001`.
#[must_use]
pub fn reservation_name(address: IpAddr) -> String {
    match canonical(address) {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:04x}")).join("-"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(spec: Value) -> AddressPoolSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn an_address_has_one_name() {
        let name = |text: &str| reservation_name(text.parse().unwrap());
        assert_eq!(name("192.0.2.1"), "192.0.2.1");
        assert_eq!(name("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(name("2001:DB8::1"), "2001-0db8-0000-0000-0000-0000-0000-0001");
        assert_eq!(name("2001:db8:0::0:1"), name("2001:DB8::1"));
    }

    #[test]
    fn a_pool_serves_whom_it_names() {
        let serves = |spec: Value, namespace: &str| {
            let of_namespace = |key: &str| (key == "team").then_some("a");
            let of_service = |key: &str| (key == "tier").then_some("web");
            pool(spec).serves(namespace, &of_namespace, &of_service)
        };
        let selector = |key: &str, value: &str| json!({ "matchLabels": { key: value } });
        let term = |operator: &str, values: Value| json!({ "matchExpressions": [{ "key": "tier", "operator": operator, "values": values }] });
        let cases = [
            (json!({}), true),
            (json!({ "namespaces": ["x"] }), true),
            (json!({ "namespaces": ["y"] }), false),
            (json!({ "namespaces": ["y"], "namespaceSelector": selector("team", "a") }), true),
            (json!({ "namespaceSelector": selector("team", "b") }), false),
            (json!({ "namespaceSelector": {} }), true),
            (json!({ "serviceSelector": selector("tier", "web") }), true),
            (json!({ "serviceSelector": selector("tier", "db") }), false),
            (json!({ "namespaces": ["y"], "serviceSelector": selector("tier", "web") }), false),
            (json!({ "serviceSelector": term("In", json!(["web"])) }), true),
            (json!({ "serviceSelector": term("NotIn", json!(["web"])) }), false),
            (json!({ "serviceSelector": term("Exists", Value::Null) }), true),
            (json!({ "serviceSelector": term("DoesNotExist", Value::Null) }), false),
            (json!({ "serviceSelector": term("Near", Value::Null) }), false),
        ];
        for (spec, expected) in cases {
            assert_eq!(serves(spec.clone(), "x"), expected, "{spec}");
        }
    }

    #[test]
    fn entries_that_cannot_be_read_are_told_apart() {
        let spec = pool(json!({ "addresses": ["192.0.2.0/31", "x", "192.0.2.1"] }));
        let (ranges, bad) = spec.ranges();
        assert_eq!(ranges.iter().map(AddressRange::size).sum::<u128>(), 2);
        assert_eq!(bad.len(), 1);
        assert!(spec.auto_assign, "unless told otherwise");
    }

    #[test]
    fn objects_say_what_they_are() {
        let reservation = AddressReservation {
            metadata: ObjectMeta { name: Some("192.0.2.1".into()), ..ObjectMeta::default() },
            spec: AddressReservationSpec { address: "192.0.2.1".into(), provider: "p".into(), ..Default::default() },
            status: None,
        };
        let value = serde_json::to_value(&reservation).unwrap();
        let expected = json!({
            "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressReservation",
            "metadata": { "name": "192.0.2.1" },
            "spec": { "address": "192.0.2.1", "provider": "p", "holders": [] },
        });
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<AddressReservation>(value).unwrap(), reservation);
    }
}
