//! What a controller is: a descriptor, a `setup` that declares what it reads and does no I/O, and a
//! `reconcile` for one key.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::client::{Api, ApiError, Class};
use crate::events::Recorder;
use crate::informer::{Change, Informers, Lister, Selection};
use crate::object::{Cached, Kind, Typed};
use crate::queue::{Enqueue, Retry};

/// What a reconcile is about. Most controllers use [`ObjectKey`](crate::object::ObjectKey).
pub trait Key: Clone + Eq + Hash + Send + Sync + fmt::Display + 'static {}

impl<T: Clone + Eq + Hash + Send + Sync + fmt::Display + 'static> Key for T {}

/// Service account in `kube-system` as which informers read.
pub const READER_ACCOUNT: &str = "quarterdeck-reader";

/// The Lease of a manager that runs the same controller; while a live holder has it, ours is
/// blocked unless it was asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// `kube-system/kube-controller-manager`.
    KubeControllerManager,
    /// `kube-system/cloud-controller-manager`.
    CloudControllerManager,
}

/// The fixed facts of a controller, as they stand in the table of controllers.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Canonical name, such as `endpointslice-controller`.
    pub name: &'static str,
    /// Other names that `--controllers` accepts.
    pub aliases: &'static [&'static str],
    /// Whether `*` includes it.
    pub enabled_by_default: bool,
    /// Service account in `kube-system` under which it writes.
    pub account: &'static str,
    /// Whether every cluster binds a `system:controller:*` role to that account.
    pub upstream_role: bool,
    /// Whether it writes whatever it is handed, so that its account may be bound to cluster-admin.
    pub writes_anything: bool,
    /// Another manager that runs the same controller.
    pub predecessor: Option<Predecessor>,
    /// Name of its queue in the workqueue metrics.
    pub queue: &'static str,
    /// Its share of `--kube-api-qps` and `--kube-api-burst`.
    pub share: ClientShare,
}

/// By how much a controller's client may exceed `--kube-api-qps` and `--kube-api-burst`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientShare {
    /// Factor on the rate.
    pub qps: f32,
    /// Factor on the burst.
    pub burst: u32,
}

impl ClientShare {
    /// The flags as they are.
    pub const ONE: Self = Self { qps: 1.0, burst: 1 };
}

/// A right that a controller needs beyond upstream's role of its account; becomes part of the role
/// `quarterdeck:<controller>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// API group, empty for core, `*` for all.
    pub group: &'static str,
    /// Resource or `resource/subresource`, `*` for all.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// A controller: a plug-in of the manager.
pub trait Controller: Send + Sync + Sized + 'static {
    /// Its fixed facts.
    const DESCRIPTOR: Descriptor;
    /// Its flags.
    type Config: clap::Args + Clone + Send + Sync;
    /// What one reconcile is about.
    type Key: Key;

    /// Declares what it reads, what wakes it and how it retries. Does no I/O.
    ///
    /// # Errors
    /// When the configuration makes no sense; the message names the flag.
    fn setup(config: &Self::Config, setup: &mut Setup<Self::Key>) -> Result<Self, SetupError>;

    /// Brings the world of one key to where it should be. Runs only while this process leads and
    /// the caches show this controller's own last writes for the key.
    fn reconcile(&self, cx: &Cx, key: Self::Key) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// A loop that belongs to a controller and runs on every replica, such as watching a directory. It
/// restarts with backoff when it ends or panics, until the process stops.
pub trait Worker: Send + Sync + 'static {
    /// Runs until `stop` is cancelled.
    fn run(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send;
}

/// What to do with a key after a reconcile that went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Done,
    /// Look again after this time.
    RequeueAfter(Duration),
}

/// Why a reconcile did not reach its goal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The caches lag behind; retried as a conflict.
    #[error("stale cache: {0}")]
    Stale(String),
    /// May pass by itself.
    #[error("{0}")]
    Transient(String),
    /// Retrying cannot help until something changes.
    #[error("{0}")]
    Terminal(String),
}

impl Error {
    /// What the error asks of the queue.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Api(error) => error.class(),
            Self::Stale(_) => Class::Conflict,
            Self::Transient(_) => Class::Transient,
            Self::Terminal(_) => Class::Terminal,
        }
    }
}

