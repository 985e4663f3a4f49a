//! Keys of ConfigMaps and Secrets that a user edited in what a channel installed. They are settings, and
//! stay, also when a new version is installed; the other keys are updated.
//!
//! A key is the user's if a person's field manager owns it and whoever installs the addon (kOps, or we)
//! does not: every writer that changes a value takes it from its owners before
//! (`sigs.k8s.io/structured-merge-diff:merge/update.go`).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::{Map, Value};

use super::fields::{FieldSet, Operation, Overrides, owners};
use super::ident::{GroupKind, Ident};
use super::plan::MANAGER;

/// Annotation of a live object that has it take its addon's version whole, whatever was edited.
pub const TAKE_NEW_ANNOTATION: &str = "quarterdeck.dev/take-new-version";
/// Field manager of kOps' channels.
pub const KOPS: &str = "kops";
/// Manager of the classic `kubectl apply`, by which addons were installed before kOps applied by itself.
const CLASSIC_APPLY: &str = "kubectl-client-side-apply";
/// Fields whose keys are settings.
const FIELDS: [&str; 2] = ["data", "binaryData"];

/// Edited keys, each as `data.key`, by object.
pub type Edits = BTreeMap<Ident, BTreeSet<String>>;

/// Whether objects of a kind hold settings.
#[must_use]
pub fn holds_settings(kind: &GroupKind) -> bool {
    kind.is("", "ConfigMap") || kind.is("", "Secret")
}

/// Whether a live object asks for its addon's version whole.
#[must_use]
pub fn takes_new(live: &Value) -> bool {
    let annotation = live.pointer("/metadata/annotations").and_then(|all| all.get(TAKE_NEW_ANNOTATION));
    annotation.and_then(Value::as_str) == Some("true")
}

/// The keys of a live object that people edited since it was installed. `people` must not hold kOps.
#[must_use]
pub fn edits(live: &Value, people: &Overrides) -> BTreeSet<String> {
    let owners = owners(live);
    let installs = |manager: &str| manager == KOPS || manager == MANAGER;
    let mut installed = FieldSet::default();
    let mut was_applied = false;
    for owner in owners.iter().filter(|owner| owner.subresource.is_empty() && installs(&owner.manager)) {
        installed.add(&owner.fields);
        was_applied = true;
    }
    let mut keys = BTreeSet::new();
    for owner in owners.iter().filter(|owner| people.is_human(owner) && !installs(&owner.manager)) {
        // Where nobody else installed it, whoever applied it did.
        if !was_applied && (owner.manager == CLASSIC_APPLY || owner.operation == Operation::Apply) {
            continue;
        }
        for (field, written) in [("data", "data"), ("binaryData", "binaryData"), ("data", "stringData")] {
            let Some(owned) = owner.fields.field(written) else { continue };
            let names = owned.children.keys().filter_map(|element| element.strip_prefix("f:"));
            let is_installed =
                |name: &str| installed.field(written).is_some_and(|installed| installed.field(name).is_some());
            keys.extend(names.filter(|name| !is_installed(name)).map(|name| format!("{field}.{name}")));
        }
    }
    keys
}

/// What is applied where these keys of the live object stay as they are.
#[must_use]
pub fn keep(mut body: Value, live: &Value, keys: &BTreeSet<String>) -> Value {
    for (field, key) in keys.iter().filter_map(|key| key.split_once('.')) {
        let Some(value) = live.get(field).and_then(|values| values.get(key)) else { continue };
        let Some(body) = body.as_object_mut() else { continue };
        for other in FIELDS.iter().filter(|other| **other != field) {
            if let Some(values) = body.get_mut(*other).and_then(Value::as_object_mut) {
                values.remove(key);
            }
        }
        let values = body.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if values.is_null() {
            *values = Value::Object(Map::new());
        }
        if let Some(values) = values.as_object_mut() {
            values.insert(key.to_owned(), value.clone());
        }
    }
    body
}

