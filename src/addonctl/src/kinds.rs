//! Which resource serves a kind, asked of the server once.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, oneshot};
use quarterdeck_controllers::addon::ident::GroupKind;

use crate::server::{Server, explain};

/// Kinds that the server was asked for.
#[derive(Default)]
pub(crate) struct Kinds {
    known: BTreeMap<(GroupKind, String), Option<(ApiResource, bool)>>,
    /// Kinds whose definitions were made in this run, and may take a moment to be served.
    pub(crate) defined: BTreeSet<GroupKind>,
}

impl Kinds {
    /// The resource of a kind and whether it lives in namespaces; `None` if it is not served.
    ///
    /// # Errors
    /// When the server does not say.
    pub(crate) async fn find(
        &mut self,
        server: &Server,
        kind: &GroupKind,
        version: &str,
    ) -> anyhow::Result<Option<(ApiResource, bool)>> {
        let key = (kind.clone(), version.to_owned());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let gvk = GroupVersionKind::gvk(&kind.group, version, &kind.kind);
        let found = match oneshot::pinned_kind(&server.client, &gvk).await {
            Ok((resource, capabilities)) => Some((resource, capabilities.scope == Scope::Namespaced)),
            Err(kube::Error::Discovery(_)) => None,
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(explain(error, "the kinds of the server")),
        };
        self.known.insert(key, found.clone());
        Ok(found)
    }

    /// Forgets a kind, so that the server is asked anew.
    pub(crate) fn forget(&mut self, kind: &GroupKind) {
        self.known.retain(|(known, _), _| known != kind);
    }
}
