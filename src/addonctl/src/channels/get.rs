//! `channels get addons`: what channels installed, as kOps' tool lists it. It is kept in annotations on
//! namespaces (kops `channels/pkg/channels/channel_version.go`).

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use quarterdeck_api::channel::{Installed, annotation, find};
use serde::Serialize;

use crate::cli::{ListForm, ObjectForm};
use crate::output::{Table, object, print};
use crate::server::{Server, explain};

/// One addon that a channel installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    /// Namespace whose annotation tells of it.
    namespace: String,
    /// Name of the addon.
    name: String,
    /// What is noted of it.
    #[serde(flatten)]
    note: Installed,
}

pub(crate) async fn get(server: &Server, form: ListForm) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(server.client.clone());
    let namespaces = api.list(&ListParams::default()).await.map_err(|error| explain(error, "namespaces"))?.items;
    let installed = installed(&namespaces);
    match form {
        ListForm::Json => return print(&object(&installed, ObjectForm::Json)?),
        ListForm::Yaml => return print(&object(&installed, ObjectForm::Yaml)?),
        ListForm::Table | ListForm::Wide => {}
    }
    if installed.is_empty() {
        eprintln!("no channel has installed an addon");
        return Ok(());
    }
    print(&table(&installed, form == ListForm::Wide))
}

fn table(installed: &[Row], wide: bool) -> String {
    let mut headings = vec!["NAMESPACE", "NAME", "HASH", "CHANNEL"];
    if wide {
        headings.extend(["VERSION", "ID"]);
    }
    let mut table = Table::new(&headings);
    for Row { namespace, name, note } in installed {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut cells = vec![namespace.clone(), name.clone(), note.manifest_hash.clone(), text(&note.channel)];
        if wide {
            cells.extend([text(&note.version), note.id.clone()]);
        }
        table.row(cells);
    }
    table.render(|_, _| None)
}

/// What the annotations tell, by namespace and name; what cannot be read is told on the standard error.
fn installed(namespaces: &[Namespace]) -> Vec<Row> {
    let mut rows = Vec::new();
    for namespace in namespaces {
        let place = namespace.metadata.name.clone().unwrap_or_default();
        let found = find(namespace.metadata.annotations.iter().flatten());
        for (name, error) in found.unreadable {
            eprintln!("warning: namespace {place}: annotation {}: {error}", annotation(&name));
        }
        rows.extend(found.installed.into_iter().map(|(name, note)| Row { namespace: place.clone(), name, note }));
    }
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_of_every_age_are_listed() {
        let namespaces: Vec<Namespace> = serde_json::from_value(json!([
            {"metadata": {"name": "z", "annotations": {
                "addons.k8s.io/old": r#"{"version":"1.4.0","channel":"s3://b/c.yaml","id":"k8s-16"}"#,
                "addons.k8s.io/broken": "{",
                "other": "x",
            }}},
            {"metadata": {"name": "kube-system", "annotations": {
                "addons.k8s.io/new": r#"{"channel":"https://c","manifestHash":"abc","systemGeneration":1}"#,
            }}},
        ]))
        .expect("namespaces");
        let found = installed(&namespaces);
        let text = table(&found, false);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAMESPACE", "NAME", "HASH", "CHANNEL"]);
        assert_eq!(lines[1], ["kube-system", "new", "abc", "https://c"]);
        assert_eq!(lines[2], ["z", "old", "s3://b/c.yaml"]);
        assert_eq!(lines.len(), 3);
        assert!(table(&found, true).contains("1.4.0"));
    }
}
