//! How informers reach the server: on the shared HTTP/2 connection, each as its own identity, with
//! no rate limit, no retry and no time limit, as an informer paces and bounds its requests itself.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;

use super::{Clients, Identity};
use crate::informer::{BoxError, WatchBody, WatchTransport};

impl WatchTransport for Clients {
    fn send(
        &self,
        identity: &Identity,
        request: Request<()>,
    ) -> BoxFuture<'static, Result<Response<WatchBody>, BoxError>> {
        let streams = self.streams();
        let impersonate = identity.impersonate_user();
        let sendable = identity.is_sendable();
        async move {
            if !sendable {
                return Err("the account's name cannot stand in a header".into());
            }
            let request = request.map(|()| Body::empty());
            let answer = streams.send(request, impersonate.as_ref()).await?;
            Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
        .boxed()
    }
}
