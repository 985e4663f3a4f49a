//! The policy and its binding, as objects to be installed.
//!
//! What keeps it from ever locking the cluster, each found by trial on kube-apiserver 1.36.3:
//! * `parameterNotFoundAction: Allow`: parameters are collected before match conditions, so with `Deny` a missing Lease would
//!   refuse every write in the cluster, the Lease's own creation included;
//! * `failurePolicy: Ignore`, for the same reason and for anything the expressions do not foresee;
//! * `has(request.userInfo.extra)` first in the match condition: a request without extras would be an error otherwise.
//!
//! Delete the policy before the binding, and do not take the binding away for a moment only: after that the server's copy of
//! the Lease can stay dead until it restarts (kubernetes#130887), which [`probe`](super::probe) notices.

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
        Validation,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::epoch::{NAMESPACE_DELETION_KEY, epoch_key};

/// The message of a refusal for a past epoch; a refusal is recognised by it.
pub const EPOCH_MESSAGE: &str = "quarterdeck fence: the epoch of this write is not the one of the lease";
/// The message of a refusal of a namespace's contents being deleted while the namespace is not.
pub const NAMESPACE_MESSAGE: &str = "quarterdeck fence: the namespace is not being deleted";

/// The fence of one Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencePolicy {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub lease: String,
}

impl FencePolicy {
    /// The name of the policy and of its binding: `quarterdeck-fence-<lease>`, with the namespace where it is not kube-system.
    pub fn name(&self) -> String {
        match self.namespace.as_str() {
            "kube-system" => format!("quarterdeck-fence-{}", self.lease),
            other => format!("quarterdeck-fence-{}.{other}", self.lease),
        }
    }

    /// The policy: it looks at requests that carry our key, and at nothing else.
    pub fn policy(&self) -> ValidatingAdmissionPolicy {
        let key = epoch_key(&self.lease);
        let rule = NamedRuleWithOperations {
            api_groups: Some(vec!["*".into()]),
            api_versions: Some(vec!["*".into()]),
            operations: Some(["CREATE", "UPDATE", "DELETE"].map(Into::into).into()),
            // Subresources included; any other entry beside it is refused.
            resources: Some(vec!["*/*".into()]),
            scope: Some("*".into()),
            ..Default::default()
        };
        ValidatingAdmissionPolicy {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Ignore".into()),
                param_kind: Some(ParamKind {
                    api_version: Some("coordination.k8s.io/v1".into()),
                    kind: Some("Lease".into()),
                }),
                match_constraints: Some(MatchResources {
                    match_policy: Some("Equivalent".into()),
                    resource_rules: Some(vec![rule]),
                    ..Default::default()
                }),
                match_conditions: Some(vec![MatchCondition {
                    name: "carries-an-epoch".into(),
                    expression: format!("has(request.userInfo.extra) && '{key}' in request.userInfo.extra"),
                }]),
                validations: Some(vec![
                    Validation {
                        expression: format!(
                            "request.userInfo.extra['{key}'] == [params.metadata.uid + '/' + string(params.spec.leaseTransitions)]"
                        ),
                        message: Some(EPOCH_MESSAGE.into()),
                        reason: Some("Forbidden".into()),
                        ..Default::default()
                    },
                    Validation {
                        expression: format!(
                            "!('{NAMESPACE_DELETION_KEY}' in request.userInfo.extra) || \
                             (namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))"
                        ),
                        message: Some(NAMESPACE_MESSAGE.into()),
                        reason: Some("Forbidden".into()),
                        ..Default::default()
                    },
                ]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// The binding of the policy to the Lease.
    pub fn binding(&self) -> ValidatingAdmissionPolicyBinding {
        ValidatingAdmissionPolicyBinding {
            metadata: self.metadata(),
            spec: ValidatingAdmissionPolicyBindingSpec {
                policy_name: self.name(),
                param_ref: Some(ParamRef {
                    name: Some(self.lease.clone()),
                    namespace: Some(self.namespace.clone()),
                    parameter_not_found_action: Some("Allow".into()),
                    selector: None,
                }),
                validation_actions: vec!["Deny".into()],
                match_resources: None,
            },
        }
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta { name: Some(self.name()), ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_it_from_locking_the_cluster_is_there() {
        let fence = FencePolicy { namespace: "kube-system".into(), lease: "quarterdeck".into() };
        assert_eq!(fence.name(), "quarterdeck-fence-quarterdeck");
        let spec = fence.policy().spec.unwrap();
        assert_eq!(spec.failure_policy.as_deref(), Some("Ignore"));
        let condition = &spec.match_conditions.unwrap()[0].expression;
        assert!(condition.starts_with("has(request.userInfo.extra) && "), "{condition}");
        let rules = spec.match_constraints.unwrap().resource_rules.unwrap();
        assert_eq!((rules.len(), rules[0].resources.as_deref()), (1, Some(&["*/*".to_owned()][..])));
        let binding = fence.binding().spec;
        let param = binding.param_ref.unwrap();
        assert_eq!(param.parameter_not_found_action.as_deref(), Some("Allow"));
        assert_eq!((param.name.as_deref(), param.namespace.as_deref()), (Some("quarterdeck"), Some("kube-system")));
        assert_eq!((binding.policy_name, binding.validation_actions), (fence.name(), vec!["Deny".to_owned()]));
        let elsewhere = FencePolicy { namespace: "decks".into(), lease: "quarterdeck".into() };
        assert_ne!(elsewhere.name(), fence.name());
    }
}
