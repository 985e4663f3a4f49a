//! The task of an informer: sends its requests, resumes and re-lists, and changes its store.
//!
//! ```text
//!            ┌─ list as a stream ──────────────┐
//! no version ┤                                 ├→ follow changes → cut → resume after the version
//!            └─ refused: list in pages → watch ┘                  → 410 → no version
//! ```

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::StatusCode;
use http::response::Parts;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::backoff::{Backoff, random};
use super::request::{Ask, PAGE, request, retry_after};
use super::shared::{Core, DryQuestions, Shared};
use super::wire::{self, Event, Lines, Unreadable};
use super::{BoxError, State, WatchBody, WatchTransport};
use crate::gist::gist;
use crate::object::Cached;

/// How long the head of an answer may take; requests may queue in the server for a minute.
const ANSWER: Duration = Duration::from_secs(90);
/// How long one page of a list may take.
const PAGE_BODY: Duration = Duration::from_secs(120);
/// The server ends a watch after a random time of this many seconds (client-go's reflector).
const WATCH_SECONDS: std::ops::Range<u64> = 300..600;
/// How much longer we wait for the server to end a watch.
const GRACE: Duration = Duration::from_secs(30);
/// A list that comes as a stream and goes silent: the server does not know of such lists.
const SILENT_LIST: Duration = Duration::from_secs(30);
/// A list as a stream must be complete after this time, however busily changes come in between.
const LONGEST_LIST: Duration = Duration::from_secs(300);
/// A server that sends bookmarks sends one a minute. So long a silence means a dead connection.
const SILENT_WATCH: Duration = Duration::from_secs(240);
/// A watch that ends sooner and without an event is a failure, not an end.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// Most bytes read of an error's body.
const ERROR_BODY: usize = 64 << 10;

/// An error with its causes: the outermost of a transport error says little.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// Why a request or a stream came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", with_causes(&**.0))]
    Transport(BoxError),
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("the stream is broken: {0}")]
    Broken(serde_json::Error),
    #[error("a line of the stream is too long")]
    TooLong,
    #[error("the server takes no notice of the wish for a list as a stream")]
    Ignored,
    #[error("the list ended before it was complete")]
    HalfList,
    #[error("the watch ended at once")]
    Short,
    #[error("{}", message(.status))]
    Refused {
        /// The server's answer.
        status: Box<Status>,
        /// How long it asks to be left alone.
        wait: Duration,
    },
}

impl Failure {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => status.code.and_then(|code| u16::try_from(code).ok()),
            _ => None,
        }
    }

    /// The version is gone from the server, or not there yet (a restored etcd): only a list helps.
    fn asks_for_list(&self) -> bool {
        let Self::Refused { status, .. } = self else { return false };
        let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
        let too_large = causes.into_iter().flatten().any(|cause| {
            cause.reason.as_deref() == Some("ResourceVersionTooLarge")
                || cause.message.as_deref() == Some("Too large resource version")
        });
        status.code == Some(410) || too_large
    }

    /// The server does not list as a stream; any server lists in pages.
    fn refuses_stream(&self) -> bool {
        matches!(self, Self::Ignored) || matches!(self.code(), Some(400 | 405 | 406 | 415 | 422 | 501))
    }

    fn state(&self) -> State {
        match self.code() {
            Some(403) => State::Forbidden(self.to_string()),
            Some(404) => State::NotServed,
            _ => State::Retrying(self.to_string()),
        }
    }
}

fn message(status: &Status) -> String {
    match (&status.message, status.code) {
        (Some(message), _) if !message.is_empty() => message.clone(),
        (_, Some(code)) => format!("the server answered with status {code}"),
        _ => "the server answered with an error".to_owned(),
    }
}

/// Runs an informer until it is stopped.
pub(super) async fn run<K: Cached>(
    shared: Arc<Shared<K>>,
    transport: Arc<dyn WatchTransport>,
    questions: DryQuestions,
) {
    let stop = shared.core.stop.clone();
    let mut driver =
        Driver { shared, transport, questions, version: None, pages_only: false, listed: None, failed: None };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = driver.drive() => {}
    }
}

