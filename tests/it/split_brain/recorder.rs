//! Writes down every change of the objects that the replicas write.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use kube::api::{Api, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use parking_lot::Mutex;
use quarterdeck_it::checker::Landed;
use quarterdeck_it::{ControlPlane, eventually};
use tokio_util::task::AbortOnDropHandle;

use super::LONG;

/// What the replicas write in these tests: group, kind, plural.
const KINDS: [(&str, &str, &str); 2] =
    [("discovery.k8s.io", "EndpointSlice", "endpointslices"), ("", "Endpoints", "endpoints")];

/// A watch of each kind on each kube-apiserver: one that restarts leaves no hole.
pub(super) struct Recorder {
    seen: Arc<Mutex<Vec<Landed>>>,
    kinds: Vec<(ApiResource, Api<DynamicObject>)>,
    _watches: Vec<AbortOnDropHandle<()>>,
}

impl Recorder {
    /// Begins to record.
    pub(super) async fn start(control_plane: &ControlPlane, namespace: &str) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut kinds, mut watches) = (Vec::new(), Vec::new());
        for (group, kind, plural) in KINDS {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
            let object = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
            let api = Api::namespaced_with(control_plane.admin().await?, namespace, &resource);
            let version = api.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
            kinds.push((resource.clone(), api));
            for server in 0..control_plane.apiservers().len() {
                let api = Api::namespaced_with(control_plane.admin_at(server).await?, namespace, &resource);
                let following = follow(api, version.clone(), object.clone(), seen.clone());
                watches.push(AbortOnDropHandle::new(tokio::spawn(following)));
            }
        }
        Ok(Self { seen, kinds, _watches: watches })
    }

    /// Everything that happened up to a revision of now, oldest first, and that revision.
    pub(super) async fn seen(&self) -> Result<(Vec<Landed>, u64)> {
        let mut until = u64::MAX;
        for (resource, api) in &self.kinds {
            // What comes after a marker on a watch is newer than it.
            let name = format!("marker-{}", self.seen.lock().len());
            let mut marker = DynamicObject::new(&name, resource);
            marker.data = serde_json::json!({ "addressType": "IPv4", "endpoints": [] });
            let marker = api.create(&PostParams::default(), &marker).await?;
            until = until.min(marker.metadata.resource_version.context("no version")?.parse()?);
            eventually("the recorder has seen the marker", LONG, async || {
                let seen = self.seen.lock().iter().any(|landed| Some(&landed.uid) == marker.metadata.uid.as_ref());
                ensure!(seen, "not yet");
                Ok(())
            })
            .await?;
        }
        let mut seen = self.seen.lock().clone();
        seen.sort_by_key(|landed| landed.version);
        seen.dedup_by_key(|landed| landed.version);
        seen.retain(|landed| !landed.object.contains("/marker-"));
        Ok((seen, until))
    }
}

/// Watches for ever; a watch that breaks goes on where it ended.
async fn follow(api: Api<DynamicObject>, mut version: String, object: String, seen: Arc<Mutex<Vec<Landed>>>) {
    loop {
        // The server may be down.
        let begun = eventually("a watch", LONG, async || Ok(api.watch(&WatchParams::default(), &version).await?));
        let Ok(events) = begun.await else { continue };
        let watching = async {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.try_next().await? {
                let (changed, deleted) = match event {
                    WatchEvent::Added(changed) | WatchEvent::Modified(changed) => (changed, false),
                    WatchEvent::Deleted(changed) => (changed, true),
                    WatchEvent::Bookmark(bookmark) => {
                        version = bookmark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                };
                let metadata = changed.metadata;
                version = metadata.resource_version.unwrap_or_default();
                let (namespace, name) = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
                seen.lock().push(Landed {
                    version: version.parse().expect("a version is a number"),
                    uid: metadata.uid.unwrap_or_default(),
                    object: format!("{object} {namespace}/{name}"),
                    deleted,
                    content: match changed.data.get("subsets") {
                        Some(subsets) => subsets.clone(),
                        None => changed.data["endpoints"].clone(),
                    },
                });
            }
            Ok::<_, kube::Error>(())
        };
        // The server went, or the watch has had its time.
        let _ = watching.await;
    }
}
