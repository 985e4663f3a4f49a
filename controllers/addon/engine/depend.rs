//! What an addon needs of others, and of the cluster's storage classes.

use std::sync::Arc;

use quarterdeck_runtime::client::Api;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde_json::Value;

use super::{Engine, Shared};
use crate::addon::dependency::{Provider, Unmet, unmet};
use crate::addon::source::{Addon, AddonId};

impl Engine {
    /// What an addon waits for.
    pub(super) fn unmet(&self, addon: &Addon) -> Vec<Unmet> {
        let shared = self.shared.lock();
        let addons = shared.sources.values().flat_map(|snapshot| snapshot.addons.values());
        let providers: Vec<Provider<'_>> = addons
            .filter_map(|other| {
                let package = other.package.as_ref()?;
                let ready = shared.states.get(&other.id).is_some_and(|standing| standing.serves(&other.version));
                Some(Provider { id: &other.id, package, dependencies: &other.dependencies, ready })
            })
            .collect();
        unmet(&addon.id, &addon.dependencies, &providers)
    }

    /// Whether claims of a storage class are bound only when a pod uses them: an unbound one is as it
    /// ought to be. A class that cannot be read is taken for one that binds at once.
    pub(super) async fn binds_late(&self, api: &Api, class: &str) -> bool {
        if class.is_empty() {
            return false;
        }
        let kind = Kind::new("storage.k8s.io", "v1", "StorageClass", "storageclasses", false);
        let class = api.get::<Value>(&kind, &ObjectKey::cluster(class)).await.ok().flatten();
        class.is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer")
    }
}

impl Shared {
    /// Addons that depend on a package that this one provides or provided.
    pub(super) fn dependents(&self, packages: &[&str]) -> Vec<AddonId> {
        let addons = self.sources.values().flat_map(|snapshot| snapshot.addons.values());
        let depends =
            |addon: &&Arc<Addon>| addon.dependencies.iter().any(|dependency| packages.contains(&&*dependency.package));
        addons.filter(depends).map(|addon| addon.id.clone()).collect()
    }
}
