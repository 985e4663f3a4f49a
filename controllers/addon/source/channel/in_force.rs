//! One channel: what of it is in force, and reading it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use quarterdeck_api::channel::{Entry, Held, Offer, choose, content_hash};
use quarterdeck_api::version::Version;
use sha2::{Digest as _, Sha256};

use super::read::{self, Said, addon_name};
use super::store::{Good, GoodStore};
use super::{ChannelAddon, ChannelState};
use crate::addon::location::{Budget, Fetch, Fetcher, Location};
use crate::addon::manifest::Limits;
use crate::addon::source::Addon;

/// Bounds on a channel.
#[derive(Clone, Copy, Debug)]
pub struct ChannelLimits {
    /// Bounds on the index and on each manifest.
    pub manifest: Limits,
    /// Most entries of an index.
    pub entries: usize,
    /// Most bytes of an index and its manifests together.
    pub total_bytes: usize,
    /// Manifests that are fetched at the same time.
    pub at_once: usize,
    /// Time for one reading, manifests included.
    pub time: Duration,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            manifest: Limits::default(),
            entries: 2_000,
            total_bytes: 64 << 20,
            at_once: 4,
            time: Duration::from_secs(300),
        }
    }
}

/// What of an addon is in force.
#[derive(Clone, Debug)]
struct InForce {
    entry: Entry,
    location: Location,
    manifest: Bytes,
    etag: Option<String>,
    hash: String,
    addon: Arc<Addon>,
}

/// An addon, and what stands behind it if something of it is in force.
pub(super) type Contributed = (Arc<Addon>, Option<Arc<ChannelAddon>>);

/// What a channel contributes.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) state: ChannelState,
    /// Addons by their names within the source.
    pub(super) addons: BTreeMap<Arc<str>, Contributed>,
    /// Location of each file on this machine that counts.
    pub(super) files: BTreeSet<std::path::PathBuf>,
}

/// One channel.
pub struct Channel {
    location: Location,
    shown: Arc<str>,
    key: String,
    repair_drift: bool,
    limits: ChannelLimits,
    /// The index in force, and what to ask its server with.
    index: Option<Bytes>,
    etag: Option<String>,
    in_force: BTreeMap<Arc<str>, InForce>,
    /// Addons that are named and of which nothing is in force.
    unknown: BTreeMap<Arc<str>, Arc<Addon>>,
    /// Addons whose manifest is older than the index that was read last.
    stale: BTreeSet<Arc<str>>,
    fresh: bool,
    problems: Vec<String>,
    saved: Option<[u8; 32]>,
    chosen_for: Option<Version>,
    /// When what is in force was read, seconds since 1970.
    as_of: u64,
}

/// What became of the manifests of an index.
struct Taken {
    in_force: BTreeMap<Arc<str>, InForce>,
    unknown: BTreeMap<Arc<str>, Arc<Addon>>,
    stale: BTreeSet<Arc<str>>,
    problems: Vec<String>,
    /// Whether every entry to install is in force.
    whole: bool,
}

/// Where manifests come from.
#[derive(Clone, Copy)]
enum From<'a> {
    Store(&'a BTreeMap<String, Bytes>),
    Network(&'a Fetcher, &'a Budget),
}

type Got<'a> = (&'a Entry, Result<InForce, String>);

