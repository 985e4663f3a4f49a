//! What the server needs before a replica can lead: roles, a FlowSchema, the epoch fence. The same
//! objects are rendered into `deploy/`, applied by `quarterdeck install` and removed by
//! `quarterdeck uninstall`.

mod apply;
mod rbac;
mod flow;

use serde_json::Value;

use quarterdeck_runtime::controller::{Descriptor, Grant};
use quarterdeck_runtime::object::Kind;

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
    /// Service account of the directory addons, in `kube-system`, bound to cluster-admin by a
    /// manifest of its own; `None` leaves that binding out.
    pub addons_account: Option<String>,
}

/// A group of objects that belong in one file, in the order in which they are applied.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// File name without extension.
    pub name: &'static str,
    /// Whether it exists only once the others do, and is removed before them.
    pub objects: Vec<Value>,
}

/// Everything the server needs, pure.
#[must_use]
pub fn manifests(target: &Target, controllers: &[Needs]) -> Vec<Manifest> {
    let mut all = vec![
        Manifest { name: "rbac", objects: rbac::objects(target, controllers) },
        Manifest { name: "flowschema", objects: flow::objects(target) },
        Manifest {
            name: "fence",
            objects: quarterdeck_election::fence::objects(&target.lease_namespace, &target.lease_name),
        },
    ];
    if let Some(account) = &target.addons_account {
        all.insert(1, Manifest { name: "addons-cluster-admin", objects: rbac::addons_admin(account) });
    }
    for manifest in &mut all {
        for object in &mut manifest.objects {
            object["metadata"]["labels"][PART_OF.0] = PART_OF.1.into();
        }
    }
    all
}
