//! What a controller is: a descriptor, a `setup` that declares what it reads and does no I/O, and a
//! `reconcile` for one key.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::client::{Api, ApiError, Class, Identity};
use crate::events::Recorder;
use crate::facility::{Authority, Facilities, Facility};
use crate::informer::{Change, InformerHandle, Informers, Lister, Selection};
use crate::notes::Notes;
use crate::object::{Cached, Kind, Typed};
use crate::queue::{Enqueue, Retry};

/// What a reconcile is about. Most controllers use [`ObjectKey`](crate::object::ObjectKey).
pub trait Key: Clone + Eq + Hash + Send + Sync + fmt::Display + 'static {}

impl<T: Clone + Eq + Hash + Send + Sync + fmt::Display + 'static> Key for T {}

/// Service account in `kube-system` as which informers read.
pub const READER_ACCOUNT: &str = "quarterdeck-reader";

/// A service account as which a controller writes. The account object need not exist: role bindings
/// name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Text that does not name a service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccount {
    /// The part before the slash is no namespace's name.
    #[error("{0:?} is not the name of a namespace: at most 63 of a-z, 0-9 and -, a letter or digit at both ends")]
    Namespace(String),
    /// The part after the slash, or all of it, is no account's name.
    #[error(
        "{0:?} is not the name of a service account: at most 253 of a-z, 0-9, - and ., a letter or digit at both ends \
         and beside each dot; expected name (in kube-system) or namespace/name"
    )]
    Name(String),
}

impl Account {
    /// An account in `kube-system`, where those of the controllers live.
    pub fn system(name: impl Into<String>) -> Self {
        Self { namespace: "kube-system".to_owned(), name: name.into() }
    }

    /// Reads `namespace/name`, or the name alone of an account in `kube-system`; names are those that
    /// the server takes (`kubernetes:pkg/apis/core/validation/validation.go`, v1.36.3).
    ///
    /// # Errors
    /// Says which part is no name.
    pub fn parse(text: &str) -> Result<Self, BadAccount> {
        let (namespace, name) = text.split_once('/').unwrap_or(("kube-system", text));
        let label = |text: &str| {
            let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
            !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
        };
        if namespace.len() > 63 || !label(namespace) {
            return Err(BadAccount::Namespace(namespace.to_owned()));
        }
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(BadAccount::Name(name.to_owned()));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The account as who a request is made.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::ServiceAccount { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// Prints `namespace/name`.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

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
    /// Service account in `kube-system` under which it writes, unless its setup names another
    /// ([`Setup::account`]).
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

    /// What it has to tell on the status page beside its queue: the name of the part, and its content as JSON whose
    /// fields are in order. Answers at once, on every replica.
    fn told(&self) -> Option<(&'static str, Box<RawValue>)> {
        None
    }
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
    /// The right to make calls that change things outside the API server.
    pub authority: Authority,
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
    pub(crate) required: Vec<InformerHandle>,
    pub(crate) reads: Vec<Kind>,
    pub(crate) account: Option<Account>,
    pub(crate) notes: Notes,
    pub(crate) facilities: Facilities,
    pub(crate) aside: Option<String>,
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
            account: None,
            notes: Notes::new(""),
            facilities: Facilities::default(),
            aside: None,
        }
    }

    /// What several controllers share; the program has to bring it ([`Registrar::facility`]).
    ///
    /// # Errors
    /// When the program does not.
    pub fn facility<F: Facility>(&self) -> Result<Arc<F>, SetupError> {
        self.facilities.get::<F>().ok_or_else(|| SetupError {
            flag: "controllers",
            reason: format!("this program lacks the facility {:?}", F::NAME),
        })
    }

    /// Has the controller stay out, although it is enabled: `reason` says what it would need. Naming it in
    /// `--controllers` is then an error.
    pub fn stand_aside(&mut self, reason: impl Into<String>) {
        self.aside = Some(reason.into());
    }

    /// The shared informer of a kind; reconciles wait until it has synced.
    pub fn informer<T: Typed>(&mut self, selection: Selection) -> Lister<T> {
        let lister = self.informers.typed::<T>(selection);
        self.reads.push(T::kind());
        self.require(&lister);
        lister
    }

    /// Has reconciles wait until this informer has synced, too: for those that were made through
    /// [`Self::informers`] and without which nothing can be done.
    pub fn require<T: Cached>(&mut self, lister: &Lister<T>) {
        self.required.push(lister.handle());
    }

    /// Sets the service account under which the controller writes, where a flag chooses it; that of
    /// the descriptor otherwise.
    pub fn account(&mut self, account: Account) {
        self.account = Some(account);
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

    /// The informers, for kinds known only at run time. Reconciles do not wait until those that read as somebody else show
    /// the controller's own writes: it has to know what it wrote.
    #[must_use]
    pub fn informers(&self) -> Informers {
        self.informers.clone()
    }

    /// Where the controller registers its own metrics.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Where this replica says something of itself to the others, whether it leads or not.
    #[must_use]
    pub fn notes(&self) -> Notes {
        self.notes.clone()
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

    /// Adds what several controllers share.
    #[must_use]
    fn facility<F: Facility>(self) -> Self;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_named_as_the_server_names_them() {
        let long = "a".repeat(254);
        for (text, expected) in [
            ("addons", Some(("kube-system", "addons"))),
            ("a/b.c-1", Some(("a", "b.c-1"))),
            ("1/2", Some(("1", "2"))),
            ("", None),
            ("/", None),
            ("a/", None),
            ("/a", None),
            ("a/b/c", None),
            ("A", None),
            ("a..b", None),
            ("-a", None),
            ("a-", None),
            ("a.-b", None),
            ("a.b/c", None),
            ("system:serviceaccount:a:b", None),
            (&long, None),
        ] {
            let read = Account::parse(text).ok();
            let read = read.as_ref().map(|account| (&*account.namespace, &*account.name));
            assert_eq!(read, expected, "{text:?}");
        }
        assert!(matches!(Account::parse("a.b/c"), Err(BadAccount::Namespace(name)) if name == "a.b"));
        assert!(matches!(Account::parse("a/B"), Err(BadAccount::Name(name)) if name == "B"));
        assert_eq!(Account::system("x").to_string(), "kube-system/x");
    }
}
