//! The table of exceptions: every call that may pass without the gate, or without a precondition.
//! Whatever is not in it has both.

use http::{Method, Uri};

use crate::object::Kind;

/// What a row of the table lets off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// The gate: any replica may send it at any time.
    Gate,
    /// The gate, in a dry run, which stores nothing.
    GateInDryRun,
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
        group: "",
        resource: "events",
        verbs: &["create"],
        without: Without::GateInDryRun,
        why: "proves before leading, under an account without rights of its own, that the fence works",
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

/// Whether a request may go out on the lease connection, which has no gate.
pub(crate) fn passes_gateless(method: &Method, uri: &Uri) -> bool {
    let verb = match *method {
        Method::GET => return true,
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        _ => return false,
    };
    let Some(kind) = kind_of(uri.path()) else { return false };
    let dry_run = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "dryRun=All"));
    passes_without(Without::Gate, &kind, verb) || (dry_run && passes_without(Without::GateInDryRun, &kind, verb))
}

/// Group and resource that a path names.
fn kind_of(path: &str) -> Option<Kind> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, version, rest) = match parts[..] {
        ["api", version, ref rest @ ..] => ("", version, rest),
        ["apis", group, version, ref rest @ ..] => (group, version, rest),
        _ => return None,
    };
    let (plural, namespaced) = match *rest {
        ["namespaces", _, plural, ..] => (plural, true),
        [plural, ..] => (plural, false),
        [] => return None,
    };
    let [group, version, plural] = [group, version, plural].map(|part| part.to_owned().into());
    Some(Kind { group, version, kind: "".into(), plural, namespaced })
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

    #[test]
    fn the_lease_connection_takes_leases_and_the_proof_of_the_fence() {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
        let cases = [
            ("POST", leases.to_owned(), true),
            ("PUT", format!("{leases}/quarterdeck"), true),
            ("PATCH", format!("{leases}/quarterdeck"), false),
            ("DELETE", format!("{leases}/quarterdeck"), false),
            ("GET", "/api/v1/pods".to_owned(), true),
            ("POST", "/api/v1/namespaces/kube-system/events?dryRun=All".to_owned(), true),
            ("POST", "/api/v1/namespaces/kube-system/events?".to_owned(), false),
            ("POST", "/api/v1/namespaces/kube-system/pods?dryRun=All".to_owned(), false),
            ("PUT", "/api/v1/namespaces/leases".to_owned(), false),
            ("POST", "/nonsense".to_owned(), false),
        ];
        for (method, uri, expected) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(passes_gateless(&method, &uri.parse().unwrap()), expected, "{method} {uri}");
        }
    }
}
