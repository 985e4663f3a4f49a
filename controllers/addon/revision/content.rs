//! What a revision asks for.

use std::sync::Arc;

use quarterdeck_runtime::controller::Account;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::addon::kinds::crd_kind;
use crate::addon::manifest::{Mode, Place, read_object};
use crate::addon::source::{Addon, Object, Package};

/// What a revision asks for: enough to apply it again without its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// The addon's version.
    pub version: Arc<str>,
    /// What others know it by.
    pub package: Option<Package>,
    /// Its objects, without the steps that made them: nothing is run again.
    pub objects: Vec<Object>,
}

impl Content {
    /// What an addon asks for now, as far as `is_made` says that it came about.
    #[must_use]
    pub fn of(addon: &Addon, is_made: impl Fn(&Object) -> bool) -> Self {
        let made = addon.objects.iter().filter(|object| is_made(object)).cloned();
        Self {
            version: Arc::clone(&addon.version),
            package: addon.package.clone(),
            objects: made.map(|object| Object { step: None, ..object }).collect(),
        }
    }
}

/// A digest of the CustomResourceDefinitions among objects; empty if there are none.
#[must_use]
pub fn crds(objects: &[Object]) -> String {
    let mut texts: Vec<&str> =
        objects.iter().filter(|object| object.ident.kind == crd_kind()).map(|object| object.body.as_str()).collect();
    if texts.is_empty() {
        return String::new();
    }
    texts.sort_unstable();
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hex(&hasher.finalize(), 16)
}

/// The head of a stored revision.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
    version: Arc<str>,
    package: Option<(Arc<str>, Arc<str>)>,
    /// How many objects it has, those in Secrets included.
    objects: usize,
}

/// The version of the form in which revisions are stored.
pub(super) const FORMAT: u32 = 1;

/// An object as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    /// Its place among all objects.
    at: usize,
    /// Whether it only has to exist.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ensure: bool,
    /// Its namespace if it names none and lives in one.
    namespace: Arc<str>,
    /// Namespace and name of the account that it is applied as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<(String, String)>,
    document: usize,
    line: usize,
    body: Value,
}

/// A revision as it is stored: its head, and its objects without and with secrets.
pub(super) fn to_items(content: &Content) -> (Head, Vec<Item>, Vec<Item>) {
    let head = Head {
        format: FORMAT,
        version: Arc::clone(&content.version),
        package: content.package.as_ref().map(|package| (Arc::clone(&package.name), Arc::clone(&package.version))),
        objects: content.objects.len(),
    };
    let (mut open, mut secret) = (Vec::new(), Vec::new());
    for (at, object) in content.objects.iter().enumerate() {
        let items = if object.ident.kind.is("", "Secret") { &mut secret } else { &mut open };
        items.push(Item {
            at,
            ensure: object.mode == Mode::EnsureExists,
            namespace: Arc::clone(&object.namespace),
            account: object.account.as_ref().map(|account| (account.namespace.clone(), account.name.clone())),
            document: object.place.document,
            line: object.place.line,
            body: object.body.tree(),
        });
    }
    (head, open, secret)
}

/// The revision that was stored so; else what is wrong with it.
pub(super) fn from_items(head: Head, mut items: Vec<Item>) -> Result<Content, String> {
    if items.len() != head.objects {
        return Err(format!("it has {} objects and should have {}", items.len(), head.objects));
    }
    items.sort_by_key(|item| item.at);
    let objects = items.into_iter().map(to_object).collect::<Result<_, _>>()?;
    let package = head.package.map(|(name, version)| Package { name, version });
    Ok(Content { version: head.version, package, objects })
}

fn to_object(item: Item) -> Result<Object, String> {
    let at = item.at;
    let Value::Object(body) = item.body else { return Err(format!("object {at} is no mapping")) };
    let place = Place { document: item.document, line: item.line };
    let (mut desired, _) =
        read_object(body, place).map_err(|(field, message)| format!("object {at}: {field}: {message}"))?;
    desired.mode = if item.ensure { Mode::EnsureExists } else { Mode::Reconcile };
    Ok(Object {
        desired: Arc::new(desired),
        namespace: item.namespace,
        account: item.account.map(|(namespace, name)| Account { namespace, name }),
        step: None,
    })
}
