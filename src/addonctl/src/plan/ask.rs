//! Holds the objects of an addon against the server.

use std::collections::BTreeSet;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use quarterdeck_api::addon::{API_VERSION, Addon, KIND};
use quarterdeck_controllers::addon::plan::{MANAGER, rank};
use serde_json::Value;

use super::subject::{Subject, Wish};
use crate::kinds::Kinds;
use crate::server::{Server, explain};

/// What would become of one object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It would be created.
    Create {
        /// Why the server could not be asked about it, if it could not.
        note: Option<&'static str>,
    },
    /// It would be changed.
    Change {
        /// The object as it is.
        before: Box<Value>,
        /// The object as it would be.
        after: Box<Value>,
    },
    /// It would stay as it is.
    Same,
    /// It would be removed.
    Prune {
        /// Whether a person is asked first.
        asks: bool,
    },
    /// Nobody knows: why.
    Failed(String),
}

/// What would become of an addon.
pub(crate) struct Outcome<'a> {
    /// The addon.
    pub(crate) subject: &'a Subject,
    /// Its objects in the order in which they would be handled.
    pub(crate) objects: Vec<(String, Fate)>,
}

/// Asks about every object of an addon; an error is the fate of its object alone.
pub(crate) async fn outcome<'a>(server: &Server, kinds: &mut Kinds, subject: &'a Subject) -> Outcome<'a> {
    let mut objects = Vec::new();
    if let Some(own) = &subject.own {
        let resource = ApiResource::erase::<Addon>(&());
        let text = |field: &str| own["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let api = Api::namespaced_with(server.client.clone(), &namespace, &resource);
        let fate = dry_run(&api, &name, own, crate::server::MANAGER, false, false).await;
        objects
            .push((format!("{KIND}.{}/{namespace}/{name}", API_VERSION.split('/').next().unwrap_or_default()), fate));
    }
    let mut wishes: Vec<&Wish> = subject.wishes.iter().collect();
    wishes.sort_by_key(|wish| rank(&wish.ident));
    let news = News::of(&wishes);
    let mut resolved = BTreeSet::new();
    let mut whole = subject.problems.is_empty();
    for wish in wishes {
        let (label, fate) = match kinds.find(server, &wish.ident.kind, &wish.version).await {
            Err(error) => {
                whole = false;
                (wish.ident.to_string(), Fate::Failed(format!("{error:#}")))
            }
            Ok(None) => {
                let known = news.kinds.contains(&(wish.ident.kind.group.to_string(), wish.ident.kind.kind.to_string()));
                let note = "its definition comes with the addon";
                resolved.extend(["", &*wish.ident.namespace, &wish.namespace].map(|namespace| key(wish, namespace)));
                let unserved = || Fate::Failed("the server does not know this kind".to_owned());
                (wish.ident.to_string(), if known { Fate::Create { note: Some(note) } } else { unserved() })
            }
            Ok(Some((resource, namespaced))) => {
                let own = &*wish.ident.namespace;
                let namespace = if !namespaced {
                    ""
                } else if own.is_empty() {
                    &wish.namespace
                } else {
                    own
                };
                resolved.insert(key(wish, namespace));
                let label = format!("{}/{namespace}/{}", wish.ident.kind, wish.ident.name);
                let mut body = wish.body.clone();
                let api: Api<DynamicObject> = if namespaced {
                    body["metadata"]["namespace"] = namespace.into();
                    Api::namespaced_with(server.client.clone(), namespace, &resource)
                } else {
                    if let Some(metadata) = body["metadata"].as_object_mut() {
                        metadata.remove("namespace");
                    }
                    Api::all_with(server.client.clone(), &resource)
                };
                let fresh = news.namespaces.contains(namespace);
                (label, dry_run(&api, &wish.ident.name, &body, MANAGER, wish.only_exists, fresh).await)
            }
        };
        objects.push((label, fate));
    }
    if whole {
        for entry in subject.superfluous(&resolved) {
            let asks = matches!(
                (entry.group.as_str(), entry.kind.as_str()),
                ("", "Namespace" | "PersistentVolume" | "PersistentVolumeClaim")
                    | ("apiextensions.k8s.io", "CustomResourceDefinition")
            );
            let entry = quarterdeck_api::addon::InventoryEntry { uid: String::new(), ..entry.clone() };
            objects.push((entry.to_string(), Fate::Prune { asks }));
        }
    }
    Outcome { subject, objects }
}

/// A wish as inventories name it.
fn key(wish: &Wish, namespace: &str) -> (String, String, String) {
    (wish.ident.kind.to_string(), namespace.to_owned(), wish.ident.name.to_string())
}

/// What an addon brings that its other objects need.
struct News {
    namespaces: BTreeSet<String>,
    kinds: BTreeSet<(String, String)>,
}

impl News {
    fn of(wishes: &[&Wish]) -> Self {
        let of_kind = |kind: &'static str| wishes.iter().filter(move |wish| &*wish.ident.kind.kind == kind);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            namespaces: of_kind("Namespace").map(|wish| wish.ident.name.to_string()).collect(),
            kinds: of_kind("CustomResourceDefinition")
                .map(|wish| (text(&wish.body["spec"]["group"]), text(&wish.body["spec"]["names"]["kind"])))
                .collect(),
        }
    }
}

/// Asks the server what applying an object would come to.
async fn dry_run(
    api: &Api<DynamicObject>,
    name: &str,
    body: &Value,
    manager: &str,
    only_exists: bool,
    fresh_namespace: bool,
) -> Fate {
    let live = match api.get_opt(name).await {
        Ok(live) => live,
        Err(error) => return Fate::Failed(format!("{:#}", explain(error, "reading it"))),
    };
    if live.is_some() && only_exists {
        return Fate::Same;
    }
    let params = PatchParams { dry_run: true, force: true, ..PatchParams::apply(manager) };
    let after = match api.patch(name, &params, &Patch::Apply(body)).await {
        Ok(after) => after,
        // The namespace comes before the object, but not in a dry run.
        Err(kube::Error::Api(status)) if status.code == 404 && fresh_namespace => {
            return Fate::Create { note: Some("its namespace comes with the addon") };
        }
        Err(error) => return Fate::Failed(format!("{:#}", explain(error, "the server refuses it"))),
    };
    let Some(before) = live else { return Fate::Create { note: None } };
    let clean = |object: &DynamicObject| super::diff::clean(serde_json::to_value(object).unwrap_or_default());
    let (before, after) = (clean(&before), clean(&after));
    if before == after { Fate::Same } else { Fate::Change { before: Box::new(before), after: Box::new(after) } }
}
