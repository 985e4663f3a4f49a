//! The clouds of a process: which providers there are, by flags, and which of them answers for what.

#[cfg(feature = "grpc")]
use std::collections::BTreeMap;
#[cfg(feature = "grpc")]
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Namespace;
use parking_lot::Mutex;
use quarterdeck_runtime::controller::{Grant, Key, Setup, SetupError};
use quarterdeck_runtime::events::Recorder;
use quarterdeck_runtime::facility::{Facility, Given, Ground};
use quarterdeck_runtime::informer::{Lister, Selection};
use quarterdeck_runtime::object::{Cached as _, ObjectKey};
use serde_json::value::{RawValue, to_raw_value};

#[cfg(feature = "grpc")]
use crate::grpc::{Entry, Watched};
use crate::guard::{CloudMetrics, GuardConfig, Guarded, Limits, ProviderStatus};
use crate::model::ClusterId;
use crate::nodes::{about_cluster, tell_trouble_about};
#[cfg(feature = "grpc")]
use crate::plugins::{Folder, SPARE};
use crate::plugins::{Guarding, Notice, PluginMetrics, Providers};
use crate::provider::{ProviderInfo, SharedProvider};

/// The namespace whose uid names the cluster.
const IDENTIFYING: &str = "kube-system";

/// Flags of the clouds.
#[derive(clap::Args, Clone, Debug)]
pub struct CloudConfig {
    /// Cloud whose nodes, load balancers and routes are looked after, as NAME or NAME=URI; may be given repeatedly.
    /// Without it the cloud's controllers stay out. A URI that begins with grpc: is a plug-in's, under any name:
    /// grpc:unix:///PATH or grpc:https://HOST:PORT; grpc-dir:/PATH is a folder of plug-ins' sockets (NAME.sock), which is watched.
    #[arg(long, value_name = "NAME[=URI]", value_delimiter = ',', help_heading = "Cloud")]
    pub cloud_provider: Vec<String>,
    /// File with the provider's own settings, read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "", help_heading = "Cloud")]
    pub cloud_config: String,
    /// Name of the cluster, which clouds show beside its id.
    #[arg(long, value_name = "NAME", default_value = "kubernetes", help_heading = "Cloud")]
    pub cluster_name: String,
    /// File with the certificates of the authority that plug-ins at grpc:https://… prove themselves by; read again
    /// when it changes.
    #[arg(long, value_name = "FILE", default_value = "", help_heading = "Cloud")]
    pub cloud_grpc_ca: String,
    /// File with the certificate that is shown to such plug-ins; read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "", help_heading = "Cloud")]
    pub cloud_grpc_cert: String,
    /// File with its key; read again when it changes.
    #[arg(long, value_name = "FILE", default_value = "", help_heading = "Cloud")]
    pub cloud_grpc_key: String,
    /// What every provider is limited to.
    #[command(flatten)]
    pub guard: GuardConfig,
}

/// One provider that can be asked for by name.
#[derive(Clone)]
pub struct ProviderKind {
    /// What stands before `=` in `--cloud-provider`, or alone.
    pub name: &'static str,
    /// Makes it; does no I/O.
    pub make: fn(&MakeProvider<'_>) -> Result<SharedProvider, SetupError>,
    /// What its load balancers need to write in the cluster, beyond upstream's role of the service controller.
    pub load_balancer_grants: fn() -> Vec<Grant>,
    /// What its routes need to write in the cluster, beyond upstream's role of the route controller.
    pub route_grants: fn() -> Vec<Grant>,
}

/// What a provider is made of.
pub struct MakeProvider<'a> {
    /// Its name in `--cloud-provider`.
    pub name: &'a str,
    /// What stands after `=`, if anything.
    pub uri: Option<&'a str>,
    /// The flags.
    pub config: &'a CloudConfig,
    /// What the process has.
    pub ground: &'a Ground,
    /// What the provider shares with controllers of its own ([`Cloud::shared`]).
    pub shared: &'a Mutex<Given>,
}

/// Providers besides the built-in ones; give them to the manager (`Manager::given`).
#[derive(Clone, Default)]
pub struct ProviderKinds(pub Vec<ProviderKind>);

