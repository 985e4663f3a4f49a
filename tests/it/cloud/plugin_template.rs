//! The template of a plug-in in Python, docs/cloud/template.

use anyhow::{Result, ensure};
use quarterdeck_cloud::model::ClusterId;
use quarterdeck_cloud::{CloudError, LoadBalancers as _, Provider as _, Routes as _};
use quarterdeck_it::{Binaries, Launch, Peer, repository};

use super::plugin::{
    Running, call, keeps_routes, knows_nodes, makes_one_load_balancer, node, refuses_past_tenures, remembers_tenures,
    removes_a_load_balancer, route, spec,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_is_a_plug_in() -> Result<()> {
    let binaries = Binaries::ensure(&[Peer::CloudTemplate]).await?;
    let mut running = Running::start(|folder| {
        Launch::new("template", binaries.path("cloud-template/venv/bin/python"))
            .env("PYTHONPATH", binaries.path("cloud-template/stubs").display().to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(repository().join("docs/cloud/template/provider.py").display().to_string())
            .args(["--instance", "node-1=10.0.0.1"])
            .arg("--state")
            .arg(folder.path().join("state.json").display().to_string())
    })
    .await?;
    let plugin = &running.plugin;
    let info = plugin.info(&call(0)).await?;
    ensure!(info.name == "template" && info.instances && info.load_balancers && info.routes, "{info:?}");
    knows_nodes(plugin, "template", "node-1", "node-2").await?;

    let first = spec("uid-1");
    let handle = makes_one_load_balancer(plugin, &first).await?;
    let mut renamed = spec("uid-1");
    renamed.owner.name = "renamed".into();
    ensure!(makes_one_load_balancer(plugin, &renamed).await? == handle, "a rename made another one");
    let other = makes_one_load_balancer(plugin, &spec("uid-2")).await?;
    ensure!(other != handle);
    let before = plugin.get(&call(0), &renamed.owner).await?;
    let mut grown = renamed.clone();
    grown.backends.clear();
    plugin.update_backends(&call(5), &grown, &handle).await?;
    let after = plugin.get(&call(0), &renamed.owner).await?;
    ensure!(before.len() == 1 && after.len() == 1 && before[0].handle == after[0].handle);
    ensure!(before[0].fingerprint != after[0].fingerprint, "a change is not to be seen");
    // Another cluster has none of it, neither by question nor by list.
    let mut elsewhere = call(0);
    elsewhere.cluster = ClusterId("cluster-2".into());
    ensure!(plugin.list_owned(&elsewhere, None).await?.items.is_empty());
    ensure!(plugin.list_owned(&call(0), None).await?.items.len() == 2);
    removes_a_load_balancer(plugin, &renamed.owner, &handle).await?;
    ensure!(plugin.list_owned(&call(0), None).await?.items.len() == 1);
    let gone = plugin.update_backends(&call(5), &renamed, &handle).await;
    ensure!(matches!(gone, Err(CloudError::NotFound(_))), "{gone:?}");

    keeps_routes(plugin).await?;
    plugin.create(&call(5), &route("10.3.0.0/24", "node-1")).await?;
    ensure!(plugin.list(&elsewhere, None).await?.items.is_empty());
    let taken = plugin.create(&call(5), &route("10.3.0.0/24", "node-2")).await;
    ensure!(matches!(taken, Err(CloudError::Conflict(_))), "{taken:?}");
    plugin.delete(&call(5), &route("10.3.0.0/24", "node-1")).await?;
    refuses_past_tenures(plugin).await?;
    remembers_tenures(&mut running).await?;
    running.dies_and_comes_back(&node("node-1", None)).await
}
