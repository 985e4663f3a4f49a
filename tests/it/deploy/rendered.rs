//! Objects as text, and what `quarterdeck install` would bring, in a form that can be compared.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use quarterdeck_it::deck::program;
use serde_json::Value;
use tokio::process::Command;

/// Who the replicas are in a cluster.
const USER: &str = "--user=system:serviceaccount:kube-system:quarterdeck";

/// The objects of a YAML text.
pub(super) fn objects(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in text.split("\n---\n").map(|document| document.trim_start_matches("---\n")) {
        let object: Value = serde_saphyr::from_str(document).with_context(|| document.to_owned())?;
        if object.is_object() {
            all.push(object);
        }
    }
    Ok(all)
}

/// Objects by kind, namespace and name, in a form in which order and emptiness make no difference.
pub(super) fn comparable(all: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let of_kind = |object: &Value| object["kind"].as_str().unwrap_or_default().to_owned();
    all.into_iter()
        .map(|mut object| {
            if of_kind(&object) == "CustomResourceDefinition"
                && let Some(metadata) = object["metadata"].as_object_mut()
                && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
            {
                annotations.remove("helm.sh/resource-policy");
                if annotations.is_empty() {
                    metadata.remove("annotations");
                }
            }
            if of_kind(&object).ends_with("Role") {
                let mut rules: Vec<Value> = object["rules"].as_array().cloned().unwrap_or_default();
                for names in rules.iter_mut().filter_map(|rule| rule["resourceNames"].as_array_mut()) {
                    names.sort_by_key(ToString::to_string);
                }
                rules.iter_mut().for_each(|rule| {
                    let filled = rule.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
                    *rule = filled.map(|(key, value)| (key.clone(), value.clone())).collect();
                });
                rules.sort_by_key(ToString::to_string);
                object["rules"] = rules.into();
            }
            (format!("{} {}/{}", of_kind(&object), name(&object, "namespace"), name(&object, "name")), object)
        })
        .collect()
}

/// What `quarterdeck install` would bring.
pub(super) async fn installed(flags: &[&str]) -> Result<BTreeMap<String, Value>> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(program()?)
        .args(["install", &format!("--output-dir={}", folder.path().display()), USER])
        .args(flags)
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder.path())? {
        all.extend(objects(&std::fs::read_to_string(entry?.path())?)?);
    }
    Ok(comparable(all))
}
