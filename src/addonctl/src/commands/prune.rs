//! `prune`: shows a removal that waits for a person, and releases it.
//!
//! An Addon object is released by an annotation on it. An addon of a directory or a channel has a
//! ConfigMap in kube-system as its parent, which is released the same way; it is found by the Addon that
//! mirrors it, or by the name that its source gives it (`dns.yaml`).

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use quarterdeck_api::addon::{Addon, Held, names};
use serde_json::json;

use super::mark::annotate;
use crate::cli::PruneArgs;
use crate::exit::NotFound;
use crate::output::print;
use crate::server::{MANAGER, Server, explain};

/// Namespace of the parents.
pub(super) const PARENTS: &str = "kube-system";
/// Label on a parent: the source of its addon.
const SOURCE_LABEL: &str = "quarterdeck.dev/addon-source";

pub(super) async fn run(server: &Server, args: &PruneArgs) -> anyhow::Result<()> {
    let name = &args.addon.name;
    let addon = match server.find(&args.addon).await {
        Ok(addon) => Some(addon),
        // Before its mirror is made, an addon of a directory is known by its file alone.
        Err(error) if error.is::<NotFound>() => None,
        Err(error) => return Err(error),
    };
    let parent = match &addon {
        Some(addon) if !addon.is_mirror() => None,
        mirror => Some(parent(server, name, mirror.as_ref()).await?),
    };
    let waiting: Vec<Held> = match (&parent, &addon) {
        (Some(parent), _) => of_parent(parent),
        (None, Some(addon)) => addon.status.iter().filter_map(|status| status.held.clone()).collect(),
        (None, None) => Vec::new(),
    };
    if waiting.is_empty() {
        ensure!(args.confirm.is_none(), "addon {name}: no removal waits");
        return print(&format!("addon {name}: no removal waits\n"));
    }
    let Some(hash) = &args.confirm else {
        return waiting.iter().try_for_each(|held| print(&text(name, held)));
    };
    let plans = || waiting.iter().map(|held| held.plan.as_str()).collect::<Vec<_>>().join(" and ");
    let held = match waiting.iter().find(|held| held.plan == *hash) {
        Some(held) => held,
        None if !hash.is_empty() => {
            bail!("addon {name}: the plan is {} by now, not {hash}; look at it with `addonctl prune {name}`", plans())
        }
        None if waiting.len() > 1 => {
            bail!(
                "addon {name}: several plans wait: {}; confirm one with `addonctl prune {name} --confirm=PLAN`",
                plans()
            )
        }
        None => &waiting[0],
    };
    match (&parent, &addon) {
        (Some(parent), _) => release(server, parent, &held.plan).await?,
        (None, Some(addon)) => annotate(server, addon, names::RELEASE_ANNOTATION, Some(&held.plan)).await?,
        (None, None) => {}
    }
    print(&format!("addon {name}: the removal of {} objects is released (plan {})\n", held.members.len(), held.plan))
}

/// What waits, and how it is released.
fn text(name: &str, held: &Held) -> String {
    let mut text = format!("addon {name}: {} objects wait to be removed: {}\n", held.members.len(), held.reason);
    for member in &held.members {
        text.push_str(&format!("  {member}\n"));
    }
    text.push_str(&format!("to release: addonctl prune {name} --confirm={}\n", held.plan));
    text
}

/// The ConfigMap that stands for an addon of a directory or channel.
pub(super) async fn parent(server: &Server, name: &str, mirror: Option<&Addon>) -> anyhow::Result<ConfigMap> {
    let api = server.api::<ConfigMap>(Some(PARENTS));
    let parents = api.list(&ListParams::default().labels(SOURCE_LABEL)).await;
    let parents = parents.map_err(|error| explain(error, "the parents of addons in kube-system"))?.items;
    let names: Vec<&str> = match mirror {
        Some(mirror) => mirror
            .annotation(names::SOURCE_NAME_ANNOTATION)
            .into_iter()
            .chain([mirror.spec.pkg_name.as_str(), mirror.name()])
            .collect(),
        None => vec![name],
    };
    let source = mirror.and_then(|mirror| mirror.label(names::MIRROR_LABEL));
    let matches = |map: &ConfigMap, wanted: &str| {
        let label = map.metadata.labels.as_ref().and_then(|labels| labels.get(SOURCE_LABEL)).map(String::as_str);
        let addon = map
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(names::SOURCE_NAME_ANNOTATION))
            .map(String::as_str);
        (source.is_none() || source == label) && (addon == Some(wanted) || map.metadata.name.as_deref() == Some(wanted))
    };
    // The most certain name first.
    let found = names.iter().find_map(|wanted| parents.iter().find(|map| matches(map, wanted)));
    found.cloned().ok_or_else(|| NotFound(format!("there is no addon {name:?}")).into())
}

/// What a parent says that waits: of its inventory, and beside it.
fn of_parent(map: &ConfigMap) -> Vec<Held> {
    let empty = BTreeMap::new();
    let data = map.data.as_ref().unwrap_or(&empty);
    let text = |key: &str| data.get(key).cloned().unwrap_or_default();
    let held = data.contains_key("held").then(|| Held {
        plan: text("heldPlan"),
        reason: text("heldReason"),
        members: text("held").lines().map(str::to_owned).collect(),
        release: text("release"),
    });
    let candidates = data.contains_key("candidates").then(|| Held {
        plan: text("candidatesPlan"),
        reason: "outside the manifest: by the entry's selector, or by its prune (brake, kind)".to_owned(),
        members: text("candidates").lines().map(candidate).collect(),
        release: text("candidatesRelease"),
    });
    held.into_iter().chain(candidates).collect()
}

/// An object and why it waits, without its uid.
fn candidate(line: &str) -> String {
    match line.split(' ').collect::<Vec<_>>()[..] {
        [object, _, why] => format!("{object} ({why})"),
        _ => line.to_owned(),
    }
}

async fn release(server: &Server, parent: &ConfigMap, plan: &str) -> anyhow::Result<()> {
    let name = parent.metadata.name.as_deref().unwrap_or_default();
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = json!({"metadata": {
        "uid": parent.metadata.uid,
        "annotations": {names::RELEASE_ANNOTATION: plan},
    }});
    let answer = server.api::<ConfigMap>(Some(PARENTS)).patch(name, &params, &Patch::Merge(&patch)).await;
    answer.map_err(|error| explain(error, &format!("configmap {PARENTS}/{name}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_plans_are_told_apart() {
        let data = [
            ("held", "ConfigMap/a/x\n"),
            ("heldPlan", "p1"),
            ("heldReason", "why"),
            ("candidates", "ConfigMap/a/y u1 selector\nNamespace//n u2 kind\n"),
            ("candidatesPlan", "p2"),
        ];
        let data = data.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let waiting = of_parent(&ConfigMap { data: Some(data), ..ConfigMap::default() });
        let plans: Vec<&str> = waiting.iter().map(|held| held.plan.as_str()).collect();
        assert_eq!(plans, ["p1", "p2"]);
        assert_eq!(waiting[1].members, ["ConfigMap/a/y (selector)", "Namespace//n (kind)"]);
        assert!(text("dns", &waiting[1]).ends_with("to release: addonctl prune dns --confirm=p2\n"));
        assert!(of_parent(&ConfigMap::default()).is_empty());
    }
}
