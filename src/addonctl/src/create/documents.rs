//! The objects of a file, as far as a workflow has to know them.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// One YAML document and the objects in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// Its text, ending in a newline.
    pub(crate) text: String,
    /// Its objects: one, or those of a List.
    pub(crate) objects: Vec<Object>,
}

/// What names an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// `apiVersion`.
    pub(crate) api_version: String,
    /// `kind`.
    pub(crate) kind: String,
    /// `metadata.namespace`, empty if it has none.
    pub(crate) namespace: String,
    /// `metadata.name`; empty if the server is to make one up (`generateName`).
    pub(crate) name: String,
}

impl Object {
    /// Kinds without a namespace, of the groups of Kubernetes itself.
    const CLUSTER: &'static [&'static str] = &[
        "APIService",
        "CSIDriver",
        "CertificateSigningRequest",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterTrustBundle",
        "CustomResourceDefinition",
        "DeviceClass",
        "FlowSchema",
        "IPAddress",
        "IngressClass",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "PriorityLevelConfiguration",
        "RuntimeClass",
        "ServiceCIDR",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "VolumeAttributesClass",
    ];

    /// Whether it certainly has no namespace. Kinds of custom resources are not known here; kubectl
    /// passes over `-n` for those without one.
    pub(crate) fn is_cluster_scoped(&self) -> bool {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        let own = group.is_empty() || !group.contains('.') || group.ends_with(".k8s.io");
        own && Self::CLUSTER.contains(&self.kind.as_str())
    }

    /// Whether its removal takes other things with it that may be dear, so that a person is asked first.
    pub(crate) fn is_dear(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "Namespace" | "CustomResourceDefinition" | "PersistentVolume" | "PersistentVolumeClaim"
        )
    }
}

/// The documents of a file.
///
/// # Errors
/// Naming the file and line of the first that is no object.
pub(crate) fn read(file: &str, text: &str) -> anyhow::Result<Vec<Document>> {
    let mut found = Vec::new();
    for (line, text) in split(text) {
        let value: Value = serde_saphyr::from_str(&plain(&text))
            .map_err(|error| anyhow::anyhow!("{file}: the document at line {line}: {error}"))?;
        if value.is_null() {
            continue;
        }
        let of_document = || format!("{file}: the document at line {line}");
        let mut objects = Vec::new();
        collect(&value, &mut objects).with_context(of_document)?;
        let mut text = text.trim_end().to_owned();
        text.push('\n');
        found.push(Document { text, objects });
    }
    Ok(found)
}

fn collect(value: &Value, objects: &mut Vec<Object>) -> anyhow::Result<()> {
    ensure!(value.is_object(), "not an object of the API");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&value["kind"]);
    if let (true, Some(items)) = (kind.ends_with("List"), value["items"].as_array()) {
        return items.iter().try_for_each(|item| collect(item, objects));
    }
    let meta = &value["metadata"];
    let object = Object {
        api_version: text(&value["apiVersion"]),
        name: scalar(&meta["name"]),
        namespace: scalar(&meta["namespace"]),
        kind,
    };
    let missing = if object.api_version.is_empty() {
        "apiVersion"
    } else if object.kind.is_empty() {
        "kind"
    } else if object.name.is_empty() && meta["generateName"].as_str().is_none() {
        "metadata.name"
    } else {
        objects.push(object);
        return Ok(());
    };
    bail!("has no {missing}")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(OPEN, "{{").replace(CLOSE, "}}"),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// What stands for `{{` while YAML is read.
const OPEN: &str = "\u{e000}";
/// What stands for `}}` while YAML is read.
const CLOSE: &str = "\u{e001}";

/// The text with its references to parameters as plain characters: unquoted, YAML takes their braces for
/// a map.
fn plain(text: &str) -> String {
    let mut rest = text;
    let mut result = String::with_capacity(text.len());
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inside, behind)) = after.split_once("}}") else { break };
        result.push_str(before);
        if inside.contains(['\n', '{', '}']) {
            result.push_str("{{");
            rest = after;
            continue;
        }
        result.push_str(OPEN);
        result.push_str(inside);
        result.push_str(CLOSE);
        rest = behind;
    }
    result.push_str(rest);
    result
}

/// The documents of a stream with the lines on which they begin, counted from 1.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut found = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let ends = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if ends {
            // What stands behind the dashes belongs to the document.
            let behind = line[3..].trim();
            let mut next = (index + 2, String::new());
            if !behind.is_empty() && !behind.starts_with('#') {
                next = (index + 1, format!("{behind}\n"));
            }
            found.push(next);
        } else if line != "..." && !line.starts_with('%') {
            let (_, document) = found.last_mut().expect("there is always one");
            document.push_str(line);
            document.push('\n');
        }
    }
    found.retain(|(_, document)| !document.trim().is_empty());
    found
}
