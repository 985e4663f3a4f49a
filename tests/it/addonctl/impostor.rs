//! Servers that are not who they should be get nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use quarterdeck_it::{ControlPlane, Credentials, eventually};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::LONG;
use super::managers::run_as;

/// What a server was given.
#[derive(Debug, Default)]
struct Given {
    connections: usize,
    certificates: usize,
    requests: Vec<String>,
}

/// Asks for client certificates, and takes any.
#[derive(Debug)]
struct Anybody(Arc<Mutex<Given>>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.lock().certificates += 1;
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Shows a certificate, whether the key is its own or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A server that says it is a manager, and writes down what it is given.
struct Server {
    address: SocketAddr,
    given: Arc<Mutex<Given>>,
}

impl Server {
    async fn start(certificate: &CertificateDer<'static>, key: &KeyPair) -> Result<Self> {
        let given = Arc::new(Mutex::new(Given::default()));
        let provider = rustls::crypto::ring::default_provider();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let key = provider.key_provider.load_private_key(key)?;
        let shown = Arc::new(CertifiedKey::new(vec![certificate.clone()], key));
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(Anybody(Arc::clone(&given))))
            .with_cert_resolver(Arc::new(Shows(shown)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Self { address: listener.local_addr()?, given: Arc::clone(&given) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                given.lock().connections += 1;
                let (acceptor, given) = (acceptor.clone(), Arc::clone(&given));
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut request = vec![0; 64 << 10];
                    let mut length = 0;
                    while !request[..length].windows(4).any(|end| end == b"\r\n\r\n") {
                        let read = stream.read(&mut request[length..]).await?;
                        if read == 0 {
                            break;
                        }
                        length += read;
                    }
                    given.lock().requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
                    let body = r#"{"kind": "Statusz", "status": {}}"#;
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(head.as_bytes()).await?;
                    stream.shutdown().await
                });
            }
        });
        Ok(server)
    }
}

/// A certificate for 127.0.0.1 that nobody signed, and its key.
fn pair() -> Result<(CertificateDer<'static>, KeyPair)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
    Ok((certificate.der().clone(), key))
}

fn pin(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A Lease as a replica writes one.
fn lease(name: &str, server: &Server, pin: &str) -> Result<Lease> {
    let now = jiff::Timestamp::now();
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {
            "quarterdeck.dev/serving-address": server.address.to_string(),
            "quarterdeck.dev/serving-certificate-sha256": pin,
        }},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 3600, "renewTime": format!("{now:.6}")},
    }))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_who_is_not_the_replica() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.namespace("quarterdeck-replicas").await?;
    let leases: Api<Lease> = Api::namespaced(control_plane.admin().await?, "quarterdeck-replicas");
    let ((right, key), (wrong, other_key)) = (pair()?, pair()?);
    let honest = Server::start(&right, &key).await?;
    let impostor = Server::start(&wrong, &other_key).await?;
    // It has the certificate, which is public, and not the key.
    let thief = Server::start(&right, &other_key).await?;
    for (name, server) in [("honest", &honest), ("impostor", &impostor), ("thief", &thief)] {
        leases.create(&PostParams::default(), &lease(name, server, &pin(&right))?).await?;
    }
    let mut bare = lease("bare", &impostor, "")?;
    bare.metadata.annotations.as_mut().context("some")?.remove("quarterdeck.dev/serving-certificate-sha256");
    leases.create(&PostParams::default(), &bare).await?;

    control_plane.bind("system:serviceaccount:kube-system:default", "cluster-admin").await?;
    let token = control_plane.token("kube-system", "default").await?;
    let url = control_plane.apiserver(0).url().to_owned();
    let by_token = control_plane.kubeconfig_at(&url, &Credentials::Token(token.clone()))?;
    let by_certificate = control_plane.admin_kubeconfig()?;

    // Who is who they should be gets the user's credentials.
    run_as(&by_token, &["status", "--replica=honest"]).await.fine();
    let requests = std::mem::take(&mut honest.given.lock().requests);
    assert!(requests[0].starts_with("GET /statusz HTTP/1.1\r\n"), "{requests:?}");
    assert!(
        requests[0].to_lowercase().contains(&format!("authorization: bearer {token}").to_lowercase()),
        "{requests:?}"
    );
    assert_eq!(honest.given.lock().certificates, 0);
    run_as(&by_certificate, &["status", "--replica=honest"]).await.fine();
    eventually("the certificate was shown", LONG, || async {
        anyhow::ensure!(honest.given.lock().certificates == 1);
        Ok(())
    })
    .await?;
    // By its address too: it is one of the replicas.
    let address = format!("--address=https://{}", honest.address);
    run_as(&by_token, &["status", &address]).await.fine();

    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), authority()?)?;
    let authority = format!("--certificate-authority={}", file.path().display());
    let impostors = format!("--address=https://{}", impostor.address);
    let cases: [(&[&str], &str); 6] = [
        (&["--replica=impostor"], "shows a certificate with SHA-256"),
        (&["--replica=thief"], "at 127.0.0.1:"),
        (&["--replica=bare"], "does not say which certificate it shows"),
        (&[&impostors], "shows a certificate with SHA-256"),
        (&[&impostors, &authority], "is not to be believed"),
        (&["--replica=honest", &authority], "is not to be believed"),
    ];
    for kubeconfig in [&by_token, &by_certificate] {
        for (args, said) in cases {
            let error = run_as(kubeconfig, &[&["status"], args].concat()).await.failed(1);
            assert!(error.contains(said), "{args:?}: {error}");
        }
        let error = run_as(kubeconfig, &["dashboard", "--replica=impostor"]).await.failed(1);
        assert!(error.contains("nothing was sent to it"), "{error}");
    }
    assert!(impostor.given.lock().connections >= 6 && thief.given.lock().connections >= 2);
    for server in [&impostor, &thief] {
        let given = server.given.lock();
        assert!(given.requests.is_empty() && given.certificates == 0, "{given:?}");
    }
    Ok(())
}

/// The certificate of an authority that signed nothing, PEM.
fn authority() -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Ok(params.self_signed(&KeyPair::generate()?)?.pem())
}
