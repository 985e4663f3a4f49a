//! A validating webhook that does with writes what a test tells it to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Api, PostParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::control_plane::ControlPlane;
use crate::wait::eventually;

/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// What becomes of a write. Dry runs are always let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is let pass.
    Admit,
    /// It ends with this status.
    Refuse(u16),
    /// It has no answer until there is another one for all; the server gives it up after the webhook's timeout.
    Hold,
}

/// Which writes a webhook is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Its name: a domain, as the server demands.
    pub name: &'a str,
    /// The group of API kinds, in any version.
    pub group: &'a str,
    /// Plural names of kinds.
    pub resources: &'a [&'a str],
    /// Such as `CREATE`.
    pub operations: &'a [&'a str],
    /// The label that an object has to have, if any will not do.
    pub label: Option<(&'a str, &'a str)>,
    /// How long the server waits for an answer before it refuses the write.
    pub timeout: Duration,
}

/// What a webhook was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Dry runs.
    tries: usize,
    /// Writes that were not let pass at once.
    struck: usize,
    /// When the last of those was asked about.
    last: Option<Instant>,
}

/// Runs until dropped; its configuration stays on the server.
pub struct Webhook {
    asked: watch::Receiver<Asked>,
    answer: watch::Sender<Answer>,
    _server: AbortOnDropHandle<()>,
}

impl Webhook {
    /// Starts one that lets all pass. Returns when the server asks it, which it does some time after it has been told
    /// to: `probe` makes a write in its scope, as a dry run; whether that succeeds does not matter.
    ///
    /// # Errors
    /// When the server does not take its configuration, or does not ask it.
    pub async fn start(
        control_plane: &ControlPlane,
        scope: Scope<'_>,
        probe: impl AsyncFn(kube::Client) -> Result<()>,
    ) -> Result<Self> {
        let pki = control_plane.folder().join("pki");
        let read = |file: &str| std::fs::read(pki.join(file)).with_context(|| file.to_owned());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read("peer.crt")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&read("peer.key")?)?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let (asking, asked) = watch::channel(Asked::default());
        let (answer, answers) = watch::channel(Answer::Admit);
        let serving = serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::new(asking), answers);
        let server = AbortOnDropHandle::new(tokio::spawn(serving));
        let webhook = Self { asked, answer, _server: server };

        let client = control_plane.admin().await?;
        let configuration = configuration(scope, &url, &read("ca.crt")?)?;
        Api::all(client.clone()).create(&PostParams::default(), &configuration).await?;
        eventually("the webhook is asked", LONG, async || {
            let ended = probe(client.clone()).await;
            ensure!(webhook.asked.borrow().tries > 0, "not yet; the dry run ended in {ended:?}");
            Ok(())
        })
        .await?;
        Ok(webhook)
    }

    /// Has all writes answered so from now on, also those that it holds.
    pub fn set(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// How many writes were not let pass at once so far.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.asked.borrow().struck
    }

    /// Waits until so many writes were not let pass at once, the last of them at least `held` ago.
    ///
    /// # Errors
    /// When that does not come to pass within a minute.
    pub async fn holds(&self, writes: usize, held: Duration) -> Result<()> {
        eventually("the webhook holds a write", LONG, async || {
            let Asked { struck, last, .. } = *self.asked.borrow();
            let ago = last.map(|last| last.elapsed());
            ensure!(struck >= writes && ago > Some(held), "{struck} writes, the last one {ago:?} ago");
            Ok(())
        })
        .await
    }
}

fn configuration(scope: Scope<'_>, url: &str, authority: &[u8]) -> Result<ValidatingWebhookConfiguration> {
    let labels: Value = scope.label.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    Ok(serde_json::from_value(json!({
        "metadata": { "name": scope.name },
        "webhooks": [{
            "name": scope.name,
            "clientConfig": { "url": url, "caBundle": STANDARD.encode(authority) },
            "objectSelector": { "matchLabels": labels },
            "rules": [{
                "apiGroups": [scope.group], "apiVersions": ["*"],
                "resources": scope.resources, "operations": scope.operations,
            }],
            "timeoutSeconds": scope.timeout.as_secs(),
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "admissionReviewVersions": ["v1"],
        }],
    }))?)
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    asking: Arc<watch::Sender<Asked>>,
    answers: watch::Receiver<Answer>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, asking, answers) = (tls.clone(), Arc::clone(&asking), answers.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = tower::service_fn(move |request| review(request, Arc::clone(&asking), answers.clone()));
            let connection = auto::Builder::new(TokioExecutor::new());
            let _ = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
        });
    }
}

async fn review(
    request: http::Request<hyper::body::Incoming>,
    asking: Arc<watch::Sender<Asked>>,
    mut answers: watch::Receiver<Answer>,
) -> Result<http::Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let mut told = json!({ "uid": review["request"]["uid"], "allowed": true });
    let answer = if review["request"]["dryRun"] == true {
        asking.send_modify(|asked| asked.tries += 1);
        Answer::Admit
    } else {
        *answers.borrow()
    };
    if answer != Answer::Admit {
        asking.send_modify(|asked| (asked.struck, asked.last) = (asked.struck + 1, Some(Instant::now())));
    }
    match answer {
        Answer::Admit => {}
        Answer::Refuse(code) => {
            told["allowed"] = json!(false);
            told["status"] = json!({ "code": code, "message": "out of order" });
        }
        Answer::Hold => drop(answers.wait_for(|now| *now != Answer::Hold).await?),
    }
    let answer = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": told });
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(answer.to_string().into()))?)
}