/// The clouds of a process.
pub struct Cloud {
    providers: Arc<Providers>,
    kinds: Vec<ProviderKind>,
    cluster: Arc<OnceLock<ClusterId>>,
    cluster_name: String,
    shared: Given,
    #[cfg(feature = "grpc")]
    folders: Folders,
}

/// Folders of plug-ins, watched once a controller of this process works.
#[cfg(feature = "grpc")]
#[derive(Default)]
struct Folders {
    all: Vec<Folder>,
    /// Plug-ins of theirs that were there at the start, and their sockets.
    known: BTreeMap<String, PathBuf>,
    watched: OnceLock<Option<Watched>>,
}

impl Facility for Cloud {
    const NAME: &'static str = "cloud";
    type Config = CloudConfig;

    fn setup(config: &CloudConfig, ground: &Ground) -> Result<Self, SetupError> {
        let mut known = built_in();
        known.extend(ground.given.get::<ProviderKinds>().map(|kinds| kinds.0.clone()).unwrap_or_default());
        let cluster: Arc<OnceLock<ClusterId>> = Arc::default();
        let (mut providers, mut kinds) = (Vec::new(), Vec::new());
        let shared = Mutex::default();
        let (asked_for, limits) = (asked_for(config, &known)?, config.guard.limits()?);
        let unserved = |error: prometheus::Error| refuse(error.to_string());
        let metrics = match asked_for.is_empty() {
            true => None,
            false => Some(CloudMetrics::register(&ground.registry).map_err(unserved)?),
        };
        let plugin_metrics = match asked_for.spare {
            0 => None,
            _ => Some(PluginMetrics::register(&ground.registry).map_err(unserved)?),
        };
        let guarding = Guarding { cluster: Arc::clone(&cluster), limits, metrics };
        for (name, uri, kind) in asked_for.providers {
            let make = MakeProvider { name: &name, uri: uri.as_deref(), config, ground, shared: &shared };
            let provider = (kind.make)(&make)?;
            let guarded = guarding.guard(&name, provider);
            providers.push(guarded.map_err(|error| refuse(format!("{name}: starting its runtime: {error}")))?);
            kinds.push(kind);
        }
        Ok(Self {
            providers: Arc::new(Providers::new(providers, asked_for.spare, guarding, plugin_metrics)),
            kinds,
            cluster,
            cluster_name: config.cluster_name.clone(),
            shared: shared.into_inner(),
            #[cfg(feature = "grpc")]
            folders: asked_for.folders,
        })
    }

    fn status(&self) -> Option<Box<RawValue>> {
        let all = self.status();
        let shown: Vec<_> = all.iter().map(ProviderStatus::shown).collect();
        (!shown.is_empty()).then(|| to_raw_value(&shown).ok()).flatten()
    }
}

fn refuse(reason: String) -> SetupError {
    SetupError { flag: "cloud-provider", reason }
}

/// The providers of this build.
fn built_in() -> Vec<ProviderKind> {
    vec![
        crate::metal::kind(),
        #[cfg(feature = "grpc")]
        crate::sim::KIND,
    ]
}

/// A provider that the flag asks for: its name, its URI, and what makes it.
type Asked = (String, Option<String>, ProviderKind);

/// What the flag asks for.
#[derive(Default)]
struct AskedFor {
    /// The providers there are.
    providers: Vec<Asked>,
    /// How many may join later.
    spare: usize,
    #[cfg(feature = "grpc")]
    folders: Folders,
}

impl AskedFor {
    fn is_empty(&self) -> bool {
        self.providers.is_empty() && self.spare == 0
    }

    fn has(&self, name: &str) -> bool {
        self.providers.iter().any(|(other, ..)| other == name)
    }

    fn add(&mut self, name: String, uri: Option<String>, kind: ProviderKind) -> Result<(), SetupError> {
        if self.has(&name) {
            return Err(refuse(format!("{name:?} is there twice; NAME=URI gives a provider another name")));
        }
        self.providers.push((name, uri, kind));
        Ok(())
    }
}

