//! From bytes to what they mean.

use std::sync::Arc;

use quarterdeck_api::channel::{Content, Entry, Index, read};
use sha2::{Digest as _, Sha256};

use super::{ChannelLimits, SOURCE};
use crate::addon::kinds::built_in;
use crate::addon::location::Location;
use crate::addon::manifest::{Decoded, Desired, Format, Labels, Place, Problem, decode_with, first_document};
use crate::addon::source::directory::hex;
use crate::addon::source::{Addon, AddonId, DEFAULT_NAMESPACE, Drift, Object, Package, Policy};

/// What a channel's file says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// A list of addons, at least one.
    Index(Index),
    /// It is itself the manifest of one addon.
    Direct(Box<Entry>),
}

/// Reads a channel's file.
///
/// # Errors
/// When it says nothing about any addon: broken, or empty. What is in force then stays.
pub(super) fn said(bytes: &[u8], location: &Location, limits: &ChannelLimits) -> Result<(Said, Vec<String>), String> {
    let (first, warnings) =
        first_document(bytes, format(location), &limits.manifest).map_err(|problem| problem.to_string())?;
    let mut told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let empty = || "there is no addon in it; nothing is removed for that".to_owned();
    match read(first.as_ref(), &location.to_string(), bytes, limits.entries).map_err(|error| error.to_string())? {
        Content::Empty => Err(empty()),
        Content::Direct(entry) => Ok((Said::Direct(entry), told)),
        Content::Index(index) => {
            told.extend(index.problems.iter().map(ToString::to_string));
            match index.problems.iter().find(|problem| !problem.warning) {
                Some(problem) if index.entries.is_empty() => Err(problem.to_string()),
                None if index.entries.is_empty() => Err(empty()),
                _ => Ok((Said::Index(index), told)),
            }
        }
    }
}

fn format(location: &Location) -> Format {
    if location.to_string().ends_with(".json") { Format::Json } else { Format::Yaml }
}

/// Name of an addon within this source: two namespaces may each have one of a name.
pub(super) fn addon_name(entry: &Entry) -> Arc<str> {
    if entry.namespace == quarterdeck_api::channel::DEFAULT_NAMESPACE {
        entry.name.as_str().into()
    } else {
        format!("{}/{}", entry.namespace, entry.name).into()
    }
}

/// The addon that an entry and its manifest make. `hash` is the manifest's.
///
/// # Errors
/// When nothing in the manifest can be read.
pub(super) fn addon(
    entry: &Entry,
    channel: &str,
    location: &Location,
    manifest: &[u8],
    hash: &str,
    repair_drift: bool,
    limits: &ChannelLimits,
) -> Result<Addon, String> {
    let Decoded { objects, skipped, mut problems } =
        decode_with(manifest, format(location), &limits.manifest, Labels::Ignored);
    let (mut kept, mut lost) = (Vec::new(), false);
    for desired in objects {
        match placed(desired) {
            Ok(object) => kept.push(object),
            Err(problem) => {
                lost = true;
                problems.push(problem);
            }
        }
    }
    if let Some(problem) = problems.iter().find(|problem| !problem.warning)
        && kept.is_empty()
    {
        return Err(format!("manifest {location}, {problem}"));
    }
    let repair = entry.repair_drift.unwrap_or(repair_drift);
    Ok(Addon {
        complete: !lost && problems.iter().all(|problem| problem.warning),
        objects: kept,
        skipped,
        problems,
        policy: Policy {
            drift: if repair { Drift::Repair } else { Drift::Report },
            // The entry was read by the same words.
            rollback: entry.rollback.as_deref().and_then(|word| word.parse().ok()),
            ..Policy::default()
        },
        ..blank(entry, channel, &revision(entry, hash))
    })
}

/// An addon that is named and of which nothing is known: nothing of it is wanted, and nothing goes.
pub(super) fn unknown(entry: &Entry, channel: &str, message: &str, warning: bool) -> Addon {
    let problem = Problem { place: Place::default(), object: None, field: None, message: message.to_owned(), warning };
    Addon { problems: vec![problem], ..blank(entry, channel, "unknown") }
}

fn blank(entry: &Entry, channel: &str, version: &str) -> Addon {
    let name = addon_name(entry);
    Addon {
        id: AddonId { source: SOURCE, name },
        version: version.into(),
        package: Some(Package {
            name: entry.name.as_str().into(),
            version: entry.version.as_deref().unwrap_or_default().into(),
        }),
        description: format!("channel {channel}").into(),
        objects: Vec::new(),
        account: None,
        lifecycle: None,
        policy: Policy::default(),
        dependencies: Vec::new(),
        skipped: Vec::new(),
        problems: Vec::new(),
        complete: false,
    }
}

/// What tells one state of an addon from another: version, id and hash.
fn revision(entry: &Entry, hash: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [entry.version.as_deref().unwrap_or_default(), &entry.id, hash] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize().into())
}

