//! What our table holds, read from `nft -j list table`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Ruleset;

/// What is in the kernel, as far as we compare it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Elements of each set and map; those of dynamic ones are left out.
    pub sets: BTreeMap<String, ObservedSet>,
    /// Marks of each chain's rules; a rule without one is foreign, and empty here.
    pub chains: BTreeMap<String, Vec<String>>,
}

/// A set or a map in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedSet {
    /// Whether it is a map.
    pub map: bool,
    /// Its elements, as in [`super::Set`].
    pub elements: BTreeMap<String, String>,
}

/// nft's answer is not what we know.
#[derive(Debug, thiserror::Error)]
#[error("nft lists our table in a form that is not known: {0}")]
pub struct UnreadableTable(pub String);

impl From<&Ruleset> for Observed {
    fn from(ruleset: &Ruleset) -> Self {
        let elements = |set: &super::Set| ObservedSet {
            map: set.map,
            elements: if set.dynamic { BTreeMap::new() } else { set.elements.clone() },
        };
        Self {
            sets: ruleset.sets.iter().map(|(name, set)| (name.clone(), elements(set))).collect(),
            chains: ruleset
                .chains
                .iter()
                .map(|(name, chain)| (name.clone(), chain.rules.iter().map(super::Rule::mark).collect()))
                .collect(),
        }
    }
}

impl Observed {
    /// Reads what nft lists.
    ///
    /// # Errors
    /// When it is not a listing.
    pub fn parse(json: &[u8]) -> Result<Self, UnreadableTable> {
        let listing: Value = serde_json::from_slice(json).map_err(|error| UnreadableTable(error.to_string()))?;
        let entries = listing.get("nftables").and_then(Value::as_array);
        let entries = entries.ok_or_else(|| UnreadableTable("no member `nftables`".to_owned()))?;
        let mut observed = Self::default();
        for entry in entries {
            let Some((kind, body)) = entry.as_object().and_then(|object| object.iter().next()) else { continue };
            let name = || body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            match kind.as_str() {
                "set" | "map" => {
                    let dynamic = flags(body).any(|flag| flag == "dynamic" || flag == "timeout");
                    let listed = body.get("elem").and_then(Value::as_array).filter(|_| !dynamic);
                    let elements = listed.into_iter().flatten().map(|element| match element.as_array() {
                        Some(pair) if kind == "map" && pair.len() == 2 => (text(&pair[0]), text(&pair[1])),
                        _ => (text(element), String::new()),
                    });
                    let set = ObservedSet { map: kind == "map", elements: elements.collect() };
                    observed.sets.insert(name(), set);
                }
                "chain" => {
                    observed.chains.entry(name()).or_default();
                }
                "rule" => {
                    let chain = body.get("chain").and_then(Value::as_str).unwrap_or_default();
                    let mark = body.get("comment").and_then(Value::as_str).unwrap_or_default();
                    observed.chains.entry(chain.to_owned()).or_default().push(mark.to_owned());
                }
                _ => {}
            }
        }
        Ok(observed)
    }
}

fn flags(body: &Value) -> impl Iterator<Item = &str> {
    body.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// An element in the form in which nft reads it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            let Some((kind, body)) = object.iter().next() else { return String::new() };
            match kind.as_str() {
                "concat" => {
                    let parts: Vec<String> = body.as_array().into_iter().flatten().map(text).collect();
                    parts.join(" . ")
                }
                "goto" | "jump" => {
                    format!("{kind} {}", body.get("target").and_then(Value::as_str).unwrap_or_default())
                }
                "prefix" => {
                    let part = |name: &str| body.get(name).map(text).unwrap_or_default();
                    format!("{}/{}", part("addr"), part("len"))
                }
                // An element with a timeout, counter or comment of its own.
                "elem" => body.get("val").map(text).unwrap_or_default(),
                _ => value.to_string(),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let json = br#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "quarterdeck", "handle": 1}},
            {"map": {"name": "p", "type": "integer", "map": "ipv4_addr", "elem": [[0, "10.0.0.1"], [1, "10.0.0.2"]]}},
            {"map": {"name": "v", "map": "verdict", "elem": [[{"concat": ["1.2.3.4", "tcp", 80]}, {"goto": {"target": "s"}}]]}},
            {"set": {"name": "a", "flags": ["timeout"], "elem": [{"elem": {"val": "10.1.1.1", "timeout": 5}}]}},
            {"set": {"name": "r", "flags": ["interval"], "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, "1.1.1.1"]}},
            {"chain": {"name": "s", "handle": 2}},
            {"rule": {"chain": "s", "comment": "abc", "expr": []}},
            {"rule": {"chain": "s", "expr": []}}
        ]}"#;
        let observed = Observed::parse(json).unwrap();
        let set = |name: &str| {
            observed.sets[name].elements.iter().map(|(key, data)| format!("{key}={data}")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(set("p"), "0=10.0.0.1,1=10.0.0.2");
        assert_eq!(set("v"), "1.2.3.4 . tcp . 80=goto s");
        assert_eq!(set("a"), "");
        assert_eq!(set("r"), "1.1.1.1=,10.0.0.0/8=");
        assert_eq!(observed.chains["s"], ["abc", ""]);
        assert!(Observed::parse(b"{}").is_err());
    }
}
