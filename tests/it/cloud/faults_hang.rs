//! A cloud hangs, and nothing else does: not the other controllers, not another cloud, not the end of the process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use quarterdeck_it::cloud::{Fault, Moment, Power, Rule};
use quarterdeck_it::{CloudSim, Signal, eventually};
use serde_json::json;
use tempfile::TempDir;

use super::faults_stone::{script, switch};
use super::faults_world::{LONG, NAMESPACE, Options, World};

/// kubernetes#53191: a call to a cloud hung, and all workers of the endpoints controller with it, for 145 minutes.
#[tokio::test(flavor = "multi_thread")]
async fn bulkhead_defect_a_cloud_that_blocks_every_thread_stops_nothing_else() -> Result<()> {
    let cloud = CloudSim::start().await?;
    let (folder, switch) = (TempDir::with_prefix("stone-")?, switch(cloud.socket()));
    std::fs::write(&switch, "")?;
    let provider = format!("stone={}", cloud.socket().display());
    let program = Some(script(folder.path())?);
    let world =
        World::start_with(cloud, Options { controllers: "*", program, ..Options::of(provider).hasty(1) }).await?;
    let uid = world.make_service("web").await?;
    let routes = vec![world.make_node("n-0", 0).await?];
    world.ready("n-0", false).await?;

    // Everybody can see it, and is told once.
    world.cloud_becomes("stone", "it blocks threads", |one| one["stuck"].as_u64() > Some(0)).await?;
    world.cloud_becomes("stone", "it is left alone", |one| one["breaker"] == "open").await?;
    let says = |part: &'static str| move |text: Option<&str>| text.is_some_and(|text| text.contains(part));
    world
        .cloud_becomes("stone", "it is told of", |one| {
            says("unreachable")(one["trouble"].as_str()) && says("no answer")(one["last_error"].as_str())
        })
        .await?;
    world.counts("abandoned_calls", &[("provider", "stone")], |calls| calls > 0.0).await?;
    world.counts("trouble", &[("kind", "unreachable")], |is| is == 1.0).await?;
    let given_up = [("provider", "stone"), ("outcome", "timeout")];
    world.counts("api_request_duration_seconds_count", &given_up, |calls| calls > 0.0).await?;
    eventually("an event tells of it", LONG, async || {
        ensure!(world.said("CloudProviderUnreachable").await? > 0);
        Ok(())
    })
    .await?;

    others_go_on(&world).await?;
    let leader = world.leader().await?;
    for path in ["/livez", "/healthz", "/readyz"] {
        leader.get(path).await.with_context(|| format!("{path}\n{}", world.log()))?;
    }
    ensure!(world.said("CloudProviderUnreachable").await? == 1, "one trouble, one event");

    // The end waits for none of the blocked threads, and the next one need not wait for the Lease to expire.
    let status = leader.status().await?;
    let identity = status.identity().context("an identity")?.to_owned();
    let begun = Instant::now();
    leader.process().signal(Signal::SIGTERM)?;
    let exit = leader.process().wait(Duration::from_secs(30)).await?;
    let stopped = begun.elapsed();
    ensure!(exit.success(), "{exit:?}\n{}", leader.process().log_text());
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    let holder = leases.get("quarterdeck").await?.spec.and_then(|spec| spec.holder_identity);
    ensure!(holder.as_ref() != Some(&identity), "{identity} ended, and holds the Lease");
    world.deck.leader(LONG).await?;
    println!(
        "measured: stop while every call of a cloud blocks its thread: {stopped:.2?}, next leader after {:.2?}",
        begun.elapsed()
    );

    std::fs::remove_file(&switch)?;
    world.serves("web").await?;
    world.initialized("n-0").await?;
    world.routes_are(&routes).await?;
    world.cloud.owned_by(&[&uid]).await?;
    world.cloud_becomes("stone", "it is used again", |one| one["breaker"] == "closed" && one["stuck"] == 0).await?;
    world.counts("abandoned_calls", &[("provider", "stone")], |calls| calls == 0.0).await?;
    world.tenures_never_go_back().await
}

