//! The one place where connections to the API server are made.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request};
use kube::client::Body;
use quarterdeck_election::Gate;

use super::Api;
use super::connect::{BoxError, ConnectError, Source, Wires};
use super::exceptions::passes_gateless;
use super::identity::Identity;
use super::limit::Limiter;
use super::metrics::Metrics;
use super::pool::Pool;
use super::reader::Reader;
use super::refusals::Refusals;
use super::streams::{Pings, Streams};
use super::writer::Writer;
use crate::controller::ClientShare;

/// Reads and watches: a dead connection is noticed after at most 45 s, as in client-go.
const READ_PINGS: Pings = Pings { every: Duration::from_secs(30), timeout: Duration::from_secs(15) };
/// The Lease: a dead connection must not delay a take-over.
const LEASE_PINGS: Pings = Pings { every: Duration::from_secs(2), timeout: Duration::from_secs(2) };

/// How the clients are tuned; upstream's flags.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `--kube-api-qps`: sustained requests a second of each controller's client; zero or less
    /// means no limit.
    pub qps: f32,
    /// `--kube-api-burst`: how many may go at once.
    pub burst: u32,
    /// User-Agent header.
    pub user_agent: String,
}

/// Upstream's limits (`kubernetes:pkg/controller/apis/config/v1alpha1/defaults.go`).
impl Default for ClientOptions {
    fn default() -> Self {
        Self { qps: 20.0, burst: 30, user_agent: concat!("quarterdeck/", env!("CARGO_PKG_VERSION")).to_owned() }
    }
}

/// The connections to one API server; gives out [`Api`] handles. Clones share the connections.
#[derive(Clone)]
pub struct Clients {
    reader: Reader,
    writer: Writer,
    lease: Arc<Streams>,
    wires: Arc<Wires>,
    gate: Gate,
    options: Arc<ClientOptions>,
}

impl Clients {
    /// Reads the configuration and its credentials, and registers the metrics. Sends nothing: a
    /// server that is down is met by the first request.
    ///
    /// # Errors
    /// When the configuration cannot be used; the message names the file.
    pub async fn connect(
        source: impl Into<Source>,
        options: ClientOptions,
        gate: Gate,
        registry: &prometheus::Registry,
    ) -> Result<Self, ConnectError> {
        let user_agent = HeaderValue::try_from(options.user_agent.as_str())
            .map_err(|_| ConnectError::UserAgent(options.user_agent.clone()))?;
        let wires = Wires::load(source.into()).await?;
        let metrics = Metrics::new(registry, wires.current().authority())?;
        let streams = |pings| Arc::new(Streams::new(Arc::clone(&wires), metrics.clone(), user_agent.clone(), pings));
        let pool = Pool::new(Arc::clone(&wires), gate.clone(), metrics.clone(), user_agent.clone());
        Ok(Self {
            reader: Reader { streams: streams(READ_PINGS), metrics: metrics.clone() },
            lease: streams(LEASE_PINGS),
            writer: Writer::new(pool, metrics.clone()),
            wires,
            gate,
            options: Arc::new(options),
        })
    }

    /// Calls as `identity`, with a rate limit of their own. Give each controller its own handle.
    #[must_use]
    pub fn api(&self, identity: &Identity) -> Api {
        self.api_with(identity, ClientShare::ONE)
    }

    /// Calls as `identity`, with a rate limit of their own that is a multiple of the flags'.
    #[must_use]
    pub fn api_with(&self, identity: &Identity, share: ClientShare) -> Api {
        let (qps, burst) = (self.options.qps * share.qps, self.options.burst.saturating_mul(share.burst));
        let limiter = Arc::new(Limiter::new(qps, burst));
        Api::new(self.reader.clone(), self.writer.clone(), identity, limiter)
    }

    /// The connection that reads share.
    pub(super) fn streams(&self) -> Arc<Streams> {
        Arc::clone(&self.reader.streams)
    }

    /// The client for Leases, as the manager: a connection of its own, no gate, no retry. For the
    /// elector, and for what each replica says of itself. Where there is an election, it sends no
    /// writes but those that the table of exceptions lets pass without the gate.
    #[must_use]
    pub fn lease_client(&self) -> kube::Client {
        let streams = Arc::clone(&self.lease);
        let elected = self.gate.remaining().is_some();
        let service = tower::service_fn(move |request: Request<Body>| {
            let streams = Arc::clone(&streams);
            let passes = !elected || passes_gateless(request.method(), request.uri());
            async move {
                if !passes {
                    let refused = format!("{} {}: not without the gate", request.method(), request.uri().path());
                    return Err(BoxError::from(refused));
                }
                streams.send(request, None).await
            }
        });
        kube::Client::new(service, "kube-system")
    }

    /// The gate that all writes pass.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The last writes that gate or fence refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        self.writer.refusals()
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn server(&self) -> String {
        self.wires.current().authority().to_owned()
    }
}
