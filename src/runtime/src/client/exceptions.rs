//! The table of exceptions: every call that may pass without the gate, or without a precondition.
//! Whatever is not in it has both.

use crate::object::Kind;

/// What a row of the table lets off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// The gate: any replica may send it at any time.
    Gate,
    /// The precondition of its verb; the gate stands.
    Precondition,
}

/// One exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// API group.
    pub group: &'static str,
    /// Plural resource name, `*` for any.
    pub resource: &'static str,
    /// Kubernetes verbs.
    pub verbs: &'static [&'static str],
    /// What it passes without.
    pub without: Without,
    /// Why that does no harm.
    pub why: &'static str,
}

/// All exceptions there are.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["create", "update"],
        without: Without::Gate,
        why: "the elector's Lease decides who passes the gate, and each replica's own Lease says that it is alive; \
              both carry a resourceVersion and go through the lease connection only",
    },
    Exception {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        verbs: &["create"],
        without: Without::Gate,
        why: "a question: nothing is stored",
    },
    Exception {
        group: "authorization.k8s.io",
        resource: "subjectaccessreviews",
        verbs: &["create"],
        without: Without::Gate,
        why: "a question: nothing is stored",
    },
    Exception {
        group: "",
        resource: "events",
        verbs: &["create", "patch"],
        without: Without::Precondition,
        why: "a record of what happened, under a name of its own; nothing is decided on it",
    },
    Exception {
        group: "*",
        resource: "*",
        verbs: &["deletecollection"],
        without: Without::Precondition,
        why: "the verb cannot carry one; sent only for a namespace just seen deleting, which the fence checks",
    },
];

/// Whether a call may pass without `what`.
pub(crate) fn passes_without(what: Without, kind: &Kind, verb: &str) -> bool {
    let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    EXCEPTIONS.iter().any(|row| {
        row.without == what
            && fits(row.group, &kind.group)
            && fits(row.resource, &kind.plural)
            && row.verbs.contains(&verb)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_calls_pass() {
        let kind = |group, plural| Kind::new(group, "v1", "", plural, true);
        let cases = [
            (Without::Gate, kind("authentication.k8s.io", "tokenreviews"), "create", true),
            (Without::Gate, kind("authorization.k8s.io", "subjectaccessreviews"), "create", true),
            (Without::Gate, kind("", "events"), "create", false),
            (Without::Gate, kind("", "tokenreviews"), "create", false),
            (Without::Gate, kind("discovery.k8s.io", "endpointslices"), "create", false),
            (Without::Precondition, kind("", "events"), "patch", true),
            (Without::Precondition, kind("", "events"), "delete", false),
            (Without::Precondition, kind("apps", "deployments"), "deletecollection", true),
            (Without::Precondition, kind("apps", "deployments"), "delete", false),
        ];
        for (what, kind, verb, expected) in cases {
            assert_eq!(passes_without(what, &kind, verb), expected, "{what:?} {kind} {verb}");
        }
    }
}
