//! Files to be planned: Addon objects, or the files of a directory of addons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use quarterdeck_api::addon::{API_VERSION, Addon, InventoryEntry, KIND};
use quarterdeck_controllers::addon::manifest::{Decoded, Format, Limits, decode};
use serde_json::Value;

use super::subject::{Subject, of_addon, of_file};
use crate::cli::PlanArgs;
use crate::server::{Server, explain};

/// Most levels of folders.
const DEPTH: usize = 16;

/// All addons of the files that are named.
pub(super) async fn subjects(server: &Server, args: &PlanArgs) -> anyhow::Result<Vec<Subject>> {
    let mut parents = None;
    let mut subjects = Vec::new();
    for path in &args.filename {
        let folder = path.is_dir();
        let mut files = Vec::new();
        if folder {
            walk(path, path, 0, &mut files)?;
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.push((name, path.clone()));
        }
        let mut of_directory = Vec::new();
        for (name, file) in files {
            let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
            let format = if file.extension().is_some_and(|e| e == "json") { Format::Json } else { Format::Yaml };
            match addons(&bytes, &file)? {
                Some(addons) => {
                    for value in addons {
                        subjects.push(addon(server, args, value, &file).await?);
                    }
                }
                None => of_directory.push((name, decode(&bytes, format, &Limits::default()))),
            }
        }
        if folder || !of_directory.is_empty() {
            if parents.is_none() {
                parents = Some(inventories(server).await?);
            }
            let parents = parents.get_or_insert_default();
            for (name, decoded) in of_directory {
                let inventory = parents.remove(&name).unwrap_or_default();
                subjects.push(of_file(&name, &decoded, inventory));
            }
        }
        if folder && !subjects.iter().any(|subject| !subject.problems.is_empty()) {
            // Whatever else was installed from a directory has lost its file.
            for (name, inventory) in std::mem::take(parents.get_or_insert_default()) {
                let mut gone = of_file(&name, &Decoded::default(), inventory);
                gone.notes.push("its file is not there".to_owned());
                subjects.push(gone);
            }
        }
    }
    ensure!(!subjects.is_empty(), "there is nothing to plan in {}", args.filename[0].display());
    Ok(subjects)
}

/// The manifests below a folder with their paths below the first one, sorted.
fn walk(root: &Path, folder: &Path, depth: usize, found: &mut Vec<(String, PathBuf)>) -> anyhow::Result<()> {
    ensure!(depth < DEPTH, "{}: more than {DEPTH} folders deep", folder.display());
    let of_folder = || folder.display().to_string();
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(of_folder)? {
        entries.push(entry.with_context(of_folder)?.path());
    }
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if hidden {
        } else if path.is_dir() {
            walk(root, &path, depth + 1, found)?;
        } else if matches!(extension, "yaml" | "yml" | "json") {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    Ok(())
}

/// The Addon objects of a file that holds nothing else; `None` if it holds other things.
fn addons(bytes: &[u8], file: &Path) -> anyhow::Result<Option<Vec<Value>>> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(None) };
    let Ok(documents) = serde_saphyr::from_multiple::<Value>(text) else { return Ok(None) };
    let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    let is_addon = |value: &Value| value["kind"] == KIND && value["apiVersion"] == API_VERSION;
    if documents.is_empty() || !documents.iter().any(is_addon) {
        return Ok(None);
    }
    ensure!(documents.iter().all(is_addon), "{}: Addons and other objects in one file", file.display());
    Ok(Some(documents))
}

async fn addon(server: &Server, args: &PlanArgs, mut value: Value, file: &Path) -> anyhow::Result<Subject> {
    let of_file = || file.display().to_string();
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ensure!(!name.is_empty(), "{}: an Addon has no metadata.name", file.display());
    let namespace = value["metadata"]["namespace"].as_str().or(args.namespace.as_deref()).unwrap_or(&server.namespace);
    value["metadata"]["namespace"] = namespace.to_owned().into();
    let wanted: Addon = serde_json::from_value(value.clone()).with_context(of_file)?;
    let api = server.api::<Addon>(Some(wanted.namespace()));
    let live = api.get_opt(&name).await.map_err(|error| explain(error, &format!("addon {name}")))?;
    Ok(of_addon(&wanted, live.as_ref(), Some(value)))
}

/// What the directory's addons have in the cluster, by the path of their file.
async fn inventories(server: &Server) -> anyhow::Result<BTreeMap<String, Vec<InventoryEntry>>> {
    let api = server.api::<ConfigMap>(Some("kube-system"));
    let of_directory = ListParams::default().labels("quarterdeck.dev/addon-source=directory");
    let parents = api.list(&of_directory).await.map_err(|error| explain(error, "the parents of directory addons"))?;
    let mut found = BTreeMap::new();
    for parent in parents.items {
        let annotations = parent.metadata.annotations.unwrap_or_default();
        let Some(path) = annotations.get("quarterdeck.dev/addon") else { continue };
        let data = parent.data.unwrap_or_default();
        let lines = data.get("inventory").map(String::as_str).unwrap_or_default().lines();
        found.insert(path.clone(), lines.filter_map(|line| line.parse().ok()).collect());
    }
    Ok(found)
}