impl Channel {
    /// A channel that was not read yet; `text` is its location as configured.
    #[must_use]
    pub fn new(text: &str, location: Location, repair_drift: bool, limits: ChannelLimits) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        Self {
            shown: location.to_string().into(),
            key: digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
            location,
            repair_drift,
            limits,
            index: None,
            etag: None,
            in_force: BTreeMap::new(),
            unknown: BTreeMap::new(),
            stale: BTreeSet::new(),
            fresh: false,
            problems: vec!["not read yet".to_owned()],
            saved: None,
            chosen_for: None,
            as_of: 0,
        }
    }

    /// What it contributes now.
    pub(super) fn view(&self) -> View {
        let behind = |name: &Arc<str>, known: &InForce| {
            Arc::new(ChannelAddon {
                entry: known.entry.clone(),
                channel: Arc::clone(&self.shown),
                offer: self.offer(known),
                fresh: self.fresh && !self.stale.contains(name),
            })
        };
        let known = self
            .in_force
            .iter()
            .map(|(name, known)| (Arc::clone(name), (Arc::clone(&known.addon), Some(behind(name, known)))));
        let unknown = self.unknown.iter().map(|(name, addon)| (Arc::clone(name), (Arc::clone(addon), None)));
        let path = |location: &Location| match location {
            Location::File(place) => Some(place.root.join(&place.path)),
            _ => None,
        };
        let locations = self.in_force.values().map(|known| &known.location).chain([&self.location]);
        View {
            state: ChannelState {
                channel: Arc::clone(&self.shown),
                fresh: self.fresh,
                in_force: self.index.is_some(),
                problems: self.problems.clone(),
            },
            addons: unknown.chain(known).collect(),
            files: locations.filter_map(path).collect(),
        }
    }

    fn offer(&self, known: &InForce) -> Offer {
        known.entry.offer(&self.shown, known.hash.clone())
    }

    /// Takes what a store kept, if that is newer than what is in force and the channel cannot be read now.
    pub async fn load_newer(&mut self, store: &dyn GoodStore, kubernetes: Option<&Version>) {
        if !self.fresh {
            self.load_since(store, kubernetes, self.as_of.saturating_add(1)).await;
        }
    }

    /// Takes what a store kept, where nothing is in force yet or for another Kubernetes.
    pub async fn load(&mut self, store: &dyn GoodStore, kubernetes: Option<&Version>) {
        self.load_since(store, kubernetes, 0).await;
    }

    async fn load_since(&mut self, store: &dyn GoodStore, kubernetes: Option<&Version>, since: u64) {
        let good = match store.load(&self.key).await {
            Ok(Some(good)) if good.read_at >= since => good,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(channel = %self.shown, %error, "what the channel said last cannot be read");
                return;
            }
        };
        let Ok((said, _)) = read::said(&good.index, &self.location, &self.limits) else { return };
        let taken = self.take(&said, &good.index, kubernetes, From::Store(&good.manifests)).await;
        self.as_of = good.read_at;
        self.index = Some(good.index.clone());
        self.apply(taken);
        self.fresh = false;
        self.chosen_for = kubernetes.cloned();
    }

    /// A manifest from a store.
    async fn kept(&self, entry: &Entry, manifests: &BTreeMap<String, Bytes>) -> Result<InForce, String> {
        let location = self.location.join(&entry.manifest).map_err(|error| error.to_string())?;
        let manifest = manifests.get(&location.to_string()).cloned();
        let manifest = manifest.ok_or_else(|| format!("manifest {location} was not kept"))?;
        self.understand(entry, location, manifest, None).await
    }

    /// Reads the channel.
    pub async fn read(&mut self, fetcher: &Fetcher, store: &dyn GoodStore, kubernetes: Option<&Version>) {
        let limit = self.limits.time;
        // Given up half-way, it has changed nothing but what it read whole.
        if tokio::time::timeout(limit, self.read_all(fetcher, store, kubernetes)).await.is_err() {
            self.stays(format!("not read within {limit:?}, manifests included"));
        }
    }

    async fn read_all(&mut self, fetcher: &Fetcher, store: &dyn GoodStore, kubernetes: Option<&Version>) {
        let budget = Budget::new(self.limits.total_bytes as u64);
        let etag = self.etag.as_deref().filter(|_| self.index.is_some());
        let (index, etag) = match fetcher.fetch(&self.location, etag, &budget).await {
            Ok(Fetch::Content { bytes, etag }) => (bytes, etag),
            Ok(Fetch::Unchanged) => (self.index.clone().unwrap_or_default(), self.etag.clone()),
            Err(error) => {
                if self.chosen_for.as_ref() != kubernetes {
                    self.load(store, kubernetes).await;
                }
                return self.stays(format!("cannot be read: {error}"));
            }
        };
        let (said, told) = match read::said(&index, &self.location, &self.limits) {
            Ok(said) => said,
            Err(problem) => return self.stays(problem),
        };
        if matches!(said, Said::Direct(_)) && self.was_an_index() {
            return self.stays("it was an index and is a manifest now; what the index said stays in force".to_owned());
        }
        let taken = self.take(&said, &index, kubernetes, From::Network(fetcher, &budget)).await;
        let (complete, whole) = (is_complete(&said), taken.whole);
        let before = std::mem::take(&mut self.in_force);
        self.problems.clear();
        self.apply(taken);
        if !complete {
            // An entry that could not be read may be any of these.
            for (name, known) in before {
                if !self.in_force.contains_key(&name) && !self.unknown.contains_key(&name) {
                    self.stale.insert(Arc::clone(&name));
                    self.in_force.insert(name, known);
                }
            }
        }
        self.problems.splice(0..0, told);
        (self.index, self.etag, self.fresh) = (Some(index), etag, complete);
        self.chosen_for = kubernetes.cloned();
        if complete && whole {
            self.keep(store).await;
        }
    }

    /// What is in force stays.
    fn stays(&mut self, problem: String) {
        self.fresh = false;
        self.etag = None;
        self.problems = vec![problem];
    }

    fn was_an_index(&self) -> bool {
        !self.in_force.values().any(|known| known.entry.path.is_empty()) && self.index.is_some()
    }

    fn apply(&mut self, taken: Taken) {
        (self.in_force, self.unknown, self.stale) = (taken.in_force, taken.unknown, taken.stale);
        self.problems.extend(taken.problems);
    }

    /// Gets the manifest of each entry to install; where that fails, what was in force stays.
    async fn take(&self, said: &Said, bytes: &Bytes, kubernetes: Option<&Version>, from: From<'_>) -> Taken {
        let mut taken = Taken {
            in_force: BTreeMap::new(),
            unknown: BTreeMap::new(),
            stale: BTreeSet::new(),
            problems: Vec::new(),
            whole: true,
        };
        match said {
            Said::Direct(entry) => {
                let got = self.understand(entry, self.location.clone(), bytes.clone(), None).await;
                self.took(entry, got, &mut taken);
            }
            Said::Index(index) => {
                let choice = choose(&index.entries, kubernetes);
                for (name, held) in &choice.held {
                    taken.whole &= *held != Held::KubernetesUnknown;
                    let Some(entry) = index.entries.iter().find(|entry| entry.name == *name) else { continue };
                    taken.problems.push(format!("addon {name}: {held}"));
                    let addon = read::unknown(entry, &self.shown, &held.to_string(), true);
                    taken.unknown.insert(addon_name(entry), Arc::new(addon));
                }
                let get = |entry| -> BoxFuture<'_, Got<'_>> { Box::pin(self.get(entry, from)) };
                let all: Vec<_> = choice.chosen.into_values().map(get).collect();
                let mut all = futures::stream::iter(all).buffered(self.limits.at_once);
                while let Some((entry, got)) = all.next().await {
                    self.took(entry, got, &mut taken);
                }
            }
        }
        taken
    }

    async fn get<'a>(&self, entry: &'a Entry, from: From<'_>) -> Got<'a> {
        let got = match from {
            From::Store(manifests) => self.kept(entry, manifests).await,
            From::Network(fetcher, budget) => self.fetch(entry, fetcher, budget).await,
        };
        (entry, got)
    }

    fn took(&self, entry: &Entry, got: Result<InForce, String>, taken: &mut Taken) {
        let name = addon_name(entry);
        match got {
            Ok(known) => {
                taken.in_force.insert(name, known);
            }
            Err(problem) => {
                taken.whole = false;
                taken.problems.push(format!("addon {}: {problem}", entry.name));
                match self.in_force.get(&name) {
                    Some(before) => {
                        taken.in_force.insert(Arc::clone(&name), before.clone());
                        taken.stale.insert(name);
                    }
                    None => {
                        let addon = read::unknown(entry, &self.shown, &problem, false);
                        taken.unknown.insert(name, Arc::new(addon));
                    }
                }
            }
        }
    }

    /// Fetches and verifies a manifest.
    async fn fetch(&self, entry: &Entry, fetcher: &Fetcher, budget: &Budget) -> Result<InForce, String> {
        let location =
            self.location.join(&entry.manifest).map_err(|error| format!("{}.manifest: {error}", entry.path))?;
        let before = self.in_force.get(&addon_name(entry)).filter(|before| before.location == location);
        if let (Some(hash), Some(before)) = (&entry.manifest_hash, before)
            && hash.verify(&before.manifest).is_ok()
        {
            return self.understand(entry, location, before.manifest.clone(), before.etag.clone()).await;
        }
        if entry.manifest_hash.is_none() && self.location.is_protected() && !location.is_protected() {
            return Err(format!(
                "manifest {location} is behind http, where anybody could change it, and the index names no manifestHash"
            ));
        }
        let etag = before.and_then(|before| before.etag.as_deref());
        let (manifest, etag) = match (fetcher.fetch(&location, etag, budget).await, before) {
            (Ok(Fetch::Content { bytes, etag }), _) => (bytes, etag),
            (Ok(Fetch::Unchanged), Some(before)) => (before.manifest.clone(), before.etag.clone()),
            (Ok(Fetch::Unchanged), None) => return Err(format!("manifest {location}: unchanged since nothing")),
            (Err(error), _) => return Err(format!("manifest {location}: {error}")),
        };
        self.understand(entry, location, manifest, etag).await
    }

    /// Verifies and decodes a manifest; one that was decoded before is shared.
    async fn understand(
        &self,
        entry: &Entry,
        location: Location,
        manifest: Bytes,
        etag: Option<String>,
    ) -> Result<InForce, String> {
        let hash = content_hash(&manifest);
        if let Some(named) = &entry.manifest_hash
            && let Err(actual) = named.verify(&manifest)
        {
            let named = named.as_str();
            return Err(format!(
                "manifest {location} has the hash {actual}, but the index says {named}; it is refused"
            ));
        }
        if let Some(before) = self.in_force.get(&addon_name(entry))
            && (&before.entry, &before.location, &before.manifest) == (entry, &location, &manifest)
        {
            return Ok(InForce { etag, ..before.clone() });
        }
        let (shown, repair, limits) = (Arc::clone(&self.shown), self.repair_drift, self.limits);
        let work = {
            let (entry, location, manifest, hash) = (entry.clone(), location.clone(), manifest.clone(), hash.clone());
            move || read::addon(&entry, &shown, &location, &manifest, &hash, repair, &limits)
        };
        let addon = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))?;
        Ok(InForce { entry: entry.clone(), location, manifest, etag, hash, addon: Arc::new(addon) })
    }

    /// Keeps what is in force for a restart.
    async fn keep(&mut self, store: &dyn GoodStore) {
        let Some(index) = self.index.clone() else { return };
        let read_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let of_index = self.in_force.values().filter(|known| !known.entry.path.is_empty());
        let manifests = of_index.map(|known| (known.location.to_string(), known.manifest.clone())).collect();
        let good = Good { read_at, index, manifests };
        self.as_of = read_at;
        let digest = digest(&good);
        if self.saved == Some(digest) {
            return;
        }
        // A store tells of failures itself, once; the next reading is another try.
        match store.save(&self.key, good).await {
            Ok(()) => self.saved = Some(digest),
            Err(error) => tracing::debug!(channel = %self.shown, %error, "what the channel says is not kept"),
        }
    }
}

fn is_complete(said: &Said) -> bool {
    match said {
        Said::Index(index) => index.is_complete(),
        Said::Direct(_) => true,
    }
}

/// A digest of what was read, but for when.
fn digest(good: &Good) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(Sha256::digest(&good.index));
    for (location, manifest) in &good.manifests {
        hasher.update(Sha256::digest(location));
        hasher.update(Sha256::digest(manifest));
    }
    hasher.finalize().into()
}

#[cfg(test)]
#[path = "in_force_tests.rs"]
mod tests;
