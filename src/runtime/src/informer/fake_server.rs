//! A server of pods in memory, with the faults of real ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{BoxError, WatchBody, WatchTransport};
use crate::client::Identity;

type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

/// One stored pod.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) uid: String,
    pub(super) version: u64,
    /// Whether it does not decode.
    pub(super) broken: bool,
}

#[derive(Default)]
struct State {
    version: u64,
    compacted: u64,
    next_uid: u64,
    pods: BTreeMap<String, Stored>,
    /// Good states that each name has had, as (uid, version).
    past: HashMap<String, Vec<(String, u64)>>,
    history: Vec<(u64, String)>,
    snapshots: HashMap<u64, Vec<Value>>,
    watches: Vec<Sender>,
    /// Statuses of the next answers.
    failures: VecDeque<u16>,
    /// After how many bytes the next stream breaks off.
    breaks_after: Option<usize>,
    refuses_streams: bool,
    ignores_streams: bool,
    /// Whether the second page of a list comes too late.
    expires_pages: bool,
    chunk: usize,
    requests: Vec<String>,
}

/// The server. Clones share it.
#[derive(Clone, Default)]
pub(super) struct FakeServer(Arc<Mutex<State>>);

fn pod(name: &str, stored: &Stored) -> Value {
    let labels = if stored.broken { json!(7) } else { json!({"version": stored.version.to_string()}) };
    let version = stored.version.to_string();
    json!({"metadata": {"name": name, "namespace": "n", "uid": stored.uid, "resourceVersion": version, "labels": labels}})
}

fn line(kind: &str, object: &Value) -> String {
    // Go writes the type first, which `json!` would not.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(version: u64, ends_list: bool) -> String {
    let annotations = if ends_list { json!({"k8s.io/initial-events-end": "true"}) } else { Value::Null };
    line("BOOKMARK", &json!({"metadata": {"resourceVersion": version.to_string(), "annotations": annotations}}))
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "message": format!("status {code}")})
}

impl State {
    fn publish(&mut self, line: String) {
        self.send(&line);
        self.history.push((self.version, line));
    }

    fn send(&mut self, text: &str) {
        let chunk = self.chunk.max(1);
        self.watches.retain(|watch| deliver(watch, text.as_bytes(), chunk));
    }
}

fn deliver(watch: &Sender, bytes: &[u8], chunk: usize) -> bool {
    bytes.chunks(chunk).all(|piece| watch.send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).is_ok())
}

impl FakeServer {
    pub(super) fn new() -> Self {
        let server = Self::default();
        server.0.lock().version = 100;
        server.set_chunk(1000);
        server
    }

    pub(super) fn version(&self) -> u64 {
        self.0.lock().version
    }

    pub(super) fn pods(&self) -> BTreeMap<String, Stored> {
        self.0.lock().pods.clone()
    }

    /// Whether a pod of this name has had this good state.
    pub(super) fn was(&self, name: &str, uid: &str, version: u64) -> bool {
        let state = self.0.lock();
        state.past.get(name).is_some_and(|past| past.iter().any(|(u, v)| u == uid && *v == version))
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.0.lock().requests.clone()
    }

    pub(super) fn put(&self, name: &str, broken: bool) {
        let mut state = self.0.lock();
        state.version += 1;
        let (version, is_new) = (state.version, !state.pods.contains_key(name));
        if is_new {
            state.next_uid += 1;
        }
        let uid = state.pods.get(name).map_or(format!("u{}", state.next_uid), |stored| stored.uid.clone());
        let stored = Stored { uid: uid.clone(), version, broken };
        let line = line(if is_new { "ADDED" } else { "MODIFIED" }, &pod(name, &stored));
        state.pods.insert(name.to_owned(), stored);
        if !broken {
            state.past.entry(name.to_owned()).or_default().push((uid, version));
        }
        state.publish(line);
    }

    pub(super) fn delete(&self, name: &str) {
        let mut state = self.0.lock();
        let Some(mut stored) = state.pods.remove(name) else { return };
        state.version += 1;
        stored.version = state.version;
        let line = line("DELETED", &pod(name, &stored));
        state.publish(line);
    }

    /// Something of another kind was written: versions move without an event.
    pub(super) fn skip(&self) {
        self.0.lock().version += 1;
    }

    pub(super) fn bookmark(&self) {
        let mut state = self.0.lock();
        let text = bookmark(state.version, false);
        state.send(&text);
    }

    /// Sends raw text on all watches.
    pub(super) fn send(&self, text: &str) {
        self.0.lock().send(text);
    }

    /// Ends all watches with an error event.
    pub(super) fn fail_watches(&self, code: u16) {
        self.send(&line("ERROR", &status(code)));
        self.cut(false);
    }

