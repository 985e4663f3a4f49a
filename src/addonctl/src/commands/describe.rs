//! `describe`: all that is known about an addon.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use quarterdeck_api::addon::{Addon, InventoryEntry, LifecycleStep};

use crate::cli::NameArgs;
use crate::output::{age, print};
use crate::server::Server;

/// Most objects of the inventory that are listed.
const LISTED: usize = 50;

pub(super) async fn run(server: &Server, args: &NameArgs) -> anyhow::Result<()> {
    let addon = server.find(args).await?;
    let of_addon = format!("involvedObject.kind=Addon,involvedObject.name={}", addon.name());
    let events = server.api::<Event>(Some(addon.namespace())).list(&ListParams::default().fields(&of_addon)).await;
    let events = match events {
        Ok(events) => events.items,
        Err(error) => {
            eprintln!("warning: events cannot be read: {error}");
            Vec::new()
        }
    };
    print(&text(&addon, &events, Timestamp::now()))
}

/// Lines of `key: value`, indented by depth.
#[derive(Default)]
struct Page(String);

impl Page {
    fn field(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            // Texts of several lines stay under their key.
            let value = value.trim_end().replace('\n', &format!("\n{:16}", ""));
            let _ = writeln!(self.0, "{:<16}{value}", format!("{key}:"));
        }
    }

    fn list(&mut self, key: &str, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            let _ = writeln!(self.0, "{key}:");
            for line in lines {
                let _ = writeln!(self.0, "  {}", line.trim_end().replace('\n', "\n  "));
            }
        }
    }
}

fn text(addon: &Addon, events: &[Event], now: Timestamp) -> String {
    let mut page = Page::default();
    let spec = &addon.spec;
    let status = addon.status.clone().unwrap_or_default();
    page.field("Name", addon.name());
    page.field("Namespace", addon.namespace());
    page.field("Package", &spec.pkg_name);
    page.field("Version", &spec.pkg_version);
    page.field("Type", &spec.pkg_type);
    page.field("Description", &spec.pkg_description);
    page.field("Channel", &spec.pkg_channel);
    page.field("Source", status.source.map_or("", |source| source.as_str()));
    page.field("Status", status.lifecycle.installed.map_or("", |phase| phase.as_str()));
    page.field("Prereqs", status.lifecycle.prereqs.map_or("", |phase| phase.as_str()));
    page.field("Health", status.health.map_or("", |health| health.as_str()));
    page.field("Reason", &status.reason);
    page.field("Applied", &status.version);
    if addon.is_paused() {
        page.field("Paused", &format!("yes; `addonctl resume {}` goes on", addon.name()));
    }
    if let Some(drift) = status.drift {
        let last =
            status.last_drift.as_ref().map_or_else(String::new, |time| format!(", last {} ago", age(time.0, now)));
        page.field("Drift", &format!("{drift} repaired{last}"));
    }
    page.list("Dependencies", spec.pkg_deps.iter().map(|(name, version)| format!("{name} {version}")));
    match spec.parameters() {
        Ok(parameters) => {
            let given = parameters.into_iter().filter(|(_, value)| !value.is_empty());
            page.list("Parameters", given.map(|(name, value)| format!("{name} = {value}")));
        }
        Err(error) => page.list("Parameters", [error.to_string()]),
    }
    page.list(
        "Steps",
        LifecycleStep::ALL.into_iter().filter(|step| spec.step(*step).is_some()).map(|step| step.to_string()),
    );
    page.list("Secrets", spec.secrets.iter().map(|secret| secret.name.clone()));
    page.list("Problems", addon.problems().iter().map(ToString::to_string));
    page.list("Errors", status.errors.iter().cloned());
    page.list(
        "Conditions",
        status.conditions.iter().map(|condition| {
            let since = age(condition.last_transition_time.0, now);
            format!("{} = {} ({}, {since}) {}", condition.type_, condition.status, condition.reason, condition.message)
        }),
    );
    if let Some(held) = &status.held {
        page.field("Held", &held.reason);
        page.field("  plan", &held.plan);
        page.list("  objects", held.members.iter().map(|member| format!("  {member}")));
        page.field("  to release", &format!("addonctl prune {} --confirm={}", addon.name(), held.plan));
    }
    let progress = status.progress.clone().unwrap_or_default();
    let texts = |field: &str| -> Vec<String> {
        let all = progress[field].as_array().into_iter().flatten();
        all.filter_map(|text| text.as_str()).map(str::to_owned).collect()
    };
    page.list("Drifted", texts("drifted"));
    page.list("Edited, kept", texts("edited"));
    if let Some(plan) = progress["candidatesPlan"].as_str() {
        page.list("Outside the manifest", texts("candidates"));
        page.field("  to remove", &format!("addonctl prune {} --confirm={plan}", addon.name()));
    }
    let more = status.inventory.len().saturating_sub(LISTED);
    let shown =
        status.inventory.iter().take(LISTED).map(|entry| entry.split(' ').next().unwrap_or_default().to_owned());
    page.list("Objects", shown.chain((more > 0).then(|| format!("and {more} more"))));
    let observed = status.resources.iter().map(|object| {
        let entry = InventoryEntry {
            kind: object.kind.clone(),
            group: object.group.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: String::new(),
        };
        let entry = entry.to_string();
        let managed = if status.not_managed.contains(&entry) { " (not managed)" } else { "" };
        format!("{entry} {}{managed}", object.status)
    });
    let more = status.resources_omitted;
    page.list("Observed", observed.chain((more > 0).then(|| format!("and {more} more"))));
    page.list(
        "Revisions",
        status.revisions.iter().map(|revision| {
            let since = revision.time.as_ref().map_or_else(String::new, |time| age(time.0, now));
            let words = [&*revision.hash, &*revision.version, &*revision.state, &*since, &*revision.reason];
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }),
    );
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| when(event));
    page.list(
        "Events",
        events.into_iter().map(|event| {
            let since = when(event).map_or_else(String::new, |time| age(time, now));
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{since} {} {}: {}", word(&event.type_), word(&event.reason), word(&event.message))
        }),
    );
    page.0
}

