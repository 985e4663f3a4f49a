//! What an informer does and holds, for the status page, metrics and blocked controllers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Selection;
use crate::client::Identity;
use crate::object::{Kind, ResourceVersion, parse_version};

/// What an informer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Declared; nothing has been asked of the server yet.
    Declared,
    /// Reading the complete list.
    Listing,
    /// Following changes.
    Watching,
    /// Waiting to try again after this error; the store keeps what it has.
    Retrying(String),
    /// The server refuses the read (403) with this message; tried again with back-off.
    Forbidden(String),
    /// The server does not serve the kind (404), as when its CRD was removed; tried again with
    /// back-off. Objects in the store are not taken for deleted.
    NotServed,
    /// Stopped for good.
    Stopped,
}

impl State {
    /// Its name, as a field of the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Retrying(_) => "retrying",
            Self::Forbidden(_) => "forbidden",
            Self::NotServed => "not-served",
            Self::Stopped => "stopped",
        }
    }
}

/// A picture of one informer.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it reads.
    pub kind: Kind,
    /// Which objects of the kind.
    pub selection: Selection,
    /// Who it reads as.
    pub identity: Identity,
    /// The form it keeps, such as `PodView`.
    pub form: &'static str,
    /// What it is doing.
    pub state: State,
    /// Whether it has had a complete list.
    pub synced: bool,
    /// Number of objects held.
    pub objects: usize,
    /// Estimate of the bytes they take, shared text left out.
    pub bytes: u64,
    /// Newest version seen, of an event, a bookmark or a list, as the server wrote it.
    pub version: String,
    /// When the server was last heard.
    pub last_event: Option<SystemTime>,
    /// Complete lists read after the first.
    pub relists: u64,
    /// Objects that could not be decoded; the store kept their last good state.
    pub decode_errors: u64,
}

/// How far an informer has come.
pub(super) struct Progress {
    state: Mutex<State>,
    synced: AtomicBool,
    version: Mutex<String>,
    number: AtomicU64,
    heard: Mutex<Option<SystemTime>>,
    lists: AtomicU64,
    decode_errors: AtomicU64,
    /// Told of each move of the version and the state.
    pub(super) moved: Notify,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::Declared),
            synced: AtomicBool::new(false),
            version: Mutex::new(String::new()),
            number: AtomicU64::new(0),
            heard: Mutex::new(None),
            lists: AtomicU64::new(0),
            decode_errors: AtomicU64::new(0),
            moved: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Changes the state, unless the informer has stopped for good.
    pub(super) fn set_state(&self, state: State) {
        let mut present = self.state.lock();
        if *present != State::Stopped {
            *present = state;
        }
        drop(present);
        self.moved.notify_waiters();
    }

    pub(super) fn has_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Newest version seen, 0 before the first.
    pub(super) fn number(&self) -> ResourceVersion {
        self.number.load(Ordering::Acquire)
    }

    pub(super) fn version(&self) -> String {
        self.version.lock().clone()
    }

    /// Notes a version of the watch, or of a complete list.
    pub(super) fn see(&self, version: &str) {
        let mut text = self.version.lock();
        text.clear();
        text.push_str(version);
        drop(text);
        // A restored server may be behind what was seen before: then that is what we know.
        self.number.store(parse_version(version).unwrap_or(0), Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Notes that the server was heard.
    pub(super) fn hear(&self) {
        *self.heard.lock() = Some(SystemTime::now());
    }

    pub(super) fn heard(&self) -> Option<SystemTime> {
        *self.heard.lock()
    }

    /// Notes a complete list.
    pub(super) fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.synced.store(true, Ordering::Release);
        self.moved.notify_waiters();
    }

    pub(super) fn relists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed).saturating_sub(1)
    }

    pub(super) fn count_decode_error(&self) {
        self.decode_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn decode_errors(&self) -> u64 {
        self.decode_errors.load(Ordering::Relaxed)
    }
}
