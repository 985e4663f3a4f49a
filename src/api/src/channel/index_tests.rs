use serde_json::json;

use super::*;

const URL: &str = "https://example.com/addons/addon.yaml";
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn index(value: &Value) -> Index {
    match read(Some(value), URL, b"", 1000) {
        Ok(Content::Index(index)) => index,
        other => panic!("{other:?}"),
    }
}

fn addons(addons: &Value) -> Value {
    json!({"kind": "Addons", "metadata": {"name": "example"}, "spec": {"addons": addons}})
}

fn told(index: &Index) -> Vec<String> {
    index.problems.iter().map(ToString::to_string).collect()
}

/// kops:channels/pkg/channels/addons_test.go, TestParseAddons.
#[test]
fn an_index_is_read() {
    let index =
        index(&addons(&json!([{"name": "example.addons.k8s.io", "manifest": "example.yaml", "manifestHash": HASH}])));
    assert_eq!((index.name.as_str(), index.problems.as_slice()), ("example", [].as_slice()));
    let entry = &index.entries[0];
    assert_eq!((entry.name.as_str(), entry.manifest.as_str()), ("example.addons.k8s.io", "example.yaml"));
    assert_eq!(entry.manifest_hash.as_ref().map(ManifestHash::as_str), Some(HASH));
}

#[test]
fn every_field_is_read_and_defaults_are_kops() {
    let index = index(&addons(&json!([
        {
            "name": "a.addons.k8s.io", "namespace": "other", "selector": {"k8s-addon": "a.addons.k8s.io"},
            "manifest": "a/k8s-1.16.yaml", "manifestHash": HASH, "kubernetesVersion": ">=1.16.0", "id": "k8s-1.16",
            "version": "1.2.3", "needsRollingUpdate": "control-plane", "needsPKI": true,
            "drift": "repair", "rollback": "auto",
            "prune": {"kinds": [{
                "group": "apps", "kind": "Deployment", "namespaces": ["kube-system"],
                "labelSelector": "a=b", "fieldSelector": "metadata.name=x"
            }]},
        },
        {"manifest": "b.yaml"},
    ])));
    assert_eq!(told(&index), [""; 0]);
    let [full, bare] = index.entries.as_slice() else { panic!("{index:?}") };
    assert_eq!(
        (full.namespace.as_str(), full.id.as_str(), full.version.as_deref()),
        ("other", "k8s-1.16", Some("1.2.3"))
    );
    assert_eq!(full.selector["k8s-addon"], "a.addons.k8s.io");
    assert_eq!((full.needs_rolling_update, full.needs_pki), (Some(RollingUpdate::ControlPlane), true));
    assert_eq!((full.repair_drift, bare.repair_drift), (Some(true), None));
    assert_eq!((full.rollback.as_deref(), bare.rollback.as_deref()), (Some("auto"), None));
    assert!(full.kubernetes_version.as_ref().is_some_and(|version| version.range.is_ok()));
    let kind = &full.prune.as_ref().expect("a prune").kinds[0];
    assert_eq!((kind.kind.as_str(), kind.field_selector.as_str()), ("Deployment", "metadata.name=x"));
    assert_eq!((bare.name.as_str(), bare.namespace.as_str()), ("example", "kube-system"));
    assert_eq!((bare.id.as_str(), bare.version.as_ref(), bare.needs_pki, bare.prune.as_ref()), ("", None, false, None));
}

/// TestParseAddonsEmpty.
#[test]
fn nothing_is_no_addons_and_no_error() {
    assert_eq!(read(None, URL, b"", 10), Ok(Content::Empty));
    assert_eq!(read(Some(&Value::Null), URL, b"# nothing", 10), Ok(Content::Empty));
    assert_eq!(index(&json!({"kind": "Addons"})).entries, []);
    assert_eq!(index(&json!({"kind": "Addons", "spec": {"addons": null}})).entries, []);
}

/// TestParseAddonsWrapsDirectManifest and TestParseAddonsDirectManifestNameUsesLocationHash.
#[test]
fn objects_are_one_addon_named_by_its_location() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let direct = |location: &str, text: &str| match read(Some(&object), location, text.as_bytes(), 10) {
        Ok(Content::Direct(entry)) => *entry,
        other => panic!("{other:?}"),
    };
    let one = direct(URL, "\nkind: ConfigMap\n");
    // printf %s https://example.com/addons/addon.yaml | sha256sum
    assert_eq!(one.name, format!("manifest-{}", &hex(&Sha256::digest(URL))[..12]));
    assert_eq!((one.name.len(), one.manifest.as_str()), (21, URL));
    assert_eq!(
        one.manifest_hash.as_ref().map(ManifestHash::as_str),
        Some(hex(&Sha256::digest("kind: ConfigMap")).as_str())
    );
    let two = direct(URL, "kind: Other");
    assert_eq!(one.name, two.name);
    assert_ne!(one.manifest_hash, two.manifest_hash);
    assert_ne!(direct("https://example.com/b.yaml", "").name, one.name);
}

