//! The custom resource definitions that controllers serve. The manifests in `deploy/crds` are the
//! source; they are built into the program.

use quarterdeck_api::addon;
use serde_json::Value;

/// Kind of a custom resource definition.
pub(super) const KIND: &str = "CustomResourceDefinition";
/// Name of the manifest.
pub(super) const MANIFEST: &str = "crds";

/// The definitions, in the order in which they are applied.
pub(super) fn objects() -> Vec<Value> {
    vec![serde_saphyr::from_str(addon::CRD).expect("the built-in manifest is YAML; a test reads it")]
}

/// What is written to a definition that is there already: it as it stands, with our spec in the place
/// of its own, and our labels added. Apply would merge the two schemas, and leave rules of the old one
/// behind.
pub(super) fn replacement(live: &Value, wanted: &Value) -> Value {
    let mut object = live.clone();
    object["spec"] = wanted["spec"].clone();
    for (key, value) in wanted["metadata"]["labels"].as_object().into_iter().flatten() {
        object["metadata"]["labels"][key] = value.clone();
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_definition_is_the_types() {
        let [object] = &objects()[..] else { panic!("one definition") };
        assert_eq!(object["kind"], KIND);
        assert_eq!(object["metadata"]["name"], format!("{}.{}", addon::PLURAL, addon::GROUP));
        assert_eq!(object["spec"]["group"], addon::GROUP);
        assert_eq!(object["spec"]["names"]["kind"], addon::KIND);
        assert_eq!(object["spec"]["versions"][0]["name"], addon::VERSION);
        let step = &object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let step = &step["lifecycle"]["properties"]["validate"];
        assert_eq!(step["required"], json!(["template"]), "aliases are resolved");
        assert!(step.get("<<").is_none());
    }

    #[test]
    fn what_others_added_beside_the_spec_stays() {
        let live = json!({
            "metadata": {"resourceVersion": "7", "labels": {"theirs": "a"}, "annotations": {"b": "c"}},
            "spec": {"old": true},
        });
        let wanted = json!({"metadata": {"labels": {"ours": "d"}}, "spec": {"new": true}});
        assert_eq!(
            replacement(&live, &wanted),
            json!({
                "metadata": {
                    "resourceVersion": "7", "labels": {"theirs": "a", "ours": "d"}, "annotations": {"b": "c"},
                },
                "spec": {"new": true},
            })
        );
    }
}
