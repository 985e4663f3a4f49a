//! The cluster as far as addons reach, and pictures of single addons that can be compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::World;

const PART_OF: &str = "applyset.kubernetes.io/part-of";
const ID: &str = "applyset.kubernetes.io/id";
/// Kinds that the addons of these tests, their parents and mirrors are of.
const LISTS: [&str; 5] = [
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/api/v1/namespaces",
    "/apis/addonmgr.keikoproj.io/v1alpha1/addons",
];

/// The word by which everything of an addon is named.
pub(super) fn word(case: usize) -> String {
    format!("c{case:02}")
}

/// The addon that a path is about.
pub(super) fn lane_of(path: &str) -> Option<usize> {
    let mut words = path.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| word.strip_prefix('c').filter(|rest| rest.len() == 2)?.parse().ok())
}

/// Everything that is there.
pub(super) struct Cluster {
    objects: Vec<Value>,
}

/// A line of an inventory without what the manager knows the object's state by.
pub(in crate::addon) fn without_mark(line: &str) -> String {
    line.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

impl Cluster {
    pub(super) async fn read(world: &World) -> Result<Self> {
        let mut objects = Vec::new();
        for path in LISTS {
            let list = world.get(path).await?.context(path)?;
            objects.extend(list["items"].as_array().cloned().unwrap_or_default().into_iter().map(|mut object| {
                object["from"] = path.into();
                object
            }));
        }
        Ok(Self { objects })
    }

    fn of(&self, case: usize) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |object| {
            let metadata = &object["metadata"];
            let own = |field: &str| metadata[field].as_str().and_then(lane_of) == Some(case);
            // What a namespace has by itself is not the addon's.
            (own("name") || own("namespace")) && metadata["name"] != "default" && metadata["name"] != "kube-root-ca.crt"
        })
    }

    /// How many objects name an addon.
    pub(super) fn named(&self, case: usize) -> usize {
        self.of(case).count()
    }

    pub(super) fn config_map(&self, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| {
            object["from"] == LISTS[0]
                && object["metadata"]["namespace"] == namespace
                && object["metadata"]["name"] == name
        })
    }

    /// The parent of an addon: an Addon object by its name, or a ConfigMap by the addon's.
    pub(super) fn parent(&self, is_object: bool, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| match is_object {
            true => object["from"] == LISTS[4] && object["metadata"]["name"] == name,
            false => object["from"] == LISTS[0] && object["metadata"]["annotations"]["quarterdeck.dev/addon"] == name,
        })
    }

    /// The Addon object that is, or shows, an addon.
    pub(super) fn addon(&self, word: &str) -> Option<&Value> {
        let mut addons = self.objects.iter().filter(|object| object["from"] == LISTS[4]);
        addons
            .find(|addon| addon["metadata"]["name"].as_str().is_some_and(|name| name.split('-').any(|one| one == word)))
    }

    /// What stands in an inventory, as `Kind/namespace/name uid`.
    fn inventory(parent: &Value) -> BTreeSet<String> {
        let lines = parent["data"]["inventory"].as_str().unwrap_or_default().lines();
        let members = parent["status"]["inventory"].as_array().into_iter().flatten();
        lines.chain(members.filter_map(Value::as_str)).map(without_mark).collect()
    }

    /// Members of sets that no inventory of theirs lists under their uid.
    pub(super) fn leaks(&self) -> Vec<String> {
        let text =
            |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        let parents: BTreeMap<String, BTreeSet<String>> = self
            .objects
            .iter()
            .filter_map(|object| Some((object["metadata"]["labels"][ID].as_str()?.to_owned(), Self::inventory(object))))
            .collect();
        let members = self.objects.iter().filter_map(|object| {
            let set = object["metadata"]["labels"][PART_OF].as_str()?;
            let line = format!(
                "ConfigMap/{}/{} {}",
                text(object, "/metadata/namespace"),
                text(object, "/metadata/name"),
                text(object, "/metadata/uid"),
            );
            (!parents.get(set).is_some_and(|inventory| inventory.contains(&line))).then_some(line)
        });
        members.collect()
    }

    /// All there is of an addon, without what differs between equal ones: names, uids, versions, times.
    pub(super) fn picture(&self, case: usize) -> Vec<Value> {
        let uids: Vec<&str> = self.of(case).filter_map(|object| object["metadata"]["uid"].as_str()).collect();
        let blank = |object: &Value| {
            let mut object = object.clone();
            without_noise(&mut object);
            let mut text = object.to_string();
            for uid in &uids {
                text = text.replace(uid, "UID");
            }
            // Hashes first: they may hold any word.
            serde_json::from_str(&without_hashes(&text).replace(&word(case), "case")).expect("it was JSON before")
        };
        let mut picture: Vec<Value> = self.of(case).map(blank).collect();
        picture.sort_by_key(Value::to_string);
        picture
    }
}

/// Takes out what is of no account.
fn without_noise(value: &mut Value) {
    const NOISE: [&str; 9] = [
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "time",
        "lastTransitionTime",
        "starttime",
        "started",
        "finished",
        "first",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !NOISE.contains(&&**name));
            fields.values_mut().for_each(without_noise);
            if let Some(Value::Array(managers)) = fields.get_mut("managedFields") {
                managers.sort_by_key(Value::to_string);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(without_noise),
        _ => {}
    }
}

/// Replaces ids of sets, and what looks like a hash or a time; numbers stay numbers.
fn without_hashes(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split("applyset-");
    out += parts.next().unwrap_or_default();
    for part in parts {
        let end = part.find("-v1").map_or(0, |at| at + "-v1".len());
        out += "SET";
        out += &part[end..];
    }
    let mut blank = String::new();
    let mut run = String::new();
    for c in out.chars().chain([' ']) {
        if matches!(c, '0'..='9' | 'a'..='f') {
            run.push(c);
            continue;
        }
        blank += if run.len() >= 10 { "9999999999" } else { &run };
        run.clear();
        blank.push(c);
    }
    blank
}

/// Where two pictures differ.
pub(in crate::addon) fn differences(one: &[Value], other: &[Value]) -> String {
    let mut lines = Vec::new();
    compare("", &one.into(), &other.into(), &mut lines);
    lines.join("\n")
}

fn compare(path: &str, one: &Value, other: &Value, lines: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            for name in fields.keys().chain(others.keys().filter(|name| !fields.contains_key(*name))) {
                compare(&format!("{path}.{name}"), &one[name], &other[name], lines);
            }
        }
        (Value::Array(values), Value::Array(others)) if values.len() == others.len() => {
            for (index, (one, other)) in values.iter().zip(others).enumerate() {
                compare(&format!("{path}[{index}]"), one, other, lines);
            }
        }
        _ if one == other => {}
        _ => lines.push(format!("  {path}: undisturbed {one}, here {other}")),
    }
}
