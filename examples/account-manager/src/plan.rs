//! What an account needs, as a pure function of what is there.

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::account::Account;

/// Name of the role binding and of the quota in the namespace.
pub const NAME: &str = "account";
const RBAC: &str = "rbac.authorization.k8s.io";

/// What the caches show of an account.
pub struct Snapshot<'a> {
    /// The account.
    pub account: &'a Account,
    /// Its namespace.
    pub namespace: Option<&'a Namespace>,
    /// Its members' rights.
    pub binding: Option<&'a RoleBinding>,
    /// Its limits.
    pub quota: Option<&'a ResourceQuota>,
}

/// One write.
#[derive(Debug, PartialEq)]
pub enum Op {
    /// Create the namespace.
    CreateNamespace(Box<Namespace>),
    /// Create the members' rights.
    CreateBinding(Box<RoleBinding>),
    /// Replace the members' rights.
    ReplaceBinding(Box<RoleBinding>),
    /// Create the limits.
    CreateQuota(Box<ResourceQuota>),
    /// Replace the limits.
    ReplaceQuota(Box<ResourceQuota>),
}

/// What must be written to give the account what it asks for, in order; nothing when it has it.
#[must_use]
pub fn plan(seen: &Snapshot<'_>) -> Vec<Op> {
    let name = seen.account.metadata.name.clone().unwrap_or_default();
    let mut ops = Vec::new();
    if seen.namespace.is_none() {
        ops.push(Op::CreateNamespace(Box::new(Namespace {
            metadata: owned(seen.account, &name, None),
            ..Namespace::default()
        })));
    }
    let members = seen.account.spec.members.iter();
    let subjects: Vec<Subject> = members
        .map(|user| Subject {
            api_group: Some(RBAC.to_owned()),
            kind: "User".to_owned(),
            name: user.clone(),
            ..Subject::default()
        })
        .collect();
    match seen.binding {
        None => ops.push(Op::CreateBinding(Box::new(RoleBinding {
            metadata: owned(seen.account, NAME, Some(&name)),
            role_ref: RoleRef {
                api_group: Some(RBAC.to_owned()),
                kind: "ClusterRole".to_owned(),
                name: "edit".to_owned(),
            },
            subjects: Some(subjects),
        }))),
        Some(live) if live.subjects.as_deref().unwrap_or_default() != subjects => {
            ops.push(Op::ReplaceBinding(Box::new(RoleBinding { subjects: Some(subjects), ..live.clone() })));
        }
        Some(_) => {}
    }
    let spec = ResourceQuotaSpec { hard: Some(seen.account.spec.quota.clone()), ..ResourceQuotaSpec::default() };
    match seen.quota {
        None if seen.account.spec.quota.is_empty() => {}
        None => ops.push(Op::CreateQuota(Box::new(ResourceQuota {
            metadata: owned(seen.account, NAME, Some(&name)),
            spec: Some(spec),
            ..ResourceQuota::default()
        }))),
        Some(live)
            if live.spec.as_ref().and_then(|live| live.hard.as_ref()).unwrap_or(&Default::default())
                != &seen.account.spec.quota =>
        {
            ops.push(Op::ReplaceQuota(Box::new(ResourceQuota { spec: Some(spec), ..live.clone() })));
        }
        Some(_) => {}
    }
    ops
}

fn owned(account: &Account, name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        owner_references: Some(vec![OwnerReference {
            api_version: account.api_version.clone(),
            kind: account.kind.clone(),
            name: account.metadata.name.clone().unwrap_or_default(),
            uid: account.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            ..OwnerReference::default()
        }]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::account::AccountSpec;

    fn account(members: &[&str], pods: Option<&str>) -> Account {
        let quota = pods.map(|pods| ("pods".to_owned(), Quantity(pods.to_owned())));
        Account {
            metadata: ObjectMeta { name: Some("ship".to_owned()), ..ObjectMeta::default() },
            spec: AccountSpec {
                members: members.iter().map(ToString::to_string).collect(),
                quota: quota.into_iter().collect::<BTreeMap<_, _>>(),
            },
            ..Account::default()
        }
    }

    #[test]
    fn a_new_account_gets_everything_and_then_nothing() {
        let account = account(&["ann"], Some("3"));
        let ops = plan(&Snapshot { account: &account, namespace: None, binding: None, quota: None });
        let [Op::CreateNamespace(namespace), Op::CreateBinding(binding), Op::CreateQuota(quota)] = &ops[..] else {
            panic!("{ops:?}")
        };
        let (namespace, binding, quota) = (Some(&**namespace), Some(&**binding), Some(&**quota));
        assert_eq!(plan(&Snapshot { account: &account, namespace, binding, quota }), []);
    }

    #[test]
    fn only_what_differs_is_written() {
        let (old, new) = (account(&["ann"], None), account(&["ann", "bob"], None));
        let ops = plan(&Snapshot { account: &old, namespace: None, binding: None, quota: None });
        let [Op::CreateNamespace(namespace), Op::CreateBinding(binding)] = &ops[..] else { panic!("{ops:?}") };
        let ops = plan(&Snapshot { account: &new, namespace: Some(namespace), binding: Some(binding), quota: None });
        let [Op::ReplaceBinding(binding)] = &ops[..] else { panic!("{ops:?}") };
        assert_eq!(binding.subjects.as_ref().map(Vec::len), Some(2));
    }
}
