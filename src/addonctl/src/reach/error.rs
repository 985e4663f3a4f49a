//! What can stand between a user and a manager, in words that help.

use std::fmt;
use std::time::Duration;

use quarterdeck_api::duration;

/// A right in a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right<'r> {
    /// Verbs, with commas between them.
    pub(super) verbs: &'static str,
    /// The resource.
    pub(super) resource: &'static str,
    /// The namespace.
    pub(super) namespace: &'r str,
    /// What a role that gives it may be called.
    pub(super) role: &'static str,
}

impl Right<'_> {
    /// What an administrator does to give it.
    fn remedy(&self) -> String {
        let Self { verbs, resource, namespace, role } = self;
        format!(
            "kubectl create role {role} -n {namespace} --verb={verbs} --resource={resource}, and kubectl create rolebinding \
             {role} -n {namespace} --role={role} --user=USER"
        )
    }
}

impl fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.replace(',', " and "), self.resource)
    }
}

/// What stands in the way. No variant means that something is wrong with the cluster itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    /// Nothing says where a manager is.
    #[error(
        "no replica of quarterdeck has a Lease in namespace {namespace}: none has run on this cluster, or it is older than \
         this addonctl; --address=https://HOST:PORT names one"
    )]
    NoReplica {
        /// Where replicas have their Leases.
        namespace: &'static str,
    },
    /// The replica that was asked for is not there.
    #[error("there is no replica {wanted:?}; there are: {known}")]
    NoSuchReplica {
        /// What was asked for.
        wanted: String,
        /// The names of those that are there.
        known: String,
    },
    /// The API server refuses.
    #[error("{what}: {message}; it takes the right to {right}: {remedy}")]
    Forbidden {
        /// What was asked for.
        what: String,
        /// What the server said.
        message: String,
        /// The right, in words.
        right: String,
        /// A command of an administrator that gives it.
        remedy: String,
    },
    /// The API server does not answer, or not with what it should.
    #[error("{what}: {source}")]
    Server {
        /// What was asked for.
        what: String,
        /// Its error.
        source: Box<kube::Error>,
    },
    /// A replica runs in no pod that can be seen, and its Lease names no address.
    #[error(
        "replica {replica} is in no pod with labels {selector} of namespace {namespace} (--manager-namespace and \
         --manager-selector say where to look), and its Lease names no address"
    )]
    NoPod {
        /// The replica.
        replica: String,
        /// Where it was looked for.
        namespace: String,
        /// Which pods were looked at.
        selector: String,
    },
    /// A replica's Lease does not say which certificate it shows.
    #[error(
        "the Lease of replica {replica} does not say which certificate it shows, so that nothing was sent to it; \
         --certificate-authority=FILE names who signed it"
    )]
    NoPin {
        /// The replica.
        replica: String,
    },
    /// The server at the end is not the replica.
    #[error(
        "{place} shows a certificate with SHA-256 {shown}, and not {wanted}: it is something else, or its certificate was \
         replaced this moment; nothing was sent to it"
    )]
    WrongPin {
        /// Where.
        place: String,
        /// The checksum of what it shows.
        shown: String,
        /// What the Lease says.
        wanted: String,
    },
    /// The server's certificate was not signed by the given authority, or not for that name.
    #[error("{place}: its certificate is not to be believed: {reason}; nothing was sent to it")]
    Unverified {
        /// Where.
        place: String,
        /// Why not.
        reason: String,
    },
    /// There is no way to it.
    #[error("{place}: {reason}")]
    Unreachable {
        /// Where.
        place: String,
        /// What happened.
        reason: String,
    },
    /// It took too long.
    #[error("{what} took longer than {}", duration::format(*after))]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The manager does not know the user.
    #[error(
        "{place} does not know who you are: it takes client certificates of the cluster's authority, and tokens that \
         kube-apiserver vouches for{message}"
    )]
    Unauthorized {
        /// Where.
        place: String,
        /// What it said besides.
        message: String,
    },
    /// The manager knows the user, and refuses.
    #[error(
        "{place}: {message}; it takes a role: kubectl create clusterrole quarterdeck-status --verb=get \
         --non-resource-url=/status --non-resource-url=/statusz, and kubectl create clusterrolebinding quarterdeck-status \
         --clusterrole=quarterdeck-status --user=USER"
    )]
    Refused {
        /// Where.
        place: String,
        /// What it said.
        message: String,
    },
    /// The manager answers with something else.
    #[error("{place} answers {path} with {answer}")]
    Unexpected {
        /// Where.
        place: String,
        /// What was asked for.
        path: String,
        /// What came.
        answer: String,
    },
    /// A flag, or what it names, makes no sense.
    #[error("--{flag}: {reason}")]
    Flag {
        /// The flag, without dashes.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The user's own credentials cannot be had.
    #[error("your credentials: {0}")]
    Credentials(String),
}

impl ReachError {
    /// An error of the API server about something; if it was refused, with the right that would help.
    pub(super) fn of_server(error: kube::Error, what: &str, right: &Right<'_>) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden {
                what: what.to_owned(),
                message: status.message.clone(),
                right: right.to_string(),
                remedy: right.remedy(),
            },
            other => Self::Server { what: what.to_owned(), source: Box::new(other) },
        }
    }

    /// Whether a later try may do better without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        self.is_about_one_replica() || matches!(self, Self::Server { .. } | Self::NoReplica { .. })
    }

    /// Whether another replica might do better.
    pub(crate) fn is_about_one_replica(&self) -> bool {
        matches!(
            self,
            Self::NoPod { .. }
                | Self::NoPin { .. }
                | Self::WrongPin { .. }
                | Self::Unverified { .. }
                | Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::Unexpected { .. }
        )
    }
}
