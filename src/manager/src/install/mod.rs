//! What the server needs before a replica can lead: custom resource definitions, roles, a FlowSchema,
//! the epoch fence. The same objects are rendered into `deploy/`, applied by `quarterdeck install` and
//! removed by `quarterdeck uninstall`; the definitions stay, for their objects would go with them.

mod apply;
mod authority;
pub(crate) mod command;
mod crd;
mod flow;
mod folder;
mod rbac;

use quarterdeck_election::fence::FencePolicy;
use quarterdeck_runtime::controller::{Account, Descriptor, Grant};
use quarterdeck_runtime::object::Kind;
use serde_json::Value;

pub use apply::{Change, InstallError, install, uninstall};

/// Label on everything that `install` brings.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "quarterdeck");

/// What a controller needs of the server, as its setup declared it.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The controller's fixed facts.
    pub descriptor: &'static Descriptor,
    /// The service account under which it writes.
    pub account: Account,
    /// Kinds it reads through informers.
    pub reads: Vec<Kind>,
    /// Rights beyond upstream's role of its account.
    pub grants: Vec<Grant>,
}

/// For whom and under which Lease to install.
#[derive(Clone, Debug)]
pub struct Target {
    /// The user of the replicas' kubeconfig (the common name of its certificate).
    pub user: String,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// Whether the own account of each controller that writes whatever it is handed (the addons') is
    /// bound to cluster-admin, by a manifest of its own. An account that a flag names never is: who
    /// names one wants it to have other rights.
    pub addons_cluster_admin: bool,
}

/// A group of objects that belong in one file, in the order in which they are applied.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// File name without extension.
    pub name: &'static str,
    /// The objects.
    pub objects: Vec<Value>,
}

/// Everything the server needs, pure.
#[must_use]
pub fn manifests(target: &Target, controllers: &[Needs]) -> Vec<Manifest> {
    let fence = FencePolicy { namespace: target.lease_namespace.clone(), lease: target.lease_name.clone() };
    let mut all = vec![
        Manifest { name: "rbac", objects: rbac::objects(target, controllers) },
        Manifest { name: "flowschema", objects: flow::objects(target) },
        Manifest { name: "fence", objects: vec![typed(&fence.policy()), typed(&fence.binding())] },
    ];
    let admins = controllers.iter().filter(|needs| needs.descriptor.writes_anything);
    for needs in admins.filter(|_| target.addons_cluster_admin) {
        let objects = rbac::cluster_admin(needs.descriptor);
        all.insert(1, Manifest { name: "addons-cluster-admin", objects });
    }
    let definitions = crd::objects(controllers);
    if !definitions.is_empty() {
        all.insert(0, Manifest { name: crd::MANIFEST, objects: definitions });
    }
    for manifest in &mut all {
        for object in &mut manifest.objects {
            object["metadata"]["labels"][PART_OF.0] = PART_OF.1.into();
        }
    }
    all
}

/// A typed object with its apiVersion and kind.
fn typed<K: kube::Resource<DynamicType = ()> + serde::Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).expect("an object of the API is JSON");
    value["apiVersion"] = K::api_version(&()).as_ref().into();
    value["kind"] = K::kind(&()).as_ref().into();
    value
}

#[cfg(test)]
mod tests {
    use quarterdeck_runtime::controller::ClientShare;
    use serde_json::json;

    use super::*;

    const WRITER: Descriptor = Descriptor {
        name: "writer-controller",
        aliases: &[],
        enabled_by_default: true,
        account: "writer",
        upstream_role: false,
        writes_anything: true,
        predecessor: None,
        queue: "writer",
        share: ClientShare::ONE,
    };

    fn rbac(account: &str) -> Vec<Value> {
        let target = Target {
            user: "deck".into(),
            lease_namespace: "kube-system".into(),
            lease_name: "deck".into(),
            addons_cluster_admin: false,
        };
        let grants = vec![Grant { group: "", resource: "events", verbs: &["create"] }];
        let account = Account::parse(account).expect("an account");
        let needs = Needs { descriptor: &WRITER, account, reads: Vec::new(), grants };
        manifests(&target, &[needs]).into_iter().flat_map(|manifest| manifest.objects).collect()
    }

    /// Accounts that the manager may act as, by namespace.
    fn impersonated(objects: &[Value]) -> Vec<(&str, &Value)> {
        let roles = objects
            .iter()
            .filter(|object| object["kind"] == "Role" && object["metadata"]["name"] == "quarterdeck:manager");
        roles
            .map(|role| {
                (role["metadata"]["namespace"].as_str().unwrap_or_default(), &role["rules"][0]["resourceNames"])
            })
            .collect()
    }

    #[test]
    fn the_account_that_a_flag_names_takes_the_place_of_the_controllers_own() {
        let readers = ["quarterdeck-fence-probe", "quarterdeck-reader"];
        assert_eq!(impersonated(&rbac("writer")), [("kube-system", &json!([readers[0], readers[1], "writer"]))]);
        let objects = rbac("ships/narrow");
        assert_eq!(impersonated(&objects), [("kube-system", &json!(readers)), ("ships", &json!(["narrow"]))]);
        let narrow = json!({"kind": "ServiceAccount", "namespace": "ships", "name": "narrow"});
        let bound = |name: &str| {
            objects.iter().find(|object| object["kind"] == "ClusterRoleBinding" && object["metadata"]["name"] == name)
        };
        assert_eq!(bound("quarterdeck:writer-controller").expect("its binding")["subjects"], json!([narrow]));
        assert!(bound("quarterdeck:writer").is_none(), "nobody is made an administrator");
    }
}
