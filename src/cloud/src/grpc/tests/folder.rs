//! Plug-ins that come and go while a folder is watched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::scripted::Scripted;
use super::{shared, until};
use crate::error::CloudError;
use crate::grpc::{Watched, serve};
use crate::guard::{Guarded, Limits};
use crate::model::{ClusterId, NodeRef};
use crate::plugins::{Folder, Guarding, Notice, PluginMetrics, Providers};
use crate::provider::SharedProvider;

/// A watched folder, and the providers there are.
struct World {
    folder: TempDir,
    registry: prometheus::Registry,
    providers: Arc<Providers>,
    joined: Arc<Mutex<Vec<usize>>>,
    notices: Mutex<Vec<Notice>>,
    _watched: Watched,
}

impl World {
    /// With a provider `first` of the process's own, and room for so many more.
    fn new(spare: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Arc::new(OnceLock::from(ClusterId("c".into())));
        let guarding = Guarding { cluster, limits: Limits::default(), metrics: None };
        let first = guarding.guard("first", shared(&Arc::new(Scripted::default()))).unwrap();
        let registry = prometheus::Registry::new();
        let metrics = PluginMetrics::register(&registry).unwrap();
        let providers = Arc::new(Providers::new(vec![first], spare, guarding, Some(metrics)));
        let joined = Arc::<Mutex<Vec<usize>>>::default();
        let list = Arc::clone(&joined);
        providers.on_join(move |at| list.lock().push(at));
        let watch = Folder { prefix: None, path: folder.path().to_owned() };
        let _watched = Watched::start(vec![watch], BTreeMap::new(), Arc::clone(&providers)).unwrap();
        Self { folder, registry, providers, joined, notices: Mutex::default(), _watched }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Serves a provider at a socket of the folder.
    fn serve(&self, name: &str, provider: SharedProvider) -> CancellationToken {
        let stop = CancellationToken::new();
        let listener = UnixListener::bind(self.socket(name)).unwrap();
        tokio::spawn(serve(provider, listener, stop.clone()));
        stop
    }

    fn find(&self, name: &str) -> Option<&Arc<Guarded>> {
        self.providers.all().iter().find(|provider| provider.name() == name)
    }

    /// Waits for an event that says this.
    async fn told(&self, reason: &str, words: &[&str]) {
        until(&format!("{reason} with {words:?}"), async || {
            let mut notices = self.notices.lock();
            notices.extend(self.providers.take_notices());
            let fits =
                |one: &&Notice| one.reason.name() == reason && words.iter().all(|word| one.message.contains(word));
            notices.iter().find(fits).map(|_| ())
        })
        .await;
    }

    /// Whether so many plug-ins are not taken for this reason.
    fn refuses(&self, reason: &str, count: usize) -> bool {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.contains(&format!("quarterdeck_cloudprovider_plugins_refused{{reason=\"{reason}\"}} {count}\n"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_comes_is_a_provider_and_one_that_goes_is_unavailable() {
    let world = World::new(4);
    let stop = world.serve("acme.sock", shared(&Arc::new(Scripted::default())));
    let acme = until("acme", async || world.find("acme")).await;
    world.told("CloudPluginJoined", &["acme"]).await;
    assert_eq!(*world.joined.lock(), [1]);
    assert!(acme.info().await.unwrap().instances);

    stop.cancel();
    std::fs::remove_file(world.socket("acme.sock")).unwrap();
    let node = NodeRef { name: "n1".into(), provider_id: Some("scripted://1".into()) };
    let error = until("its absence is noticed", async || {
        acme.look_up(std::slice::from_ref(&node), std::time::Duration::ZERO).await.err()
    });
    let error = error.await;
    assert!(matches!(error, CloudError::Unavailable(_) | CloudError::BreakerOpen { .. }), "{error:?}");
    assert_eq!(world.providers.all().len(), 2, "it stays");
    assert!(acme.known_info().is_some(), "what its nodes are is still known");

    // Another one in its place is the same provider.
    let _stop = world.serve("acme.sock", shared(&Arc::new(Scripted::default())));
    until("an answer of the new one", async || acme.probe().await.ok()).await;
    assert_eq!((world.providers.all().len(), world.joined.lock().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plug_in_that_is_not_taken_is_told_once_and_counted() {
    let world = World::new(1);
    std::fs::write(world.socket("first.sock"), "").unwrap();
    world.told("CloudPluginRefused", &["first.sock", "has that name"]).await;
    until("it is counted", async || world.refuses("name_taken", 1).then_some(())).await;
    std::fs::write(world.socket("one.sock"), "").unwrap();
    until("it joined", async || world.find("one")).await;
    std::fs::write(world.socket("two.sock"), "").unwrap();
    world.told("CloudPluginRefused", &["two.sock", "no more"]).await;
    until("it is counted, too", async || world.refuses("too_many", 1).then_some(())).await;
    std::fs::remove_file(world.socket("first.sock")).unwrap();
    until("its end is noticed", async || world.refuses("name_taken", 0).then_some(())).await;
    let told = world.notices.lock().iter().filter(|one| one.message.contains("first.sock")).count();
    assert_eq!(told, 1, "told once");
}
