//! `externalTrafficPolicy: Local` on real packets: only nodes that say that they have endpoints get traffic.

use anyhow::{Context, Result, bail};
use quarterdeck_it::eventually;
use quarterdeck_it::netns::{Health, get, refused};
use serde_json::json;

use super::metal_net::{LONG, NODES, Scene, VIP, at};

/// The sample of a metric of a gateway's agent.
fn sample(scene: &Scene, name: &str) -> Result<f64> {
    let text = get(&scene.gateways[0], 10290, "/metrics")?;
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("{name} in {text}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn only_nodes_with_endpoints_get_local_traffic() -> Result<()> {
    let mut scene = Scene::set().await?;
    let mut health = Vec::new();
    for node in &scene.nodes {
        health.push(Health::start(node, 32000)?);
    }
    health[2].answer(503);
    let mut state = scene.state(2, &NODES, "gw1");
    state["items"][0]["spec"]["externalTraffic"] = json!("Local");
    state["items"][0]["spec"]["healthCheckNodePort"] = json!(32000);
    scene.write(&state)?;
    // Each answer says whom the node saw: the client itself.
    scene.answer(at(VIP[0]), &["n1", "n2"]).await?;
    scene.answer(at(VIP[1]), &NODES).await.context("the other one has its own policy")?;

    // Endpoints move from one node to another.
    health[1].answer(503);
    health[2].answer(200);
    scene.answer(at(VIP[0]), &["n1", "n3"]).await?;
    // Nobody has any: nobody is called, whatever other checks say.
    health[0].answer(503);
    health[2].answer(503);
    eventually("calls are refused", LONG, || async { refused(&scene.client, None, at(VIP[0])) })
        .await
        .with_context(|| scene.logs())?;
    scene.answer(at(VIP[1]), &NODES).await?;
    health[1].answer(200);
    scene.answer(at(VIP[0]), &["n2"]).await?;

    // The agents wrote elements themselves, and nft reads them as what they should be: an agent that compares all of it
    // finds nothing to repair.
    let quick = sample(&scene, "quarterdeck_agent_change_duration_seconds_count{by=\"quick\"}")?;
    assert!(quick >= 1.0, "{}", get(&scene.gateways[0], 10290, "/metrics")?);
    for agent in &scene.agents {
        agent.kill().await?;
    }
    let before = scene.gateways[0].run("nft -j list table inet quarterdeck")?;
    scene.start_agents()?;
    scene.applied(&scene.gateways[0], 2).await?;
    eventually("it has made its first pass", LONG, || async {
        if sample(&scene, "quarterdeck_agent_announced_addresses")? < 2.0 { bail!("not yet") } else { Ok(()) }
    })
    .await
    .with_context(|| scene.logs())?;
    assert_eq!(scene.gateways[0].run("nft -j list table inet quarterdeck")?, before, "nothing was loaded anew");
    Ok(())
}