/// Reads the flag.
fn asked_for(config: &CloudConfig, known: &[ProviderKind]) -> Result<AskedFor, SetupError> {
    let mut all = AskedFor::default();
    for entry in config.cloud_provider.iter().filter(|entry| !entry.is_empty()) {
        #[cfg(feature = "grpc")]
        match crate::grpc::expand(entry)? {
            Some(Entry::Plugin { name, uri }) => {
                all.add(name, Some(uri), crate::grpc::KIND)?;
                continue;
            }
            Some(Entry::Folder(folder)) => {
                all.folders.all.push(folder);
                all.spare = SPARE;
                continue;
            }
            None => {}
        }
        let (name, uri) = entry.split_once('=').map_or((entry.as_str(), None), |(name, uri)| (name, Some(uri)));
        all.add(name.to_owned(), uri.map(str::to_owned), find(known, name)?.clone())?;
    }
    #[cfg(feature = "grpc")]
    add_plugins_of_folders(&mut all)?;
    Ok(all)
}

/// Adds what is in the folders now. A name that is taken is not worth a start that fails: it is told once the folder
/// is watched.
#[cfg(feature = "grpc")]
fn add_plugins_of_folders(all: &mut AskedFor) -> Result<(), SetupError> {
    for folder in all.folders.all.clone() {
        let contents = folder.read().map_err(|error| refuse(format!("{}: {error}", folder.path.display())))?;
        for (name, socket) in contents.sockets {
            if all.has(&name) {
                continue;
            }
            if let Entry::Plugin { name, uri } = Entry::at(&name, &socket) {
                all.add(name, Some(uri), crate::grpc::KIND)?;
            }
            all.folders.known.insert(name, socket);
        }
    }
    Ok(())
}

fn find<'a>(known: &'a [ProviderKind], name: &str) -> Result<&'a ProviderKind, SetupError> {
    known.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let mut names: Vec<&str> = known.iter().map(|kind| kind.name).collect();
        if cfg!(feature = "grpc") {
            names.push("plug-ins (grpc:unix:///PATH, grpc:https://HOST:PORT, grpc-dir:/PATH)");
        }
        refuse(format!("{name:?} is not a provider of this build; there are {}", names.join(", ")))
    })
}

impl Cloud {
    /// The clouds, for a controller that works on them; declares what it has to read for that. `None`, and the
    /// controller stands aside, if no provider was asked for.
    ///
    /// # Errors
    /// When the program brings no clouds.
    pub fn join<K: Key>(setup: &mut Setup<K>) -> Result<Option<Arc<Self>>, SetupError> {
        let cloud = setup.facility::<Self>()?;
        if cloud.most() == 0 {
            setup.stand_aside("it needs --cloud-provider");
            return Ok(None);
        }
        let own = Selection { fields: Some(format!("metadata.name={IDENTIFYING}")), ..Selection::default() };
        let namespaces: Lister<Namespace> = setup.informer(own);
        let cluster = Arc::clone(&cloud.cluster);
        setup.watch(&namespaces, move |change, _| {
            if change.object().key() == ObjectKey::cluster(IDENTIFYING) {
                let _ = cluster.set(ClusterId(change.object().uid().into()));
            }
        });
        Ok(Some(cloud))
    }

    /// All providers: those that were there at the start, in the order of the flag and of the folders' contents, and then
    /// those that joined. None ever leaves, and none changes its place.
    #[must_use]
    pub fn providers(&self) -> &[Arc<Guarded>] {
        self.providers.all()
    }

    /// How many providers there may ever be; more than [`Self::providers`] where plug-ins may join.
    #[must_use]
    pub fn most(&self) -> usize {
        self.providers.most()
    }

    /// Has `listener` told the place of each provider that joins later.
    pub fn on_join(&self, listener: impl Fn(usize) + Send + Sync + 'static) {
        self.providers.on_join(listener);
    }