/// Writes `stringData` of a Secret as the server keeps it, in `data`: so that its keys are owned, and
/// compared, like all others.
pub fn as_kept(body: &mut Value) {
    if body["apiVersion"] != "v1" || body["kind"] != "Secret" {
        return;
    }
    let Some(body) = body.as_object_mut() else { return };
    let all_texts = |values: &Map<String, Value>| values.values().all(Value::is_string);
    if !body.get("stringData").and_then(Value::as_object).is_some_and(all_texts)
        || body.get("data").is_some_and(|data| !data.is_null() && !data.is_object())
    {
        // The server says what is wrong with it.
        return;
    }
    let Some(Value::Object(texts)) = body.remove("stringData") else { return };
    let data = body.entry("data").or_insert(Value::Null);
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data[key] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

/// As lines for a parent: `ConfigMap/a/x data.key`.
pub fn to_lines(edits: &Edits) -> impl Iterator<Item = String> {
    edits.iter().flat_map(|(ident, keys)| keys.iter().map(move |key| format!("{ident} {key}")))
}

/// Reads what [`to_lines`] made.
pub fn from_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Edits {
    let mut edits = Edits::new();
    for (ident, key) in lines.filter_map(|line| line.split_once(' ')) {
        if let Some(ident) = Ident::parse(ident) {
            edits.entry(ident).or_default().insert(key.to_owned());
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owned(manager: &str, operation: &str, field: &str, keys: &[&str]) -> Value {
        let keys: Map<String, Value> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
        json!({"manager": manager, "operation": operation, "fieldsV1": {format!("f:{field}"): keys}})
    }

    fn found(owners: &[Value]) -> Vec<String> {
        edits(&json!({"metadata": {"managedFields": owners}}), &Overrides::default()).into_iter().collect()
    }

    #[test]
    fn what_people_own_alone_is_theirs() {
        let installed = owned("kops", "Apply", "data", &["a", "same"]);
        let ours = owned(MANAGER, "Apply", "data", &["b"]);
        let edit = |keys: &[&str]| owned("kubectl-edit", "Update", "data", keys);
        assert_eq!(found(&[installed.clone(), ours, edit(&["a.conf", "same", "b"])]), ["data.a.conf"]);
        assert_eq!(
            found(&[installed.clone(), owned("kubectl-edit", "Update", "binaryData", &["a"])]),
            ["binaryData.a"]
        );
        assert_eq!(found(&[installed.clone(), owned("some-controller", "Update", "data", &["x"])]), [""; 0]);
        // Over what kOps applied, an apply is an edit; where nobody else has applied it was the installation.
        for (manager, operation) in [(CLASSIC_APPLY, "Update"), ("kubectl", "Apply")] {
            let applied = owned(manager, operation, "data", &["x"]);
            assert_eq!(found(&[installed.clone(), applied.clone()]), ["data.x"], "{manager}");
            assert_eq!(found(&[applied, edit(&["y"])]), ["data.y"], "{manager}");
        }
    }

    #[test]
    fn edited_keys_stay_and_others_come() {
        let keys = BTreeSet::from(["data.a.conf".to_owned(), "data.gone".to_owned(), "data.b".to_owned()]);
        let live = json!({"data": {"a.conf": "mine", "b": "mine too", "other": "old"}});
        let body = json!({"data": {"a.conf": "new", "other": "new", "gone": "new"}, "binaryData": {"b": "AA=="}});
        let kept = keep(body, &live, &keys);
        let expected = json!({
            "data": {"a.conf": "mine", "b": "mine too", "other": "new", "gone": "new"}, "binaryData": {},
        });
        assert_eq!(kept, expected);
        assert_eq!(keep(json!({"data": null}), &live, &keys)["data"]["b"], "mine too");
        assert_eq!(keep(json!({}), &live, &BTreeSet::new()), json!({}));
    }

    #[test]
    fn texts_of_secrets_are_written_as_the_server_keeps_them() {
        let mut secret =
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        as_kept(&mut secret);
        assert_eq!(secret["data"], json!({"a": "eQ==", "b": "eg=="}));
        assert!(secret.get("stringData").is_none());
        let mut only = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"b": "z"}});
        as_kept(&mut only);
        assert_eq!(only["data"], json!({"b": "eg=="}));
        for untouched in [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "stringData": {"b": "z"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"b": 1}}),
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"b": "z"}, "data": "x"}),
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"b": "z"}}),
        ] {
            let mut body = untouched.clone();
            as_kept(&mut body);
            assert_eq!(body, untouched);
        }
    }

    #[test]
    fn the_record_is_read_back() {
        let ident = |text: &str| Ident::parse(text).expect("an ident");
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
        let edits = Edits::from([
            (ident("ConfigMap/a/x"), keys(&["data.a.conf", "data.b"])),
            (ident("Secret/a/x"), keys(&["data.c"])),
        ]);
        let lines: Vec<String> = to_lines(&edits).collect();
        assert_eq!(from_lines(lines.iter().map(String::as_str)), edits);
        assert_eq!(from_lines(["", "x", "x y"].into_iter()), Edits::new());
    }
}
