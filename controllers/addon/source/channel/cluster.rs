//! The last good readings in the cluster, for a leader on another master whose channel cannot be read.
//!
//! Manifests may hold Secrets, so a reading is kept in Secrets, compressed and in pieces, in the
//! namespace of the replicas: nothing else is there that a right to its Secrets would open. The *head*
//! `channel-<key>` names the pieces by a digest and is written after them; whoever is interrupted leaves
//! the reading of before. Only the leader reads and writes there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use quarterdeck_runtime::client::{Api, ApiError, Class, DeletePrecondition, ListQuery, Propagation};
use quarterdeck_runtime::notes::REPLICAS_NAMESPACE;
use quarterdeck_runtime::object::{Kind, ObjectKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::store::{Good, GoodStore, StoreError};
use crate::addon::packed::{Limits, PackError, cut, join};

/// Label on what belongs to a channel; its value is the channel's key.
pub const CHANNEL_LABEL: &str = "quarterdeck.dev/channel";
/// Type of these Secrets.
const TYPE: &str = "quarterdeck.dev/channel";
/// What the text of a reading begins with.
const FORM: &[u8] = b"quarterdeck channel 1\n";

/// Why a reading could not be kept in the cluster, or found there.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{0}")]
    Server(#[from] ApiError),
    #[error("{0}")]
    Pack(#[from] PackError),
    #[error("secret {0} is damaged")]
    Damaged(String),
}

/// What is known of one channel.
#[derive(Default)]
struct Slot {
    /// The latest reading, of this replica or of the cluster.
    good: Option<Good>,
    /// Whether the cluster should get it.
    to_write: bool,
    /// Whether the cluster should be asked for it.
    to_read: bool,
}

/// Keeps readings in the cluster, whenever this replica leads.
pub struct ClusterStore {
    slots: Mutex<BTreeMap<String, Slot>>,
    /// Asks for a call of [`sync`](Self::sync).
    wake: Box<dyn Fn() + Send + Sync>,
    found: watch::Sender<u64>,
    told: Mutex<Option<String>>,
    limits: Limits,
}

impl ClusterStore {
    /// A store that calls `wake` when there is something to do.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::default(),
            wake: Box::new(wake),
            found: watch::Sender::new(0),
            told: Mutex::default(),
            limits: Limits::default(),
        })
    }

    /// Tells when something was found in the cluster.
    #[must_use]
    pub fn found(&self) -> watch::Receiver<u64> {
        self.found.subscribe()
    }

    /// Writes what is new, and reads what is asked for; whether it has to be tried again.
    pub async fn sync(&self, api: &Api) -> bool {
        let todo: Vec<String> = {
            let slots = self.slots.lock();
            slots.iter().filter(|(_, slot)| slot.to_write || slot.to_read).map(|(key, _)| key.clone()).collect()
        };
        let mut again = false;
        for key in todo {
            match self.sync_one(api, &key).await {
                Ok(()) => *self.told.lock() = None,
                Err(KeepError::Server(error)) if error.class() == Class::NotLeader => again = true,
                Err(error) => {
                    again |= !matches!(error, KeepError::Pack(_));
                    let text = error.to_string();
                    if self.told.lock().replace(text.clone()).as_ref() != Some(&text) {
                        tracing::warn!(
                            channel = key,
                            error = text,
                            "what a channel said last is not kept in the cluster"
                        );
                    }
                }
            }
        }
        again
    }

    async fn sync_one(&self, api: &Api, key: &str) -> Result<(), KeepError> {
        let head = api.get::<Secret>(&Kind::of::<Secret>(), &at(&head_name(key))).await?;
        let kept = head.as_ref().and_then(Head::read);
        let ours = self.slots.lock().get(key).and_then(|slot| slot.good.clone());
        let newer = match (&ours, &kept) {
            (Some(ours), Some(kept)) => kept.read_at > ours.read_at,
            (None, kept) => kept.is_some(),
            (_, None) => false,
        };
        let found = match &kept {
            Some(kept) if newer => match self.read(api, key, kept).await {
                // What this replica has is better than what is damaged.
                Err(KeepError::Damaged(_) | KeepError::Pack(_)) if ours.is_some() => None,
                found => Some((kept.read_at, found?)),
            },
            _ => None,
        };
        let mut written = None;
        match (found, ours) {
            (Some((read_at, found)), ours) => {
                // What this replica has read meanwhile is newer still.
                let mut slots = self.slots.lock();
                let slot = slots.entry(key.to_owned()).or_default();
                if slot.good == ours {
                    slot.good = Some(found);
                    written = Some(read_at);
                    drop(slots);
                    self.found.send_modify(|count| *count += 1);
                }
            }
            (_, Some(ours)) => {
                self.write(api, key, &ours, head, kept.as_ref()).await?;
                written = Some(ours.read_at);
            }
            (_, None) => {}
        }
        let mut slots = self.slots.lock();
        let slot = slots.entry(key.to_owned()).or_default();
        slot.to_read = false;
        slot.to_write &= slot.good.as_ref().map(|good| good.read_at) != written;
        Ok(())
    }

    async fn read(&self, api: &Api, key: &str, head: &Head) -> Result<Good, KeepError> {
        let damaged = |name: &str| KeepError::Damaged(at(name).to_string());
        let mut pieces = Vec::new();
        for number in 0..head.pieces.min(self.limits.pieces) {
            let name = piece_name(key, &head.digest, number);
            let secret = api.get::<Secret>(&Kind::of::<Secret>(), &at(&name)).await?;
            let piece = secret.and_then(|secret| secret.data?.remove("piece"));
            pieces.push(piece.ok_or_else(|| damaged(&name))?.0);
        }
        let text = join(&pieces, &self.limits)?;
        if hex(&text) != head.digest {
            return Err(damaged(&head_name(key)));
        }
        unframe(&text).map(|good| Good { read_at: head.read_at, ..good }).ok_or_else(|| damaged(&head_name(key)))
    }

    async fn write(
        &self,
        api: &Api,
        key: &str,
        good: &Good,
        before: Option<Secret>,
        kept: Option<&Head>,
    ) -> Result<(), KeepError> {
        let text = frame(good);
        let digest = hex(&text);
        if kept.is_some_and(|kept| kept.digest == digest) {
            return Ok(());
        }
        let pieces = cut(&text, &self.limits)?;
        let head = Head { read_at: good.read_at, digest, pieces: pieces.len() };
        for (number, piece) in pieces.into_iter().enumerate() {
            let data = BTreeMap::from([("piece".to_owned(), ByteString(piece))]);
            let name = piece_name(key, &head.digest, number);
            match api.create(&Secret { immutable: Some(true), ..secret(key, name, data) }).await {
                // Named by its content.
                Err(error) if error.is_already_exists() => {}
                made => drop(made?),
            }
        }
        let mut new = secret(key, head_name(key), head.data());
        match before {
            Some(before) => {
                new.metadata.uid = before.metadata.uid;
                new.metadata.resource_version = before.metadata.resource_version;
                api.replace(&new).await?;
            }
            None => drop(api.create(&new).await?),
        }
        self.tidy(api, key, &head).await
    }

    /// Deletes the pieces that the head does not name any more.
    async fn tidy(&self, api: &Api, key: &str, head: &Head) -> Result<(), KeepError> {
        let kind = Kind::of::<Secret>();
        let labels = Some(format!("{CHANNEL_LABEL}={key}"));
        let mut query = ListQuery { labels, metadata_only: true, limit: Some(100), ..ListQuery::default() };
        let named: Vec<String> =
            (0..head.pieces).map(|number| piece_name(key, &head.digest, number)).chain([head_name(key)]).collect();
        loop {
            let page = api.list::<Value>(&kind, Some(REPLICAS_NAMESPACE), &query).await?;
            for object in page.items {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                if named.contains(&text("name")) {
                    continue;
                }
                let precondition = DeletePrecondition { uid: text("uid"), resource_version: None };
                match api.delete(&kind, &at(&text("name")), &precondition, Propagation::Background).await {
                    Err(error) if error.is_not_found() => {}
                    deleted => deleted?,
                }
            }
            match page.continue_token {
                Some(token) => query.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }
}

impl GoodStore for ClusterStore {
    /// What was found so far; more may be found later ([`ClusterStore::found`]).
    fn load<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<Option<Good>, StoreError>> {
        let good = {
            let mut slots = self.slots.lock();
            let slot = slots.entry(channel.to_owned()).or_default();
            slot.to_read = true;
            slot.good.clone()
        };
        (self.wake)();
        Box::pin(async { Ok(good) })
    }

    fn save<'a>(&'a self, channel: &'a str, good: Good) -> BoxFuture<'a, Result<(), StoreError>> {
        {
            let mut slots = self.slots.lock();
            let slot = slots.entry(channel.to_owned()).or_default();
            let same = |known: &Good| (&known.index, &known.manifests) == (&good.index, &good.manifests);
            if !slot.to_write && slot.good.as_ref().is_some_and(same) {
                return Box::pin(async { Ok(()) });
            }
            (slot.good, slot.to_write) = (Some(good), true);
        }
        (self.wake)();
        Box::pin(async { Ok(()) })
    }
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    read_at: u64,
    digest: String,
    pieces: usize,
}

impl Head {
    fn read(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |field: &str| std::str::from_utf8(&data.get(field)?.0).ok();
        let digest = text("digest")?.to_owned();
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (read_at, pieces) = (text("readAt")?.parse().ok()?, text("pieces")?.parse().ok()?);
        is_digest.then_some(Self { read_at, digest, pieces })
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let fields = [
            ("readAt", self.read_at.to_string()),
            ("digest", self.digest.clone()),
            ("pieces", self.pieces.to_string()),
        ];
        fields.map(|(field, text)| (field.to_owned(), ByteString(text.into_bytes()))).into()
    }
}

fn head_name(key: &str) -> String {
    format!("channel-{key}")
}

fn piece_name(key: &str, digest: &str, number: usize) -> String {
    format!("channel-{key}-{}-{number}", digest.get(..16).unwrap_or(digest))
}

fn at(name: &str) -> ObjectKey {
    ObjectKey::new(REPLICAS_NAMESPACE, name)
}

fn secret(key: &str, name: String, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(REPLICAS_NAMESPACE.to_owned()),
            labels: Some([(CHANNEL_LABEL.to_owned(), key.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A reading as one text: the index, then location and text of each manifest, each after its length. The
/// time of the reading is not in it: the same content has the same digest.
fn frame(good: &Good) -> Vec<u8> {
    let mut text = FORM.to_vec();
    let manifests = good.manifests.iter().flat_map(|(location, manifest)| [location.as_bytes(), &manifest[..]]);
    for part in std::iter::once(&good.index[..]).chain(manifests) {
        text.extend((part.len() as u64).to_le_bytes());
        text.extend(part);
    }
    text
}

fn unframe(text: &[u8]) -> Option<Good> {
    let mut rest = text.strip_prefix(FORM)?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (part, after) = after.split_at_checked(length)?;
        parts.push(part);
        rest = after;
    }
    let (index, manifests) = parts.split_first()?;
    if manifests.len() % 2 != 0 {
        return None;
    }
    let mut good = Good { index: Bytes::copy_from_slice(index), ..Good::default() };
    for pair in manifests.chunks_exact(2) {
        let location = std::str::from_utf8(pair[0]).ok()?.to_owned();
        good.manifests.insert(location, Bytes::copy_from_slice(pair[1]));
    }
    Some(good)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn good(read_at: u64) -> Good {
        let manifests = [("s3://b/a", &b"one"[..]), ("s3://b/b", &b"\xff\x00"[..])];
        let manifests = manifests.map(|(at, text)| (at.to_owned(), Bytes::from_static(text))).into();
        Good { read_at, index: Bytes::from_static(b"index"), manifests }
    }

    #[test]
    fn a_reading_is_read_back_and_has_no_time() {
        let text = frame(&good(7));
        assert_eq!(unframe(&text), Some(good(0)));
        assert_eq!(text, frame(&good(8)));
        for cut in 0..text.len() {
            assert_ne!(unframe(&text[..cut]), Some(good(0)), "{cut}");
        }
        assert_eq!(unframe(b""), None);
        let huge = [FORM, &u64::MAX.to_le_bytes()].concat();
        assert_eq!(unframe(&huge), None);
    }

    #[test]
    fn heads_are_read_back() {
        let head = Head { read_at: 5, digest: hex(b"x"), pieces: 3 };
        let stored = secret("k", head_name("k"), head.data());
        assert_eq!(Head::read(&stored), Some(head));
        let mut bad = stored;
        bad.data.as_mut().expect("data").insert("digest".into(), ByteString(b"../x".to_vec()));
        assert_eq!(Head::read(&bad), None);
    }

    #[tokio::test]
    async fn what_is_saved_and_asked_for_wakes_whoever_leads() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let store = ClusterStore::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(store.load("k").await.expect("nothing"), None);
        store.save("k", good(3)).await.expect("saved");
        assert_eq!(store.load("k").await.expect("loaded"), Some(good(3)));
        assert_eq!(woken.load(Ordering::Relaxed), 3);
        let slots = store.slots.lock();
        assert!(slots["k"].to_write && slots["k"].to_read);
    }
}
