//! What a replica serves: health, metrics, status, each wired to what it is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ConfigMap;
use quarterdeck_election::{BootClock, ElectionStatus, Gate, Leadership};
use quarterdeck_runtime::client::{Api, ApiError, Class, ClientOptions, Clients, ConnectError, Identity, Source};
use quarterdeck_runtime::engine::Unit;
use quarterdeck_runtime::facility::Facilities;
use quarterdeck_runtime::informer::Informers;
use quarterdeck_runtime::notes::Notes;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::{State, States};
use crate::flags::{Parsed, elements};
use crate::log::LogLevel;
use crate::masters::Masters;
use crate::replica::{ADDRESS_NOTE, CERTIFICATE_NOTE};
use crate::serving::{
    CLUSTER_SETTINGS, Checks, Component, Endpoints, Probe, ReviewError, Reviews, Security, Server, Settings,
    StatusSource, Trust,
};
use crate::watchdog::Watchdog;

/// How often the cluster's authentication settings are read again.
const SETTINGS_PERIOD: Duration = Duration::from_secs(60);
/// How often until they were read once.
const SETTINGS_RETRY: Duration = Duration::from_secs(2);
/// How long the start of the server waits for them.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// A controller that has had work and finished nothing for this long is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// A leader whose deadline has passed for this long is not well (upstream's watchdog).
const LEADER_LATE: Duration = Duration::from_secs(20);

/// What is served, and from what.
#[derive(Clone)]
pub(crate) struct Served {
    /// Program name.
    pub(crate) name: &'static str,
    /// Program version.
    pub(crate) version: String,
    /// The Lease, `namespace/name`.
    pub(crate) lease: String,
    /// The replicas of this election.
    pub(crate) masters: Masters,
    /// What this replica says of itself to the others.
    pub(crate) notes: Notes,
    /// The controllers that were set up.
    pub(crate) units: Vec<Arc<dyn Unit>>,
    /// The states of all controllers.
    pub(crate) states: States,
    /// What controllers share.
    pub(crate) facilities: Facilities,
    /// The caches.
    pub(crate) informers: Informers,
    /// The way to the server.
    pub(crate) clients: Clients,
    /// What the elector tells; `None` without election.
    pub(crate) election: Option<watch::Receiver<ElectionStatus>>,
    /// Whether this replica leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Whether the runtime stands still.
    pub(crate) watchdog: Watchdog,
    /// What `/metrics` shows.
    pub(crate) registry: prometheus::Registry,
    /// How much is logged.
    pub(crate) log: LogLevel,
}

/// Starts the server, unless `--secure-port=0`.
pub(crate) async fn start(parsed: &Parsed, served: Served, stop: &CancellationToken) -> anyhow::Result<()> {
    let options = &parsed.options;
    let Some(settings) = Settings::from_flags(&options.serving, served.name)? else { return Ok(()) };
    let authenticator = reviewer(parsed, &served, &options.authentication.authentication_kubeconfig)
        .await
        .context("--authentication-kubeconfig")?;
    let authorizer = reviewer(parsed, &served, &options.authorization.authorization_kubeconfig)
        .await
        .context("--authorization-kubeconfig")?;
    let trust = trust(parsed, &authenticator, stop).await?;
    let reviews: Arc<dyn Reviews> = Arc::new(ServerReviews { authenticator, authorizer });
    let checks = checks(&served);
    if !options.authentication.authentication_tolerate_lookup_failure {
        let trust = Arc::clone(&trust);
        checks.add(&[Probe::Readyz], "authentication", move || trust.waits_for_cluster().map_or(Ok(()), Err));
    }
    let security = Security::from_flags(&options.authentication, &options.authorization, trust, Some(reviews));
    let values: serde_json::Value =
        parsed.values().iter().map(|(flag, value)| (flag.clone(), serde_json::Value::from(value.as_str()))).collect();
    let config = serde_json::json!({ "quarterdeck.config.quarterdeck.dev": values });
    let endpoints = Endpoints {
        component: Component {
            name: served.name.to_owned(),
            version: served.version.clone(),
            started: SystemTime::now(),
        },
        checks,
        metrics: served.registry.clone(),
        disabled_metrics: elements(&options.metrics.disabled_metrics).into_iter().map(str::to_owned).collect(),
        flags: parsed.values().clone(),
        config: Arc::new(move || config.clone()),
        verbosity: options.debug.profiling.then(|| Arc::new(served.log.clone()) as _),
        status: {
            let served = served.clone();
            StatusSource::new(move || crate::status::of(&served))
        },
    };
    let server = Server::bind(settings, security, endpoints)?;
    let address = server.local_addr()?;
    tracing::info!(%address, "serving");
    served.notes.pin(ADDRESS_NOTE, crate::address::seen_from_outside(address, &served.clients.server()));
    tokio::spawn(note_certificate(server.certificate(), served.notes));
    tokio::spawn(server.run(stop.clone()));
    Ok(())
}

