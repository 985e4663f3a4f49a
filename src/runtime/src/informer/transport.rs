//! What informers ask of the client stack.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

use crate::client::Identity;

/// Any error of the transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that arrives piece by piece.
pub type WatchBody = UnsyncBoxBody<Bytes, BoxError>;

/// Sends read requests and gives back streaming answers. Watches must not share fate with writes,
/// nor be cut by a read timeout: informers bound their requests themselves.
pub trait WatchTransport: Send + Sync + 'static {
    /// Sends a GET as this identity. The URI has a path and a query only; the transport adds
    /// authority, credentials and impersonation. Any status is an answer, not an error.
    fn send(
        &self,
        identity: &Identity,
        request: Request<()>,
    ) -> BoxFuture<'static, Result<Response<WatchBody>, BoxError>>;
}
