//! From the URLs of channels to what has to be updated.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use quarterdeck_api::channel::{
    Content, Decision, Entry, Installed, Offer, Required, choose, content_hash, find, pki_issuer, pki_secret, read,
    required,
};
use quarterdeck_api::version::Version;
use quarterdeck_controllers::addon::location::{Budget, Fetch, FetchLimits, Fetcher, HostPolicy, Location};
use serde_json::Value;

use super::everything;
use crate::server::{Server, explain};

/// Most entries of an index.
const ENTRIES: usize = 10_000;
/// Most bytes of all files together.
const TOTAL: u64 = 256 << 20;

/// An addon that has to be updated.
pub(super) struct Update {
    /// The entry to install.
    pub(super) entry: Entry,
    /// What is installed.
    pub(super) installed: Option<Installed>,
    /// What is offered.
    pub(super) offer: Offer,
    /// What has to be done.
    pub(super) required: Required,
    /// The objects of its manifest, in its order.
    pub(super) objects: Vec<Value>,
}

impl Update {
    /// Whether its manifest is to be applied.
    pub(super) fn applies(&self) -> bool {
        !matches!(self.required.decision, Decision::Keep(_))
    }
}

/// What the channels come to.
pub(super) struct Reading {
    /// What has to be updated.
    pub(super) updates: Vec<Update>,
    /// How many channels and addons could not be read; each was told on the standard error.
    pub(super) failed: usize,
}

/// What has to be updated of all channels. An addon that a channel before has named is left to that.
pub(super) async fn updates(server: &Server, urls: &[String]) -> anyhow::Result<Reading> {
    let mut locations = Vec::new();
    for url in urls {
        locations.push(Location::parse(url).with_context(|| format!("channel {url}"))?);
    }
    let policy = HostPolicy::new(&locations, []).context("channels")?;
    let fetcher = Fetcher::new(policy, FetchLimits::default());
    let budget = Budget::new(TOTAL);
    let kubernetes = server.client.apiserver_version().await.map_err(|error| explain(error, "the server's version"))?;
    let kubernetes = Version::of_kubernetes(&kubernetes.git_version).context("the server's version")?;
    let api: Api<Namespace> = Api::all(server.client.clone());
    let namespaces = api.list(&everything()).await.map_err(|error| explain(error, "namespaces"))?.items;

    let mut reading = Reading { updates: Vec::new(), failed: 0 };
    let mut named = BTreeSet::new();
    for location in &locations {
        let entries = match index(&fetcher, location, &budget).await {
            Ok((entries, wrong)) => {
                reading.failed += wrong;
                entries
            }
            Err(error) => {
                reading.failed += 1;
                eprintln!("error: channel {location}: {error:#}");
                continue;
            }
        };
        let choice = choose(&entries, Some(&kubernetes));
        for (name, held) in &choice.held {
            eprintln!("warning: channel {location}: addon {name}: {held}");
        }
        for (name, entry) in choice.chosen {
            if !named.insert(name.to_owned()) {
                eprintln!("warning: channel {location}: addon {name} is another channel's");
                continue;
            }
            match update(server, &fetcher, &budget, location, entry, &namespaces).await {
                Ok(update) => reading.updates.extend(update),
                Err(error) => {
                    reading.failed += 1;
                    eprintln!("error: channel {location}: addon {name}: {error:#}");
                }
            }
        }
    }
    Ok(reading)
}

async fn fetch(fetcher: &Fetcher, location: &Location, budget: &Budget) -> anyhow::Result<Vec<u8>> {
    // The error tells its cause itself.
    let fetched = fetcher.fetch(location, None, budget).await;
    match fetched.map_err(|error| anyhow::anyhow!("{error}"))? {
        Fetch::Content { bytes, .. } => Ok(bytes.to_vec()),
        Fetch::Unchanged => bail!("the server says that nothing changed, without having been asked"),
    }
}