/// Controllers that have nothing to do with a cloud do their work.
async fn others_go_on(world: &World) -> Result<()> {
    let client = &world.client;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let doomed: Namespace = serde_json::from_value(json!({ "metadata": { "name": "doomed" } }))?;
    namespaces.create(&PostParams::default(), &doomed).await?;
    namespaces.delete("doomed", &DeleteParams::default()).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "plain" }, "spec": { "selector": { "app": "plain" }, "ports": [{ "port": 80 }] },
    }))?;
    services.create(&PostParams::default(), &service).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "plain-0", "labels": { "app": "plain" } },
        "spec": { "nodeName": "n-0", "containers": [{ "name": "c", "image": "i" }] },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = json!({ "status": {
        "phase": "Running", "podIP": "10.244.0.9", "podIPs": [{ "ip": "10.244.0.9" }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    pods.patch_status("plain-0", &PatchParams::default(), &Patch::Strategic(running)).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    eventually("the Service has its slice", LONG, async || {
        let own = ListParams::default().labels("kubernetes.io/service-name=plain");
        let all = slices.list(&own).await?.items;
        let addresses: Vec<_> =
            all.iter().flat_map(|slice| slice.endpoints.iter().flatten()).flat_map(|one| &one.addresses).collect();
        ensure!(addresses == ["10.244.0.9"], "{addresses:?}");
        Ok(())
    })
    .await
    .with_context(|| world.log())?;
    eventually("the namespace is gone", LONG, async || {
        ensure!(namespaces.get_opt("doomed").await?.is_none(), "it is there");
        Ok(())
    })
    .await
    .with_context(|| world.log())
}

/// One hung check of a node stalls upstream's lifecycle loop for all nodes, one hung update all Services.
#[tokio::test(flavor = "multi_thread")]
async fn bulkhead_defect_a_cloud_that_hangs_leaves_another_one_alone() -> Result<()> {
    const CLASS: &str = "example.com/other";
    let hung = CloudSim::start().await?;
    hung.fault(Rule::new("*", Fault::Hang { at: Moment::Before })).await?;
    let other = CloudSim::builder().args(["--scheme=other", "--account=elsewhere"]).start().await?;
    let providers = vec![format!("sim={}", hung.uri()), format!("other=grpc:{}", other.uri())];
    let mut options = Options { providers, ..Options::of(String::new()).hasty(2) };
    options.args.push(format!("--load-balancer-class=other={CLASS}"));
    let world = World::start_with(other, options).await?;
    hung.held("identity.info").await?;

    // Work for the one that hangs, first in every queue.
    let stranded = world.make_service("stranded").await?;
    let id = hung.add_instance("stranded").await?;
    world.make_node_of("stranded", &id, 200).await?;
    world.ready("stranded", false).await?;

    let uid = world.make_service_of("web", Some(CLASS)).await?;
    let mut routes = Vec::new();
    for (index, name) in ["n-0", "n-1", "n-2"].into_iter().enumerate() {
        routes.push(world.make_node(name, index).await?);
    }
    for (_, name) in &routes {
        world.initialized(name).await?;
    }
    world.serves("web").await?;
    world.routes_are(&routes).await?;
    world.cloud.set_power("n-2", Power::Stopped).await?;
    world.ready("n-2", false).await?;
    tainted(&world, "n-2", "node.cloudprovider.kubernetes.io/shutdown").await?;
    world.delete_service("web").await?;
    world.is_gone("web").await?;
    world.cloud.owned_by(&[]).await?;
    world.cloud_becomes("sim", "it is told of", |one| one["trouble"].is_string()).await?;
    world.cloud_becomes("other", "it is well", |one| one["breaker"] == "closed" && one["trouble"].is_null()).await?;
    ensure!(world.has_node("stranded").await?, "a Node of a cloud that does not answer was deleted");
    ensure!(!uid.is_empty());

    // It answers again, and gets what waited for it.
    hung.heal().await?;
    world.initialized("stranded").await?;
    hung.owned_by(&[&stranded]).await?;
    world.cloud_becomes("sim", "it is used again", |one| one["breaker"] == "closed").await?;
    hung.routes_are(&[("10.244.200.0/24", "stranded")]).await?;
    world.routes_are(&routes).await
}

async fn tainted(world: &World, name: &str, taint: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(world.client.clone());
    eventually(&format!("{name} has {taint}"), LONG, async || {
        let taints = nodes.get(name).await?.spec.and_then(|spec| spec.taints).unwrap_or_default();
        ensure!(taints.iter().any(|one| one.key == taint), "{taints:?}");
        Ok(())
    })
    .await
    .with_context(|| world.log())
}
