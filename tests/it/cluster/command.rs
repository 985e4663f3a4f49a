//! `hack/cluster up`, `status` and `down`, with all peers.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ObjectMeta, PostParams};
use quarterdeck_it::{ControlPlane, Server, eventually};
use serde_json::json;

use super::LONG;

fn cluster(command: &str, folder: &Path, args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cluster"));
    program.arg(command).arg("--dir").arg(folder).args(args).output().unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends what the test started, however the test ends.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        cluster("down", self.0, &[]);
    }
}

#[tokio::test]
async fn a_deployment_comes_to_life_and_everything_goes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cluster");
    let _down = Down(&folder);
    let up = good(&cluster("up", &folder, &["--with", "kcm,scheduler,kwok"]));
    for name in ["etcd", "kube-apiserver-0", "kube-controller-manager-", "kube-scheduler-", "kwok-"] {
        assert!(up.contains(name), "{up}");
    }
    assert!(up.contains("export KUBECONFIG="), "{up}");
    // Up again is no error, and starts nothing.
    assert_eq!(good(&cluster("up", &folder, &[])).lines().count(), up.lines().count());

    let control_plane = ControlPlane::attach(&folder).await.unwrap();
    assert!(control_plane.all_running());
    let client = control_plane.admin().await.unwrap();
    let node =
        Node { metadata: ObjectMeta { name: Some("node".to_owned()), ..Default::default() }, ..Default::default() };
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    let deployment = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web", "image": "web" }] },
            },
        },
    }))
    .unwrap();
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    eventually("two ready pods", LONG, async || {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        ensure!(status.ready_replicas == Some(2), "{status:?}");
        Ok(())
    })
    .await
    .unwrap();

    // What was restarted by another process ends with the rest.
    control_plane.apiserver(0).restart().await.unwrap();
    // One part dies: status says which, and fails.
    let processes: Vec<_> = control_plane.servers().map(Server::process).collect();
    control_plane.peers()[0].kill().await.unwrap();
    let status = cluster("status", &folder, &[]);
    assert!(!status.status.success());
    assert!(String::from_utf8_lossy(&status.stdout).contains("NOT RUNNING"));
    let up = cluster("up", &folder, &[]);
    assert!(String::from_utf8_lossy(&up.stderr).contains("hack/cluster down first"));

    good(&cluster("down", &folder, &[]));
    for process in processes {
        process.wait(LONG).await.unwrap();
    }
    assert!(!folder.exists());
    // Nothing to do is no error.
    good(&cluster("down", &folder, &[]));
}
