//! Client against server, over sockets.

mod breakage;
mod folder;
mod life;
mod nonsense;
mod passage;
mod scripted;
mod selection;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Plugin, PluginUri, serve};
use crate::model::{ClusterId, Route};
use crate::provider::{CallCtx, SharedProvider};

/// For what takes as long as it takes.
const GENEROUS: Duration = Duration::from_secs(60);

fn a_route() -> Route {
    Route {
        name: "r".into(),
        destination: "10.2.0.0/24".parse().unwrap(),
        node: "n1".into(),
        provider_id: String::new(),
        next_hops: vec![],
        blackhole: false,
    }
}

fn a_call() -> CallCtx {
    CallCtx {
        deadline: Instant::now() + GENEROUS,
        cancel: CancellationToken::new(),
        lease_epoch: 0,
        op_id: Uuid::new_v4(),
        cluster: ClusterId("cluster-1".into()),
    }
}

/// A provider that is served on a socket of its own, until it is dropped.
struct Served {
    folder: TempDir,
    stop: CancellationToken,
}

impl Served {
    fn new(provider: SharedProvider) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let listener = UnixListener::bind(folder.path().join("x.sock")).unwrap();
        tokio::spawn(serve(provider, listener, stop.clone()));
        Self { folder, stop }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("x.sock")
    }

    fn plugin(&self) -> Plugin {
        plugin_at(&self.socket())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn plugin_at(socket: &Path) -> Plugin {
    Plugin::new(PluginUri::Unix(socket.to_owned()), None)
}

fn shared(provider: &Arc<scripted::Scripted>) -> SharedProvider {
    Arc::clone(provider) as SharedProvider
}

/// Asks until the answer is the one that is waited for.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + GENEROUS;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