/// Keeps the note of the certificate that is served with, for clients that know no authority for it.
async fn note_certificate(mut certificate: watch::Receiver<String>, notes: Notes) {
    loop {
        notes.pin(CERTIFICATE_NOTE, certificate.borrow_and_update().clone());
        if certificate.changed().await.is_err() {
            return;
        }
    }
}

/// Calls to the server that reviews: that of `kubeconfig`, or the one we work on where the flag is empty or names the same.
async fn reviewer(parsed: &Parsed, served: &Served, kubeconfig: &str) -> Result<Api, ConnectError> {
    if kubeconfig.is_empty() || kubeconfig == parsed.options.misc.kubeconfig {
        return Ok(served.clients.api(&Identity::Manager));
    }
    let options =
        ClientOptions { user_agent: format!("{}/{}", served.name, served.version), ..ClientOptions::default() };
    // Reviews alone go there; the metrics of clients are about the server we work on.
    let registry = prometheus::Registry::new();
    let gate = Gate::unelected(Arc::new(BootClock));
    let clients = Clients::connect(Source::kubeconfig(kubeconfig), options, gate, &registry).await?;
    Ok(clients.api(&Identity::Manager))
}

/// Whom the server believes: what the flags name, and what the cluster says, kept fresh. A cluster that does not answer is
/// asked again; until it does, the client certificates that it knows are believed no more than none.
async fn trust(parsed: &Parsed, api: &Api, stop: &CancellationToken) -> anyhow::Result<Arc<Trust>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Arc::new(Trust::from_flags(&parsed.options.authentication, provider)?);
    if trust.needs_cluster() {
        let api = api.clone();
        let fetch = move || {
            let api = api.clone();
            async move { cluster_settings(&api).await }
        };
        if let Ok(fetched) = tokio::time::timeout(FIRST_LOOK, fetch()).await {
            trust.take(fetched);
        }
        tokio::spawn(Arc::clone(&trust).follow_cluster(fetch, SETTINGS_PERIOD, SETTINGS_RETRY, stop.clone()));
    }
    Ok(trust)
}

async fn cluster_settings(api: &Api) -> Result<Option<BTreeMap<String, String>>, ApiError> {
    let (namespace, name) = CLUSTER_SETTINGS;
    let map: Option<ConfigMap> = api.get(&Kind::of::<ConfigMap>(), &ObjectKey::new(namespace, name)).await?;
    Ok(map.map(|map| map.data.unwrap_or_default()))
}

/// The health checks.
fn checks(served: &Served) -> Arc<Checks> {
    let checks = Checks::new();
    let watchdog = served.watchdog.clone();
    checks.add(&[Probe::Healthz, Probe::Livez], "runtime", move || match watchdog.still_for() {
        Some(quiet) => Err(format!("the runtime has stood still for {} s", quiet.as_secs())),
        None => Ok(()),
    });
    let (leadership, gate) = (served.leadership.clone(), served.clients.gate().clone());
    let late = parking_lot::Mutex::new(None::<std::time::Instant>);
    checks.add(&[Probe::Healthz, Probe::Livez], "leaderElection", move || {
        let well = leadership.borrow().tenure().is_none() || gate.is_open();
        let mut late = late.lock();
        if well {
            *late = None;
            return Ok(());
        }
        match late.get_or_insert_with(std::time::Instant::now).elapsed() {
            time if time > LEADER_LATE => Err(format!("leads with a shut gate for {} s", time.as_secs())),
            _ => Ok(()),
        }
    });
    for unit in &served.units {
        let (name, unit) = (unit.descriptor().name, Arc::clone(unit));
        checks.add(&[Probe::Healthz, Probe::Livez], name, move || match unit.stuck_for() {
            Some(time) if time > STUCK => Err(format!("has had work and finished none for {} s", time.as_secs())),
            _ => Ok(()),
        });
    }
    let (units, states) = (served.units.clone(), served.states.clone());
    checks.add(&[Probe::Readyz], "informers", move || {
        let states = states.all();
        let blocked = |unit: &Arc<dyn Unit>| matches!(states.get(unit.descriptor().name), Some(State::Blocked(_)));
        let waiting: Vec<_> =
            units.iter().filter(|unit| !unit.synced() && !blocked(unit)).map(|unit| unit.descriptor().name).collect();
        if waiting.is_empty() { Ok(()) } else { Err(format!("caches are being filled for {}", waiting.join(", "))) }
    });
    Arc::new(checks)
}

/// Asks API servers, each as the user of its kubeconfig.
struct ServerReviews {
    authenticator: Api,
    authorizer: Api,
}

impl Reviews for ServerReviews {
    fn token(&self, review: TokenReview) -> BoxFuture<'_, Result<TokenReview, ReviewError>> {
        async move {
            self.authenticator.review("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.map_err(failed)
        }
        .boxed()
    }

    fn access(&self, review: SubjectAccessReview) -> BoxFuture<'_, Result<SubjectAccessReview, ReviewError>> {
        async move {
            self.authorizer.review("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await.map_err(failed)
        }
        .boxed()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used by map_err")]
fn failed(error: ApiError) -> ReviewError {
    ReviewError { message: error.to_string(), retriable: error.class() == Class::Transient }
}
