//! The addon controller keeps what a source of manifests asks for: it applies files, reverts what
//! people change, and removes what leaves the source.
//!
//! Data goes one way. A *source* ([`source`]) yields addons; so far there is one, a directory on each
//! master. The *engine* knows nothing of files: shared metadata caches tell which
//! objects *may* have changed ([`drift`]), only those are read, and a pure [`plan`] says what to do:
//! nothing, or server-side apply, preceded by taking back the fields that people own
//! ([`fields`]). What leaves a source is decided for the source as a whole ([`removal`], [`brake`]) and
//! deleted by inventory ([`parent`], [`prune`]).
//!
//! Nothing is removed on absence of evidence: a missing directory, a file that cannot be read or is
//! empty, a copy in progress, a failed list all mean that nothing is known.
//!
//! Behaviour follows `kubernetes:cluster/addons/addon-manager` v1.36.3; what differs stands in
//! `docs/controllers/addon-controller.md`.

mod admission_controls;
pub mod applyset;
pub mod brake;
pub mod candidates;
mod config;
pub mod dependency;
pub mod drift;
pub mod edited;
mod engine;
pub mod environment;
pub mod fields;
pub mod health;
pub mod ident;
pub mod kinds;
pub mod lifecycle;
pub mod location;
pub mod manifest;
mod metrics;
pub mod packed;
pub mod parent;
pub mod pki;
pub mod plan;
mod predecessor;
pub mod projection;
pub mod prune;
pub mod reasons;
pub mod removal;
pub mod replicas;
pub mod revision;
pub mod source;
pub mod workflow;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use quarterdeck_api::addon::Addon;
use quarterdeck_runtime::controller::{Action, ClientShare, Controller, Cx, Descriptor, Error, Setup, SetupError};
use quarterdeck_runtime::informer::Selection;
use quarterdeck_runtime::object::Kind;
use quarterdeck_runtime::queue::Retry;
use quarterdeck_runtime::view::PodView;

use engine::{Engine, Parts};
use environment::Environment;
use location::{FetchLimits, Fetcher};
use manifest::Limits;
use metrics::Metrics;
use quarterdeck_api::version::Version;
use replicas::Replicas;
use serde_json::value::{RawValue, to_raw_value};
use source::OBJECTS;
use source::channel::{self, ChannelLimits, ChannelWatch, ClusterStore, DiskStore, GoodStore, Stores};
use source::directory::{DirectoryWatch, Folder, Scanner};
use source::objects::ObjectsWatch;
use tokio::sync::watch;

pub use config::Config;
pub use engine::Key;

/// The addon controller.
pub struct AddonController {
    engine: Arc<Engine>,
    replicas: Arc<Replicas>,
    readings: Option<Arc<ClusterStore>>,
}

impl Controller for AddonController {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "addon-controller",
        aliases: &["addon"],
        enabled_by_default: true,
        account: config::ACCOUNT,
        upstream_role: false,
        writes_anything: true,
        predecessor: None,
        queue: "addon",
        share: ClientShare::ONE,
    };
    type Config = Config;
    type Key = Key;

    fn setup(config: &Config, setup: &mut Setup<Key>) -> Result<Self, SetupError> {
        config.validate()?;
        setup.workers(usize::from(config.concurrent_addon_syncs));
        setup.retry(Retry { base: Duration::from_millis(100), max: Duration::from_secs(60), tries: None });
        let in_system = || Some(parent::NAMESPACE.to_owned());
        let pods = setup.informer::<PodView>(Selection { namespace: in_system(), ..Selection::default() });
        let account = config.account()?;
        let informers = setup.informers().reading_as(account.identity());
        setup.account(account);
        let parents = Selection { namespace: in_system(), labels: Some(parent::SOURCE_LABEL.to_owned()), fields: None };
        let parents = informers.dynamic::<ConfigMap>(Kind::of::<ConfigMap>(), parents);
        // Without the inventories nothing may be written.
        setup.require(&parents);
        let objects = informers.dynamic::<Addon>(Kind::of::<Addon>(), Selection::default());
        let (kubernetes, version) = watch::channel(None);
        let engine = Engine::new(Parts {
            parents,
            objects: objects.clone(),
            informers,
            queue: setup.queue(),
            pods,
            kubernetes,
            overrides: config.overrides()?,
            channel_overrides: config.overrides()?.and("kops"),
            protected: config.protected()?,
            rollback: config.addon_rollback,
            health: config.addon_health_rules.clone().unwrap_or_default(),
            metrics: Metrics::new(setup.metrics()),
        });
        let readings = Arc::clone(&engine);
        setup.run_always(ObjectsWatch::new(objects, move |snapshot| readings.publish(OBJECTS, snapshot)));
        let readings = watch_channels(config, setup, &engine, version)?;
        let replicas = watch_directories(config, setup, &engine);
        Ok(Self { engine, replicas, readings })
    }

    async fn reconcile(&self, cx: &Cx, key: Key) -> Result<Action, Error> {
        match key {
            Key::Pass(source) => {
                let mut again = false;
                if source == source::channel::SOURCE {
                    self.engine.learn_version(&cx.api).await?;
                    again = match &self.readings {
                        Some(readings) => readings.sync(&cx.api).await,
                        None => false,
                    };
                }
                self.replicas.report(&cx.recorder, source);
                let action = self.engine.pass(source);
                self.engine.tell_source(&cx.recorder, source, &self.replicas.reference());
                Ok(if again && action == Action::Done { Action::RequeueAfter(KEEP_AGAIN) } else { action })
            }
            Key::Addon(id) => Box::pin(self.engine.reconcile(cx, id)).await,
            Key::Mirror(id) => self.engine.mirror(cx, &id).await,
        }
    }

    fn told(&self) -> Option<(&'static str, Box<RawValue>)> {
        Some(("addons", to_raw_value(&self.engine.board()).ok()?))
    }
}

