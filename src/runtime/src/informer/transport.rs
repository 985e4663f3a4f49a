//! What informers ask of the client stack.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
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

/// kube's own client, for tools and tests. Every watch has a connection of its own.
impl WatchTransport for kube::Client {
    fn send(
        &self,
        identity: &Identity,
        mut request: Request<()>,
    ) -> BoxFuture<'static, Result<Response<WatchBody>, BoxError>> {
        let client = self.clone();
        if let Identity::ServiceAccount { namespace, name } = identity {
            match format!("system:serviceaccount:{namespace}:{name}").parse() {
                Ok(user) => drop(request.headers_mut().insert("impersonate-user", user)),
                Err(error) => return Box::pin(futures::future::err(Box::from(error))),
            }
        }
        Box::pin(async move {
            let answer = client.send(request.map(|()| kube::client::Body::empty())).await?;
            Ok(answer.map(|body| UnsyncBoxBody::new(body.map_err(BoxError::from))))
        })
    }
}
