//! Objects of a manifest that stands in a template.

use serde_json::{Value, json};

use super::Refusal;
use super::parameters::AddonFacts;
use super::program::ObjectRef;
use super::substitute::{Lookup, Miss, embedded, embedded_patch, within};
use crate::addon::manifest::{Body, Desired, Mode, Place, read_object};

/// Most objects in one manifest.
const MOST_OBJECTS: usize = 4_000;

/// Label that names the Addon.
pub(super) const NAME_LABEL: &str = "app.kubernetes.io/name";

/// Upstream's labels on all that an Addon makes (`keikoproj/addon-manager:pkg/workflows`).
pub(super) fn app_labels(addon: &AddonFacts) -> [(&'static str, String); 4] {
    [
        (NAME_LABEL, label_value(&addon.name)),
        ("app.kubernetes.io/version", label_value(&addon.pkg_version)),
        ("app.kubernetes.io/part-of", label_value(&addon.name)),
        ("app.kubernetes.io/managed-by", "addonmgr.keikoproj.io".to_owned()),
    ]
}

/// A text as a label's value, which a version such as `1.0+build` is not by itself.
pub(super) fn label_value(text: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let text: String = text.chars().map(|c| if fine(c) { c } else { '-' }).take(63).collect();
    text.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Puts the labels on an object itself, never on the pods that it makes.
pub(super) fn stamp(body: &mut Value, addon: &AddonFacts) {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.extend(app_labels(addon).map(|(key, value)| (key.to_owned(), Value::from(value))));
    }
}

/// The objects of a manifest, each in `mode`.
pub(super) fn desired(
    source: &str,
    path: &str,
    lookup: &dyn Lookup,
    mode: Mode,
    addon: &AddonFacts,
) -> Result<Vec<Desired>, Miss> {
    let mut objects = plain(embedded(source, path, lookup)?, path)?;
    for object in &mut objects {
        object.mode = mode;
        let mut body = object.body.tree();
        stamp(&mut body, addon);
        object.body = Body::new(&body);
    }
    Ok(objects)
}

/// The objects that a manifest names.
pub(super) fn named(source: &str, path: &str, lookup: &dyn Lookup) -> Result<Vec<ObjectRef>, Miss> {
    Ok(plain(embedded(source, path, lookup)?, path)?.iter().map(reference).collect())
}

/// The one object that a patch names, and the patch without what names it.
pub(super) fn patch(source: &str, path: &str, lookup: &dyn Lookup) -> Result<(ObjectRef, Value), Miss> {
    let mut trees = embedded_patch(source, path, lookup)?;
    let (Some((tree, place)), true) = (trees.pop(), trees.is_empty()) else {
        return Err(Miss::refused(path, "a patch is one document"));
    };
    let mut objects = plain(vec![(tree.clone(), place)], path)?;
    let (Some(object), true) = (objects.pop(), objects.is_empty()) else {
        return Err(Miss::refused(path, "a patch names one object"));
    };
    let mut patch = tree;
    if let Some(fields) = patch.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("name");
            metadata.remove("namespace");
            if metadata.is_empty() {
                fields.remove("metadata");
            }
        }
        if fields.is_empty() {
            return Err(Miss::refused(path, "the patch changes nothing"));
        }
    }
    Ok((reference(&object), patch))
}

fn reference(object: &Desired) -> ObjectRef {
    ObjectRef { ident: object.ident.clone(), version: object.version.to_string(), place: object.place }
}

/// Takes lists apart and reads what each object is.
fn plain(trees: Vec<(Value, Place)>, path: &str) -> Result<Vec<Desired>, Miss> {
    let (mut objects, mut refusals) = (Vec::new(), Vec::new());
    for (tree, place) in trees {
        collect(tree, place, path, 0, &mut objects, &mut refusals);
    }
    if objects.is_empty() && refusals.is_empty() {
        refusals.push(Refusal::new(path, "no object in it"));
    }
    if refusals.is_empty() { Ok(objects) } else { Err(Miss::Refused(refusals)) }
}

fn collect(
    tree: Value,
    place: Place,
    path: &str,
    depth: usize,
    objects: &mut Vec<Desired>,
    refusals: &mut Vec<Refusal>,
) {
    let mut refuse = |field: &str, reason: String| refusals.push(Refusal::new(within(path, place, field), reason));
    let mut body = match tree {
        Value::Object(body) => body,
        Value::Null => return,
        _ => return refuse("", "not an object: a manifest is a map with apiVersion, kind and metadata".to_owned()),
    };
    if objects.len() >= MOST_OBJECTS || depth > 4 {
        return refuse("", format!("more than {MOST_OBJECTS} objects, or lists nested too deep"));
    }
    let is_list = body.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Some(Value::Array(items)) = body.remove("items") {
        for item in items {
            collect(item, place, path, depth + 1, objects, refusals);
        }
        return;
    }
    match read_object(body, place) {
        Ok((desired, _)) => objects.push(desired),
        Err((field, reason)) => refuse(field, reason),
    }
}
