//! A server that refuses writes of load balancers and routes, or does not answer: a validating webhook.

use std::sync::Arc;

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
use quarterdeck_api::cloud::metal::MetalRoute;
use quarterdeck_it::{ControlPlane, eventually};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::metal_world::LONG;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is let pass.
    Admit,
    /// It ends with this status.
    Refuse(u16),
    /// It has no answer; the server gives it up after 2 s, with status 500.
    Hold,
}

/// Runs until dropped.
pub(super) struct Webhook {
    /// How many writes were not let pass.
    struck: watch::Receiver<usize>,
    answer: watch::Sender<Answer>,
    _server: AbortOnDropHandle<()>,
}

impl Webhook {
    /// Starts one that lets all pass; returns when the server asks it.
    pub(super) async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let pki = control_plane.folder().join("pki");
        let read = |file: &str| std::fs::read(pki.join(file)).with_context(|| file.to_owned());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read("peer.crt")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&read("peer.key")?)?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let (strike, struck) = watch::channel(0);
        let (answer, answers) = watch::channel(Answer::Refuse(503));
        let serving = serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::new(strike), answers);
        let server = AbortOnDropHandle::new(tokio::spawn(serving));
        let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": { "name": "trouble.quarterdeck.test" },
            "webhooks": [{
                "name": "trouble.quarterdeck.test",
                "clientConfig": { "url": url, "caBundle": STANDARD.encode(read("ca.crt")?) },
                "rules": [{
                    "apiGroups": ["cloud.quarterdeck.dev"], "apiVersions": ["*"],
                    "resources": ["metalloadbalancers", "metalroutes"], "operations": ["CREATE", "UPDATE", "DELETE"],
                }],
                "timeoutSeconds": 2,
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "admissionReviewVersions": ["v1"],
            }],
        }))?;
        let client = control_plane.admin().await?;
        let configurations = Api::all(client.clone());
        configurations.create(&PostParams::default(), &configuration).await?;
        let webhook = Self { struck, answer, _server: server };
        let routes: Api<MetalRoute> = Api::all(client);
        let probe: MetalRoute = serde_json::from_value(json!({ "metadata": { "name": "probe" } }))?;
        // The server notices it after a while.
        eventually("the webhook is asked", LONG, async || {
            let dry = PostParams { dry_run: true, ..PostParams::default() };
            ensure!(routes.create(&dry, &probe).await.is_err(), "not yet");
            ensure!(webhook.struck() > 0, "not yet");
            Ok(())
        })
        .await?;
        webhook.set(Answer::Admit);
        Ok(webhook)
    }

    /// Has all writes answered so from now on.
    pub(super) fn set(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// How many writes were not let pass so far.
    pub(super) fn struck(&self) -> usize {
        *self.struck.borrow()
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    strike: Arc<watch::Sender<usize>>,
    answers: watch::Receiver<Answer>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, strike, answers) = (tls.clone(), Arc::clone(&strike), answers.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = tower::service_fn(move |request| review(request, Arc::clone(&strike), answers.clone()));
            let connection = auto::Builder::new(TokioExecutor::new());
            let _ = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
        });
    }
}

async fn review(
    request: http::Request<hyper::body::Incoming>,
    strike: Arc<watch::Sender<usize>>,
    mut answers: watch::Receiver<Answer>,
) -> Result<http::Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    let mut told = json!({ "uid": review["request"]["uid"], "allowed": true });
    let answer = *answers.borrow();
    if answer != Answer::Admit {
        strike.send_modify(|count| *count += 1);
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
