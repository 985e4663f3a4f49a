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
    let mut selector = format!("{}={}", names::ADDON_LABEL, addon.name());
    if let Some(step) = &args.step {
        selector.push_str(&format!(",{}={step}", names::STEP_LABEL));
    }
    let api = server.api::<Pod>(Some(addon.namespace()));
    let pods = api.list(&ListParams::default().labels(&selector)).await;
    let mut pods = pods.map_err(|error| explain(error, "pods"))?.items;
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

/// The texts under any key `log`, with the names on the way there; of one lifecycle step if one is
/// named, which stands somewhere on that way.
fn collect(value: &Value, path: &str, step: Option<&str>, found: &mut Vec<(String, String)>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    match value {
        Value::Object(map) => {
            let name = map.get("name").and_then(Value::as_str);
            for (key, value) in map {
                match value {
                    Value::String(log) if key == "log" => {
                        let path = name.map_or_else(|| path.to_owned(), join);
                        if step.is_none_or(|step| path.split('/').any(|part| part == step)) && !log.is_empty() {
                            found.push((path, log.clone()));
                        }
                    }
                    value => collect(value, &join(key), step, found),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                collect(item, path, step, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kept_logs_are_found_wherever_they_stand() {
        let progress = json!({
            "prereqs": {"steps": [{"name": "a", "log": "la\n"}, {"name": "b", "log": ""}]},
            "install": {"x": {"log": "lx"}},
        });
        let mut all = Vec::new();
        collect(&progress, "", None, &mut all);
        let of = |path: &str, log: &str| (path.to_owned(), log.to_owned());
        assert_eq!(all, [of("install/x", "lx"), of("prereqs/steps/a", "la\n")]);
        let mut one = Vec::new();
        collect(&progress, "", Some("install"), &mut one);
        assert_eq!(one, [of("install/x", "lx")]);
    }
}
