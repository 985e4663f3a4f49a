//! `logs`: of the pods that run an addon's steps, and what was kept of those that failed and are gone.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use quarterdeck_api::addon::names;
use serde_json::Value;

use crate::cli::LogsArgs;
use crate::output::print;
use crate::server::{Server, explain};

pub(super) async fn run(server: &Server, args: &LogsArgs) -> anyhow::Result<()> {
    let addon = server.find(&args.addon).await?;
    let selector = format!("{}={}", names::ADDON_LABEL, addon.name());
    let api = server.api::<Pod>(Some(addon.namespace()));
    let pods = api.list(&ListParams::default().labels(&selector)).await;
    let mut pods = pods.map_err(|error| explain(error, "pods"))?.items;
    pods.retain(|pod| {
        let step = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::STEP_ANNOTATION));
        args.step.as_deref().is_none_or(|wanted| step.is_some_and(|step| step.split('/').next() == Some(wanted)))
    });
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let mut any = false;
    for pod in &pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for container in containers.map(|container| container.name.clone()) {
            let head = format!("==> {name}/{container} <==\n");
            let params = LogParams { container: Some(container), ..LogParams::default() };
            // A container that has not begun, or whose node is away, hides no other's log.
            match api.logs(name, &params).await {
                Ok(log) if log.is_empty() => {}
                Ok(log) => {
                    any = true;
                    print(&format!("{head}{log}{}", if log.ends_with('\n') { "" } else { "\n" }))?;
                }
                Err(error) => eprintln!("warning: {:#}", explain(error, &format!("pod {name}"))),
            }
        }
    }
    let progress = addon.status.as_ref().and_then(|status| status.progress.as_ref());
    let mut kept = Vec::new();
    collect(progress.unwrap_or(&Value::Null), "", args.step.as_deref(), &mut kept);
    for (path, log) in kept {
        any = true;
        print(&format!("==> {path} (kept) <==\n{}\n", log.trim_end()))?;
    }
    if !any {
        eprintln!(
            "addon {} has no logs{}",
            addon.name(),
            args.step.as_ref().map_or_else(String::new, |s| format!(" of {s}"))
        );
    }
    Ok(())
}

/// The messages of steps, which hold the end of the log of a pod that failed, with the names on the way
/// there: those of the phase, and of the step. Of one phase, if one is named.
fn collect(value: &Value, phase: &str, wanted: Option<&str>, found: &mut Vec<(String, String)>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        if key != "nodes" {
            collect(value, key, wanted, found);
            continue;
        }
        for (name, node) in value.as_object().into_iter().flatten() {
            let message = node["message"].as_str().unwrap_or_default();
            if wanted.is_none_or(|wanted| wanted == phase) && !message.is_empty() {
                found.push((format!("{phase}/{name}"), message.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_kept_is_found_by_its_phase() {
        let progress = json!({"objects": 3, "steps": {
            "prereqs": {"revision": "r", "nodes": {
                "entry/a": {"state": "Failed", "message": "exit code 1\nla"}, "entry/b": {"state": "Succeeded"},
            }},
            "install": {"nodes": {"entry/x": {"message": "lx"}}},
        }});
        let mut all = Vec::new();
        collect(&progress, "", None, &mut all);
        let of = |path: &str, log: &str| (path.to_owned(), log.to_owned());
        assert_eq!(all, [of("install/entry/x", "lx"), of("prereqs/entry/a", "exit code 1\nla")]);
        let mut one = Vec::new();
        collect(&progress, "", Some("install"), &mut one);
        assert_eq!(one, [of("install/entry/x", "lx")]);
    }
}
