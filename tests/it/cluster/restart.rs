//! Servers that stop, die, stand still and come back.

use anyhow::{anyhow, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use quarterdeck_it::{ControlPlane, eventually};

use super::{LONG, config_map};

fn config_maps(client: kube::Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

async fn version(api: &Api<ConfigMap>, name: &str) -> String {
    api.get(name).await.unwrap().metadata.resource_version.unwrap()
}

#[tokio::test]
async fn two_apiservers_over_one_etcd_survive_what_befalls_the_others() {
    let control_plane = ControlPlane::builder().apiservers(2).start().await.unwrap();
    let first = config_maps(control_plane.admin_at(0).await.unwrap());
    let second = config_maps(control_plane.admin_at(1).await.unwrap());
    let folder = control_plane.folder().to_owned();

    first.create(&PostParams::default(), &config_map("kept", "1")).await.unwrap();
    let made = version(&second, "kept").await;

    // One dies: the other goes on; when it is back it knows all.
    control_plane.apiserver(0).kill().await.unwrap();
    assert!(first.get("kept").await.is_err());
    assert_eq!(version(&second, "kept").await, made);
    control_plane.apiserver(0).start().await.unwrap();
    assert_eq!(version(&first, "kept").await, made);
    let again = control_plane.apiserver(0).start().await.unwrap_err();
    assert!(again.to_string().contains("runs already"), "{again}");

    // One stands still: its request waits, the other's is answered.
    control_plane.apiserver(0).pause().await.unwrap();
    let mut waiting = std::pin::pin!(first.get("kept"));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("a paused server answered"),
        version = version(&second, "kept") => assert_eq!(version, made),
    }
    control_plane.apiserver(0).resume().unwrap();
    waiting.await.unwrap();

    // etcd dies and comes back with its data.
    control_plane.etcd().kill().await.unwrap();
    control_plane.etcd().start().await.unwrap();
    control_plane.wait_ready(LONG).await.unwrap();
    eventually("a write after etcd's death", LONG, async || {
        let name = config_map("after", "1");
        first.create(&PostParams::default(), &name).await.map_err(|error| anyhow!(error))
    })
    .await
    .unwrap();

    // History is gone after compaction and a restart (an orderly one).
    let latest = version(&first, "after").await;
    let compacted = control_plane.compact_etcd().await.unwrap();
    assert!(compacted >= latest.parse().unwrap());
    control_plane.apiserver(1).restart().await.unwrap();
    eventually("410 for a watch from before", LONG, async || {
        let mut events = Box::pin(second.watch(&WatchParams::default(), &made).await?);
        match events.try_next().await? {
            Some(WatchEvent::Error(status)) if status.code == 410 => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await
    .unwrap();

    // A restart with other arguments.
    control_plane.apiserver(1).restart_with(["--watch-cache=false"]).await.unwrap();
    assert_eq!(version(&second, "kept").await, made);

    // Nothing is left behind.
    let pids: Vec<_> = control_plane.servers().map(|server| server.process().pid()).collect();
    drop(control_plane);
    assert!(!folder.exists());
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
