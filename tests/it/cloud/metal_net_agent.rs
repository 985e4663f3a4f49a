//! An agent of metal on a real API server, with the rights that `deploy/metal` gives it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, PostParams};
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, AgentStatus, MetalAgent, MetalLoadBalancer};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::{ControlPlane, Launch, eventually, netns, repository};
use serde_json::json;
use tokio::process::Command;

const LONG: Duration = Duration::from_secs(60);
const HOST: &str = "agent-under-test";

async fn apply(control_plane: &ControlPlane, file: &str) -> Result<()> {
    let output = Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .env("HOME", control_plane.folder())
        .current_dir(repository())
        .args(["apply", "-f", file])
        .stdin(Stdio::null())
        .output()
        .await?;
    if output.status.success() { Ok(()) } else { bail!("{file}: {}", String::from_utf8_lossy(&output.stderr)) }
}

/// A load balancer for another host's gateway: nothing is programmed here, on the machine of the test.
fn balancer(epoch: u64) -> Result<MetalLoadBalancer> {
    named("0b5e3d3c", epoch)
}

fn named(name: &str, epoch: u64) -> Result<MetalLoadBalancer> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "epoch": epoch,
            "owner": { "cluster": "c", "namespace": "shop", "name": "web", "uid": name },
            "addresses": [{ "address": "192.0.2.10", "gateway": "elsewhere" }],
            "gateways": [{ "name": "elsewhere", "addresses": ["10.255.255.1"] }],
            "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }],
            "backends": [],
        },
    }))?)
}

#[tokio::test]
async fn it_shows_that_it_lives_and_reports_and_refuses_a_past_epoch() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    for kind in ["metalagents", "metalloadbalancers", "metalroutes"] {
        apply(&control_plane, &format!("deploy/crds/{kind}.cloud.quarterdeck.dev.yaml")).await?;
    }
    apply(&control_plane, "deploy/metal/daemonset.yaml").await?;
    apply(&control_plane, "deploy/metal/own-objects.yaml").await?;
    let folder = tempfile::tempdir()?;
    let user = format!("system:quarterdeck-agent:{HOST}");
    let kubeconfig = control_plane.kubeconfig(&user, &["quarterdeck:metal-agents"])?;
    let launch = Launch::new("agent", program_named("quarterdeck-agent")?)
        .args([format!("--node-name={HOST}"), format!("--kubeconfig={}", kubeconfig.display())])
        .arg(format!("--state-dir={}", folder.path().join("state").display()))
        .args(["--bind-address=127.0.0.1:0", "--routes=false"])
        .env("PATH", netns::path()?)
        .log(folder.path().join("log"));
    let agent = launch.spawn()?;

    let client = control_plane.admin().await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), AGENTS_NAMESPACE);
    let agents: Api<MetalAgent> = Api::all(client.clone());
    let balancers: Api<MetalLoadBalancer> = Api::all(client);
    let renewed = || async {
        let lease = leases.get(HOST).await?.spec.context("a spec")?;
        anyhow::ensure!(lease.holder_identity.as_deref() == Some(HOST), "{lease:?}");
        lease.renew_time.context("a time")
    };
    let report = || async {
        let status: AgentStatus = agents.get(HOST).await?.status.context("no report yet")?;
        anyhow::Ok(status)
    };
    eventually("the agent lives", LONG, renewed).await.with_context(|| agent.log_text())?;
    let first = eventually("the agent reports", LONG, report).await.with_context(|| agent.log_text())?;
    assert!(!first.version.is_empty() && first.reported_at.is_some());

    balancers.create(&PostParams::default(), &balancer(5)?).await?;
    eventually("it has heard of the load balancer", LONG, || async {
        let status = report().await?;
        if status.epoch == 5 { Ok(()) } else { bail!("{status:?}") }
    })
    .await
    .with_context(|| agent.log_text())?;

    let mut past = balancer(4)?;
    past.metadata.resource_version = balancers.get("0b5e3d3c").await?.metadata.resource_version;
    balancers.replace("0b5e3d3c", &PostParams::default(), &past).await?;
    let refusal = eventually("the past epoch is refused", LONG, || async {
        let status = report().await?;
        let refused = status.load_balancers.iter().find(|report| !report.error.is_empty());
        refused.cloned().with_context(|| format!("{status:?}"))
    })
    .await
    .with_context(|| agent.log_text())?;
    assert!(refusal.error.contains("epoch 4 is older than 5"), "{refusal:?}");
    assert_eq!(report().await?.epoch, 5);

    // The kind itself is deleted, and all its objects with it: what was in force stays.
    for name in ["b", "c", "d"] {
        balancers.create(&PostParams::default(), &named(name, 5)?).await?;
    }
    let in_force = || -> Result<Vec<String>> {
        let state = folder.path().join("state");
        let text = std::fs::read(state.join("applied.json"))?;
        let kept: serde_json::Value = serde_json::from_slice(&text)?;
        let balancers = kept["accepted"]["desired"]["balancers"].as_object().context("balancers")?;
        Ok(balancers.keys().cloned().collect())
    };
    let all = ["0b5e3d3c", "b", "c", "d"];
    eventually("all are in force", LONG, || async {
        let there = in_force()?;
        if there == all { Ok(()) } else { bail!("{there:?}") }
    })
    .await
    .with_context(|| agent.log_text())?;
    let kinds: Api<CustomResourceDefinition> = Api::all(control_plane.admin().await?);
    kinds.delete("metalloadbalancers.cloud.quarterdeck.dev", &DeleteParams::default()).await?;
    let held = |objects: usize| {
        let words = format!("{objects} load balancers and 0 nodes' routes vanished");
        async move {
            let status = report().await?;
            if status.problems.iter().any(|problem| problem.contains(&words)) { Ok(()) } else { bail!("{status:?}") }
        }
    };
    eventually("all are held", LONG, || held(4)).await.with_context(|| agent.log_text())?;
    assert_eq!(in_force()?, all);
    // Also over its own restart, and when the kind is there again, without objects.
    agent.stop(LONG).await?;
    eventually("the kind is gone", LONG, || async {
        let there = kinds.get_opt("metalloadbalancers.cloud.quarterdeck.dev").await?;
        if there.is_none() { Ok(()) } else { bail!("not yet") }
    })
    .await?;
    apply(&control_plane, "deploy/crds/metalloadbalancers.cloud.quarterdeck.dev.yaml").await?;
    let agent = launch.spawn()?;
    // One comes back, and is in force as any other.
    eventually("the kind is served", LONG, || async {
        Ok(balancers.create(&PostParams::default(), &balancer(5)?).await?)
    })
    .await?;
    eventually("three are held", LONG, || held(3)).await.with_context(|| agent.log_text())?;
    assert_eq!(in_force()?, all);
    // Somebody who knows lets them go.
    agent.stop(LONG).await?;
    let agent = launch.arg("--accept-deletions").spawn()?;
    eventually("they are gone", LONG, || async {
        let (there, status) = (in_force()?, report().await?);
        if there == ["0b5e3d3c"] && !status.problems.iter().any(|problem| problem.contains("vanished")) {
            Ok(())
        } else {
            bail!("{there:?} {status:?}")
        }
    })
    .await
    .with_context(|| agent.log_text())
}
