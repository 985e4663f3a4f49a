//! Which kinds of objects a namespace can hold, as the server tells it: aggregated discovery where
//! the server answers with it, group by group otherwise. A group that does not answer is written
//! down and stops nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use quarterdeck_runtime::client::{Api, ApiError};
use quarterdeck_runtime::object::Kind;
use serde::Deserialize;
use tokio::time::Instant;

/// How many group versions are asked for at once.
const GROUPS_AT_ONCE: usize = 16;
/// How long a complete answer serves other namespaces' passes.
const FRESH: Duration = Duration::from_secs(5);
/// How long an incomplete one does.
const FRESH_INCOMPLETE: Duration = Duration::from_secs(1);

/// How long one group version may take to answer; one that hangs must not hold up the others.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A namespaced kind whose objects can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// The kind, in the version that the server prefers for it.
    pub kind: Kind,
    /// Whether the collection can be listed.
    pub list: bool,
    /// Whether the collection can be deleted in one request.
    pub delete_collection: bool,
}

/// A group version that did not tell what it serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure {
    /// Such as `metrics.k8s.io/v1beta1`.
    pub group_version: String,
    /// Why.
    pub reason: String,
}

/// What the server serves, as far as it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Catalog {
    /// The kinds, sorted.
    pub resources: Vec<Resource>,
    /// Group versions that did not answer.
    pub failures: Vec<Failure>,
    /// Group versions whose name makes no sense.
    pub unparsable: Vec<String>,
}

/// The last answer, shared by the namespaces that are deleted at the same time.
#[derive(Default)]
pub(super) struct Discovery(tokio::sync::Mutex<Option<(Instant, Arc<Catalog>)>>);

impl Discovery {
    /// A catalog asked for not before `not_before`, and never an old one.
    pub(super) async fn catalog(&self, api: &Api, not_before: Instant) -> Arc<Catalog> {
        // Held while asking, so that namespaces deleted together ask once.
        let mut slot = self.0.lock().await;
        let now = Instant::now();
        match slot.as_ref() {
            Some((asked, catalog)) if usable(*asked, catalog, not_before, now) => return Arc::clone(catalog),
            _ => {}
        }
        let catalog = Arc::new(ask(api).await);
        *slot = Some((now, Arc::clone(&catalog)));
        catalog
    }
}

/// Whether a catalog asked for at `asked` still serves at `now`.
pub(super) fn usable(asked: Instant, catalog: &Catalog, not_before: Instant, now: Instant) -> bool {
    let fresh = if catalog.failures.is_empty() { FRESH } else { FRESH_INCOMPLETE };
    asked >= not_before && now.duration_since(asked) < fresh
}

async fn ask(api: &Api) -> Catalog {
    let index = |path| answered(path, api.discover::<Index>(path));
    let (core, named) = futures::join!(index("/api"), index("/apis"));
    let mut groups = Vec::new();
    let mut failures = Vec::new();
    let mut unparsable = Vec::new();
    for (root, answer) in [("v1", core), ("apis", named)] {
        match answer {
            Ok(Index::Aggregated { items }) => groups.extend(items.into_iter().map(Group::from)),
            Ok(Index::Groups { groups: listed }) => {
                let (asked, bad) = ask_each(api, listed).await;
                groups.extend(asked);
                unparsable.extend(bad);
            }
            Ok(Index::Versions { versions }) => {
                let listed = ListedGroup::core(versions);
                groups.extend(ask_each(api, vec![listed]).await.0);
            }
            Err(reason) => failures.push(Failure { group_version: root.to_owned(), reason }),
        }
    }
    let mut catalog = choose(groups);
    catalog.failures.extend(failures);
    catalog.unparsable = unparsable;
    catalog
}

/// Asks each version of each group for its resources; also answers the names it cannot ask for.
async fn ask_each(api: &Api, groups: Vec<ListedGroup>) -> (Vec<Group>, Vec<String>) {
    let mut unparsable = Vec::new();
    let mut wanted = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        for version in &group.versions {
            match path_of(&version.group_version) {
                Some(path) => wanted.push((at, version.version.clone(), path)),
                None => unparsable.push(version.group_version.clone()),
            }
        }
    }
    let answers: Vec<_> = futures::stream::iter(wanted)
        .map(|(at, version, path)| async move {
            (at, version, answered(&path, api.read::<ListedResources>(&path)).await)
        })
        .buffered(GROUPS_AT_ONCE)
        .collect()
        .await;
    let mut asked: Vec<_> = groups
        .into_iter()
        .map(|group| Group {
            preferred: group.preferred_version.map(|v| v.version),
            name: group.name,
            versions: Vec::new(),
        })
        .collect();
    for (at, version, answer) in answers {
        asked[at].versions.push((version, answer.map(|list| list.resources)));
    }
    (asked, unparsable)
}

/// What is said at `path`, in time.
async fn answered<T>(path: &str, answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer to {path} within {ANSWER_LIMIT:?}")),
    }
}