/// The entries of a channel, and how many of them cannot be read: each is told, and the others count.
async fn index(fetcher: &Fetcher, location: &Location, budget: &Budget) -> anyhow::Result<(Vec<Entry>, usize)> {
    let bytes = fetch(fetcher, location, budget).await?;
    let first = documents(&bytes)?.into_iter().next();
    match read(first.as_ref(), &location.to_string(), &bytes, ENTRIES)? {
        Content::Empty => Ok((Vec::new(), 0)),
        Content::Direct(entry) => Ok((vec![*entry], 0)),
        Content::Index(index) => {
            for problem in &index.problems {
                let word = if problem.warning { "warning" } else { "error" };
                eprintln!("{word}: channel {location}: {problem}");
            }
            let wrong = index.problems.iter().filter(|problem| !problem.warning).count();
            Ok((index.entries, wrong))
        }
    }
}

/// What an entry asks for, if that is anything.
async fn update(
    server: &Server,
    fetcher: &Fetcher,
    budget: &Budget,
    channel: &Location,
    entry: &Entry,
    namespaces: &[Namespace],
) -> anyhow::Result<Option<Update>> {
    // A file that is a manifest names itself.
    let direct = entry.path.is_empty();
    let place = if direct { channel.clone() } else { channel.join(&entry.manifest)? };
    let manifest = fetch(fetcher, &place, budget).await.with_context(|| place.to_string())?;
    if let Some(hash) = entry.manifest_hash.as_ref().filter(|_| !direct)
        && let Err(actual) = hash.verify(&manifest)
    {
        bail!("{place}: its hash is {actual}, not {} as the channel says; it is not used", hash.as_str());
    }
    let offer = entry.offer(&channel.to_string(), content_hash(&manifest));
    let namespace = namespaces.iter().find(|found| found.metadata.name.as_deref() == Some(&entry.namespace));
    let annotations: BTreeMap<_, _> =
        namespace.and_then(|found| found.metadata.annotations.clone()).unwrap_or_default();
    let installed = find(&annotations).installed.remove(&entry.name);
    let pki = !entry.needs_pki || pki_is_there(server, &entry.name).await?;
    let required = required(entry, installed.as_ref(), &offer, pki);
    if required.is_nothing() {
        return Ok(None);
    }
    let mut objects = Vec::new();
    for document in documents(&manifest).with_context(|| place.to_string())? {
        flatten(document, &mut objects).with_context(|| place.to_string())?;
    }
    ensure!(!objects.is_empty(), "{place}: there are no objects in it");
    Ok(Some(Update { entry: entry.clone(), installed, offer, required, objects }))
}

/// The documents of a file that hold anything.
fn documents(bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
    let text = std::str::from_utf8(bytes).context("not UTF-8")?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Adds an object, or those of a List.
fn flatten(document: Value, objects: &mut Vec<Value>) -> anyhow::Result<()> {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let kind = text(&document["kind"]);
    if let (true, Some(items)) = (kind.ends_with("List"), document["items"].as_array()) {
        return items.iter().try_for_each(|item| flatten(item.clone(), objects));
    }
    let name = text(&document["metadata"]["name"]);
    ensure!(
        !kind.is_empty() && !name.is_empty() && document["apiVersion"].is_string(),
        "an object without apiVersion, kind or metadata.name ({kind} {name})"
    );
    objects.push(document);
    Ok(())
}

/// Whether both the CA and the issuer of an addon exist.
async fn pki_is_there(server: &Server, addon: &str) -> anyhow::Result<bool> {
    let secret = server.api::<Secret>(Some(super::pki::NAMESPACE)).get_metadata_opt(&pki_secret(addon)).await;
    if secret.map_err(|error| explain(error, "its CA"))?.is_none() {
        return Ok(false);
    }
    let named = ListParams::default().fields(&format!("metadata.name={}", pki_issuer(addon)));
    match issuers(server).list(&named).await {
        Ok(found) => Ok(!found.items.is_empty()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(explain(error, "its issuer")),
    }
}

/// cert-manager's issuers, where those of addons are.
pub(super) fn issuers(server: &Server) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("cert-manager.io", super::pki::ISSUERS, "Issuer");
    Api::namespaced_with(server.client.clone(), super::pki::NAMESPACE, &ApiResource::from_gvk(&kind))
}