/// When an event happened last.
fn when(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    series
        .or_else(|| event.last_timestamp.as_ref().map(|time| time.0))
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_tells_what_is_known_and_nothing_else() {
        let addon: Addon = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "annotations": {"quarterdeck.dev/paused": "true"}},
            "spec": {
                "pkgName": "core/a", "pkgVersion": "1", "pkgType": "composite", "pkgDeps": {"b": ">=1"},
                "params": {"namespace": "deep", "data": {"x": 3}},
                "lifecycle": {"install": {"template": "t"}, "delete": {"template": ""}},
            },
            "status": {
                "reason": "two\nlines", "health": "Held", "errors": ["e1"],
                "held": {"plan": "p1", "reason": "why", "members": ["Namespace//x"]},
                "inventory": ["ConfigMap/n/x uid"],
                "resources": [
                    {"kind": "Deployment", "group": "apps", "namespace": "n", "name": "x", "status": "Ready"},
                    {"kind": "Service", "namespace": "n", "name": "x", "status": "InProgress"},
                ],
                "notManaged": ["Service/n/x"], "resourcesOmitted": 3,
                "revisions": [{"hash": "h1", "version": "1", "state": "good"}],
                "progress": {"edited": ["ConfigMap/n/x data.a"], "candidates": ["ConfigMap/n/y u selector"], "candidatesPlan": "p2"},
            },
        }))
        .expect("an Addon");
        let text = text(&addon, &[], "2024-01-01T00:01:00Z".parse().expect("a time"));
        for line in [
            "Name:           a",
            "Health:         Held",
            "Reason:         two",
            "                lines",
            "Paused:         yes; `addonctl resume a` goes on",
            "  b >=1",
            "  x = 3",
            "  install",
            "  e1",
            "Held:           why",
            "    Namespace//x",
            "  ConfigMap/n/x data.a",
            "  ConfigMap/n/y u selector",
            "  to remove:    addonctl prune a --confirm=p2",
            "  to release:   addonctl prune a --confirm=p1",
            "  ConfigMap/n/x",
            "  h1 1 good",
            "  Deployment.apps/n/x Ready",
            "  Service/n/x InProgress (not managed)",
            "  and 3 more",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in:\n{text}");
        }
        for absent in ["Events", "Conditions", "clusterName", "  delete"] {
            assert!(!text.contains(absent), "{absent} in:\n{text}");
        }
    }
}
