//! A real node: pods run, their logs are read, their exit codes are seen, and nothing stays.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, LogParams, PostParams};
use quarterdeck_it::{ControlPlane, Node, eventually};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);

/// A pod that runs one script.
fn pod(name: &str, image: &str, script: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{ "name": "main", "image": image, "command": ["sh", "-c", script] }],
        },
    })
}

async fn run(pods: &Api<Pod>, pod: Value) -> Result<(String, i32)> {
    let pod: Pod = serde_json::from_value(pod)?;
    let name = pod.metadata.name.clone().context("a name")?;
    pods.create(&PostParams::default(), &pod).await?;
    let what = format!("{name} has ended");
    let code = eventually(&what, LONG, || async {
        let status = pods.get(&name).await?.status.unwrap_or_default();
        let container = status.container_statuses.unwrap_or_default().into_iter().next();
        match container.and_then(|container| container.state).and_then(|state| state.terminated) {
            Some(end) => Ok(end.exit_code),
            None => bail!("{:?}: {:?}", status.phase, status.conditions),
        }
    });
    let code = code.await?;
    let logs = pods.logs(&name, &LogParams::default()).await?;
    Ok((logs, code))
}

#[tokio::test]
async fn pods_run_and_are_heard_and_nothing_stays() -> Result<()> {
    if Node::is_left_out() {
        return Ok(());
    }
    let control_plane = ControlPlane::builder().node().start().await?;
    let node = control_plane.node();
    let kept = node.process().clone();
    control_plane.namespace("real").await?;
    let rules = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["pods".to_owned()]),
        verbs: vec!["list".to_owned()],
        ..PolicyRule::default()
    };
    control_plane.grant_in("real", "system:serviceaccount:real:default", &[rules]).await?;
    let pods: Api<Pod> = Api::namespaced(control_plane.admin().await?, "real");

    let (logs, code) = run(&pods, pod("well", Node::SHELL_IMAGE, "echo hello; id -u; exit 0")).await?;
    assert_eq!((logs.as_str(), code), ("hello\n0\n", 0));
    let (logs, code) = run(&pods, pod("ill", Node::SHELL_IMAGE, "echo oh no >&2; exit 7")).await?;
    assert_eq!((logs.as_str(), code), ("oh no\n", 7));

    // As its own account, at the address that every pod is told.
    let script = "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && kubectl get pods -o name";
    let (logs, code) = run(&pods, pod("asks", Node::KUBECTL_IMAGE, script)).await?;
    assert_eq!((logs.as_str(), code), ("pod/asks\npod/ill\npod/well\n", 0));

    // An image under another name, and one that is nowhere.
    node.name_image(Node::SHELL_IMAGE, "docker.io/library/alpine:3").await?;
    let mut alias = pod("alias", "alpine:3", "echo alias");
    alias["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    assert_eq!(run(&pods, alias).await?, ("alias\n".to_owned(), 0));
    let nowhere: Pod = serde_json::from_value(pod("nowhere", "quarterdeck.dev/node/none:1", "true"))?;
    pods.create(&PostParams::default(), &nowhere).await?;
    eventually("its image is missed", LONG, || async {
        let status = pods.get("nowhere").await?.status.unwrap_or_default();
        let container = status.container_statuses.unwrap_or_default().into_iter().next();
        let reason = container.and_then(|container| container.state?.waiting?.reason);
        if reason.as_deref().is_some_and(|reason| reason.contains("Image")) { Ok(()) } else { bail!("{reason:?}") }
    })
    .await?;

    drop(control_plane);
    assert!(!kept.is_running());
    for controllers in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let left = format!("quarterdeck-node-{}", kept.pid());
        let found = below(&controllers.path(), &left, 3);
        assert!(!found, "{left} is left in {}", controllers.path().display());
    }
    Ok(())
}

/// Whether a folder of this name lies below, at most so deep.
fn below(folder: &std::path::Path, name: &str, depth: usize) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink());
    folders.any(|path| path.ends_with(name) || (depth > 0 && below(&path, name, depth - 1)))
}
