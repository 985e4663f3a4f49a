//! What a kube-apiserver writes into its audit log.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::pki;

/// An audit policy.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditPolicy {
    kind: Kind,
    /// Group and resource of what is kept with bodies although it is noisy.
    with_bodies: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Normal,
    Metadata,
    Custom(Value),
}

impl Default for AuditPolicy {
    /// Writes with both bodies, and reads, watches, and writes of events,
    /// leases, tokens, reviews and secrets without.
    fn default() -> Self {
        Self { kind: Kind::Normal, with_bodies: Vec::new() }
    }
}

impl AuditPolicy {
    /// Every request, none with bodies: for benches.
    pub fn metadata() -> Self {
        Self { kind: Kind::Metadata, with_bodies: Vec::new() }
    }

    /// A policy as in a file for `--audit-policy-file`.
    pub fn custom(policy: Value) -> Self {
        Self { kind: Kind::Custom(policy), with_bodies: Vec::new() }
    }

    /// Keeps the bodies of writes of a resource that the default policy keeps
    /// without, such as `leases` of `coordination.k8s.io`.
    #[must_use]
    pub fn with_bodies(mut self, group: &str, resource: &str) -> Self {
        self.with_bodies.push((group.to_owned(), resource.to_owned()));
        self
    }

    /// Writes the policy's file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        pki::write(path, &serde_json::to_string_pretty(&self.document())?)
    }

    /// The policy; the first rule that fits a request counts.
    fn document(&self) -> Value {
        let writes = json!(["create", "update", "patch", "delete", "deletecollection"]);
        let mut rules = vec![
            // Probes: many and without meaning.
            json!({ "level": "None", "nonResourceURLs": ["/livez*", "/readyz*", "/healthz*"] }),
        ];
        match &self.kind {
            Kind::Custom(policy) => return policy.clone(),
            Kind::Metadata => {}
            Kind::Normal => {
                for (group, resource) in &self.with_bodies {
                    rules.push(json!({
                        "level": "RequestResponse",
                        "verbs": writes,
                        "resources": [{ "group": group, "resources": [resource] }],
                    }));
                }
                rules.push(json!({
                    "level": "Metadata",
                    "resources": [
                        { "group": "", "resources": ["events", "secrets", "serviceaccounts/token"] },
                        { "group": "events.k8s.io", "resources": ["events"] },
                        { "group": "coordination.k8s.io", "resources": ["leases"] },
                        { "group": "authentication.k8s.io" },
                        { "group": "authorization.k8s.io" },
                    ],
                }));
                // The server's own objects at its start.
                rules.push(json!({ "level": "Metadata", "users": ["system:apiserver"] }));
                rules.push(json!({
                    "level": "RequestResponse",
                    "verbs": writes,
                    "resources": [{ "group": "*" }],
                }));
            }
        }
        rules.push(json!({ "level": "Metadata" }));
        json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "omitManagedFields": true,
            "rules": rules,
        })
    }
}
