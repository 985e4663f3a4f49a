//! What the server needs before a replica can lead: roles, a FlowSchema, the epoch fence. The same
//! objects are rendered into `deploy/`, applied by `quarterdeck install` and removed by
//! `quarterdeck uninstall`.

mod apply;
pub(crate) mod command;
mod flow;
mod rbac;

use quarterdeck_election::fence::FencePolicy;
use quarterdeck_runtime::controller::{Descriptor, Grant};
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
    /// Whether the account of each controller that writes whatever it is handed (the addons') is
    /// bound to cluster-admin, by a manifest of its own.
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
