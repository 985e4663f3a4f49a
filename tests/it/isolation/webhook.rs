//! A validating webhook that answers when it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Api, PostParams};
use quarterdeck_it::ControlPlane;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// Runs until dropped.
pub(super) struct Webhook {
    /// How often it was asked, with when that was last.
    asked: watch::Receiver<(usize, Instant)>,
    /// Whether it answers.
    answering: watch::Sender<bool>,
    _server: AbortOnDropHandle<()>,
}

impl Webhook {
    /// Holds writes of the slices of `service` up until [`Webhook::answer`]; returns when the server asks it.
    pub(super) async fn start(control_plane: &ControlPlane, service: &str) -> Result<Self> {
        let pki = control_plane.folder().join("pki");
        let read = |file: &str| std::fs::read(pki.join(file)).with_context(|| file.to_owned());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read("peer.crt")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&read("peer.key")?)?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/", listener.local_addr()?);
        let (asking, asked) = watch::channel((0, Instant::now()));
        let (answering, answers) = watch::channel(false);
        let serving = serve(listener, TlsAcceptor::from(Arc::new(tls)), asking, answers);
        let server = AbortOnDropHandle::new(tokio::spawn(serving));

        let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": { "name": "slow.quarterdeck.test" },
            "webhooks": [{
                "name": "slow.quarterdeck.test",
                "clientConfig": { "url": url, "caBundle": STANDARD.encode(read("ca.crt")?) },
                "objectSelector": { "matchLabels": { "kubernetes.io/service-name": service } },
                "rules": [{
                    "apiGroups": ["discovery.k8s.io"], "apiVersions": ["v1"], "resources": ["endpointslices"],
                    "operations": ["CREATE", "UPDATE"],
                }],
                "timeoutSeconds": 30,
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "admissionReviewVersions": ["v1"],
            }],
        }))?;
        let client = control_plane.admin().await?;
        let configurations = Api::all(client.clone());
        configurations.create(&PostParams::default(), &configuration).await?;
        let webhook = Self { asked, answering, _server: server };
        webhook.wait_until_asked(&client, service).await?;
        Ok(webhook)
    }

    /// Waits until it was asked about `writes` writes, and has held the last one for `held`.
    pub(super) async fn holds(&self, writes: usize, held: Duration) -> Result<()> {
        quarterdeck_it::eventually("the webhook holds a write", super::LONG, async || {
            let (asked, last) = *self.asked.borrow();
            // The first time it was asked was a dry run.
            ensure!(
                asked > writes && last.elapsed() > held,
                "asked {asked} times, the last one {:?} ago",
                last.elapsed()
            );
            Ok(())
        })
        .await
    }

    /// Admits what it holds, and from now on everything at once.
    pub(super) fn answer(&self) {
        self.answering.send_replace(true);
    }

    /// The server notices a configuration after a while: tries dry runs until it asks, which is the first time.
    async fn wait_until_asked(&self, client: &kube::Client, service: &str) -> Result<()> {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
            "metadata": { "name": "probe", "labels": { "kubernetes.io/service-name": service } },
        });
        let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = Api::namespaced(client.clone(), "default");
        let slice = serde_json::from_value(slice)?;
        let params = PostParams { dry_run: true, ..PostParams::default() };
        quarterdeck_it::eventually("the webhook is asked", super::LONG, async || {
            slices.create(&params, &slice).await.map_err(|error| anyhow!(error))?;
            ensure!(self.asked.borrow().0 > 0, "not yet");
            Ok(())
        })
        .await
    }
}

type Asking = Arc<watch::Sender<(usize, Instant)>>;

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    asking: watch::Sender<(usize, Instant)>,
    answers: watch::Receiver<bool>,
) {
    let asking = Arc::new(asking);
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (tls, asking, answers) = (tls.clone(), asking.clone(), answers.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = tower::service_fn(move |request| review(request, asking.clone(), answers.clone()));
            let connection = auto::Builder::new(TokioExecutor::new());
            let _ = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(answer)).await;
        });
    }
}

async fn review(
    request: http::Request<hyper::body::Incoming>,
    asking: Asking,
    mut answers: watch::Receiver<bool>,
) -> Result<http::Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body)?;
    asking.send_modify(|(count, last)| (*count, *last) = (*count + 1, Instant::now()));
    if review["request"]["dryRun"] != true {
        answers.wait_for(|answering| *answering).await?;
    }
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": { "uid": review["request"]["uid"], "allowed": true },
    });
    let response = http::Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::new(answer.to_string().into()))?)
}
