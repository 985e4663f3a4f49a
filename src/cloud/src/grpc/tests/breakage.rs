//! Plug-ins that are late, away, gone or broken. None of it ever means that something is absent.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::scripted::{Asked, Mood, Scripted};
use super::{Served, a_call, a_route, plugin_at, shared, until};
use crate::error::CloudError;
use crate::grpc::{MESSAGE_LIMIT, serve};
use crate::model::{ClusterId, Handle, NodeRef, OwnedLoadBalancer, Owner, Page, Route};
use crate::provider::{CallCtx, Instances as _, LoadBalancers as _, Provider as _, Routes as _};

fn hanging() -> Arc<Scripted> {
    let provider = Arc::new(Scripted::default());
    *provider.mood.lock() = Mood::Hangs;
    provider
}

fn soon() -> CallCtx {
    CallCtx { deadline: Instant::now() + Duration::from_millis(300), ..a_call() }
}

#[tokio::test]
async fn a_deadline_that_passes_is_a_timeout_and_tells_the_plug_in() {
    let provider = hanging();
    let served = Served::new(shared(&provider));
    let plugin = served.plugin();
    // On a busy machine a call may run out of time before it arrives.
    while provider.asked.lock().is_empty() {
        let Err(CloudError::Timeout { method, maybe_applied, .. }) = plugin.create(&soon(), &a_route()).await else {
            panic!("no timeout")
        };
        assert_eq!((method, maybe_applied), ("routes.create", true));
    }
    provider.left.notified().await;
    // A read has changed nothing, however long it took.
    let Err(CloudError::Timeout { method, maybe_applied, .. }) = plugin.list(&soon(), None).await else {
        panic!("no timeout")
    };
    assert_eq!((method, maybe_applied), ("routes.list", false));
    // Nobody is asked when there is no time left.
    let asked = provider.asked.lock().len();
    let late = CallCtx { deadline: Instant::now(), ..a_call() };
    assert!(matches!(plugin.create(&late, &a_route()).await, Err(CloudError::Timeout { maybe_applied: false, .. })));
    assert_eq!(provider.asked.lock().len(), asked);
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed() {
    let provider = hanging();
    let served = Served::new(shared(&provider));
    let (plugin, call) = (served.plugin(), a_call());
    let cancel = call.cancel.clone();
    let calling = tokio::spawn(async move { plugin.create(&call, &a_route()).await });
    provider.began.notified().await;
    cancel.cancel();
    assert!(matches!(calling.await.unwrap(), Err(CloudError::Unavailable(_))));
    provider.left.notified().await;
}

/// A server on a runtime of its own, which ends as a killed process does: with its connections.
struct Process {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Process {
    fn start(socket: &std::path::Path, provider: &Arc<Scripted>) -> Self {
        let _ = std::fs::remove_file(socket);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let provider = shared(provider);
        let listener = {
            let _within = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(serve(provider, listener, CancellationToken::new()));
        Self { runtime: Some(runtime) }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plug_in_that_dies_in_a_call_may_have_done_it_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let provider = hanging();
    let mut process = Process::start(&socket, &provider);
    let plugin = Arc::new(plugin_at(&socket));
    let calling = tokio::spawn({
        let plugin = Arc::clone(&plugin);
        async move { plugin.create(&a_call(), &a_route()).await }
    });
    provider.began.notified().await;
    process.kill();
    let error = calling.await.unwrap().expect_err("it died");
    assert!(matches!(error, CloudError::Unavailable(_)), "{error:?}");
    assert!(error.maybe_applied());

    // Away: nothing is absent for it.
    std::fs::remove_file(&socket).unwrap();
    let node = NodeRef { name: "n1".into(), provider_id: None };
    let error = plugin.get_many(&a_call(), &[node]).await.expect_err("nobody is there");
    assert!(matches!(&error, CloudError::Unavailable(message) if message.contains("x.sock")), "{error:?}");

    *provider.mood.lock() = Mood::Answers;
    let _again = Process::start(&socket, &provider);
    until("an answer of the new process", async || plugin.probe(&a_call()).await.ok()).await;
}

/// A connection that leads nowhere although nobody closed it is not used for ever: linode-ccm#218 waited for TCP.
#[tokio::test]
async fn timeout_defect_a_connection_on_which_nothing_is_answered_is_made_anew() {
    let provider = hanging();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    // The kernel takes connections here, and nobody ever reads.
    let silent = UnixListener::bind(&socket).unwrap();
    let plugin = plugin_at(&socket);
    assert!(matches!(plugin.probe(&soon()).await, Err(CloudError::Timeout { .. })));
    std::fs::remove_file(&socket).unwrap();
    *provider.mood.lock() = Mood::Answers;
    let _served = Process::start(&socket, &provider);
    // What was connected before is still open.
    until("an answer on another connection", async || plugin.probe(&soon()).await.ok()).await;
    drop(silent);
}

#[tokio::test]
async fn a_panic_costs_its_own_call() {
    let provider = Arc::new(Scripted::default());
    let served = Served::new(shared(&provider));
    let plugin = served.plugin();
    *provider.mood.lock() = Mood::Panics;
    assert!(matches!(plugin.probe(&a_call()).await, Err(CloudError::Other(message)) if message.contains("panicked")));
    *provider.mood.lock() = Mood::Answers;
    plugin.probe(&a_call()).await.unwrap();
}

#[tokio::test]
async fn what_a_provider_lacks_is_not_implemented() {
    let provider = Arc::new(Scripted { able: false, ..Scripted::default() });
    let served = Served::new(shared(&provider));
    let plugin = served.plugin();
    let owner = owner();
    assert!(matches!(plugin.get_many(&a_call(), &[]).await, Err(CloudError::NotImplemented(_))));
    assert!(matches!(plugin.get(&a_call(), &owner).await, Err(CloudError::NotImplemented(_))));
    assert!(matches!(plugin.list(&a_call(), None).await, Err(CloudError::NotImplemented(_))));
    assert!(matches!(plugin.replace(&a_call(), &a_route(), &a_route()).await, Err(CloudError::NotImplemented(_))));
    plugin.probe(&a_call()).await.unwrap();
}

fn owner() -> Owner {
    Owner { cluster: ClusterId("cluster-1".into()), namespace: "a".into(), name: "b".into(), uid: "c".into() }
}

#[tokio::test]
async fn answers_and_questions_that_are_too_long_are_refused() {
    let provider = Arc::new(Scripted::default());
    let served = Served::new(shared(&provider));
    let plugin = served.plugin();
    let long = "x".repeat(MESSAGE_LIMIT);
    let giant =
        OwnedLoadBalancer { owner: owner(), handle: Handle(long.clone()), fingerprint: String::new(), age: None };
    *provider.owned.lock() = Page { items: vec![giant], next: None };
    let error = plugin.list_owned(&a_call(), None).await.expect_err("too long");
    assert!(matches!(&error, CloudError::Other(message) if message.contains("4194304")), "{error:?}");

    let asked = provider.asked.lock().len();
    let error = plugin.create(&a_call(), &Route { name: long, ..a_route() }).await.expect_err("too long");
    assert!(matches!(&error, CloudError::Invalid(message) if message.contains("4194304")), "{error:?}");
    assert_eq!(provider.asked.lock().len(), asked);
    // The connection has not suffered.
    plugin.probe(&a_call()).await.unwrap();
    assert_eq!(provider.asked.lock().last().unwrap().1, Asked::Probe);
}