/// When it is tried again to keep in the cluster what channels said.
const KEEP_AGAIN: Duration = Duration::from_secs(30);

/// Reads the channels, if there are any.
fn watch_channels(
    config: &Config,
    setup: &mut Setup<Key>,
    engine: &Arc<Engine>,
    version: watch::Receiver<Option<Version>>,
) -> Result<Option<Arc<ClusterStore>>, SetupError> {
    let named = |error: channel::FlagError| SetupError { flag: error.flag(), reason: error.to_string() };
    let channels = config.channels.config().map_err(named)?;
    if channels.channels.is_empty() {
        return Ok(None);
    }
    let fetcher = Fetcher::new(channels.policy.clone(), FetchLimits::default());
    let disk = Arc::new(DiskStore::new(&channels.state_dir, ChannelLimits::default().total_bytes));
    let queue = setup.queue();
    let cluster = ClusterStore::new(move || queue.add(Key::Pass(channel::SOURCE)));
    let store = Arc::new(Stores(vec![disk, Arc::clone(&cluster) as Arc<dyn GoodStore>]));
    let readings = Arc::clone(engine);
    let publish = move |reading| readings.publish_channels(reading);
    let watch = ChannelWatch::new(channels, fetcher, store, version, publish).finding(cluster.found());
    setup.run_always(watch);
    Ok(Some(cluster))
}

/// Reads the directories, and compares them with those of other masters.
fn watch_directories(config: &Config, setup: &mut Setup<Key>, engine: &Arc<Engine>) -> Arc<Replicas> {
    let environment = Environment::of_process();
    environment.tell();
    let queue = setup.queue();
    let compare = move |source| queue.add(Key::Pass(source));
    let replicas = Replicas::new(&setup.informers(), setup.notes(), setup.metrics(), compare);
    let publish = |folder: &Folder| {
        let (source, engine, replicas) = (folder.source, Arc::clone(engine), Arc::clone(&replicas));
        move |snapshot| {
            replicas.publish(source, &snapshot);
            engine.publish(source, snapshot);
        }
    };
    let limits = Limits::default();
    // What may be read may be kept.
    let store: Arc<dyn GoodStore> =
        Arc::new(DiskStore::of("directories", &config.channels.state_dir, limits.total_bytes));
    let addons = Folder::addons(environment.addon_path(config.addon_path.as_deref()));
    let mut watch = DirectoryWatch::new(Scanner::of(addons.clone(), limits), publish(&addons))
        .every(environment.rescan())
        .kept_in(Arc::clone(&store));
    if let Some(folder) = admission_controls::folder(&config.admission_controls_path) {
        let publish = admission_controls::once_there(publish(&folder));
        let first =
            DirectoryWatch::new(Scanner::of(folder, limits), publish).every(environment.rescan()).kept_in(store);
        watch = watch.after(&first);
        setup.run_always(first);
    }
    setup.run_always(watch);
    replicas
}
