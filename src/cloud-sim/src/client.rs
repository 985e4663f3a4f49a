//! Steers a server over its control socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quarterdeck_cloud::sim::{Call, Command, Dump, Reply, State};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// The control socket of a server, by default: that of the plug-in, and `.control`.
#[must_use]
pub fn control_socket(plugin: &Path) -> PathBuf {
    let mut path = plugin.as_os_str().to_owned();
    path.push(".control");
    path.into()
}

/// Steers a made-up cloud; each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Steers the server with this control socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn request(&self, method: &str, path: &str, body: String) -> Result<Bytes> {
        let asking = || format!("asking {}", self.socket.display());
        let stream = UnixStream::connect(&self.socket).await.with_context(asking)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(asking)?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let request: Request<Full<Bytes>> = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "sim")
            .body(Full::from(Bytes::from(body)))?;
        let answer = sender.send_request(request).await.with_context(asking)?;
        let status = answer.status();
        let text = answer.into_body().collect().await.with_context(asking)?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&text).trim());
        }
        Ok(text)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let text = self.request("GET", path, String::new()).await?;
        serde_json::from_slice(&text).with_context(|| format!("reading {path}"))
    }

    /// Does one thing to the cloud; returns the id of what was made.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn command(&self, command: &Command) -> Result<String> {
        let reply = self.request("POST", "/command", serde_json::to_string(command)?).await?;
        Ok(serde_json::from_slice::<Reply>(&reply)?.id)
    }

    /// Everything: state, calls, faults, calls that stand still.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn dump(&self) -> Result<Dump> {
        self.get("/dump").await
    }

    /// What the cloud consists of.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn state(&self) -> Result<State> {
        self.get("/state").await
    }

    /// The calls that came, oldest first.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn calls(&self) -> Result<Vec<Call>> {
        self.get("/calls").await
    }
}
