//! Addons of channels: whether what is offered takes the place of what is installed, and the note on a
//! namespace that says what is.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use quarterdeck_api::channel::{Decision, Entry, Installed, Keep, NEEDS_UPDATE, annotation, required};
use quarterdeck_api::version::Version;
use quarterdeck_runtime::client::{Api, ApiError, ListQuery, PatchPrecondition};
use quarterdeck_runtime::controller::Error;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::run::Run;
use super::{Engine, Key};
use crate::addon::parent;
use crate::addon::source::AddonId;
use crate::addon::source::channel::{ChannelAddon, ChannelReading, SOURCE};

/// How long what is known of the server's version counts.
const VERSION_KEPT: Duration = Duration::from_secs(600);
/// Nodes in one page of a list.
const PAGE: u32 = 500;

/// What is to be done about an addon of a channel.
pub(super) enum Course {
    /// Apply the offer, then note it.
    Apply(Offered),
    /// The offer is what is installed: look after it.
    Keep(Offered),
    /// Something else is installed and stays: leave it alone.
    Leave(String),
}

/// An offer, and the note of what it would take the place of.
pub(super) struct Offered {
    behind: Arc<ChannelAddon>,
    /// uid of the namespace that carries the note; `None` while there is no such namespace.
    namespace: Option<String>,
    /// Whether the note is to be written.
    note: bool,
    /// Whether nodes are marked.
    update: bool,
    /// Whether it takes the place of what is installed, or of nothing.
    applies: bool,
    /// Whether something is installed.
    follows: bool,
}

impl Offered {
    /// The entry that is offered.
    pub(super) fn entry(&self) -> &Entry {
        &self.behind.entry
    }

    /// Whether it takes the place of what is installed, or of nothing.
    pub(super) fn applies(&self) -> bool {
        self.applies
    }

    /// Whether something is installed, by us or by kOps.
    pub(super) fn follows(&self) -> bool {
        self.follows
    }
}

impl Engine {
    /// Takes a new reading of all channels.
    pub(crate) fn publish_channels(self: &Arc<Self>, reading: ChannelReading) {
        let snapshot = reading.snapshot.clone();
        let reading = Arc::new(reading);
        let before = self.shared.lock().channels.replace(Arc::clone(&reading));
        self.publish(SOURCE, snapshot);
        // An offer may have become good without any change of its content.
        let changed = reading.addons.iter().filter(|(name, addon)| {
            before.as_ref().and_then(|before| before.addons.get(*name)).is_none_or(|before| before != *addon)
        });
        changed
            .for_each(|(name, _)| self.parts.queue.add(Key::Addon(AddonId { source: SOURCE, name: Arc::clone(name) })));
    }

    /// Learns the server's version now and then, for entries that are for some versions only.
    pub(crate) async fn learn_version(&self, api: &Api) -> Result<(), Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Info {
            git_version: String,
        }
        if self.shared.lock().version_read.is_some_and(|at| at.elapsed() < VERSION_KEPT) {
            return Ok(());
        }
        let info: Info = api.read("/version").await?;
        match Version::of_kubernetes(&info.git_version) {
            Ok(version) => {
                self.shared.lock().version_read = Some(Instant::now());
                self.parts.kubernetes.send_if_modified(|known| {
                    let changed = known.as_ref() != Some(&version);
                    *known = Some(version);
                    changed
                });
                Ok(())
            }
            Err(error) => Err(Error::Transient(format!("the server's version {:?}: {error}", info.git_version))),
        }
    }
}

