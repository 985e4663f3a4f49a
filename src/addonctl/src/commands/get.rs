//! `get`: addons of every source in one list.

use jiff::Timestamp;
use kube::api::ListParams;
use quarterdeck_api::addon::{Addon, Health};

use crate::cli::{GetArgs, ListForm, NameArgs, ObjectForm};
use crate::output::{Table, age, list, object, print};
use crate::server::{Server, explain};

/// Longest reason that the table shows, characters.
const LONGEST_REASON: usize = 80;

pub(super) async fn run(server: &Server, args: &GetArgs) -> anyhow::Result<()> {
    let form = match args.output {
        ListForm::Json => Some(ObjectForm::Json),
        ListForm::Yaml => Some(ObjectForm::Yaml),
        ListForm::Table | ListForm::Wide => None,
    };
    let mut addons = match &args.name {
        Some(name) => {
            let meant = NameArgs { name: name.clone(), namespace: args.namespace.clone() };
            vec![server.find(&meant).await?]
        }
        None => {
            let api = server.api::<Addon>(args.namespace.as_deref());
            api.list(&ListParams::default()).await.map_err(|error| explain(error, "addons"))?.items
        }
    };
    if let Some(form) = form {
        for addon in &mut addons {
            addon.metadata.managed_fields = None;
        }
        return match &addons[..] {
            [addon] if args.name.is_some() => print(&object(addon, form)?),
            all => print(&object(&list(all)?, form)?),
        };
    }
    if addons.is_empty() {
        eprintln!("no addons found");
        return Ok(());
    }
    addons.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    let wide = args.output == ListForm::Wide;
    print(&table(&addons, args.namespace.is_none(), wide, Timestamp::now()))
}

/// The table of addons.
fn table(addons: &[Addon], namespaces: bool, wide: bool, now: Timestamp) -> String {
    let mut headings = vec!["NAME", "PACKAGE", "VERSION", "STATUS", "HEALTH", "REASON", "AGE"];
    if namespaces {
        headings.insert(0, "NAMESPACE");
    }
    if wide {
        headings.extend(["SOURCE", "APPLIED", "OBJECTS", "DRIFT", "LAST DRIFT", "NOT MANAGED"]);
    }
    let mut table = Table::new(&headings);
    for addon in addons {
        let status = addon.status.clone().unwrap_or_default();
        let since = |time: Option<Timestamp>| time.map_or_else(String::new, |time| age(time, now));
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let mut cells = vec![
            addon.name().to_owned(),
            addon.spec.pkg_name.clone(),
            addon.spec.pkg_version.clone(),
            status.lifecycle.installed.map_or_else(String::new, |phase| phase.to_string()),
            status.health.map_or_else(String::new, |health| health.to_string()),
            reason(&status.reason, wide),
            since(addon.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        ];
        if namespaces {
            cells.insert(0, addon.namespace().to_owned());
        }
        if wide {
            cells.extend([
                status.source.map_or_else(String::new, |source| source.to_string()),
                status.version.clone(),
                number(status.objects),
                number(status.drift),
                since(status.last_drift.as_ref().map(|time| time.0)),
                number((!status.not_managed.is_empty()).then(|| status.not_managed.len() as u64)),
            ]);
        }
        table.row(cells);
    }
    table.render(|heading, cell| (heading == "HEALTH").then(|| colour(Health::parse(cell))).flatten())
}

/// The first line of a reason, cut where a table would become too wide.
fn reason(text: &str, wide: bool) -> String {
    let line = text.lines().next().unwrap_or_default();
    if wide || line.chars().count() <= LONGEST_REASON {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(LONGEST_REASON - 1).collect();
    cut.push('…');
    cut
}

/// The colour of a health, as a terminal's code.
pub(super) fn colour(health: Health) -> Option<&'static str> {
    match health {
        Health::Ready => Some("32"),
        Health::Progressing | Health::Observing | Health::Deleting | Health::Paused => Some("33"),
        Health::Degraded | Health::Held | Health::Blocked => Some("31"),
        Health::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn addon(value: Value) -> Addon {
        serde_json::from_value(value).expect("an Addon")
    }

    #[test]
    fn the_table_has_the_documents_columns_and_ours() {
        let addons = [
            addon(json!({
                "metadata": {"name": "fluentd", "namespace": "a", "creationTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"pkgName": "core/fluentd-addon", "pkgVersion": "v0.0.1"},
                "status": {
                    "lifecycle": {"installed": "Pending"}, "health": "Progressing", "source": "addon", "objects": 3,
                    "reason": format!("{}\nmore", "r".repeat(99)), "drift": 2, "version": "v0.0.0",
                    "lastDrift": "2024-01-01T00:00:30Z",
                },
            })),
            addon(
                json!({"metadata": {"name": "new", "namespace": "b"}, "spec": {"pkgName": "new", "pkgVersion": "1"}}),
            ),
        ];
        let now = "2024-01-01T00:01:00Z".parse().expect("a time");
        let text = table(&addons, true, false, now);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAMESPACE", "NAME", "PACKAGE", "VERSION", "STATUS", "HEALTH", "REASON", "AGE"]);
        let short = format!("{}…", "r".repeat(79));
        assert_eq!(lines[1], ["a", "fluentd", "core/fluentd-addon", "v0.0.1", "Pending", "Progressing", &short, "60s"]);
        assert_eq!(lines[2], ["b", "new", "new", "1"]);
        let wide = table(&addons[..1], false, true, now);
        assert!(
            wide.lines().nth(1).expect("a row").ends_with("60s   addon    v0.0.0    3         2       30s"),
            "{wide}"
        );
        assert!(wide.contains(&"r".repeat(99)) && !wide.contains("NAMESPACE"));
    }
}
