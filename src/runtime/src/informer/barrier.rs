//! The take-over barrier: no reconcile starts on caches older than the take-over.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::request::{Ask, request};
use super::shared::Core;
use super::wire::{self, Event, Lines};
use super::{BoxError, InformerHandle, State, WatchTransport};
use crate::object::ResourceVersion;
use crate::view::Metadata;

/// How an informer came through the barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It has seen the version, or a later one.
    Current,
    /// The server was asked how far it is, and the informer's own stream was read dry after the
    /// answer.
    Asked,
    /// It has had no complete list yet; what needs it waits for that anyway.
    Unsynced,
    /// It is not known to be current: its kind is not served or not readable, or the time was up.
    Late(String),
}

impl Freshness {
    /// Whether the store shows the version, as far as it holds anything yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Current | Self::Asked)
    }
}

/// Waits for all informers at once.
pub(super) async fn wait(
    informers: Vec<InformerHandle>,
    transport: Option<Arc<dyn WatchTransport>>,
    version: ResourceVersion,
    limit: Duration,
) -> Vec<(InformerHandle, Freshness)> {
    let waits = informers.into_iter().map(|informer| {
        let transport = transport.clone();
        async move {
            let freshness = wait_for(informer.0.core(), transport, version, limit).await;
            (informer, freshness)
        }
    });
    join_all(waits).await
}

async fn wait_for(
    core: &Core,
    transport: Option<Arc<dyn WatchTransport>>,
    version: ResourceVersion,
    limit: Duration,
) -> Freshness {
    if !core.progress.has_synced() {
        return Freshness::Unsynced;
    }
    if core.progress.number() >= version {
        return Freshness::Current;
    }
    match core.progress.state() {
        State::Forbidden(reason) => return Freshness::Late(reason),
        State::NotServed => return Freshness::Late("the kind is not served".to_owned()),
        State::Stopped => return Freshness::Late("the informer has stopped".to_owned()),
        State::Declared | State::Listing | State::Watching | State::Retrying(_) => {}
    }
    let Some(transport) = transport else { return Freshness::Late("the informer has not started".to_owned()) };
    let either = async {
        tokio::select! {
            () = reach(core, version) => Ok(Freshness::Current),
            asked = ask(core, &*transport, limit) => asked.map(|()| Freshness::Asked),
        }
    };
    match timeout(limit, either).await {
        Ok(Ok(freshness)) => freshness,
        Ok(Err(error)) => Freshness::Late(error.to_string()),
        Err(_) => Freshness::Late(match core.progress.state() {
            State::Retrying(reason) => reason,
            _ => format!("not current within {limit:?}"),
        }),
    }
}

/// Waits until the informer has seen a version.
async fn reach(core: &Core, version: ResourceVersion) {
    loop {
        let mut moved = pin!(core.progress.moved.notified());
        moved.as_mut().enable();
        if core.progress.number() >= version {
            return;
        }
        moved.await;
    }
}

/// Asks the server how far it is, then waits until the informer has read what lay in its stream.
async fn ask(core: &Core, transport: &dyn WatchTransport, limit: Duration) -> Result<(), BoxError> {
    if !ask_by_stream(core, transport, limit).await? {
        ask_by_page(core, transport).await?;
    }
    let (answer, answered) = oneshot::channel();
    core.ask_dry.send(answer).map_err(|_| "the informer has stopped")?;
    answered.await.map_err(|_| "the informer has stopped".into())
}

/// Lists nothing as a stream; false if the server refuses that.
async fn ask_by_stream(core: &Core, transport: &dyn WatchTransport, limit: Duration) -> Result<bool, BoxError> {
    let probe = request(core, Ask::ProbeStream, limit + Duration::from_secs(1));
    let (head, mut body) = transport.send(&core.identity, probe).await?.into_parts();
    if head.status != StatusCode::OK {
        return Ok(false);
    }
    let (mut lines, mut done) = (Lines::default(), false);
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        lines.split(&piece, |line| match wire::event::<Metadata>(line)? {
            Event::Bookmark { ends_list: true, .. } => {
                done = true;
                Ok(())
            }
            Event::Failed(status) => Err(status.message.unwrap_or_else(|| "the probe failed".to_owned()).into()),
            _ => Ok::<_, BoxError>(()),
        })?;
        if done {
            return Ok(true);
        }
    }
    Err("the probe ended without an answer".into())
}

/// Lists nothing as a page.
async fn ask_by_page(core: &Core, transport: &dyn WatchTransport) -> Result<(), BoxError> {
    let answer = transport.send(&core.identity, request(core, Ask::ProbePage, Duration::ZERO)).await?;
    let status = answer.status();
    if status != StatusCode::OK {
        return Err(format!("the server answered the probe with status {}", status.as_u16()).into());
    }
    answer.into_body().collect().await?;
    Ok(())
}
