//! The control socket: what tests and people do to the cloud, and see of it. HTTP with JSON, one path a thing.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use quarterdeck_cloud::sim::{Command, Sim};
use serde::Serialize;
use tokio::net::UnixListener;

const HELP: &str = "POST /command  does one thing, as JSON: {\"add_instance\": {\"name\": \"node-1\"}}
GET  /dump     everything: state, calls, faults, calls that stand still
GET  /state    what the cloud consists of
GET  /calls    the calls that came
";

/// A socket to listen on; one that a server left behind that was killed is removed.
///
/// # Errors
/// When it cannot be had.
pub fn listen(path: &Path) -> Result<UnixListener> {
    if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))
}

/// Answers on the control socket.
///
/// # Errors
/// When the socket breaks.
pub async fn serve(listener: UnixListener, sim: Arc<Sim>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let sim = Arc::clone(&sim);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &sim));
            // A caller that leaves early has itself to blame.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, sim: &Sim) -> Result<Response<Full<Bytes>>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (method, path.as_str()) {
        (Method::GET, "/") => Ok(plain(StatusCode::OK, HELP)),
        (Method::GET, "/dump") => json(&sim.dump()),
        (Method::GET, "/state") => json(&sim.state()),
        (Method::GET, "/calls") => json(&sim.calls()),
        (Method::POST, "/command") => {
            let body = request.into_body().collect().await?.to_bytes();
            let command: Command = match serde_json::from_slice(&body) {
                Ok(command) => command,
                Err(error) => return Ok(plain(StatusCode::BAD_REQUEST, &format!("{error}\n"))),
            };
            match sim.command(command) {
                Ok(reply) => {
                    sim.until_kept().await;
                    json(&reply)
                }
                Err(error) => Ok(plain(StatusCode::CONFLICT, &format!("{error}\n"))),
            }
        }
        _ => Ok(plain(StatusCode::NOT_FOUND, HELP)),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}

fn json<T: Serialize>(value: &T) -> Result<Response<Full<Bytes>>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(Response::new(Full::from(Bytes::from(text))))
}
