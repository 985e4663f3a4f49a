//! Roles, generated from what the controllers declare; nothing else is granted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Needs, Target};
use quarterdeck_election::NAMESPACE_DELETION_KEY;
use quarterdeck_election::epoch::epoch_key;
use quarterdeck_election::fence::probe::PROBE_ACCOUNT;
use quarterdeck_runtime::controller::{Account, Descriptor, Predecessor, READER_ACCOUNT};
use quarterdeck_runtime::notes::REPLICAS_NAMESPACE;

const GROUP: &str = "rbac.authorization.k8s.io";
const NAMESPACE: &str = "kube-system";

/// All roles and bindings for a Lease and a set of controllers.
pub(super) fn objects(target: &Target, controllers: &[Needs]) -> Vec<Value> {
    let mut objects = manager(target, controllers);
    objects.extend(reader(controllers));
    objects.extend(fence_probe());
    objects.extend(replicas(target, controllers));
    objects.push(viewer());
    for needs in controllers.iter().filter(|needs| !needs.grants.is_empty()) {
        let name = format!("quarterdeck:{}", needs.descriptor.name);
        let rules: Vec<Value> = needs
            .grants
            .iter()
            .map(|grant| json!({ "apiGroups": [grant.group], "resources": [grant.resource], "verbs": grant.verbs }))
            .collect();
        objects.extend(cluster_role(&name, &rules, &subject(&needs.account)));
    }
    objects
}

/// An account that writes whatever it is handed, as cluster-admin: who writes a master's disk is
/// trusted already.
pub(super) fn cluster_admin(descriptor: &Descriptor) -> Vec<Value> {
    vec![json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": { "name": format!("quarterdeck:{}", descriptor.account) },
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [account(descriptor.account)],
    })]
}

/// What the kubeconfig's own user may do: its Lease, looking at the predecessors' Leases, reviews,
/// and impersonation of the accounts that do the work.
fn manager(target: &Target, controllers: &[Needs]) -> Vec<Value> {
    let user = json!({ "apiGroup": GROUP, "kind": "User", "name": target.user });
    let mut accounts: BTreeMap<&str, BTreeSet<&str>> =
        BTreeMap::from([(NAMESPACE, BTreeSet::from([READER_ACCOUNT, probe_account()]))]);
    for account in controllers.iter().map(|needs| &needs.account) {
        accounts.entry(&account.namespace).or_default().insert(&account.name);
    }
    let extras: Vec<String> = [epoch_key(&target.lease_name), NAMESPACE_DELETION_KEY.to_owned()]
        .into_iter()
        .map(|key| format!("userextras/{key}"))
        .collect();
    let predecessors: BTreeSet<&str> =
        controllers.iter().filter_map(|needs| needs.descriptor.predecessor.map(Predecessor::lease_name)).collect();

    let mut objects = cluster_role(
        "quarterdeck:manager",
        &[
            json!({ "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] }),
            json!({ "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"] }),
            json!({ "apiGroups": ["authentication.k8s.io"], "resources": extras, "verbs": ["impersonate"] }),
        ],
        &user,
    );
    let mut rules = vec![
        impersonation(&accounts.remove(NAMESPACE).unwrap_or_default()),
        json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["extension-apiserver-authentication"], "verbs": ["get"] }),
        json!({ "apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"] }),
    ];
    if !predecessors.is_empty() {
        rules.push(json!({
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": predecessors, "verbs": ["get", "watch"],
        }));
    }
    objects.extend(role("quarterdeck:manager", NAMESPACE, &rules, &user));
    for (namespace, accounts) in &accounts {
        objects.extend(role("quarterdeck:manager", namespace, &[impersonation(accounts)], &user));
    }
    let lease = vec![
        json!({
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": [target.lease_name], "verbs": ["get", "watch", "update"],
        }),
        json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] }),
    ];
    objects.extend(role(&format!("quarterdeck:lease-{}", target.lease_name), &target.lease_namespace, &lease, &user));
    objects
}

/// The right to act as these accounts of one namespace.
fn impersonation(accounts: &BTreeSet<&str>) -> Value {
    json!({ "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": accounts, "verbs": ["impersonate"] })
}

/// The account under which all informers read.
fn reader(controllers: &[Needs]) -> Vec<Value> {
    let kinds: BTreeSet<(&str, &str)> = controllers
        .iter()
        .flat_map(|needs| &needs.reads)
        .map(|kind| (kind.group.as_ref(), kind.plural.as_ref()))
        .collect();
    let rules: Vec<Value> = kinds
        .into_iter()
        .map(|(group, resource)| json!({ "apiGroups": [group], "resources": [resource], "verbs": ["list", "watch"] }))
        .collect();
    cluster_role("quarterdeck:reader", &rules, &account(READER_ACCOUNT))
}

/// The namespace of the replicas' own Leases. Each replica writes its own as the manager's user, and
/// reads those of the others; the leader deletes those of replicas that are gone. Events about them are written by whoever keeps addons, who also keeps in
/// Secrets there what channels said last.
fn replicas(target: &Target, controllers: &[Needs]) -> Vec<Value> {
    let user = json!({ "apiGroup": GROUP, "kind": "User", "name": target.user });
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": REPLICAS_NAMESPACE },
    })];
    let leases = json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "list", "watch", "create", "update", "delete"],
    });
    objects.extend(role("quarterdeck:replicas", REPLICAS_NAMESPACE, &[leases], &user));
    for needs in controllers.iter().filter(|needs| needs.descriptor.writes_anything) {
        let events = json!({ "apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"] });
        let name = format!("quarterdeck:{}", needs.descriptor.name);
        let secrets = json!({
            "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "update", "delete"],
        });
        objects.extend(role(&name, REPLICAS_NAMESPACE, &[events, secrets], &subject(&needs.account)));
    }
    objects
}

/// Who may look at the status page and what it is made of: bound to nobody.
fn viewer() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": { "name": "quarterdeck-viewer" },
        "rules": [{ "nonResourceURLs": ["/status", "/statusz"], "verbs": ["get"] }],
    })
}

/// The account of the dry-run writes that prove the fence: it may create Events and nothing else.
fn fence_probe() -> Vec<Value> {
    let rules = vec![json!({ "apiGroups": [""], "resources": ["events"], "verbs": ["create"] })];
    role("quarterdeck:fence-probe", NAMESPACE, &rules, &account(probe_account()))
}

fn account(name: &str) -> Value {
    subject(&Account::system(name))
}

fn subject(account: &Account) -> Value {
    json!({ "kind": "ServiceAccount", "namespace": account.namespace, "name": account.name })
}

fn cluster_role(name: &str, rules: &[Value], subject: &Value) -> Vec<Value> {
    vec![
        json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules }),
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": name }, "subjects": [subject],
        }),
    ]
}

fn role(name: &str, namespace: &str, rules: &[Value], subject: &Value) -> Vec<Value> {
    let metadata = json!({ "name": name, "namespace": namespace });
    vec![
        json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "Role", "metadata": metadata, "rules": rules }),
        json!({
            "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": GROUP, "kind": "Role", "name": name }, "subjects": [subject],
        }),
    ]
}

/// The probe's account by its name alone.
fn probe_account() -> &'static str {
    PROBE_ACCOUNT.rsplit(':').next().unwrap_or(PROBE_ACCOUNT)
}
