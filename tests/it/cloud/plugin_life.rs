//! Plug-ins that come, are not taken, refuse credentials and go, and networks that are wrong: one event and one metric
//! each, and everything else goes on.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{Api, ListParams, PostParams};
use quarterdeck_cloud::grpc::{Plugin, PluginUri, TlsFiles, serve_tls};
use quarterdeck_it::cloud::{FailKind, Fault, Moment, Rule};
use quarterdeck_it::{CloudSim, eventually};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::node_world::{CLOUD, LONG, UNINITIALIZED, World, has_taint};
use super::plugin_conformance::certificates;

/// Waits for the one event of a reason about the cluster whose message has these words.
async fn told(world: &World, reason: &str, words: &[&str]) -> Result<()> {
    let events: Api<Event> = Api::all(world.control_plane.admin().await?);
    let of = ListParams::default().fields(&format!("involvedObject.name=kube-system,reason={reason}"));
    let what = format!("event {reason} with {words:?}");
    let waited = eventually(&what, LONG, async || {
        let all = events.list(&of).await?.items;
        let fits =
            |event: &&Event| words.iter().all(|word| event.message.as_deref().unwrap_or_default().contains(word));
        let found: Vec<&Event> = all.iter().filter(fits).collect();
        ensure!(found.len() == 1, "{found:?} of {all:?}");
        ensure!(found[0].count.is_none_or(|count| count == 1), "told more than once: {found:?}");
        Ok(())
    });
    waited.await.with_context(|| world.log())
}

/// A made-up cloud with one machine that is reached by mutual TLS with these files, and its URI.
async fn behind_tls(machine: &str, files: TlsFiles) -> Result<(CloudSim, String)> {
    let cloud = CloudSim::builder().instances([machine]).start().await?;
    let provider = Arc::new(Plugin::new(PluginUri::Unix(cloud.socket().to_owned()), None));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let uri = format!("https://localhost:{}", listener.local_addr()?.port());
    tokio::spawn(async move { serve_tls(provider, listener, &files, CancellationToken::new()).await });
    Ok((cloud, uri))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_clouds_and_networks_is_told_once_and_costs_nobody_else_anything() -> Result<()> {
    let folder = tempfile::TempDir::with_prefix("plugins-")?;
    let watched = format!("grpc-dir:{}", folder.path().display());
    let class = "example.com/late";
    let classes = format!("--load-balancer-class=late={class}");
    // Its certificates are of another authority than ours.
    let [theirs, ours] = ["theirs", "ours"].map(|name| folder.path().join(name));
    for own in [&theirs, &ours] {
        std::fs::create_dir(own)?;
    }
    let (_far, uri) = behind_tls("distant", certificates(&theirs)?).await?;
    let TlsFiles { ca, cert, key } = certificates(&ours)?;
    let files = [("ca", ca), ("cert", cert), ("key", key)];
    let [ca, cert, key] = files.map(|(name, path)| format!("--cloud-grpc-{name}={}", path.display()));
    let flags = ["--cluster-cidr=10.244.0.0/16", "--route-reconciliation-period=2s", &classes, &ca, &cert, &key];
    let world = World::start("cloud-node,route,service", &[watched, format!("far=grpc:{uri}")], &flags).await?;
    let services: Api<Service> = Api::namespaced(world.control_plane.admin().await?, "default");
    let service = json!({
        "metadata": { "name": "theirs" },
        "spec": { "type": "LoadBalancer", "loadBalancerClass": class, "ports": [{ "port": 80 }] },
    });
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let late = CloudSim::builder().instances(["theirs"]).start().await?;
    let taints = json!([{ "key": UNINITIALIZED, "effect": "NoSchedule" }]);
    for name in ["theirs", "distant"] {
        world.node(json!({ "metadata": { "name": name }, "spec": { "taints": taints } }), true).await?;
    }

    // Credentials that are of no use are told of, and read again when they change.
    told(&world, "CloudProviderUnreachable", &["far"]).await?;
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::copy(theirs.join(name), ours.join(name))?;
    }
    world.becomes("distant", "it is initialised", |node| !has_taint(node, UNINITIALIZED)).await?;

    // A socket that comes is a provider that comes; one whose name is taken is not.
    symlink(late.socket(), folder.path().join("late.sock"))?;
    symlink(late.socket(), folder.path().join(format!("{CLOUD}.sock")))?;
    told(&world, "CloudPluginJoined", &["late"]).await?;
    world.becomes("theirs", "it is initialised", |node| !has_taint(node, UNINITIALIZED)).await?;
    let served = eventually("the Service that was there before has its load balancer", LONG, async || {
        let service = services.get("theirs").await?;
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|own| own.ingress);
        ensure!(ingress.is_some_and(|ingress| !ingress.is_empty()), "it has no address");
        Ok(())
    });
    served.await.with_context(|| world.log())?;
    told(&world, "CloudPluginRefused", &[CLOUD, "has that name"]).await?;
    world.counts("quarterdeck_cloudprovider_plugins_refused", &[("reason", "name_taken")], 1.0).await?;
    world.counts("quarterdeck_cloudprovider_plugins_joined_total", &[], 1.0).await?;

    // Networks that are wrong, each in a way of its own.
    for (name, cidr, reason) in [
        ("good", "10.244.1.0/24", ""),
        ("inner", "10.244.1.128/25", "overlaps"),
        ("six", "fd00:1::/64", "family"),
        ("far", "10.9.0.0/24", "outside"),
    ] {
        let id = world.cloud.add_instance(name).await?;
        let spec = json!({ "providerID": id, "podCIDR": cidr, "podCIDRs": [cidr] });
        world.node(json!({ "metadata": { "name": name }, "spec": spec }), true).await?;
        if !reason.is_empty() {
            let event = world.event(name, "InvalidPodCIDR").await?;
            ensure!(event.count.is_none_or(|count| count == 1), "{event:?}");
            world.counts("quarterdeck_route_wrong_pod_cidrs", &[("provider", CLOUD), ("reason", reason)], 1.0).await?;
        }
    }
    world.cloud.routes_are(&[("10.244.1.0/24", "good")]).await?;

    // Credentials that are refused, in every call; and a plug-in that is gone.
    let denied = || Fault::Fail { error: FailKind::Denied, retry_after_ms: None, at: Moment::Before };
    for method in ["identity.probe", "routes.list", "instances.get_many"] {
        world.cloud.fault(Rule::new(method, denied())).await?;
    }
    late.process().kill().await?;
    told(&world, "CloudProviderDenied", &[CLOUD]).await?;
    world.counts("quarterdeck_cloudprovider_trouble", &[("provider", CLOUD), ("kind", "denied")], 1.0).await?;
    told(&world, "CloudProviderUnreachable", &["late"]).await?;
    world.counts("quarterdeck_cloudprovider_trouble", &[("provider", "late"), ("kind", "unreachable")], 1.0).await?;
    // Nothing was lost, and it goes on by itself.
    world.cloud.heal().await?;
    let id = world.cloud.add_instance("later").await?;
    let spec = json!({ "providerID": id, "podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"] });
    world.node(json!({ "metadata": { "name": "later" }, "spec": spec }), true).await?;
    world.cloud.routes_are(&[("10.244.1.0/24", "good"), ("10.244.7.0/24", "later")]).await?;
    for name in ["theirs", "good", "inner", "six", "far"] {
        ensure!(world.nodes.get_opt(name).await?.is_some(), "node {name} is gone");
    }
    Ok(())
}
