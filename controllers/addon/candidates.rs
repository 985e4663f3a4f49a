//! Objects outside an addon's inventory that its channel's entry speaks of: what its `prune` finds and
//! may not go by itself, and what kOps left behind of earlier versions.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::edited::KOPS;
use super::fields;
use super::ident::{GroupKind, Ident};
use super::plan::MANAGER;
use super::prune::{KEEP, KEEP_ANNOTATION};
use super::source::AddonId;

/// Why an object waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It carries the entry's `selector`, kOps applied it, and the manifest does not name it.
    Selector,
    /// The entry's `prune` finds more than goes at once.
    Brake,
    /// The entry's `prune` finds it, and its kind takes others with it.
    Kind,
}

impl Why {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Selector => "selector",
            Self::Brake => "brake",
            Self::Kind => "kind",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Selector, Self::Brake, Self::Kind].into_iter().find(|why| why.as_str() == text)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What waits for a person beside the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The version of the addon for which was looked for what kOps left, or another word while nobody has; empty if
    /// kOps was never here.
    pub of: String,
    /// The plan that a release names; empty while nothing waits.
    pub plan: String,
    /// The objects, with their uid and why they wait.
    pub members: BTreeMap<Ident, (String, Why)>,
}

impl Candidates {
    /// Names the plan after what waits; it keeps its name while parts of it are carried out.
    pub fn name(&mut self, id: &AddonId) {
        if self.members.is_empty() {
            self.plan.clear();
            return;
        }
        let mut hasher = Sha256::new();
        hasher.update(format!("candidates of {id}\n"));
        for (member, (uid, _)) in &self.members {
            hasher.update(format!("{member} {uid}\n"));
        }
        self.plan = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    }

    /// Whether something waits that the entry itself wants gone.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.members.values().any(|(_, why)| *why != Why::Selector)
    }

    /// As lines for a parent: `ConfigMap/a/x uid why`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.members.iter().map(|(member, (uid, why))| format!("{member} {uid} {why}"))
    }

    /// Reads what [`lines`](Self::lines) made.
    #[must_use]
    pub fn parse(of: &str, plan: &str, lines: &str) -> Self {
        let member = |line: &str| {
            let mut words = line.split(' ');
            Some((Ident::parse(words.next()?)?, (words.next()?.to_owned(), Why::parse(words.next()?)?)))
        };
        Self { of: of.to_owned(), plan: plan.to_owned(), members: lines.lines().filter_map(member).collect() }
    }
}

/// Whether an object that a rule finds may be deleted at all: its uid, or why it stays.
///
/// # Errors
/// Says why it stays.
pub fn may_go(live: &Value, only_kops: bool) -> Result<String, &'static str> {
    let uid = live.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    if uid.is_empty() {
        return Err("it has no uid");
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Err("it goes already");
    }
    let annotation = live.pointer("/metadata/annotations").and_then(|all| all.get(KEEP_ANNOTATION));
    if annotation.and_then(Value::as_str) == Some(KEEP) {
        return Err("it is annotated to be kept");
    }
    let references = live.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    if references.into_iter().flatten().any(|owner| owner["controller"] == true) {
        return Err("a controller owns it");
    }
    let ours = |owner: &fields::Owner| {
        owner.subresource.is_empty() && (owner.manager == KOPS || (!only_kops && owner.manager == MANAGER))
    };
    if !fields::owners(live).iter().any(ours) {
        return Err("neither kOps nor quarterdeck applied it");
    }
    Ok(uid.to_owned())
}

/// Kinds that are looked through for what kOps left behind, besides those of the manifest and the
/// inventory: those that its addons are made of (kops:upup/pkg/fi/cloudup/bootstrapchannelbuilder/pruning.go,
/// and what that leaves out).
#[must_use]
pub fn usual_kinds() -> Vec<GroupKind> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    [
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("batch", "CronJob"),
        ("batch", "Job"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
        (RBAC, "ClusterRole"),
        (RBAC, "ClusterRoleBinding"),
        (RBAC, "Role"),
        (RBAC, "RoleBinding"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("storage.k8s.io", "CSIDriver"),
        ("storage.k8s.io", "StorageClass"),
    ]
    .map(|(group, kind)| GroupKind::new(group, kind))
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(edit: &dyn Fn(&mut Value)) -> Value {
        let mut live = json!({"metadata": {"uid": "u", "managedFields": [{"manager": "kops", "operation": "Apply", "fieldsV1": {"f:data": {}}}]}});
        edit(&mut live["metadata"]);
        live
    }

    #[test]
    fn only_what_kops_or_we_applied_may_go() {
        assert_eq!(may_go(&live(&|_| {}), true), Ok("u".to_owned()));
        let ours = live(&|meta| meta["managedFields"][0]["manager"] = MANAGER.into());
        assert_eq!((may_go(&ours, false), may_go(&ours, true).is_err()), (Ok("u".to_owned()), true));
        type Edit = fn(&mut Value);
        let kept: [(&str, Edit); 6] = [
            ("without uid", |meta| meta["uid"] = Value::Null),
            ("going", |meta| meta["deletionTimestamp"] = "now".into()),
            ("annotated", |meta| meta["annotations"] = json!({KEEP_ANNOTATION: KEEP})),
            ("owned by a controller", |meta| meta["ownerReferences"] = json!([{"uid": "o", "controller": true}])),
            ("somebody's", |meta| meta["managedFields"][0]["manager"] = "kubectl".into()),
            ("kOps' by its status", |meta| meta["managedFields"][0]["subresource"] = "status".into()),
        ];
        for (name, edit) in kept {
            assert!(may_go(&live(&edit), false).is_err(), "{name}");
        }
    }

    #[test]
    fn what_waits_is_read_back_and_named_by_uid() {
        let id = AddonId { source: "channel", name: "dns".into() };
        let member = |text: &str, uid: &str, why| (Ident::parse(text).expect("an ident"), (uid.to_owned(), why));
        let members = BTreeMap::from([
            member("ConfigMap/a/x", "u1", Why::Selector),
            member("Namespace//n", "u2", Why::Kind),
            member("Deployment.apps/a/x", "u3", Why::Brake),
        ]);
        let mut candidates = Candidates { of: "v".into(), plan: String::new(), members };
        candidates.name(&id);
        let text = candidates.lines().map(|line| line + "\n").collect::<String>();
        assert_eq!(Candidates::parse("v", &candidates.plan, &text), candidates);
        assert!(candidates.holds());
        let plan = candidates.plan.clone();
        candidates.members.values_mut().for_each(|(uid, _)| uid.push('x'));
        candidates.name(&id);
        assert_ne!(candidates.plan, plan, "another object of the name is not what was released");
        candidates.members.clear();
        candidates.name(&id);
        assert_eq!((candidates.plan.as_str(), candidates.holds()), ("", false));
    }
}
