//! A server of the protocol, on a unix socket or with mutual TLS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::MESSAGE_LIMIT;
use super::channel::TlsFiles;
use super::pb::identity_server::IdentityServer;
use super::pb::instances_server::InstancesServer;
use super::pb::load_balancers_server::LoadBalancersServer;
use super::pb::routes_server::RoutesServer;
use super::server::Offered;
use crate::provider::SharedProvider;

/// Calls that may run at once over one connection.
const STREAMS: u32 = 256;

/// Offers `provider` on a unix socket until `stop`; calls that run then are finished first.
///
/// # Errors
/// When the server cannot run.
pub async fn serve(
    provider: SharedProvider,
    listener: UnixListener,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let services = Services::of(&provider).await;
    let server = Server::builder().max_concurrent_streams(STREAMS);
    server.serve_with_incoming_shutdown(services, incoming, stop.cancelled_owned()).await
}

/// Offers `provider` on a TCP port with mutual TLS until `stop`; calls that run then are finished first. Who has a
/// certificate of `tls.ca` may do everything.
///
/// # Errors
/// When the files cannot be read or used, or the server cannot run.
pub async fn serve_tls(
    provider: SharedProvider,
    listener: TcpListener,
    tls: &TlsFiles,
    stop: CancellationToken,
) -> io::Result<()> {
    let texts = tls.read().await?;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(texts.cert, texts.key))
        .client_ca_root(Certificate::from_pem(texts.ca));
    let server = Server::builder().max_concurrent_streams(STREAMS).tls_config(tls).map_err(io::Error::other)?;
    let services = Services::of(&provider).await;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.serve_with_incoming_shutdown(services, incoming, stop.cancelled_owned()).await.map_err(io::Error::other)
}

/// The services that a provider has, and the health service beside them.
#[derive(Clone)]
struct Services {
    identity: IdentityServer<Offered>,
    instances: Option<InstancesServer<Offered>>,
    balancers: Option<LoadBalancersServer<Offered>>,
    routes: Option<RoutesServer<Offered>>,
    health: HealthServer<HealthService>,
}

/// A service with our limits of messages, which each generated server has methods of its own for.
macro_rules! offer {
    ($server:ident, $provider:expr, $health:expr) => {{
        $health.set_service_status($server::<Offered>::NAME, ServingStatus::Serving).await;
        $server::new(Offered(SharedProvider::clone($provider)))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }};
}

impl Services {
    async fn of(provider: &SharedProvider) -> Self {
        let health = HealthReporter::new();
        let identity = offer!(IdentityServer, provider, health);
        let (mut instances, mut balancers, mut routes) = (None, None, None);
        if provider.instances().is_some() {
            instances = Some(offer!(InstancesServer, provider, health));
        }
        if provider.load_balancers().is_some() {
            balancers = Some(offer!(LoadBalancersServer, provider, health));
        }
        if provider.routes().is_some() {
            routes = Some(offer!(RoutesServer, provider, health));
        }
        let health = HealthServer::new(HealthService::from_health_reporter(health));
        Self { identity, instances, balancers, routes, health }
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match service {
            InstancesServer::<Offered>::NAME => {
                if let Some(instances) = &mut self.instances {
                    return instances.call(request);
                }
            }
            LoadBalancersServer::<Offered>::NAME => {
                if let Some(balancers) = &mut self.balancers {
                    return balancers.call(request);
                }
            }
            RoutesServer::<Offered>::NAME => {
                if let Some(routes) = &mut self.routes {
                    return routes.call(request);
                }
            }
            HealthServer::<HealthService>::NAME => return self.health.call(request),
            _ => {}
        }
        // Which knows its own methods, and answers all others with UNIMPLEMENTED.
        self.identity.call(request)
    }
}
