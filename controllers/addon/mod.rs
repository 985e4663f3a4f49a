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

pub mod applyset;
pub mod brake;
mod config;
pub mod dependency;
pub mod drift;
mod engine;
pub mod fields;
pub mod health;
pub mod ident;
pub mod kinds;
pub mod lifecycle;
pub mod location;
pub mod manifest;
mod metrics;
pub mod parent;
pub mod plan;
mod predecessor;
pub mod prune;
pub mod removal;
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
use manifest::Limits;
use metrics::Metrics;
use source::OBJECTS;
use source::directory::{DirectoryWatch, SOURCE, Scanner};
use source::objects::ObjectsWatch;

pub use config::Config;
pub use engine::Key;

/// The addon controller.
pub struct AddonController {
    engine: Arc<Engine>,
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
        let engine = Engine::new(Parts {
            parents,
            objects: objects.clone(),
            informers,
            queue: setup.queue(),
            pods,
            overrides: config.overrides()?,
            protected: config.protected()?,
            metrics: Metrics::new(setup.metrics()),
        });
        let scanner = Scanner::new(config.addon_path.clone(), Limits::default());
        let readings = Arc::clone(&engine);
        setup.run_always(ObjectsWatch::new(objects, move |snapshot| readings.publish(OBJECTS, snapshot)));
        let readings = Arc::clone(&engine);
        setup.run_always(DirectoryWatch::new(scanner, move |snapshot| readings.publish(SOURCE, snapshot)));
        Ok(Self { engine })
    }

    async fn reconcile(&self, cx: &Cx, key: Key) -> Result<Action, Error> {
        match key {
            Key::Pass(source) => Ok(self.engine.pass(source)),
            Key::Addon(id) => self.engine.reconcile(cx, id).await,
        }
    }
}
