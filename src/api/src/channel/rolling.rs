//! Which nodes are marked for a rolling update.

use std::collections::BTreeMap;

/// Annotation, with an empty value, of a node that should be replaced.
pub const NEEDS_UPDATE: &str = "kops.k8s.io/needs-update";

/// Which nodes need a rolling update after an addon changed; a first install needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollingUpdate {
    /// Masters.
    ControlPlane,
    /// The other nodes that kOps made.
    Workers,
    /// Every node.
    All,
}

impl RollingUpdate {
    /// Reads `control-plane`, `workers` or `all`; `worker` is what kOps itself compared with.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "control-plane" => Self::ControlPlane,
            "workers" | "worker" => Self::Workers,
            "all" => Self::All,
            _ => return None,
        })
    }

    /// Whether it concerns a node with these labels. kOps looks for the label `master`, which it does
    /// not set any more, so that `control-plane` selects nothing there; here both labels count.
    #[must_use]
    pub fn concerns(self, labels: &BTreeMap<String, String>) -> bool {
        let has = |role: &str| labels.contains_key(&format!("node-role.kubernetes.io/{role}"));
        match self {
            Self::ControlPlane => has("control-plane") || has("master"),
            Self::Workers => has("node"),
            Self::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: &str) -> BTreeMap<String, String> {
        [(format!("node-role.kubernetes.io/{role}"), String::new())].into()
    }

    /// kops:channels/pkg/channels/addons_test.go, Test_NeedsRollingUpdate: its two nodes.
    #[test]
    fn roles_select_nodes() {
        for (wanted, concerned) in [
            ("all", vec!["master", "control-plane", "node", "other"]),
            ("workers", vec!["node"]),
            ("worker", vec!["node"]),
            ("control-plane", vec!["master", "control-plane"]),
        ] {
            let update = RollingUpdate::parse(wanted).expect(wanted);
            let found: Vec<_> = ["master", "control-plane", "node", "other"]
                .into_iter()
                .filter(|role| update.concerns(&node(role)))
                .collect();
            assert_eq!(found, concerned, "{wanted}");
        }
        assert_eq!(RollingUpdate::parse("masters"), None);
    }
}
