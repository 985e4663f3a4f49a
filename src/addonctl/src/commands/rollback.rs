//! `rollback`: back to a revision that is kept.
//!
//! The word stands in two annotations: the revision to go back to, and the one to go back from, for which
//! alone it counts. They are set on the Addon, or on the mirror of an addon of a directory or channel;
//! where there is no mirror, on the ConfigMap that is its parent.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use quarterdeck_api::addon::{Addon, Revision, names};
use quarterdeck_controllers::addon::revision::{Revisions, public};
use serde_json::{Value, json};

use super::prune::{PARENTS, parent};
use crate::cli::RollbackArgs;
use crate::exit::NotFound;
use crate::output::print;
use crate::server::{MANAGER, Server, explain};

pub(super) async fn run(server: &Server, args: &RollbackArgs) -> anyhow::Result<()> {
    let name = &args.addon.name;
    let addon = match server.find(&args.addon).await {
        Ok(addon) => addon,
        Err(error) => {
            // Before its mirror is made, or where there are none, an addon is known by its source's name.
            let Ok(parent) = parent(server, name, None).await else { return Err(error) };
            let revision = chosen(name, &of_parent(&parent), args.to.as_deref())?;
            let place = parent.metadata.name.as_deref().unwrap_or_default();
            let patch = patch(parent.metadata.uid.as_deref(), &revision);
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let answer = server.api::<ConfigMap>(Some(PARENTS)).patch(place, &params, &Patch::Merge(&patch)).await;
            answer.map_err(|error| explain(error, &format!("configmap {PARENTS}/{place}")))?;
            return tell(name, &revision);
        }
    };
    let revisions = addon.status.as_ref().map_or(&[][..], |status| &status.revisions);
    let revision = chosen(addon.name(), revisions, args.to.as_deref())?;
    let patch = patch(addon.metadata.uid.as_deref(), &revision);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = server.api::<Addon>(Some(addon.namespace()));
    let answer = api.patch(addon.name(), &params, &Patch::Merge(&patch)).await;
    answer.map_err(|error| explain(error, &format!("addon {}", addon.name())))?;
    tell(addon.name(), &revision)
}

/// A revision to go back to, and the one to go back from.
struct Chosen {
    to: Revision,
    from: String,
}

fn tell(name: &str, chosen: &Chosen) -> anyhow::Result<()> {
    let Revision { hash, version, .. } = &chosen.to;
    let version = if version.is_empty() { String::new() } else { format!(" ({version})") };
    print(&format!("addon {name} to be rolled back to {hash}{version}\n"))
}

fn patch(uid: Option<&str>, chosen: &Chosen) -> Value {
    // With its uid: an addon that was deleted and made anew meanwhile is another one.
    json!({"metadata": {
        "uid": uid,
        "annotations": {
            names::ROLLBACK_ANNOTATION: chosen.to.hash,
            names::ROLLBACK_FROM_ANNOTATION: chosen.from,
        },
    }})
}

/// What a parent says of its addon's revisions.
fn of_parent(map: &ConfigMap) -> Vec<Revision> {
    let text = map.data.as_ref().and_then(|data| data.get("revisions")).map_or("", String::as_str);
    public(&Revisions::from_value(&serde_json::from_str(text).unwrap_or_default()))
}

/// The revision that is meant: by the beginning of its hash, or the newest before the one that is in force
/// that was not bad.
fn chosen(name: &str, revisions: &[Revision], to: Option<&str>) -> anyhow::Result<Chosen> {
    let Some(newest) = revisions.first() else {
        return Err(NotFound(format!(
            "addon {name} has no revisions to go back to; they are kept with the annotation {}: manual on an Addon, and \
             with the manager's flag --addon-rollback for others",
            names::ROLLBACK_MODE_ANNOTATION
        ))
        .into());
    };
    let all = || revisions.iter().map(|revision| revision.hash.as_str()).collect::<Vec<_>>().join(", ");
    let to = match to {
        Some(hash) => {
            let found: Vec<_> = revisions.iter().filter(|revision| revision.hash.starts_with(hash)).collect();
            ensure!(found.len() == 1 && !hash.is_empty(), "--to={hash}: give one of {}", all());
            found[0]
        }
        None => {
            let present = revisions.iter().position(|revision| revision.state == "current").unwrap_or(0);
            let earlier = revisions.iter().skip(present + 1).find(|revision| revision.state != "bad");
            earlier.with_context(|| format!("addon {name} has no good revision before the present one"))?
        }
    };
    Ok(Chosen { to: to.clone(), from: newest.hash.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(all: &[(&str, &str)]) -> Vec<Revision> {
        let one = |(hash, state): &(&str, &str)| Revision {
            hash: (*hash).to_owned(),
            state: (*state).to_owned(),
            ..Revision::default()
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn the_newest_good_one_before_is_taken_or_the_one_that_is_named() {
        let all = revisions(&[("c3", "current"), ("b2", "bad"), ("a1", ""), ("a0", "")]);
        let hash = |to| chosen("a", &all, to).map(|chosen| (chosen.to.hash, chosen.from)).ok();
        let from = |to: &str| Some((to.to_owned(), "c3".to_owned()));
        assert_eq!(hash(None), from("a1"));
        assert_eq!(hash(Some("b")), from("b2"));
        assert_eq!((hash(Some("a")), hash(Some("x")), hash(Some(""))), (None, None, None));
        assert!(chosen("a", &[], None).is_err_and(|error| error.to_string().contains("rollback: manual")));
    }

    #[test]
    fn what_is_in_force_is_not_gone_back_to() {
        let all = revisions(&[("c3", "bad"), ("b2", "current"), ("a1", "good")]);
        assert_eq!(chosen("a", &all, None).expect("a revision").to.hash, "a1");
        assert!(chosen("a", &all[..2], None).is_err());
        assert!(chosen("a", &all[..1], None).is_err());
    }

    #[test]
    fn a_parents_revisions_are_those_of_its_mirror() {
        let data = r#"{"kept":[{"hash":"b","verdict":"bad","time":1},{"hash":"a","verdict":"good","time":1}],"back":{"from":"b","to":"a"}}"#;
        let map = ConfigMap { data: Some([("revisions".to_owned(), data.to_owned())].into()), ..ConfigMap::default() };
        let told: Vec<(String, String)> = of_parent(&map).into_iter().map(|one| (one.hash, one.state)).collect();
        assert_eq!(told, [("b".into(), "bad".into()), ("a".into(), "current".into())]);
        assert!(of_parent(&ConfigMap::default()).is_empty());
    }
}
