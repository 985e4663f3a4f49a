//! A network of one machine for tests: names and addresses are what a test says, and nothing leaves
//! the machine.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use super::network::Network;

/// Answers look-ups from a table, and leads addresses to listeners of the test.
#[derive(Default)]
pub(crate) struct TestNetwork {
    names: Mutex<HashMap<String, Vec<Vec<SocketAddr>>>>,
    routes: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Names that were looked up.
    pub(crate) resolved: Mutex<Vec<String>>,
    /// Addresses that were connected to.
    pub(crate) connected: Mutex<Vec<SocketAddr>>,
}

impl TestNetwork {
    /// What a name is found at: one answer after another, the last one for ever.
    pub(crate) fn name(&self, name: &str, answers: &[&[&str]]) {
        let addresses = |answer: &&[&str]| answer.iter().map(|text| text.parse().expect(text)).collect();
        self.names.lock().insert(name.to_owned(), answers.iter().map(addresses).collect());
    }

    /// Leads connections to an address to a listener.
    pub(crate) fn route(&self, from: &str, to: SocketAddr) {
        self.routes.lock().insert(from.parse().expect(from), to);
    }

    /// A name with one public address that leads to a listener.
    pub(crate) fn host(&self, name: &str, address: &str, to: SocketAddr) {
        self.name(name, &[&[address]]);
        self.route(address, to);
    }
}

impl Network for TestNetwork {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.resolved.lock().push(host.to_owned());
        let mut names = self.names.lock();
        let answer = match names.get_mut(host) {
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            // As the system does it, an address is its own answer, in all its forms.
            None => match host {
                "2130706433" | "0x7f.1" => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
                host => host
                    .parse()
                    .map(|address| vec![SocketAddr::new(address, port)])
                    .map_err(|_| io::Error::from(io::ErrorKind::NotFound)),
            },
        };
        Box::pin(async { answer })
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.connected.lock().push(address);
        let to = self.routes.lock().get(&address).copied();
        Box::pin(async move {
            match to {
                Some(to) => TcpStream::connect(to).await,
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// Either end of a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Serves connections on a port of this machine: `answer` gets the head of a request and the
/// connection. Ends with the runtime.
pub(crate) async fn serve<F>(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(String, Box<dyn Stream>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, tls) = (answer.clone(), tls.clone());
            tokio::spawn(async move {
                let mut stream: Box<dyn Stream> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                answer(String::from_utf8_lossy(&head).into_owned(), stream).await;
            });
        }
    });
    address
}

/// Certificates of a server for these names, and a client that trusts them.
pub(crate) fn certified(names: &[&str]) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a server");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}
