//! Plug-ins that are restarted as other ones, and programs that are none.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::scripted::Scripted;
use super::{a_call, plugin_at, shared, until};
use crate::error::CloudError;
use crate::grpc::serve;
use crate::guard::{Guarded, Limits, TroubleKind};
use crate::model::ClusterId;
use crate::provider::Provider as _;

/// A served provider, whose end can be waited for.
struct Process {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Process {
    fn start(socket: &Path, provider: &Arc<Scripted>) -> Self {
        let _ = std::fs::remove_file(socket);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(serve(shared(provider), UnixListener::bind(socket).unwrap(), stop.clone()));
        tasks.close();
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// An upgrade: the plug-in comes back with other abilities. What it said before is not what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plug_in_that_comes_back_as_another_one_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let process = Process::start(&socket, &Arc::new(Scripted::default()));
    let cluster = Arc::new(OnceLock::from(ClusterId("c".into())));
    let guarded = Guarded::new("x", Arc::new(plugin_at(&socket)), cluster, Limits::default()).unwrap();
    assert!(guarded.info().await.unwrap().routes);
    process.end().await;

    let upgraded = Arc::new(Scripted::default());
    {
        let mut info = upgraded.info.lock();
        info.routes = false;
        info.schemes.push("second".to_owned());
    }
    let _process = Process::start(&socket, &upgraded);
    until("an answer of the new one", async || guarded.probe().await.ok()).await;
    let info = until("what it is now", async || guarded.info().await.ok().filter(|info| !info.routes)).await;
    assert_eq!(info.schemes, ["scripted", "second"]);
    let change = guarded.take_change().expect("it is told");
    assert!(change.contains("lacks routes") && change.contains("second"), "{change}");
    assert_eq!(guarded.take_change(), None, "once");
}

/// Without it a plug-in of a later version would be taken for one that can nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_speak_the_protocol_is_unavailable_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let health = tonic_health::server::health_reporter().1;
    let listener = UnixListener::bind(&socket).unwrap();
    let incoming = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let server = tonic::transport::Server::builder();
    tokio::spawn(server.serve_with_incoming_shutdown(health, incoming, std::future::pending()));
    let plugin = plugin_at(&socket);
    for error in [plugin.probe(&a_call()).await.unwrap_err(), plugin.info(&a_call()).await.unwrap_err()] {
        let CloudError::Unavailable(message) = &error else { panic!("{error:?}") };
        let named = ["x.sock", "quarterdeck.cloudprovider.v1", "another version"];
        assert!(named.iter().all(|word| message.contains(word)), "{message}");
    }
    let cluster = Arc::new(OnceLock::from(ClusterId("c".into())));
    let guarded = Guarded::new("x", Arc::new(plugin), cluster, Limits::default()).unwrap();
    let trouble = until("the trouble is told", async || {
        let _ = guarded.info().await;
        guarded.take_trouble()
    })
    .await;
    assert!(trouble.kind == TroubleKind::Unreachable && trouble.message.contains("another version"), "{trouble:?}");
}
