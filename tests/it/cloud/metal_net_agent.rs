//! An agent of metal on a real API server, with the rights that `deploy/metal` gives it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
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
    Ok(serde_json::from_value(json!({
        "metadata": { "name": "0b5e3d3c" },
        "spec": {
            "epoch": epoch,
            "owner": { "cluster": "c", "namespace": "shop", "name": "web", "uid": "0b5e3d3c" },
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
    let folder = tempfile::tempdir()?;
    let kubeconfig = control_plane.kubeconfig("an-agent", &["quarterdeck:metal-agents"])?;
    let agent = Launch::new("agent", program_named("quarterdeck-agent")?)
        .args([format!("--node-name={HOST}"), format!("--kubeconfig={}", kubeconfig.display())])
        .arg(format!("--state-dir={}", folder.path().join("state").display()))
        .args(["--bind-address=127.0.0.1:0", "--routes=false"])
        .env("PATH", netns::path()?)
        .log(folder.path().join("log"))
        .spawn()?;

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
    Ok(())
}