    /// Ends all watches; with an error in the middle of a line, if wished.
    pub(super) fn cut(&self, dirty: bool) {
        for watch in self.0.lock().watches.drain(..).filter(|_| dirty) {
            deliver(&watch, b"{\"type\":\"ADDED\",\"obj", 1000);
            let _ = watch.send(Err("connection reset".into()));
        }
    }

    /// Forgets the past: watches from older versions get a 410.
    pub(super) fn compact(&self) {
        let mut state = self.0.lock();
        state.compacted = state.version;
        state.snapshots.clear();
    }

    pub(super) fn fail_next(&self, code: u16) {
        self.0.lock().failures.push_back(code);
    }

    pub(super) fn break_next_stream(&self, after: usize) {
        self.0.lock().breaks_after = Some(after);
    }

    pub(super) fn refuse_streams(&self, refuse: bool) {
        self.0.lock().refuses_streams = refuse;
    }

    pub(super) fn ignore_streams(&self) {
        self.0.lock().ignores_streams = true;
    }

    pub(super) fn expire_pages(&self) {
        self.0.lock().expires_pages = true;
    }

    pub(super) fn set_chunk(&self, chunk: usize) {
        self.0.lock().chunk = chunk;
    }

    /// Watches that are open.
    pub(super) fn watches(&self) -> usize {
        let mut state = self.0.lock();
        state.watches.retain(|watch| !watch.is_closed());
        state.watches.len()
    }

    fn answer(&self, uri: &http::Uri) -> Response<WatchBody> {
        let mut state = self.0.lock();
        let query: HashMap<_, _> =
            uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        state.requests.push(uri.to_string());
        if let Some(code) = state.failures.pop_front() {
            return refusal(code);
        }
        let probe = query.contains_key("fieldSelector");
        if !query.contains_key("watch") {
            return state.page(query.contains_key("limit"), query.get("continue").copied(), probe);
        }
        let lists = query.contains_key("sendInitialEvents");
        if lists && state.refuses_streams {
            return refusal(422);
        }
        let after = query.get("resourceVersion").map(|version| version.parse().expect("a number"));
        if after.is_some_and(|after: u64| after < state.compacted) {
            return refusal(410);
        }
        let mut text = String::new();
        if let Some(after) = after {
            text.extend(state.history.iter().filter(|(version, _)| *version > after).map(|(_, line)| line.as_str()));
        } else {
            if !probe {
                text.extend(state.pods.iter().rev().map(|(name, stored)| line("ADDED", &pod(name, stored))));
            }
            if !state.ignores_streams {
                text.push_str(&bookmark(state.version, true));
            }
        }
        state.stream(text.as_bytes(), probe)
    }
}

impl State {
    fn stream(&mut self, bytes: &[u8], probe: bool) -> Response<WatchBody> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        match self.breaks_after.take() {
            Some(after) if after < bytes.len() => {
                deliver(&sender, &bytes[..after], self.chunk.max(1));
            }
            _ => {
                deliver(&sender, bytes, self.chunk.max(1));
                if !probe {
                    self.watches.push(sender);
                }
            }
        }
        let frames = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames)))
    }

    /// Three objects a page, whatever the client asks for.
    fn page(&mut self, limited: bool, from: Option<&str>, probe: bool) -> Response<WatchBody> {
        let (version, start) = match from {
            None => {
                let all = self.pods.iter().map(|(name, stored)| pod(name, stored)).collect();
                self.snapshots.insert(self.version, all);
                (self.version, 0)
            }
            Some(token) => {
                let (version, start) = token.split_once('.').expect("our own token");
                (version.parse().expect("a number"), start.parse().expect("a number"))
            }
        };
        if from.is_some() && self.expires_pages {
            return refusal(410);
        }
        let Some(all) = self.snapshots.get(&version) else { return refusal(410) };
        let all: &[Value] = if probe { &[] } else { all };
        let end = if limited { (start + 3).min(all.len()) } else { all.len() };
        let next = if end < all.len() { format!("{version}.{end}") } else { String::new() };
        let meta = json!({"resourceVersion": version.to_string(), "continue": next});
        whole(200, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": &all[start..end]}))
    }
}

fn refusal(code: u16) -> Response<WatchBody> {
    whole(code, &status(code))
}

fn whole(code: u16, body: &Value) -> Response<WatchBody> {
    use http_body_util::BodyExt;
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    Response::builder().status(code).body(UnsyncBoxBody::new(body)).expect("a status and a body")
}

impl WatchTransport for FakeServer {
    fn send(
        &self,
        _identity: &Identity,
        request: Request<()>,
    ) -> BoxFuture<'static, Result<Response<WatchBody>, BoxError>> {
        let server = self.clone();
        Box::pin(async move {
            // The answer takes a moment, so that the world may move between request and answer.
            tokio::task::yield_now().await;
            Ok(server.answer(request.uri()))
        })
    }
}