/// An object with the namespace it states. One that lives in a namespace and states none is refused
/// (kops:channels/pkg/channels/clientapplier.go): here where the kind is known, else by the engine,
/// which finds no namespace either.
fn placed(desired: Desired) -> Result<Object, Problem> {
    let kind = built_in(&desired.ident.kind, &desired.version);
    if desired.ident.namespace.is_empty() && kind.is_some_and(|kind| kind.namespaced) {
        return Err(Problem {
            place: desired.place,
            object: Some(format!("{} {}", desired.ident.kind.kind, desired.ident.name)),
            field: Some("metadata.namespace".to_owned()),
            message: format!("missing: objects of channels have to state it, {DEFAULT_NAMESPACE} included"),
            warning: false,
        });
    }
    Ok(Object { namespace: "".into(), ..Object::from(desired) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ChannelLimits {
        ChannelLimits::default()
    }

    fn location() -> Location {
        Location::parse("https://example.com/addons/addon.yaml").expect("a location")
    }

    fn index(text: &str) -> Index {
        match said(text.as_bytes(), &location(), &limits()) {
            Ok((Said::Index(index), _)) => index,
            other => panic!("{other:?}"),
        }
    }

    /// kops:channels/pkg/channels/addons_test.go, TestParseAddonsMultiDocIndex.
    #[test]
    fn only_the_first_document_is_the_index() {
        let index = index(
            "kind: Addons\nmetadata: {name: example}\nspec:\n  addons:\n  - {name: one, manifest: a}\n---\n\
             kind: Addons\nspec:\n  addons:\n  - {name: two, manifest: b}\n",
        );
        assert_eq!(index.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["one"]);
    }

    /// TestParseAddonsWrapsDirectManifest.
    #[test]
    fn objects_are_a_manifest() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: a}\n";
        let Ok((Said::Direct(entry), _)) = said(text.as_bytes(), &location(), &limits()) else { panic!("not direct") };
        assert!(entry.name.starts_with("manifest-"));
        let addon = addon(&entry, "c", &location(), text.as_bytes(), "h", false, &limits()).expect("an addon");
        assert_eq!((addon.objects.len(), addon.complete, addon.policy.drift), (2, true, Drift::Report));
    }

    /// TestParseAddonsRejectsInvalidYAML, TestParseAddonsEmpty: here an empty index is told as well,
    /// since it removes nothing.
    #[test]
    fn broken_and_empty_files_are_told() {
        for (text, message) in [
            ("not: [valid", "document 1, line 1"),
            ("", "there is no addon in it"),
            ("\n  \n", "there is no addon in it"),
            ("# nothing to see here\n", "there is no addon in it"),
            ("kind: Addons\nspec: {addons: []}\n", "there is no addon in it"),
            ("kind: Addons\nspec: {addons: [{name: a}]}\n", "field spec.addons[0].manifest: missing"),
            ("<html>503</html>", "not a mapping"),
            ("a: b", "field kind: missing"),
        ] {
            let error = said(text.as_bytes(), &location(), &limits()).expect_err(text);
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn huge_indexes_are_refused() {
        let entry = "  - {name: a, manifest: b}\n";
        let text = format!("kind: Addons\nspec:\n  addons:\n{}", entry.repeat(3_000));
        let error = said(text.as_bytes(), &location(), &limits()).expect_err("too many");
        assert!(error.contains("3000 entries; at most 2000 are read"), "{error}");
        let text = format!("kind: Addons\nspec:\n  addons:\n{}", entry.repeat(100_000));
        let error = said(text.as_bytes(), &location(), &limits()).expect_err("too many");
        assert!(error.contains("values") || error.contains("nodes") || error.contains("budget"), "{error}");
        let text = format!("kind: Addons\nx: &x [{}]\ny: [{}]\n", "1,".repeat(1000), "*x,".repeat(1000));
        assert!(said(text.as_bytes(), &location(), &limits()).is_err());
    }

    #[test]
    fn namespaced_objects_state_their_namespace() {
        let index = index("kind: Addons\nspec:\n  addons:\n  - {name: one, manifest: a}\n");
        let map = |rest: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x{rest}}}\n");
        let text = format!(
            "{}---\n{}---\napiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: x}}\n",
            map(""),
            map(", namespace: a")
        );
        let made =
            addon(&index.entries[0], "c", &location(), text.as_bytes(), "h", false, &limits()).expect("an addon");
        assert_eq!((made.objects.len(), made.complete), (2, false));
        assert!(
            made.problems[0]
                .to_string()
                .starts_with("document 1, line 1, ConfigMap x, field metadata.namespace: missing"),
            "{}",
            made.problems[0]
        );
        // Of the unknown kind nobody assumes a namespace.
        assert_eq!(&*made.objects[1].resolved(true).namespace, "");
        let error = addon(&index.entries[0], "c", &location(), map("").as_bytes(), "h", false, &limits());
        assert!(error.expect_err("nothing is left").contains("metadata.namespace"));
    }

    #[test]
    fn the_revision_tells_version_id_and_hash_apart() {
        let index = index(
            "kind: Addons\nspec:\n  addons:\n  - {name: a, manifest: m}\n  - {name: a, manifest: m, id: x}\n  - {name: a, manifest: m, version: x}\n  - {name: a, manifest: other, drift: repair, namespace: b}\n",
        );
        let [plain, id, version, same] = index.entries.as_slice() else { panic!("{index:?}") };
        let revisions = [revision(plain, "h"), revision(id, "h"), revision(version, "h"), revision(plain, "i")];
        assert_eq!(revisions.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert_eq!(revision(same, "h"), revision(plain, "h"));
        assert_eq!((&*addon_name(plain), &*addon_name(same)), ("a", "b/a"));
    }
}