struct Driver<K> {
    shared: Arc<Shared<K>>,
    transport: Arc<dyn WatchTransport>,
    questions: DryQuestions,
    /// Version up to which the store is complete; none when a list is due.
    version: Option<String>,
    /// The server ignores the wish for a stream instead of refusing it.
    pages_only: bool,
    /// When the last complete list ended.
    listed: Option<Instant>,
    /// The failure that the log tells of, until it is over.
    failed: Option<String>,
}

/// A stream being read.
struct Stream {
    lines: Lines,
    /// Whether the complete list is still coming.
    is_listing: bool,
    /// Whether all objects of the list could at least be named.
    all_named: bool,
    /// Whether the server sends bookmarks on its own.
    has_bookmarks: bool,
    /// Events read.
    events: u64,
}

impl Stream {
    /// Until when it may be silent, begun and last heard at these times; the server was asked to
    /// end it after `limit`.
    fn quiet_until(&self, begun: Instant, heard: Instant, limit: Duration) -> Instant {
        let end = begun + limit + GRACE;
        match (self.is_listing, self.has_bookmarks) {
            (true, _) => (heard + SILENT_LIST).min(begun + LONGEST_LIST),
            (false, true) => (heard + SILENT_WATCH).min(end),
            (false, false) => end,
        }
    }
}

