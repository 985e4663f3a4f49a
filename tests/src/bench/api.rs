//! Requests to the API server as plain JSON, and watches with the time of each event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Method, Request, header};
use kube::api::WatchEvent;
use quarterdeck_it::ControlPlane;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::contestant::LONG;

/// A client that may do everything.
#[derive(Clone)]
pub(crate) struct Http {
    client: kube::Client,
}

impl Http {
    /// A client of the first kube-apiserver.
    pub(crate) async fn new(control_plane: &ControlPlane) -> Result<Self> {
        Ok(Self { client: control_plane.admin().await? })
    }

    /// Reads an object or list; null when there is none.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, "application/json", &Value::Null).await
    }

    /// Creates an object; one that is there already stays.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let request = request(Method::POST, path, "application/json", object)?;
        match self.client.request::<Value>(request).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            made => made.map(drop).with_context(|| format!("POST {path}")),
        }
    }

    /// Merges a patch into an object.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, "application/merge-patch+json", patch).await
    }

    /// Deletes an object or, with the path of a list, all of them; none there is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.send(Method::DELETE, path, "application/json", &Value::Null).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, content: &str, body: &Value) -> Result<Value> {
        let what = format!("{method} {path}");
        match self.client.request::<Value>(request(method, path, content, body)?).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Value::Null),
            answer => answer.context(what),
        }
    }

    /// Does `work` for every item, at most `at_once` at a time; the first error ends it.
    pub(crate) async fn for_each<I, F, Fut>(&self, items: I, at_once: usize, work: F) -> Result<()>
    where
        I: IntoIterator,
        F: Fn(Self, I::Item) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(at_once));
        let mut tasks = FuturesUnordered::new();
        for item in items {
            let slot = Arc::clone(&slots).acquire_owned().await?;
            let job = work(self.clone(), item);
            tasks.push(tokio::spawn(async move {
                let done = job.await;
                drop(slot);
                done
            }));
        }
        while let Some(done) = tasks.next().await {
            done??;
        }
        Ok(())
    }

    /// Watches a list; first come the objects that are there. `path` may end in a query.
    pub(crate) async fn watch(&self, path: &str) -> Result<Watch> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}watch=true&timeoutSeconds=3600&allowWatchBookmarks=false");
        let stream =
            self.client.request_events::<Value>(request(Method::GET, &path, "application/json", &Value::Null)?);
        let stream = stream.await.with_context(|| format!("GET {path}"))?;
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let (change, object) = match event {
                    Ok(WatchEvent::Added(object)) => (Change::Added, object),
                    Ok(WatchEvent::Modified(object)) => (Change::Modified, object),
                    Ok(WatchEvent::Deleted(object)) => (Change::Deleted, object),
                    Ok(WatchEvent::Bookmark(_)) => continue,
                    // The channel closes, which the reader tells.
                    Ok(WatchEvent::Error(_)) | Err(_) => return,
                };
                if sender.send(Seen { at: Instant::now(), change, object }).is_err() {
                    return;
                }
            }
        });
        Ok(Watch { events, task })
    }
}

fn request(method: Method, path: &str, content: &str, body: &Value) -> Result<Request<Vec<u8>>> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    Ok(Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content).body(body)?)
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there now, or was when the watch began.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// An event of a watch.
pub(crate) struct Seen {
    /// When it was read, and decoded.
    pub(crate) at: Instant,
    /// What happened.
    pub(crate) change: Change,
    /// The object after it, or before it went.
    pub(crate) object: Value,
}

/// An open watch.
pub(crate) struct Watch {
    events: mpsc::UnboundedReceiver<Seen>,
    task: JoinHandle<()>,
}

impl Watch {
    /// The next event.
    ///
    /// # Errors
    /// When none comes within [`LONG`], or the watch ended.
    pub(crate) async fn next(&mut self) -> Result<Seen> {
        let next = tokio::time::timeout(LONG, self.events.recv()).await;
        next.with_context(|| format!("no event of the watch within {LONG:?}"))?
            .ok_or_else(|| anyhow!("the watch ended"))
    }

    /// The first event that fits, and those before it dropped.
    ///
    /// # Errors
    /// When it does not come within [`LONG`].
    pub(crate) async fn until(&mut self, what: &str, mut fits: impl FnMut(&Seen) -> bool) -> Result<Seen> {
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            let seen = self.next().await.with_context(|| what.to_owned())?;
            if fits(&seen) {
                return Ok(seen);
            }
        }
        bail!("not seen within {LONG:?}: {what}")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Seconds from one moment to a later one; 0 if it came before.
pub(crate) fn seconds(from: Instant, to: Instant) -> f64 {
    to.checked_duration_since(from).unwrap_or(Duration::ZERO).as_secs_f64()
}
