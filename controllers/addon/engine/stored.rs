//! Revisions beside the parent: written once, read when one is gone back to.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use quarterdeck_api::addon as api;
use quarterdeck_runtime::client::{ApiError, ApplyOptions, ApplyTo, Class, DeletePrecondition, ListQuery, Propagation};
use quarterdeck_runtime::controller::Error;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::run::Run;
use crate::addon::parent::{self, Content as Said, PARENT_MANAGER, Parent};
use crate::addon::revision::{Content, Kept, Limits, Packed, crds, decode, encode, key_of};
use crate::addon::source::{Addon, Object};

/// Label on stored revisions: a hash of the addon's name.
const ADDON_LABEL: &str = "quarterdeck.dev/revision-of";
/// Label on stored revisions: the revision's hash.
const REVISION_LABEL: &str = "quarterdeck.dev/revision";
/// The one key in each of them.
const PIECE: &str = "piece";
/// Objects in one page of a list.
const PAGE: u32 = 100;

/// A piece as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Piece {
    /// Of a ConfigMap.
    binary_data: BTreeMap<String, String>,
    /// Of a Secret.
    data: BTreeMap<String, String>,
}

/// Why a revision cannot be brought back.
pub(super) enum Lost {
    /// The server could not be asked, or asks for another try.
    Unknown(Error),
    /// It is not there, or damaged.
    Gone(String),
}

