//! Which entry of each addon is the one to install.

use std::collections::BTreeMap;

use super::decide::{Decision, Offer, decide};
use super::index::Entry;
use super::installed::{Installed, SYSTEM_GENERATION};
use crate::version::Version;

/// Why no entry of an addon is to be installed, although the index names it: what is installed of
/// it stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    /// Its entries are for other versions of Kubernetes.
    #[error("no entry is for Kubernetes {version} (there are {})", ranges.join("; "))]
    OtherKubernetes {
        /// The server's version.
        version: String,
        /// Ranges of the entries, as written.
        ranges: Vec<String>,
    },
    /// Its entries ask for a version of Kubernetes, and the server's is not known.
    #[error("the version of the API server is not known yet")]
    KubernetesUnknown,
    /// The range of an entry cannot be read.
    #[error("{0}.kubernetesVersion cannot be read, and no other entry fits")]
    Range(String),
}

/// The entries to install.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// One entry an addon, by name.
    pub chosen: BTreeMap<&'a str, &'a Entry>,
    /// Addons that are named and have none.
    pub held: BTreeMap<&'a str, Held>,
}

/// Picks an entry for each addon: of those for this Kubernetes (its pre-release is cut here) a later
/// one counts if it would replace the earlier (kops:channels/pkg/channels/addons.go).
#[must_use]
pub fn choose<'a>(entries: &'a [Entry], kubernetes: Option<&Version>) -> Choice<'a> {
    let kubernetes = kubernetes.map(Version::release);
    let mut choice = Choice::default();
    for entry in entries {
        let name = entry.name.as_str();
        match fits(entry, kubernetes.as_ref()) {
            Ok(()) => match choice.chosen.get(name) {
                Some(before) if decide(Some(&note(before)), &offer(entry)) != Decision::Update => {}
                _ => {
                    choice.chosen.insert(name, entry);
                }
            },
            Err(held) => hold(&mut choice.held, name, held),
        }
    }
    let Choice { chosen, held } = &mut choice;
    held.retain(|name, _| !chosen.contains_key(name));
    choice
}

fn fits(entry: &Entry, kubernetes: Option<&Version>) -> Result<(), Held> {
    let Some(wanted) = &entry.kubernetes_version else { return Ok(()) };
    let Ok(range) = &wanted.range else { return Err(Held::Range(entry.path.clone())) };
    let version = kubernetes.ok_or(Held::KubernetesUnknown)?;
    if range.contains(version) {
        return Ok(());
    }
    Err(Held::OtherKubernetes { version: version.to_string(), ranges: vec![wanted.text.clone()] })
}

fn hold<'a>(all: &mut BTreeMap<&'a str, Held>, name: &'a str, held: Held) {
    match (all.get_mut(name), held) {
        (Some(Held::OtherKubernetes { ranges, .. }), Held::OtherKubernetes { ranges: more, .. }) => ranges.extend(more),
        // Said before, and says more.
        (Some(Held::Range(_)), _) => {}
        (_, held) => {
            all.insert(name, held);
        }
    }
}

/// What would be noted of an entry, as far as the index tells.
fn note(entry: &Entry) -> Installed {
    Installed {
        version: entry.version.clone(),
        channel: None,
        id: entry.id.clone(),
        manifest_hash: entry.manifest_hash.as_ref().map_or_else(String::new, |hash| hash.as_str().to_owned()),
        system_generation: SYSTEM_GENERATION,
    }
}

fn offer(entry: &Entry) -> Offer {
    Offer { note: note(entry), hash_is_named: true }
}

