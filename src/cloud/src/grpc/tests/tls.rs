//! Mutual TLS, and certificates that change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::scripted::Scripted;
use super::{a_call, shared, until};
use crate::error::CloudError;
use crate::grpc::{Plugin, PluginUri, TlsFiles, serve_tls};
use crate::provider::Provider as _;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate of `signer` for this machine, its key, and the certificate of `trusted`.
fn write(folder: &Path, signer: &Authority, trusted: &Authority) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let cert = params.signed_by(&key, signer).unwrap();
    let files = TlsFiles { ca: folder.join("ca.pem"), cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.ca, trusted.pem()).unwrap();
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn plugin_at(address: SocketAddr, files: &TlsFiles) -> Plugin {
    let uri: PluginUri = format!("https://localhost:{}", address.port()).parse().unwrap();
    Plugin::new(uri, Some(files.clone()))
}

async fn listen(files: TlsFiles) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let (provider, until) = (Arc::new(Scripted::default()), stop.clone());
    tokio::spawn(async move { serve_tls(shared(&provider), listener, &files, until).await });
    (address, stop)
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let [server, client, stranger, dupe] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let (address, stop) = listen(write(server.path(), &ours, &ours)).await;
    plugin_at(address, &write(client.path(), &ours, &ours)).probe(&a_call()).await.unwrap();
    // A client of another authority is turned away, and a server of another authority is not believed.
    for files in [write(stranger.path(), &theirs, &ours), write(dupe.path(), &ours, &theirs)] {
        let answer = plugin_at(address, &files).probe(&a_call()).await;
        assert!(matches!(answer, Err(CloudError::Unavailable(_))), "{answer:?}");
    }
    stop.cancel();
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let [server, client] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (address, stop) = listen(write(server.path(), &ours, &ours)).await;
    let files = write(client.path(), &theirs, &ours);
    let plugin = plugin_at(address, &files);
    assert!(matches!(plugin.probe(&a_call()).await, Err(CloudError::Unavailable(_))));
    write(client.path(), &ours, &ours);
    until("an answer with the new certificate", async || plugin.probe(&a_call()).await.ok()).await;
    // Half-written ones change nothing for those who have a connection.
    std::fs::write(&files.cert, "no certificate").unwrap();
    let (again, stop_again) = (plugin_at(address, &files), CancellationToken::new());
    let error = until("a complaint", async || again.probe(&a_call()).await.err()).await;
    assert!(matches!(&error, CloudError::Unavailable(message) if message.contains("certificates")), "{error:?}");
    plugin.probe(&a_call()).await.unwrap();
    stop_again.cancel();
    stop.cancel();
}

#[tokio::test]
async fn a_file_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = write(folder.path(), &authority("ours"), &authority("ours"));
    files.key = folder.path().join("nowhere.pem");
    let error = plugin_at(([127, 0, 0, 1], 1).into(), &files).probe(&a_call()).await.expect_err("no key");
    assert!(matches!(&error, CloudError::Unavailable(message) if message.contains("nowhere.pem")), "{error:?}");
}