impl Run<'_> {
    /// Stores what the addon asks for, once; what goes wrong is told and stops nothing. `is_made` tells
    /// objects that came about from those whose step did not run.
    pub(super) async fn store(
        &mut self,
        addon: &Addon,
        said: &mut Said,
        is_made: impl Fn(&Object) -> bool,
    ) -> Result<(), Error> {
        let key = key_of(&addon.version);
        let known = said.revisions.kept.first().filter(|kept| kept.hash == key && !kept.is_stored());
        let (Some(known), true, false) = (known.cloned(), addon.complete, self.observing) else { return Ok(()) };
        let content = Content::of(addon, is_made);
        let packed = match encode(&content, &Limits::default()) {
            Ok(packed) => packed,
            Err(error) => {
                self.outcome.notes.push(format!("revision {known} is not kept: {error}"));
                return Ok(());
            }
        };
        let Some(parent) = self.engine.parent(&self.id) else { return Ok(()) };
        if let Err(error) = self.write_pieces(&parent, &key, &packed).await {
            if error.class() == Class::NotLeader {
                return Err(error);
            }
            self.outcome.notes.push(format!("revision {known} is not kept: {error}"));
            // With what wakes the addon next, and at least so often.
            self.outcome.look_again(RETRY);
            return Ok(());
        }
        if let Some(kept) = said.revisions.kept.first_mut() {
            kept.crds = crds(&content.objects);
            kept.maps = packed.open.len();
            kept.secrets = packed.secret.len();
            kept.digest = packed.digest;
        }
        self.sweep(&said.revisions.kept).await
    }

    /// Writes what is not there yet.
    async fn write_pieces(&self, parent: &Parent, key: &str, packed: &Packed) -> Result<(), Error> {
        let options = ApplyOptions { manager: PARENT_MANAGER, force: false, dry_run: false };
        for (secret, pieces) in [(false, &packed.open), (true, &packed.secret)] {
            for (at, piece) in pieces.iter().enumerate() {
                let place = self.place(key, &packed.digest, at);
                let manifest = self.manifest(parent, key, secret, &place, piece);
                self.api.apply(&kind(secret), &place, &manifest, &ApplyTo::Absent, &options).await?;
            }
        }
        Ok(())
    }

    /// Where a piece is stored. Another content never has the name of this one.
    fn place(&self, key: &str, digest: &str, at: usize) -> ObjectKey {
        let namespace = parent::ident(&self.id).namespace;
        let digest = digest.get(..8).unwrap_or_default();
        ObjectKey::new(namespace, format!("addon-revision-{}-{key}-{digest}-{at}", self.name_hash()))
    }

    fn name_hash(&self) -> String {
        let digest = Sha256::digest(self.id.to_string().as_bytes());
        digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
    }

    fn manifest(&self, parent: &Parent, key: &str, secret: bool, place: &ObjectKey, piece: &[u8]) -> Value {
        let owner = parent::ident(&self.id);
        let version = if parent.object().is_some() { api::API_VERSION } else { "v1" };
        let mut manifest = json!({
            "apiVersion": "v1",
            "kind": if secret { "Secret" } else { "ConfigMap" },
            "metadata": {
                "name": place.name(),
                "namespace": place.namespace(),
                "labels": {ADDON_LABEL: self.name_hash(), REVISION_LABEL: key},
                "annotations": {parent::ADDON_ANNOTATION: &*self.id.name},
                "ownerReferences": [{
                    "apiVersion": version, "kind": &*owner.kind.kind, "name": &*owner.name, "uid": parent.uid,
                }],
            },
            "immutable": true,
        });
        let pieces = json!({PIECE: STANDARD.encode(piece)});
        manifest[if secret { "data" } else { "binaryData" }] = pieces;
        manifest
    }

    /// Brings a revision back.
    pub(super) async fn load(&self, kept: &Kept, asked: &Addon) -> Result<Content, Lost> {
        let mut packed = Packed { digest: kept.digest.clone(), ..Packed::default() };
        for (secret, count) in [(false, kept.maps), (true, kept.secrets)] {
            for at in 0..count.min(Limits::default().pieces) {
                let place = self.place(&kept.hash, &kept.digest, at);
                let what = if secret { "Secret" } else { "ConfigMap" };
                let piece = match self.api.get::<Piece>(&kind(secret), &place).await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => return Err(Lost::Gone(format!("{what} {place} is gone"))),
                    Err(error) => return Err(Lost::Unknown(error.into())),
                };
                let text = if secret { piece.data.get(PIECE) } else { piece.binary_data.get(PIECE) };
                let bytes = text.and_then(|text| STANDARD.decode(text).ok());
                let Some(bytes) = bytes else { return Err(Lost::Gone(format!("{what} {place} holds no {PIECE}"))) };
                if secret { &mut packed.secret } else { &mut packed.open }.push(bytes);
            }
        }
        let content = decode(&packed, &Limits::default()).map_err(|error| Lost::Gone(error.to_string()))?;
        // An Addon object acts in its own namespace only, whatever is stored.
        let home = parent::object_name(&self.id).map(|(namespace, _)| namespace);
        let strange = content.objects.iter().any(|object| match home {
            Some(home) => object.account.as_ref().is_none_or(|account| account.namespace != home),
            None => object.account.is_some(),
        });
        if strange || key_of(&content.version) != kept.hash {
            return Err(Lost::Gone(format!("it is not a revision of {}", asked.id)));
        }
        Ok(content)
    }

    /// Removes what is stored of revisions that are not kept any more.
    pub(super) async fn sweep(&mut self, kept: &[Kept]) -> Result<(), Error> {
        for secret in [false, true] {
            if let Err(error) = self.sweep_one(secret, kept).await {
                let error = Error::from(error);
                if error.class() == Class::NotLeader {
                    return Err(error);
                }
                self.outcome.notes.push(format!("old revisions are not removed: {error}"));
            }
        }
        Ok(())
    }

    async fn sweep_one(&self, secret: bool, kept: &[Kept]) -> Result<(), ApiError> {
        let namespace = parent::ident(&self.id).namespace;
        let labels = Some(format!("{ADDON_LABEL}={}", self.name_hash()));
        let mut query = ListQuery { labels, limit: Some(PAGE), metadata_only: true, ..ListQuery::default() };
        loop {
            let page = self.api.list::<Value>(&kind(secret), Some(&namespace), &query).await?;
            for object in page.items {
                let meta = &object["metadata"];
                let label = meta["labels"][REVISION_LABEL].as_str().unwrap_or_default();
                let ours = meta["annotations"][parent::ADDON_ANNOTATION] == *self.id.name;
                let (Some(name), Some(uid), true) = (meta["name"].as_str(), meta["uid"].as_str(), ours) else {
                    continue;
                };
                if kept.iter().any(|kept| kept.hash == label) {
                    continue;
                }
                let key = ObjectKey::new(&*namespace, name);
                let precondition = DeletePrecondition { uid: uid.to_owned(), resource_version: None };
                match self.api.delete(&kind(secret), &key, &precondition, Propagation::Background).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
            match page.continue_token {
                Some(token) => query.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }
}

/// When a revision that could not be stored is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(60);

fn kind(secret: bool) -> Kind {
    if secret { Kind::of::<Secret>() } else { Kind::of::<ConfigMap>() }
}