impl Entry {
    /// What the entry offers: `channel` is where the index was read, `manifest_hash` the hash of the
    /// manifest that was read.
    #[must_use]
    pub fn offer(&self, channel: &str, manifest_hash: String) -> Offer {
        let named = self.manifest_hash.as_ref().map(|hash| hash.as_str().to_owned());
        let hash_is_named = named.is_some();
        let manifest_hash = named.unwrap_or(manifest_hash);
        Offer { note: Installed { channel: Some(channel.to_owned()), manifest_hash, ..note(self) }, hash_is_named }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::channel::{Content, read};

    fn entries(addons: &Value) -> Vec<Entry> {
        let file = json!({"kind": "Addons", "metadata": {"name": "x"}, "spec": {"addons": addons}});
        match read(Some(&file), "https://a/b", b"", 1000) {
            Ok(Content::Index(index)) => index.entries,
            other => panic!("{other:?}"),
        }
    }

    fn chosen(addons: &Value, kubernetes: &str) -> Option<String> {
        let entries = entries(addons);
        let version = Version::parse_tolerant(kubernetes).expect(kubernetes);
        choose(&entries, Some(&version)).chosen.get("x").map(|entry| entry.manifest.clone())
    }

    /// kops:channels/pkg/channels/addons_test.go, Test_Filtering.
    #[test]
    fn filtering_as_kops_tests_it() {
        for (range, kubernetes, expected) in [
            (">=1.6.0", "1.6.0", true),
            ("<1.6.0", "1.6.0", false),
            (">=1.6.0", "1.5.9", false),
            (">=1.4.0 <1.6.0", "1.5.9", true),
            (">=1.4.0 <1.6.0", "1.6.0", false),
            // The pre-release is cut before.
            (">=1.6.0", "v1.6.0-beta.1", true),
            ("<1.6.0", "v1.6.0-beta.1", false),
            (">=1.30.0", "v1.30.1+k3s1", true),
        ] {
            let addons = json!([{"manifest": "m", "kubernetesVersion": range}]);
            assert_eq!(chosen(&addons, kubernetes).is_some(), expected, "{range} {kubernetes}");
        }
    }

    /// The documentation's story: up from 1.5 to 1.6 and back again, which version alone cannot tell.
    #[test]
    fn a_downgrade_of_kubernetes_finds_its_entry_by_id() {
        let addons = json!([
            {"version": "1.6.0", "manifest": "pre-k8s-16.yaml", "kubernetesVersion": "<1.6.0", "id": "pre-k8s-16"},
            {"version": "1.6.0", "manifest": "k8s-16.yaml", "kubernetesVersion": ">=1.6.0", "id": "k8s-16"},
        ]);
        let entries = entries(&addons);
        let offer_for = |kubernetes: &str| {
            let version = Version::of_kubernetes(kubernetes).expect(kubernetes);
            choose(&entries, Some(&version)).chosen["x"].offer("c", "h".into())
        };
        let (old, new) = (offer_for("1.5.7"), offer_for("1.6.0-beta.1"));
        assert_eq!((old.note.id.as_str(), new.note.id.as_str()), ("pre-k8s-16", "k8s-16"));
        assert_eq!(decide(Some(&old.note), &new), Decision::Update);
        assert_eq!(decide(Some(&new.note), &old), Decision::Update);
        assert_eq!(decide(Some(&old.note), &old), Decision::Keep(super::super::Keep::Same));
    }

    #[test]
    fn the_highest_version_wins_and_ties_go_to_the_later_id() {
        let addons = json!([
            {"version": "1.4.0", "manifest": "a"}, {"version": "1.6.0", "manifest": "b", "id": "one"},
            {"version": "1.5.0", "manifest": "c"}, {"version": "1.6.0", "manifest": "d", "id": "two"},
            {"version": "1.6.0", "manifest": "e", "id": "two"},
        ]);
        assert_eq!(chosen(&addons, "1.30.0").as_deref(), Some("d"));
    }

    #[test]
    fn without_versions_a_later_different_one_wins() {
        let addons =
            json!([{"manifest": "a", "id": "one"}, {"manifest": "b", "id": "two"}, {"manifest": "c", "id": "two"}]);
        assert_eq!(chosen(&addons, "1.30.0").as_deref(), Some("b"));
        let addons = json!([{"manifest": "a"}, {"manifest": "b"}]);
        assert_eq!(chosen(&addons, "1.30.0").as_deref(), Some("a"));
    }

    #[test]
    fn an_addon_without_an_entry_that_fits_is_held_not_gone() {
        let entries = entries(&json!([
            {"name": "old", "manifest": "a", "kubernetesVersion": "<1.6.0"},
            {"name": "old", "manifest": "a", "kubernetesVersion": "<1.7.0"},
            {"name": "broken", "manifest": "a", "kubernetesVersion": "<1.6.0"},
            {"name": "broken", "manifest": "a", "kubernetesVersion": "one"},
            {"name": "broken", "manifest": "a", "kubernetesVersion": "<1.6.0"},
            {"name": "saved", "manifest": "a", "kubernetesVersion": "one"},
            {"name": "saved", "manifest": "b"},
        ]));
        let choice = choose(&entries, Some(&Version::new(1, 30, 0)));
        assert_eq!(choice.chosen.keys().collect::<Vec<_>>(), [&"saved"]);
        let told: Vec<String> = choice.held.iter().map(|(name, held)| format!("{name}: {held}")).collect();
        assert_eq!(
            told,
            [
                "broken: spec.addons[3].kubernetesVersion cannot be read, and no other entry fits",
                "old: no entry is for Kubernetes 1.30.0 (there are <1.6.0; <1.7.0)"
            ]
        );
        let unknown = choose(&entries, None);
        assert_eq!(unknown.held["old"], Held::KubernetesUnknown);
        assert!(unknown.chosen.contains_key("saved"));
    }
}
