//! The custom resource definitions that controllers serve. The manifests in `deploy/crds` are the
//! source; they are built into the program.

use quarterdeck_api::{addon, cloud};
use serde_json::Value;

use super::Needs;

/// Kind of a custom resource definition.
pub(super) const KIND: &str = "CustomResourceDefinition";
/// Name of the manifest.
pub(super) const MANIFEST: &str = "crds";

/// The built-in definitions of kinds that controllers read or write: group, plural name, manifest.
const USED: [(&str, &str, &str); 6] = [
    (cloud::GROUP, "addresspools", cloud::pool::POOL_CRD),
    (cloud::GROUP, "addressreservations", cloud::pool::RESERVATION_CRD),
    (cloud::GROUP, "cloudaccounts", cloud::account::CRD),
    (cloud::GROUP, "metalloadbalancers", cloud::metal::CRDS[0]),
    (cloud::GROUP, "metalroutes", cloud::metal::CRDS[1]),
    (cloud::GROUP, "metalagents", cloud::metal::CRDS[2]),
];

/// The definitions that these controllers need, in the order in which they are applied.
pub(super) fn objects(controllers: &[Needs]) -> Vec<Value> {
    // The addon engine is the one that writes whatever it is handed, and the one that serves Addons.
    let addons = controllers.iter().any(|needs| needs.descriptor.writes_anything).then_some(addon::CRD);
    let uses = |group: &str, plural: &str| {
        controllers.iter().any(|needs| {
            needs.reads.iter().any(|kind| kind.group == group && kind.plural == plural)
                || needs.grants.iter().any(|grant| grant.group == group && grant.resource == plural)
        })
    };
    let used = USED.iter().filter(|(group, plural, _)| uses(group, plural)).map(|(_, _, manifest)| *manifest);
    addons
        .into_iter()
        .chain(used)
        .map(|manifest| serde_saphyr::from_str(manifest).expect("the built-in manifest is YAML; a test reads it"))
        .collect()
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
    use k8s_openapi::Resource as _;
    use quarterdeck_api::cloud::metal::{MetalAgent, MetalLoadBalancer, MetalRoute};
    use quarterdeck_api::cloud::pool::{AddressPool, AddressReservation};
    use quarterdeck_runtime::controller::{Account, ClientShare, Descriptor, Grant};
    use quarterdeck_runtime::object::Kind;
    use serde_json::json;

    use super::*;

    const KEEPER: Descriptor = Descriptor {
        name: "keeper",
        aliases: &[],
        enabled_by_default: true,
        account: "keeper",
        upstream_role: false,
        writes_anything: true,
        predecessor: None,
        queue: "keeper",
        share: ClientShare::ONE,
    };
    const READER: Descriptor = Descriptor { writes_anything: false, ..KEEPER };

    fn needs(descriptor: &'static Descriptor, reads: Vec<Kind>) -> Needs {
        Needs { descriptor, account: Account::system("keeper"), reads, grants: Vec::new() }
    }

    #[test]
    fn a_definition_comes_with_those_who_read_its_kind() {
        let pools = [Kind::of::<AddressPool>(), Kind::of::<AddressReservation>()];
        let objects = objects(&[needs(&READER, pools.to_vec())]);
        let names: Vec<&str> = objects.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
        assert_eq!(names, pools.map(|kind| kind.to_string()));
        for (object, kind) in objects.iter().zip([AddressPool::KIND, AddressReservation::KIND]) {
            assert_eq!(object["spec"]["names"]["kind"], kind);
            assert_eq!(object["spec"]["versions"][0]["name"], cloud::VERSION);
        }
        assert!(super::objects(&[needs(&READER, Vec::new())]).is_empty());
    }

    #[test]
    fn a_definition_comes_with_those_who_write_its_kind() {
        let kinds = [Kind::of::<MetalLoadBalancer>(), Kind::of::<MetalRoute>(), Kind::of::<MetalAgent>()];
        let grant = |resource| Grant { group: cloud::GROUP, resource, verbs: &["create"] };
        let writer = Needs {
            grants: vec![grant("metalloadbalancers"), grant("metalroutes"), grant("metalroutes/status")],
            ..needs(&READER, vec![kinds[2].clone()])
        };
        let objects = objects(&[writer]);
        let names: Vec<&str> = objects.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
        assert_eq!(names, kinds.clone().map(|kind| kind.to_string()));
        for (object, kind) in objects.iter().zip(kinds) {
            assert_eq!(object["spec"]["names"]["kind"], *kind.kind);
            assert_eq!(object["spec"]["group"], cloud::GROUP);
        }
    }

    #[test]
    fn the_definition_is_the_types() {
        let [object] = &objects(&[needs(&KEEPER, Vec::new())])[..] else { panic!("one definition") };
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
