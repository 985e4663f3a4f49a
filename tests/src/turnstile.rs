//! A turnstile before a kube-apiserver: of each *lane* so many of a user's writes pass, and the rest
//! stand still until they are turned away. Whoever is killed meanwhile has made exactly that many.
//!
//! It is an audit backend of the server, asked when a request arrives and before anything is done about
//! it (`blocking-strict`): no answer, no request. TLS stays end to end, and what passes is untouched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::AuditPolicy;

/// A running turnstile.
pub struct Turnstile {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

struct Shared {
    /// The lane of a request, by its path and query.
    lane_of: Box<dyn Fn(&str) -> Option<usize> + Send + Sync>,
    state: Mutex<State>,
    /// Counts how often those who stand were turned away.
    turned: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// How many may pass of a lane; of others all.
    limits: BTreeMap<usize, usize>,
    /// What passed, by lane, since the limits were set.
    passed: BTreeMap<usize, Vec<String>>,
    /// Lanes in which somebody stands.
    standing: BTreeSet<usize>,
    /// Requests that were turned away: the server asks again for them.
    refused: BTreeSet<String>,
    /// What passed in no lane.
    strays: Vec<String>,
}

impl Turnstile {
    /// Starts one on a free port; `lane_of` tells the lane of a write by its path and query.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(lane_of: impl Fn(&str) -> Option<usize> + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { lane_of: Box::new(lane_of), state: Mutex::default(), turned: watch::Sender::new(0) });
        let server = AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::clone(&shared))));
        Ok(Self { address, shared, _server: server })
    }

    /// Flags of the kube-apiserver that it stands before; writes a file into `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apiserver_args(&self, folder: &Path) -> Result<Vec<String>> {
        let file = folder.join("turnstile.conf");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {}}],
        });
        std::fs::write(&file, config.to_string())?;
        Ok(vec![
            format!("--audit-webhook-config-file={}", file.display()),
            "--audit-webhook-mode=blocking-strict".to_owned(),
            "--audit-webhook-initial-backoff=1ms".to_owned(),
        ])
    }

    /// Has the server ask about this user's writes, and nothing else, which its audit log then holds, too.
    /// Events, leases and reviews pass unasked.
    pub fn policy(user: &str) -> AuditPolicy {
        let unasked = ["events.k8s.io", "coordination.k8s.io", "authentication.k8s.io", "authorization.k8s.io"];
        let mut groups: Vec<Value> = unasked.iter().map(|group| json!({"group": group})).collect();
        groups.push(json!({"group": "", "resources": ["events"]}));
        AuditPolicy::custom(json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "rules": [
                {"level": "None", "resources": groups},
                {
                    "level": "Metadata",
                    "users": [user],
                    "verbs": ["create", "update", "patch", "delete", "deletecollection"],
                    "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"],
                },
                {"level": "None"},
            ],
        }))
    }

    /// From now on lets so many writes of each of these lanes pass, and all of the others.
    pub fn limit(&self, limits: BTreeMap<usize, usize>) {
        let mut state = self.shared.state.lock();
        state.passed.clear();
        state.standing.clear();
        state.limits = limits;
    }

    /// Turns away those who stand, and lets all who come after them pass.
    pub fn open(&self) {
        self.limit(BTreeMap::new());
        self.shared.turned.send_modify(|count| *count += 1);
    }

    /// Lanes in which somebody stands.
    pub fn standing(&self) -> BTreeSet<usize> {
        self.shared.state.lock().standing.clone()
    }

    /// What passed in a lane since the limits were set.
    pub fn passed(&self, lane: usize) -> Vec<String> {
        self.shared.state.lock().passed.get(&lane).cloned().unwrap_or_default()
    }

    /// Writes that passed in no lane: they cannot be told apart, and were never stopped.
    pub fn strays(&self) -> Vec<String> {
        self.shared.state.lock().strays.clone()
    }
}

impl Shared {
    /// Whether a request may pass; waits if it may not.
    async fn admit(&self, id: &str, verb: &str, uri: &str) -> bool {
        let mut turned = {
            let mut state = self.state.lock();
            if state.refused.contains(id) {
                return false;
            }
            let Some(lane) = (self.lane_of)(uri) else {
                state.strays.push(format!("{verb} {uri}"));
                return true;
            };
            let limit = state.limits.get(&lane).copied().unwrap_or(usize::MAX);
            let passed = state.passed.entry(lane).or_default();
            if passed.len() < limit {
                passed.push(format!("{verb} {uri}"));
                return true;
            }
            state.standing.insert(lane);
            state.refused.insert(id.to_owned());
            // Under the lock: who opens after this is heard.
            self.turned.subscribe()
        };
        // An error means that nobody is left to open.
        let _ = turned.changed().await;
        false
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &shared));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let list: Value = serde_json::from_slice(&body)?;
    let mut pass = true;
    for event in list["items"].as_array().into_iter().flatten() {
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        pass &= shared.admit(text("auditID"), text("verb"), text("requestURI")).await;
    }
    let mut response = Response::new(Full::default());
    if !pass {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    Ok(response)
}
