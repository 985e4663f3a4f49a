//! The loop that reads the file when it changes, and now and then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::reader::{Inventory, SETTLE};

/// How often the file is read without an event: some file systems have none.
const RESCAN: Duration = Duration::from_secs(30);

/// Reads until `stop`.
pub(super) async fn run(inventory: Arc<Inventory>, stop: CancellationToken) {
    let changed = Arc::new(Notify::new());
    let (mut watcher, mut told) = (None, false);
    while !stop.is_cancelled() {
        // Watched first, read second: what changes in between is an event.
        if watcher.is_none() {
            // Off the threads that serve others: a file system that hangs takes the one that it is asked on.
            let (path, wake) = (inventory.path().to_owned(), Arc::clone(&changed));
            let watching = tokio::task::spawn_blocking(move || watch_folder(&path, &wake)).await;
            watcher = watching.ok().and_then(|watching| {
                watching
                    .inspect_err(|error| {
                        if !std::mem::replace(&mut told, true) {
                            let path = inventory.path().display();
                            tracing::warn!(%path, %error, "cannot watch the inventory; it is read now and then");
                        }
                    })
                    .ok()
            });
        }
        let unsettled = inventory.look().await.is_ok_and(|view| view.unsettled);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if unsettled { SETTLE } else { RESCAN }) => {}
            () = changed.notified() => {}
        }
    }
}

/// Watches the folder: editors and ConfigMaps put another file, or another link, in the place of the old one.
fn watch_folder(path: &Path, changed: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let changed = Arc::clone(changed);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !is_only_reading(event.kind)) {
            changed.notify_one();
        }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    // A link leads to a file elsewhere, which may be written in place.
    if let Some(target) = path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned)) {
        watcher.watch(&target, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Our own readings are events too.
fn is_only_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::super::reader::View;
    use super::*;

    #[tokio::test]
    async fn changes_are_seen_and_settle_without_the_rescan() {
        let text = |names: &[&str]| {
            let machines = names
                .iter()
                .enumerate()
                .map(|(at, name)| format!("- {{name: {name}, addresses: [{{InternalIP: 10.0.0.1{at}}}]}}\n"));
            format!("cluster: a\ninstances:\n{}", machines.collect::<String>())
        };
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("inventory.yaml");
        let inventory = Inventory::new(&path, &prometheus::Registry::new()).expect("metrics");
        let mut views = inventory.follow();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(Arc::clone(&inventory), stop.clone()));
        views.wait_for(|view| view.trouble.is_some()).await.expect("it is watched");
        std::fs::write(&path, text(&["one"])).expect("written");
        views.wait_for(View::is_certain).await.expect("it is watched");
        std::fs::write(dir.path().join("next"), text(&["one", "two"])).expect("written");
        std::fs::rename(dir.path().join("next"), &path).expect("moved");
        let both = |good: &Arc<super::super::Contents>| good.machines.len() == 2;
        views.wait_for(|view| view.good.as_ref().is_some_and(both)).await.expect("it is watched");
        stop.cancel();
        task.await.expect("it ends");
    }
}