    /// Begins to watch the folders of plug-ins, if there are any; called by whoever works.
    fn watch_folders(&self) {
        #[cfg(feature = "grpc")]
        self.folders.watched.get_or_init(|| {
            let (all, known) = (self.folders.all.clone(), self.folders.known.clone());
            let start = || Watched::start(all, known, Arc::clone(&self.providers));
            let complain = |error: &std::io::Error| tracing::error!(%error, "cannot watch the folders of plug-ins");
            (!self.folders.all.is_empty()).then(|| start().inspect_err(complain).ok()).flatten()
        });
    }

    /// The cluster's id; `None` until it has been read, which a controller that joined waits for.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterId> {
        self.cluster.get()
    }

    /// What a provider of this process shares with controllers of its own.
    #[must_use]
    pub fn shared<T: std::any::Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.shared.get::<T>()
    }

    /// The cluster's name, for people.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        &self.cluster_name
    }

    /// The provider whose scheme a providerID has; asks providers what their schemes are, all at once: one that does
    /// not answer keeps nobody else from being found.
    ///
    /// # Errors
    /// When none of those that answered has it, and one that has not said so yet does not answer.
    pub async fn of_provider_id(&self, provider_id: &str) -> crate::error::Result<Option<&Arc<Guarded>>> {
        let scheme = provider_id.split_once("://").map_or(provider_id, |(scheme, _)| scheme);
        let owns = |info: &ProviderInfo| info.schemes.iter().any(|own| own == scheme);
        let (known, silent): (Vec<_>, Vec<_>) = self
            .providers()
            .iter()
            .map(|provider| (provider, provider.known_info()))
            .partition(|(_, info)| info.is_some());
        if let Some((provider, _)) = known.into_iter().find(|(_, info)| info.as_deref().is_some_and(owns)) {
            return Ok(Some(provider));
        }
        let mut asking: FuturesUnordered<_> =
            silent.into_iter().map(|(provider, _)| async move { (provider, provider.info().await) }).collect();
        let mut failed = None;
        while let Some((provider, info)) = asking.next().await {
            match info {
                Ok(info) if owns(&info) => return Ok(Some(provider)),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Tells the operator of providers that refuse their credentials, cannot be reached, or became other ones, and of
    /// plug-ins that came or are not taken: in one event each, about the namespace that names the cluster, by whichever
    /// controller comes first. To be called by each reconcile.
    pub fn report_trouble(&self, recorder: &Recorder) {
        self.watch_folders();
        let about = || about_cluster(self.cluster());
        for provider in self.providers() {
            tell_trouble_about(provider, recorder, about);
        }
        for Notice { reason, message } in self.providers.take_notices() {
            recorder.event(&about(), reason, message);
        }
    }

    /// How each provider is, for a status page.
    #[must_use]
    pub fn status(&self) -> Vec<ProviderStatus> {
        self.providers().iter().map(|provider| provider.status()).collect()
    }

    /// Rights that the providers' load balancers need.
    pub fn load_balancer_grants(&self) -> impl Iterator<Item = Grant> + '_ {
        self.kinds.iter().flat_map(|kind| (kind.load_balancer_grants)())
    }

    /// Rights that the providers' routes need.
    pub fn route_grants(&self) -> impl Iterator<Item = Grant> + '_ {
        self.kinds.iter().flat_map(|kind| (kind.route_grants)())
    }

    /// A cloud of these providers, for tests: no flags, and a cluster id from the start.
    #[must_use]
    pub fn of(providers: Vec<(&str, SharedProvider)>, cluster: &str) -> Self {
        let id = Arc::new(OnceLock::from(ClusterId(cluster.into())));
        let limits = Limits { patience: Duration::from_secs(1), ..Limits::default() };
        let guarding = Guarding { cluster: Arc::clone(&id), limits, metrics: None };
        let guard =
            |(name, provider): (&str, SharedProvider)| guarding.guard(name, provider).expect("a runtime starts");
        let providers = providers.into_iter().map(guard).collect();
        Self {
            providers: Arc::new(Providers::new(providers, 0, guarding, None)),
            kinds: Vec::new(),
            cluster: id,
            cluster_name: "kubernetes".to_owned(),
            shared: Given::default(),
            #[cfg(feature = "grpc")]
            folders: Folders::default(),
        }
    }
}