/// `/api/v1` or `/apis/group/version`; none if that is no group version.
pub(super) fn path_of(group_version: &str) -> Option<String> {
    let parts: Vec<_> = group_version.split('/').collect();
    match parts.as_slice() {
        [version] if !version.is_empty() => Some(format!("/api/{version}")),
        [group, version] if !group.is_empty() && !version.is_empty() => Some(format!("/apis/{group}/{version}")),
        _ => None,
    }
}

/// One group with what each of its versions said, in the server's order.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub name: String,
    pub preferred: Option<String>,
    pub versions: Vec<(String, Result<Vec<ListedResource>, String>)>,
}

/// Of each resource the version that its group prefers, else the first that has it
/// (k8s.io/client-go:discovery/discovery_client.go `ServerPreferredResources` v0.36.3); of these the
/// namespaced ones that can be deleted.
pub(super) fn choose(groups: Vec<Group>) -> Catalog {
    let mut catalog = Catalog::default();
    for group in groups {
        let mut chosen: HashMap<String, (String, ListedResource)> = HashMap::new();
        for (version, answer) in group.versions {
            let resources = match answer {
                Ok(resources) => resources,
                Err(reason) => {
                    let group_version = join(&group.name, &version);
                    catalog.failures.push(Failure { group_version, reason });
                    continue;
                }
            };
            for resource in resources.into_iter().filter(|r| !r.name.contains('/')) {
                let preferred = group.preferred.as_deref() == Some(version.as_str());
                if preferred || !chosen.contains_key(&resource.name) {
                    chosen.insert(resource.name.clone(), (version.clone(), resource));
                }
            }
        }
        for (name, (version, resource)) in chosen {
            let can = |verb: &str| resource.verbs.iter().any(|v| v == verb);
            if !resource.namespaced || !can("delete") {
                continue;
            }
            catalog.resources.push(Resource {
                list: can("list"),
                delete_collection: can("deletecollection"),
                kind: Kind {
                    group: group.name.clone().into(),
                    version: version.into(),
                    kind: resource.kind.into(),
                    plural: name.into(),
                    namespaced: true,
                },
            });
        }
    }
    catalog.resources.sort_by(|a, b| a.kind.cmp(&b.kind));
    catalog.failures.sort();
    catalog
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// What `/api` and `/apis` answer.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
pub(super) enum Index {
    /// Everything at once.
    #[serde(rename = "APIGroupDiscoveryList")]
    Aggregated {
        #[serde(default)]
        items: Vec<AggregatedGroup>,
    },
    /// The groups; each version is to be asked for.
    #[serde(rename = "APIGroupList")]
    Groups {
        #[serde(default)]
        groups: Vec<ListedGroup>,
    },
    /// The versions of the core group.
    #[serde(rename = "APIVersions")]
    Versions {
        #[serde(default)]
        versions: Vec<String>,
    },
}

#[derive(Debug, Deserialize)]
pub(super) struct AggregatedGroup {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<AggregatedVersion>,
}

#[derive(Debug, Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct AggregatedVersion {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<AggregatedResource>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedGroup {
    #[serde(default)]
    name: String,
    #[serde(default)]
    versions: Vec<ListedVersion>,
    preferred_version: Option<ListedVersion>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedVersion {
    group_version: String,
    version: String,
}

impl ListedGroup {
    fn core(versions: Vec<String>) -> Self {
        let versions: Vec<_> =
            versions.into_iter().map(|version| ListedVersion { group_version: version.clone(), version }).collect();
        Self { name: String::new(), versions, preferred_version: None }
    }
}

#[derive(Debug, Deserialize)]
struct ListedResources {
    #[serde(default)]
    resources: Vec<ListedResource>,
}

/// One resource of one group version.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ListedResource {
    pub name: String,
    #[serde(default)]
    pub namespaced: bool,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub verbs: Vec<String>,
}

impl From<AggregatedGroup> for Group {
    /// A version that the aggregator could not refresh has not answered, whatever it said before.
    fn from(group: AggregatedGroup) -> Self {
        let stale = |version: &AggregatedVersion| version.freshness == "Stale";
        Self {
            preferred: group.versions.iter().find(|v| !stale(v)).map(|v| v.version.clone()),
            versions: group
                .versions
                .into_iter()
                .map(|version| {
                    let answer = if stale(&version) {
                        Err("the aggregated API does not answer".to_owned())
                    } else {
                        Ok(version.resources.into_iter().map(ListedResource::from).collect())
                    };
                    (version.version, answer)
                })
                .collect(),
            name: group.metadata.name,
        }
    }
}

impl From<AggregatedResource> for ListedResource {
    fn from(resource: AggregatedResource) -> Self {
        Self {
            name: resource.resource,
            namespaced: resource.scope == "Namespaced",
            kind: resource.response_kind.unwrap_or_default().kind,
            verbs: resource.verbs,
        }
    }
}