#[test]
fn faults_name_the_field_and_spare_the_others() {
    for (entry, field, message) in [
        (json!({"manifest": 5}), "manifest", "5 is not text"),
        (json!({}), "manifest", "missing"),
        (json!({"manifest": "a", "name": "a/b"}), "name", "cannot stand in an annotation"),
        (json!({"manifest": "a", "name": "x".repeat(64)}), "name", "cannot stand in an annotation"),
        (json!({"manifest": "a", "namespace": "A"}), "namespace", "not a namespace"),
        (json!({"manifest": "a", "version": 1.5}), "version", "1.5 is not text; quote it"),
        (json!({"manifest": "a", "selector": {"a": 1}}), "selector.a", "1 is not text"),
        (json!({"manifest": "a", "selector": "a=b"}), "selector", "not a mapping"),
        (json!({"manifest": "a", "manifestHash": "abc123"}), "manifestHash", "64 hexadecimal digits"),
        (json!({"manifest": "a", "manifestHash": "g".repeat(64)}), "manifestHash", "64 hexadecimal digits"),
        (json!({"manifest": "a", "needsRollingUpdate": "masters"}), "needsRollingUpdate", "none of"),
        (json!({"manifest": "a", "drift": "off"}), "drift", "neither repair nor report"),
        (json!({"manifest": "a", "rollback": "on"}), "rollback", "none of off, manual and auto"),
        (json!({"manifest": "a", "needsPKI": "yes"}), "needsPKI", "neither true nor false"),
        (json!({"manifest": "a", "prune": {"kinds": {}}}), "prune.kinds", "not a list"),
        (json!({"manifest": "a", "prune": {"kinds": [{"labelSelector": "a"}]}}), "prune.kinds[0].kind", "missing"),
        (
            json!({"manifest": "a", "prune": {"kinds": [{"kind": "Job", "labelSelector": "a", "namespaces": [1]}]}}),
            "prune.kinds[0].namespaces[0]",
            "1 is not text",
        ),
    ] {
        let index =
            index(&addons(&json!([{"name": "good", "manifest": "a"}, entry, {"name": "fine", "manifest": "b"}])));
        assert_eq!(index.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["good", "fine"]);
        assert!(!index.is_complete());
        let told = told(&index);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(&format!("field spec.addons[1].{field}: ")) && told[0].contains(message),
            "{told:?}"
        );
    }
    let index = index(&addons(&json!(["text", null])));
    assert_eq!(told(&index)[0], "field spec.addons[0]: \"text\" is not a mapping");
    assert!(index.problems[1].warning);
}

#[test]
fn warnings_leave_the_index_complete() {
    let index = index(&addons(&json!([
        {"name": "a", "manifest": "a", "kubernetesVersion": ">=one", "manifesthash": HASH, "colour": "red"},
        {"name": "b", "manifest": "b", "prune": {"kinds": [{"kind": "Secret"}, {"kind": "Job", "labelSelector": "a"}]}},
    ])));
    assert!(index.is_complete());
    let told = told(&index);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("field spec.addons[0].colour: there is no such field"), "{told:?}");
    assert!(told[1].starts_with("field spec.addons[0].kubernetesVersion: version range \">=one\""), "{told:?}");
    assert!(told[2].starts_with("field spec.addons[1].prune.kinds[0].labelSelector: missing"), "{told:?}");
    // Go finds a key in any case.
    assert!(index.entries[0].manifest_hash.is_some());
    assert_eq!(index.entries[1].prune.as_ref().map(|prune| prune.kinds.len()), Some(1));
}

#[test]
fn what_is_no_index_at_all_is_an_error() {
    for (value, message) in [
        (json!("text"), "field (document 1): \"text\" is not a mapping"),
        (json!([1]), "field (document 1): a list is not a mapping"),
        (json!({"spec": {}}), "field kind: missing"),
        (json!({"kind": 1}), "field kind: 1 is not text"),
        (json!({"kind": "Addons", "metadata": "x"}), "field metadata: \"x\" is not a mapping"),
        (json!({"kind": "Addons", "spec": []}), "field spec: a list is not a mapping"),
        (json!({"kind": "Addons", "spec": {"addons": {}}}), "field spec.addons: a mapping is not a list"),
        (addons(&json!([{"manifest": "a"}, {"manifest": "a"}, {"manifest": "a"}])), "3 entries; at most 2 are read"),
    ] {
        let error = read(Some(&value), URL, b"", 2).expect_err("an error").to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn the_hash_is_that_of_the_trimmed_text_or_of_the_file() {
    let hash = |text: &str| ManifestHash(hex(&Sha256::digest(text)));
    let manifest = b"\n  kind: A\n\n";
    assert_eq!(hash("kind: A").verify(manifest), Ok(()));
    assert_eq!(hash("\n  kind: A\n\n").verify(manifest), Ok(()));
    assert_eq!(ManifestHash(hash("kind: A").0.to_uppercase()).verify(manifest), Ok(()));
    assert_eq!(hash("kind: B").verify(manifest), Err(hash("kind: A").0));
    assert_eq!(content_hash(b"\xff a \n"), content_hash(b"\xff a"));
}

proptest::proptest! {
    #[test]
    fn no_value_panics(text in "[\\[\\]{}\":,0-9a-zA-Z.<>= ]{0,120}", field in "[a-zA-Z]{0,8}", value in "\\PC{0,12}") {
        let parsed: Option<Value> = serde_json::from_str(&text).ok();
        let _ = read(parsed.as_ref(), URL, text.as_bytes(), 10);
        let _ = read(Some(&addons(&json!([{field.clone(): value, "manifest": parsed}, {"name": field}]))), URL, b"", 10);
    }
}
