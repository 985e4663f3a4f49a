//! What an addon needs of others, and of the cluster's storage classes.

use quarterdeck_runtime::client::Api;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde_json::Value;

use super::Engine;
use crate::addon::source::Addon;

impl Engine {
    /// Packages that an addon waits for, each with the reason.
    pub(super) fn unmet(&self, addon: &Addon) -> Vec<String> {
        let _ = addon;
        Vec::new()
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