impl Run<'_> {
    /// Compares what a channel offers of this addon to what is noted of it; `None` for addons of other
    /// sources, and for those of which no entry fits.
    pub(super) async fn offered(&mut self) -> Result<Option<Course>, Error> {
        let reading = self.engine.shared.lock().channels.clone();
        let Some(reading) = reading.filter(|_| self.id.source == SOURCE) else { return Ok(None) };
        let Some(behind) = reading.addons.get(&self.id.name).cloned() else { return Ok(None) };
        let entry = &behind.entry;
        let namespace = self.api.get_metadata(&Kind::of::<Namespace>(), &ObjectKey::cluster(&*entry.namespace)).await?;
        let note = namespace.as_ref().and_then(|meta| meta.annotations.as_ref()?.get(&annotation(&entry.name)));
        let installed = note.and_then(|note| match Installed::parse(note) {
            Ok(installed) => Some(installed),
            Err(error) => {
                tracing::warn!(addon = %self.id, %error, "the note of what is installed cannot be read: taken for none");
                None
            }
        });
        self.ensure_pki(entry).await?;
        let required = required(entry, installed.as_ref(), &behind.offer, true);
        let uid = namespace.and_then(|meta| meta.uid);
        let follows = installed.is_some();
        let offered = |note, update, applies| {
            let (behind, namespace) = (Arc::clone(&behind), uid.clone());
            Offered { behind, namespace, note, update, applies, follows }
        };
        Ok(Some(match required.decision {
            Decision::Install => Course::Apply(offered(true, false, true)),
            Decision::Update => {
                if installed.as_ref().is_some_and(|installed| !reading.may_update(&behind, installed)) {
                    Course::Leave("the channel cannot be read now: what it said last updates nothing".to_owned())
                } else {
                    Course::Apply(offered(true, required.mark_nodes.is_some(), true))
                }
            }
            Decision::Keep(Keep::Same) => Course::Keep(offered(false, false, false)),
            Decision::Keep(Keep::SameWithoutHash) => Course::Keep(offered(true, false, false)),
            Decision::Keep(reason) => Course::Leave(left_alone(reason, installed.as_ref(), &behind)),
        }))
    }

    /// Notes what was installed, after its nodes were marked.
    pub(super) async fn note_installed(&mut self, offered: &Offered) -> Result<(), Error> {
        if !offered.note || self.observing {
            return Ok(());
        }
        let entry = &offered.behind.entry;
        if let Some(which) = entry.needs_rolling_update.filter(|_| offered.update) {
            let marked = self.mark_nodes(|labels| which.concerns(labels)).await;
            if let Err(error) = marked {
                return self.outcome.failed("marking nodes for a rolling update", error);
            }
        }
        let namespace = Kind::of::<Namespace>();
        let key = ObjectKey::cluster(&*entry.namespace);
        let uid = match &offered.namespace {
            Some(uid) => Some(uid.clone()),
            // The addon itself may have brought it.
            None => self.api.get_metadata(&namespace, &key).await?.and_then(|meta| meta.uid),
        };
        let Some(uid) = uid else {
            let text = format!(
                "namespace {}, which is to carry the note of what is installed, does not exist",
                entry.namespace
            );
            self.outcome.errors.push(text);
            self.outcome.retry = true;
            return Ok(());
        };
        let patch = json!({"metadata": {"annotations": {annotation(&entry.name): offered.behind.offer.note.print()}}});
        match self.api.merge_patch(&namespace, &key, None, &patch, &PatchPrecondition::Uid(uid)).await {
            Ok(_) => Ok(()),
            Err(error) => self.outcome.failed("noting what is installed", error),
        }
    }

    /// Takes the note of an addon away that left its channel: if it comes back it is installed.
    pub(super) async fn forget_installed(&mut self) -> Result<(), Error> {
        if self.id.source != SOURCE || self.observing {
            return Ok(());
        }
        let (namespace, name) = self.id.name.split_once('/').unwrap_or((parent::NAMESPACE, &self.id.name));
        let (kind, key) = (Kind::of::<Namespace>(), ObjectKey::cluster(namespace));
        let note = annotation(name);
        let meta = self.api.get_metadata(&kind, &key).await?.unwrap_or_default();
        let (Some(uid), true) = (meta.uid, meta.annotations.is_some_and(|all| all.contains_key(&note))) else {
            return Ok(());
        };
        let patch = json!({"metadata": {"annotations": {note: null}}});
        self.api.merge_patch(&kind, &key, None, &patch, &PatchPrecondition::Uid(uid)).await?;
        Ok(())
    }

    /// Marks nodes that should be replaced.
    async fn mark_nodes(
        &self,
        concerns: impl Fn(&std::collections::BTreeMap<String, String>) -> bool,
    ) -> Result<(), ApiError> {
        /// What is read of a node.
        #[derive(Deserialize)]
        struct Partial {
            metadata: ObjectMeta,
        }
        let kind = Kind::of::<Node>();
        let mut query = ListQuery { limit: Some(PAGE), metadata_only: true, ..ListQuery::default() };
        loop {
            let page = self.api.list::<Partial>(&kind, None, &query).await?;
            for node in page.items {
                let meta = node.metadata;
                let is_marked = meta.annotations.as_ref().is_some_and(|all| all.contains_key(NEEDS_UPDATE));
                if is_marked || !concerns(&meta.labels.unwrap_or_default()) {
                    continue;
                }
                let key = ObjectKey::cluster(meta.name.unwrap_or_default());
                let patch = json!({"metadata": {"annotations": {NEEDS_UPDATE: ""}}});
                let precondition = PatchPrecondition::Uid(meta.uid.unwrap_or_default());
                match self.api.merge_patch(&kind, &key, None, &patch, &precondition).await {
                    Err(error) if error.is_not_found() || error.is_conflict() => {}
                    other => drop(other?),
                }
            }
            match page.continue_token {
                Some(token) => query.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }
}

/// Why what is installed stays although something else is offered.
fn left_alone(reason: Keep, installed: Option<&Installed>, behind: &ChannelAddon) -> String {
    let there = installed.and_then(|installed| installed.version.as_deref()).unwrap_or("without a version");
    let offered = behind.offer.note.version.as_deref().unwrap_or("without a version");
    match reason {
        Keep::Newer => format!(
            "version {there} is installed, which is newer than the channel's {offered}: addons are never downgraded"
        ),
        Keep::OfferUnreadable => format!("version {there} is installed; the channel's {offered:?} is no version"),
        Keep::OfferWithoutVersion => format!("version {there} is installed; the channel names none"),
        Keep::NewerGeneration => "a newer kOps installed it".to_owned(),
        Keep::Same | Keep::SameWithoutHash => "it is what is installed".to_owned(),
    }
}
