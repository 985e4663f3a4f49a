//! Bytes to and from a manager: straight over the network, or through kube-apiserver and the kubelet into its pod.

use std::pin::{Pin, pin};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::{ReachError, Right};
use super::pod::Door;

/// How long a connection or a port-forward may take to come about.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A stream of bytes, both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A way to a manager.
pub(super) struct Link {
    /// The bytes.
    pub(super) stream: Pin<Box<dyn Stream>>,
    /// What the other end says when it gives up; never ends for a link that has no such word.
    pub(super) trouble: BoxFuture<'static, String>,
}

/// Straight to `host:port`.
///
/// # Errors
/// When nobody answers there, in time.
pub(super) async fn direct(host: &str, port: u16, place: &str) -> Result<Link, ReachError> {
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await;
    let connected =
        connected.map_err(|_| ReachError::TimedOut { what: format!("{place}: connecting"), after: PATIENCE })?;
    let stream = connected.map_err(|error| unreachable(place, &error.to_string()))?;
    // Requests are small and wait for their answers.
    let _ = stream.set_nodelay(true);
    Ok(Link { stream: Box::pin(stream), trouble: std::future::pending().boxed() })
}

/// Into a pod, as `kubectl port-forward` goes.
///
/// # Errors
/// When the server refuses, or the kubelet cannot, or it takes too long.
pub(super) async fn forward(client: &kube::Client, door: &Door, place: &str) -> Result<Link, ReachError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &door.namespace);
    let asked = tokio::time::timeout(PATIENCE, pods.portforward(&door.pod, &[door.port])).await;
    let what = format!("{place}: a port-forward");
    let asked = asked.map_err(|_| ReachError::TimedOut { what: what.clone(), after: PATIENCE })?;
    let right = Right {
        verbs: "get,create",
        resource: "pods/portforward",
        namespace: &door.namespace,
        role: "quarterdeck-portforward",
    };
    let mut forwarder = asked.map_err(|error| ReachError::of_server(error, &what, &right))?;
    let stream = forwarder.take_stream(door.port);
    let stream = stream.ok_or_else(|| unreachable(place, "the port-forward has no stream"))?;
    let said = forwarder.take_error(door.port);
    let trouble = async move {
        match said {
            Some(said) => match pin!(said).await {
                Some(message) => message.trim().to_owned(),
                // It ended without a word: the stream tells that too.
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    };
    Ok(Link { stream: Box::pin(stream), trouble: trouble.boxed() })
}

/// There is no way to a place.
pub(super) fn unreachable(place: &str, reason: &str) -> ReachError {
    ReachError::Unreachable { place: place.to_owned(), reason: reason.to_owned() }
}
