//! The same for a provider written for Kubernetes' own framework: the fake of its tests, served as a plug-in by
//! hack/cloud-shim. It knows no faults but those of the way to it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use quarterdeck_cloud::Routes as _;
use quarterdeck_cloud::grpc::Plugin;
use quarterdeck_it::proxy::{SocketProxy, Wire};
use quarterdeck_it::{Binaries, CloudSim, Launch, Peer, eventually};
use serde_json::json;
use tempfile::TempDir;

use super::Extent;
use super::faults_wire::{Broken, FAULTS};
use super::faults_world::{LONG, Options, World};
use super::plugin::call;

/// The address that the fake gives to every load balancer.
const ADDRESS: &str = "192.0.2.10";

/// Has these nodes exist.
fn behave(folder: &Path, nodes: &BTreeSet<String>) -> Result<()> {
    let ids: serde_json::Map<_, _> = nodes.iter().map(|name| (name.clone(), format!("fake://{name}").into())).collect();
    let text = json!({
        "exists": true, "instanceExists": true, "providerIDs": ids,
        "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
    });
    // In one step: the provider reads it before each call.
    std::fs::write(folder.join("part"), text.to_string())?;
    Ok(std::fs::rename(folder.join("part"), folder.join("behaviour.json"))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_provider_comes_through_faults_of_the_wire() -> Result<()> {
    behind_faults(Extent::Core).await
}

mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_go_provider_comes_through_faults_of_the_wire() -> Result<()> {
        behind_faults(Extent::Whole).await
    }
}

async fn behind_faults(extent: Extent) -> Result<()> {
    let faults = if extent.is_whole() { &FAULTS[..] } else { &[Broken::Wire(Wire::LoseAnswers)][..] };
    let program = Binaries::ensure(&[Peer::CloudShim]).await?.path("cloud-shim/cloud-shim");
    let folder = TempDir::with_prefix("quarterdeck-shim-")?;
    let (socket, wire) = (folder.path().join("x.sock"), folder.path().join("x.wire"));
    let mut nodes = BTreeSet::from(["steady".to_owned()]);
    behave(folder.path(), &nodes)?;
    let shim = Launch::new("cloud-shim", program)
        .args(["--behaviour".to_owned(), folder.path().join("behaviour.json").display().to_string()])
        .args(["--socket".to_owned(), socket.display().to_string()])
        .log(folder.path().join("log"))
        .spawn()?;
    let direct = Plugin::new(format!("unix://{}", socket.display()).parse()?, None);
    let proxy = SocketProxy::start(&wire, &socket).await?;
    let options = Options::of(format!("fake=grpc:{}", proxy.uri())).hasty(2);
    // The made-up cloud is there for nobody.
    let world = World::start_with(CloudSim::start().await?, options).await?;
    let routes_are = async |wanted: &[(String, String)]| {
        let wanted: BTreeSet<_> = wanted.iter().cloned().collect();
        eventually("the routes", LONG, async || {
            let page = direct.list(&call(0), None).await?;
            let found: BTreeSet<_> =
                page.items.into_iter().map(|route| (route.destination.to_string(), route.node)).collect();
            ensure!(found == wanted, "{found:?} instead of {wanted:?}");
            Ok(())
        })
        .await
    };
    let mut routes = vec![world.make_node_of("steady", "fake://steady", 250).await?];
    world.make_service("old-0").await?;
    ensure!(world.address("old-0").await? == ADDRESS);
    routes_are(&routes).await?;
    for (index, broken) in faults.iter().enumerate() {
        let (old, new, node) = (format!("old-{index}"), format!("old-{}", index + 1), format!("n-{index}"));
        world.ready("steady", false).await?;
        let before = world.unanswered().await?;
        broken.begin(&proxy).await?;
        nodes.insert(node.clone());
        behave(folder.path(), &nodes)?;
        world.make_service(&new).await?;
        world.delete_service(&old).await?;
        routes.push(world.make_node_of(&node, &format!("fake://{node}"), index).await?);
        eventually(&format!("{broken:?} has struck"), LONG, async || {
            let now = world.unanswered().await?;
            ensure!(now >= before + 3.0, "{now} calls without an answer after {before}");
            Ok(())
        })
        .await?;
        broken.end(&proxy).await?;
        ensure!(world.address(&new).await? == ADDRESS);
        world.is_gone(&old).await?;
        world.initialized(&node).await?;
        routes_are(&routes).await?;
        for (_, name) in &routes {
            ensure!(world.has_node(name).await?, "{name} lives, and its Node was deleted by {broken:?}");
        }
        world.ready("steady", true).await?;
    }
    ensure!(shim.is_running(), "the plug-in has ended");
    Ok(())
}
