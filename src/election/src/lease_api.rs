//! What the elector needs of a server: read, create, replace and watch one Lease.

use std::{future::Future, time::Duration};

use futures::stream::BoxStream;

use crate::record::{LeaseView, Record};

/// How an exchange about the Lease went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LeaseError {
    /// The Lease is not as the write supposed: another version, another uid, or it exists already. Nothing was written.
    #[error("the lease was changed by somebody else")]
    Conflict,
    /// There is no such Lease (for a create: no such namespace). Nothing was written.
    #[error("the lease does not exist")]
    NotFound,
    /// The server refused for another reason. Nothing was written.
    #[error("the server refused: {0}")]
    Rejected(String),
    /// No answer, or one that leaves it open whether the write was done.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// One event of the Lease's watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LeaseSight {
    /// The Lease is now like this.
    Is(LeaseView),
    /// The Lease was deleted, at this version if it is known.
    Gone(Option<u64>),
}

/// I/O on one Lease. An implementation makes one attempt a call, without retries.
///
/// `within` is the time the caller will wait; an implementation may pass it to the server, so that an abandoned request dies
/// there too.
pub trait LeaseApi: Send + Sync + 'static {
    /// Reads the Lease, never from a cache; [`None`] if it does not exist.
    fn get(&self, within: Duration) -> impl Future<Output = Result<Option<LeaseView>, LeaseError>> + Send;

    /// Creates the Lease.
    fn create(&self, record: &Record, within: Duration) -> impl Future<Output = Result<LeaseView, LeaseError>> + Send;

    /// Replaces the Lease, if it is still `base` (uid and version).
    fn replace(
        &self,
        base: &LeaseView,
        record: &Record,
        within: Duration,
    ) -> impl Future<Output = Result<LeaseView, LeaseError>> + Send;

    /// Watches the Lease from its present state on: the stream begins with that if the Lease exists.
    fn watch(
        &self,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<LeaseSight, LeaseError>>, LeaseError>> + Send;
}
