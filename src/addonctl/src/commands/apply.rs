//! `apply`: Addon objects from files, by server-side apply.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use quarterdeck_api::addon::{API_VERSION, Addon, KIND};
use serde_json::Value;

use crate::cli::ApplyArgs;
use crate::output::print;
use crate::server::{MANAGER, Server, explain};

/// Largest file, bytes.
const LARGEST: u64 = 16 << 20;

pub(super) async fn run(args: &ApplyArgs, server: impl AsyncFnOnce() -> anyhow::Result<Server>) -> anyhow::Result<()> {
    // All files are read before anything is written.
    let mut objects = Vec::new();
    for path in &args.filename {
        objects.extend(read(path)?);
    }
    ensure!(!objects.is_empty(), "there is no Addon in {}", args.filename[0].display());
    let server = server().await?;
    let params = PatchParams {
        force: args.force_conflicts,
        dry_run: args.dry_run,
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER)
    };
    let mut failed = 0;
    for object in &objects {
        match apply(&server, args, &params, object).await {
            Ok(line) => print(&line)?,
            Err(error) => {
                // One object's error does not stop the others.
                failed += 1;
                eprintln!("error: {error:#}");
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} addons could not be applied", objects.len());
    Ok(())
}

async fn apply(server: &Server, args: &ApplyArgs, params: &PatchParams, object: &Value) -> anyhow::Result<String> {
    let name = object["metadata"]["name"].as_str().context("an Addon has no metadata.name")?;
    let own = object["metadata"]["namespace"].as_str();
    if let (Some(own), Some(flag)) = (own, &args.namespace) {
        ensure!(own == flag, "addon {name} names the namespace {own}, -n {flag}");
    }
    let namespace = own.or(args.namespace.as_deref()).unwrap_or(&server.namespace);
    // As it was written: what the types do not know is the server's to judge.
    let kind = ApiResource::erase::<Addon>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), namespace, &kind);
    let what = format!("addon {name}");
    let before = api.get_opt(name).await.map_err(|error| explain(error, &what))?;
    let after = api.patch(name, params, &Patch::Apply(object)).await.map_err(|error| explain(error, &what))?;
    let done = match before {
        None => "created",
        Some(before) if before.metadata.resource_version == after.metadata.resource_version => "unchanged",
        Some(_) => "configured",
    };
    let note = if args.dry_run { " (dry run)" } else { "" };
    Ok(format!("addon.addonmgr.keikoproj.io/{name} {done}{note}\n"))
}

/// The Addons of a file.
fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let of_file = || path.display().to_string();
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text).context("the standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(of_file)?;
        file.take(LARGEST + 1).read_to_string(&mut text).with_context(of_file)?;
    }
    ensure!(u64::try_from(text.len())? <= LARGEST, "{}: larger than {LARGEST} bytes", of_file());
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| anyhow::anyhow!("{}: {error}", of_file()))?;
    let mut found = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let place = format!("{}: document {}", of_file(), index + 1);
        collect(document, &place, &mut found)?;
    }
    Ok(found)
}

fn collect(document: Value, place: &str, found: &mut Vec<Value>) -> anyhow::Result<()> {
    if document.is_null() {
        return Ok(());
    }
    let kind = document["kind"].as_str().unwrap_or_default();
    if let (true, Some(items)) = (kind.ends_with("List"), document["items"].as_array()) {
        return items.iter().try_for_each(|item| collect(item.clone(), place, found));
    }
    ensure!(
        kind == KIND && document["apiVersion"] == API_VERSION,
        "{place}: is {} {kind:?}, not an Addon of {API_VERSION}; use kubectl apply for it",
        document["apiVersion"]
    );
    let addon: Addon = serde_json::from_value(document.clone()).with_context(|| format!("{place}: not an Addon"))?;
    let problems = addon.problems();
    ensure!(
        problems.is_empty(),
        "{place}: {}",
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    );
    found.push(document);
    Ok(())
}