impl<K: Cached> Driver<K> {
    async fn drive(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let failure = match AssertUnwindSafe(self.session()).catch_unwind().await {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => Some(failure),
                Err(_) => None,
            };
            let wait = match failure {
                Some(failure) => {
                    let settled = self.listed.is_some_and(|listed| listed.elapsed() > SHORT_WATCH);
                    if failure.asks_for_list() || failure.code() == Some(404) {
                        self.version = None;
                    }
                    if failure.code() == Some(410) && settled {
                        debug!(kind = %self.shared.core.kind, "the version is gone from the server: listing again");
                        continue;
                    }
                    self.note(&failure);
                    let asked = if let Failure::Refused { wait, .. } = &failure { *wait } else { Duration::ZERO };
                    backoff.after_failure(asked)
                }
                None => {
                    error!(kind = %self.shared.core.kind, "the informer panicked: listing again");
                    self.shared.core.progress.set_state(State::Retrying("the informer panicked".to_owned()));
                    self.failed = Some(String::new());
                    self.version = None;
                    backoff.after_failure(Duration::ZERO)
                }
            };
            pause(&self.shared.core, wait).await;
        }
    }

    /// Shows a failure; one that goes on is logged once.
    fn note(&mut self, failure: &Failure) {
        let core = &self.shared.core;
        let (state, gist) = (failure.state(), gist(failure));
        if self.failed.replace(gist.clone()) == Some(gist) {
            debug!(kind = %core.kind, error = %failure, "the informer fails still");
        } else {
            warn!(kind = %core.kind, error = %failure, state = state.name(), "the informer fails; its store stays as it is");
        }
        core.progress.set_state(state);
    }

    /// The server gives what is asked for.
    fn set_watching(&mut self) {
        let core = &self.shared.core;
        core.progress.set_state(State::Watching);
        if self.failed.take().is_some() {
            info!(kind = %core.kind, state = State::Watching.name(), "the informer reads again");
        }
    }

    /// One request that matters: a list with what follows, or a resumed watch.
    async fn session(&mut self) -> Result<(), Failure> {
        if self.version.is_none() {
            self.shared.core.progress.set_state(State::Listing);
            if self.pages_only {
                return self.list_pages().await;
            }
            return match self.list_stream().await {
                Err(failure) if self.version.is_none() && failure.refuses_stream() => {
                    debug!(kind = %self.shared.core.kind, error = %failure, "no list as a stream: listing in pages");
                    self.list_pages().await
                }
                other => other,
            };
        }
        self.watch().await
    }

    /// Reads the complete list as a stream and then follows changes.
    async fn list_stream(&mut self) -> Result<(), Failure> {
        let limit = watch_limit();
        let (_, body) = self.send(Ask::ListStream, limit).await?;
        self.shared.begin_list();
        self.follow(body, limit, true).await
    }

    /// Reads the complete list in pages.
    async fn list_pages(&mut self) -> Result<(), Failure> {
        match self.list_pages_of(Some(PAGE)).await {
            // The first page's version has left the server meanwhile.
            Err(failure) if failure.code() == Some(410) => self.list_pages_of(None).await,
            other => other,
        }
    }

    async fn list_pages_of(&mut self, limit: Option<u32>) -> Result<(), Failure> {
        self.shared.begin_list();
        let (mut next, mut all_named) = (None::<String>, true);
        loop {
            let (_, body) = self.send(Ask::Page { limit, from: next.as_deref() }, Duration::ZERO).await?;
            let body = timeout(PAGE_BODY, body.collect()).await.map_err(|_| Failure::NoAnswer(PAGE_BODY))?;
            let body = body.map_err(Failure::Transport)?.to_bytes();
            let page = wire::page(&body).map_err(Failure::Broken)?;
            self.shared.core.progress.hear();
            for (object, length) in page.objects::<K>() {
                match object {
                    Ok(object) => self.shared.put(object, length),
                    Err(unreadable) => all_named &= self.unreadable(&unreadable, true),
                }
            }
            next = page.next;
            if next.is_none() {
                self.end_list(page.version, all_named);
                return Ok(());
            }
        }
    }

    /// Follows changes after the version.
    async fn watch(&mut self) -> Result<(), Failure> {
        let limit = watch_limit();
        let (begun, after) = (Instant::now(), self.version.clone().unwrap_or_default());
        let (_, body) = self.send(Ask::Watch { after: &after }, limit).await?;
        self.set_watching();
        let before = self.shared.core.counters.events.get();
        self.follow(body, limit, false).await?;
        let has_events = self.shared.core.counters.events.get() != before;
        if has_events || begun.elapsed() >= SHORT_WATCH { Ok(()) } else { Err(Failure::Short) }
    }

    /// Sends a request; any answer but success is a failure.
    async fn send(&self, ask: Ask<'_>, limit: Duration) -> Result<(Parts, WatchBody), Failure> {
        let core = &self.shared.core;
        core.counters.requests.inc();
        let answer = self.transport.send(&core.identity, request(core, ask, limit));
        let answer = timeout(ANSWER, answer).await.map_err(|_| Failure::NoAnswer(ANSWER))?;
        let (head, body) = answer.map_err(Failure::Transport)?.into_parts();
        if head.status == StatusCode::OK {
            return Ok((head, body));
        }
        let body = timeout(ANSWER, error_body(body)).await;
        let mut status: Status = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
        // The body may come from a proxy, or say nothing.
        status.code = Some(i32::from(head.status.as_u16()));
        Err(Failure::Refused { status: Box::new(status), wait: retry_after(&head) })
    }

    /// Reads a stream to its end.
    async fn follow(&mut self, mut body: WatchBody, limit: Duration, is_listing: bool) -> Result<(), Failure> {
        let mut stream =
            Stream { lines: Lines::default(), is_listing, all_named: true, has_bookmarks: false, events: 0 };
        let begun = Instant::now();
        let mut heard = begun;
        let mut alarm = pin!(sleep_until(stream.quiet_until(begun, heard, limit)));
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                Some(answer) = self.questions.recv(), if !stream.is_listing => {
                    // The stream had nothing more to give.
                    let _ = answer.send(());
                    continue;
                }
                () = &mut alarm => {
                    let until = stream.quiet_until(begun, heard, limit);
                    if Instant::now() < until {
                        alarm.as_mut().reset(until);
                        continue;
                    }
                    if stream.is_listing {
                        self.pages_only = true;
                        return Err(Failure::Ignored);
                    }
                    return Err(Failure::Silent(heard.elapsed()));
                }
            };
            let Some(frame) = frame else {
                return if stream.is_listing { Err(Failure::HalfList) } else { Ok(()) };
            };
            let Ok(piece) = frame.map_err(Failure::Transport)?.into_data() else { continue };
            heard = Instant::now();
            self.read(&piece, &mut stream)?;
            // Moved only when it would ring too late: when it rings early it is set again.
            let until = stream.quiet_until(begun, heard, limit);
            if until < alarm.deadline() {
                alarm.as_mut().reset(until);
            }
        }
    }

    /// Reads one piece of a stream.
    fn read(&mut self, piece: &[u8], stream: &mut Stream) -> Result<(), Failure> {
        let before = stream.events;
        let mut lines = std::mem::take(&mut stream.lines);
        let read = lines.split(piece, |line| self.read_line(line, stream));
        stream.lines = lines;
        self.shared.core.counters.events.inc_by(stream.events - before);
        self.shared.core.progress.hear();
        if let (false, Some(version)) = (stream.is_listing, &self.version) {
            self.shared.see(version);
        }
        read?;
        if stream.lines.is_too_long() { Err(Failure::TooLong) } else { Ok(()) }
    }

    fn read_line(&mut self, line: &[u8], stream: &mut Stream) -> Result<(), Failure> {
        if line.is_empty() {
            return Ok(());
        }
        stream.events += 1;
        match wire::event::<K>(line).map_err(Failure::Broken)? {
            Event::Put(object) => {
                self.move_to(object.resource_version(), stream);
                self.shared.put(object, line.len());
            }
            Event::Deleted(object) => {
                self.move_to(object.resource_version(), stream);
                self.shared.remove(&object.key(), Some(object));
            }
            Event::Bookmark { version, ends_list: true } if stream.is_listing => {
                stream.is_listing = false;
                self.end_list(version, stream.all_named);
                self.set_watching();
            }
            Event::Bookmark { .. } if stream.is_listing => {
                // Within a list there is only the bookmark that ends it.
                self.pages_only = true;
                return Err(Failure::Ignored);
            }
            Event::Bookmark { version, .. } => {
                stream.has_bookmarks = true;
                self.move_to(&version, stream);
            }
            Event::Failed(status) => return Err(Failure::Refused { status, wait: Duration::ZERO }),
            Event::Unreadable(unreadable) => {
                stream.all_named &= self.unreadable(&unreadable, stream.is_listing);
                if let Some(version) = &unreadable.version {
                    self.move_to(version, stream);
                }
            }
        }
        Ok(())
    }

    /// Notes the version of an event. Those of a list are in no order: its end has its version.
    fn move_to(&mut self, version: &str, stream: &Stream) {
        if stream.is_listing || version.is_empty() {
            return;
        }
        let known = self.version.get_or_insert_default();
        known.clear();
        known.push_str(version);
    }

    fn end_list(&mut self, version: String, all_named: bool) {
        if !all_named {
            warn!(kind = %self.shared.core.kind, "the list holds objects without a readable name: nothing is removed");
        }
        self.shared.end_list(&version, all_named);
        self.version = Some(version);
        self.listed = Some(Instant::now());
    }

    /// Notes an object that does not decode; its last good state stays. False if it has no name.
    fn unreadable(&self, object: &Unreadable, is_listing: bool) -> bool {
        let core = &self.shared.core;
        core.progress.count_decode_error();
        core.counters.decode_errors.inc();
        let Some(key) = &object.key else {
            warn!(kind = %core.kind, error = %object.error, "an object without a readable name cannot be decoded");
            return false;
        };
        if object.deleted {
            self.shared.remove(key, None);
            return true;
        }
        warn!(kind = %core.kind, object = %key, error = %object.error,
            "an object cannot be decoded; its last good state is kept");
        if is_listing {
            self.shared.keep(key);
        }
        true
    }
}

/// The beginning of an error's body, as far as it comes.
async fn error_body(mut body: WatchBody) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        read.extend_from_slice(frame.data_ref().map_or(&[], |piece| &piece[..]));
        if read.len() > ERROR_BODY {
            break;
        }
    }
    read
}

/// Waits before the next try, unless that is asked for sooner.
async fn pause(core: &Core, wait: Duration) {
    tokio::select! {
        () = sleep(wait) => {}
        () = core.retry_now.notified() => {}
    }
}

/// How long the server is to hold a watch open.
fn watch_limit() -> Duration {
    Duration::from_secs(random(WATCH_SECONDS))
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