/// A configuration that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: {reason}")]
pub struct SetupError {
    /// Flag, without dashes.
    pub flag: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// What one reconcile may use.
#[derive(Clone)]
pub struct Cx {
    /// Calls under the controller's identity; writes pass the gate.
    pub api: Api,
    /// Events under the controller's name.
    pub recorder: Recorder,
    /// Cancelled when the lease is lost or the process stops.
    pub stop: CancellationToken,
    /// How often this key has failed in a row.
    pub attempt: u32,
}

/// Collects what a controller declares. Does no I/O: listing controllers, generating RBAC and unit
/// tests need no server.
pub struct Setup<K: Key> {
    informers: Informers,
    queue: Enqueue<K>,
    registry: prometheus::Registry,
    pub(crate) workers: usize,
    pub(crate) retry: Retry,
    pub(crate) grants: Vec<Grant>,
    pub(crate) loops: Vec<Arc<dyn DynWorker>>,
    pub(crate) required: Vec<Arc<dyn Fn() -> bool + Send + Sync>>,
    pub(crate) reads: Vec<Kind>,
}

impl<K: Key> Setup<K> {
    /// A setup over these informers and this queue.
    #[must_use]
    pub fn new(informers: Informers, queue: Enqueue<K>, registry: prometheus::Registry) -> Self {
        Self {
            informers,
            queue,
            registry,
            workers: 1,
            retry: Retry::default(),
            grants: Vec::new(),
            loops: Vec::new(),
            required: Vec::new(),
            reads: Vec::new(),
        }
    }

    /// The shared informer of a kind; reconciles wait until it has synced.
    pub fn informer<T: Typed>(&mut self, selection: Selection) -> Lister<T> {
        let lister = self.informers.typed::<T>(selection);
        self.reads.push(T::kind());
        let synced = lister.clone();
        self.required.push(Arc::new(move || synced.has_synced()));
        lister
    }

    /// Calls `handler` on each change; it may only enqueue.
    pub fn watch<T: Cached>(
        &mut self,
        lister: &Lister<T>,
        handler: impl Fn(Change<'_, T>, &Enqueue<K>) + Send + Sync + 'static,
    ) {
        let queue = self.queue.clone();
        lister.on_change(move |change| handler(change, &queue));
    }

    /// The queue, for sources other than informers.
    #[must_use]
    pub fn queue(&self) -> Enqueue<K> {
        self.queue.clone()
    }

    /// The informers, for kinds known only at run time.
    #[must_use]
    pub fn informers(&self) -> Informers {
        self.informers.clone()
    }

    /// Where the controller registers its own metrics.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// How many keys are reconciled at once (default 1).
    pub fn workers(&mut self, count: usize) {
        self.workers = count.max(1);
    }

    /// How failing keys are retried.
    pub fn retry(&mut self, retry: Retry) {
        self.retry = retry;
    }

    /// Declares a right beyond upstream's role of the controller's account.
    pub fn grant(&mut self, grant: Grant) {
        self.grants.push(grant);
    }

    /// Adds a loop that runs on every replica.
    pub fn run_always(&mut self, worker: impl Worker) {
        self.loops.push(Arc::new(worker));
    }
}

/// [`Worker`] with its future boxed.
pub(crate) trait DynWorker: Send + Sync {
    fn run_boxed(&self, stop: CancellationToken) -> futures::future::BoxFuture<'_, ()>;
}

impl<W: Worker> DynWorker for W {
    fn run_boxed(&self, stop: CancellationToken) -> futures::future::BoxFuture<'_, ()> {
        Box::pin(self.run(stop))
    }
}

impl Predecessor {
    /// Name of its Lease in `kube-system`.
    #[must_use]
    pub fn lease_name(self) -> &'static str {
        match self {
            Self::KubeControllerManager => "kube-controller-manager",
            Self::CloudControllerManager => "cloud-controller-manager",
        }
    }
}

/// Takes a table of controllers, one call each.
pub trait Registrar: Sized {
    /// Adds a controller.
    #[must_use]
    fn controller<C: Controller>(self) -> Self;
}
