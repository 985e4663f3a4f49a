//! The made-up cloud as a program, and every case of the conformance suite against it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use quarterdeck_cloud::grpc::Plugin;
use quarterdeck_cloud::model::*;
use quarterdeck_cloud::{CallCtx, Provider as _};
use quarterdeck_cloud_conformance::{ByCommand, CASES, Restarted, Suite, Verdict, made_up};
use quarterdeck_it::cloud::{Fault, Moment, Rule};
use quarterdeck_it::{CloudSim, eventually};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn call(epoch: u64) -> CallCtx {
    CallCtx {
        deadline: Instant::now() + Duration::from_secs(60),
        cancel: CancellationToken::new(),
        lease_epoch: epoch,
        op_id: uuid::Uuid::new_v4(),
        cluster: ClusterId("c".into()),
    }
}

fn spec(uid: &str) -> LoadBalancerSpec {
    let owner = Owner {
        cluster: ClusterId("c".into()),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        uid: uid.to_owned(),
    };
    let port =
        Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 30080, app_protocol: String::new() };
    LoadBalancerSpec {
        owner,
        ports: vec![port],
        ipv6: vec![false],
        addresses: Vec::new(),
        source_ranges: Vec::new(),
        external_traffic: ExternalTraffic::Cluster,
        health_check_node_port: 0,
        affinity: None,
        annotations: Default::default(),
        backends: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_made_up_cloud_has_answered_survives_its_being_killed() -> Result<()> {
    let cloud = CloudSim::builder().instances(["n-1@zone-a"]).start().await?;
    let plugin = Plugin::new(cloud.uri().parse()?, None);
    let balancers = plugin.load_balancers().expect("it has some");
    let (one, two) = (spec("1"), spec("2"));
    balancers.ensure(&call(7), &one, None).await?;
    cloud.fault(Rule::new("loadbalancers.ensure", Fault::Hold { at: Moment::After })).await?;
    let unanswered = {
        let two = two.clone();
        let plugin = Plugin::new(cloud.uri().parse()?, None);
        tokio::spawn(async move { plugin.load_balancers().expect("it has some").ensure(&call(7), &two, None).await })
    };
    cloud.held("loadbalancers.ensure").await?;
    cloud.process().kill().await?;
    let lost = unanswered.await?.unwrap_err();
    assert!(lost.maybe_applied(), "{lost}");
    assert_eq!(
        balancers.get(&call(0), &one.owner).await.unwrap_err().outcome(),
        "unavailable",
        "gone is another thing"
    );
    cloud.restart().await?;
    cloud.owned_by(&["1", "2"]).await?;
    assert!(cloud.state().await?.instances.values().any(|machine| machine.name == "n-1" && machine.zone == "zone-a"));
    let seen = eventually("the client is connected again", Duration::from_secs(60), async || {
        Ok(balancers.get(&call(0), &one.owner).await?)
    });
    ensure!(seen.await?.len() == 1);
    let old = balancers.ensure(&call(6), &spec("3"), None).await.unwrap_err();
    assert_eq!(old.outcome(), "superseded", "the tenure is remembered: {old}");
    let log = cloud.process().log_text();
    assert!(log.contains("THIS CLOUD IS MADE UP"), "{log}");
    Ok(())
}

/// Kills the server, and starts it again.
struct Killed(Arc<CloudSim>);

#[async_trait]
impl Restarted for Killed {
    async fn stop(&self) -> Result<()> {
        self.0.process().kill().await.map(drop)
    }

    async fn start(&self) -> Result<()> {
        self.0.restart().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_served_cloud_passes_every_case_and_is_killed_meanwhile() -> Result<()> {
    let cloud = Arc::new(CloudSim::builder().args(["--provision-ms=50", "--delete-ms=50"]).start().await?);
    let known = made_up::populate(cloud.client()).await?;
    let steering = ByCommand::new(cloud.client().clone()).restarted_by(Killed(Arc::clone(&cloud)));
    let plugin = Plugin::new(cloud.uri().parse()?, None);
    let mut suite = Suite::new(Arc::new(plugin), known, Box::new(steering));
    // Tests assert no timing.
    suite.tolerance = Duration::from_secs(60);
    let report = suite.run(CASES).await;
    ensure!(report.cases.iter().all(|line| line.verdict == Verdict::Passed), "{report}");
    cloud.owned_by(&[]).await?;
    cloud.routes_are(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_tells_by_its_exit_whether_a_case_failed() -> Result<()> {
    let cloud = CloudSim::start().await?;
    let program = quarterdeck_it::deck::program_named("cloud-conformance")?;
    let run = async || {
        let args = [&cloud.uri(), "--only=I1,P1,R5", "-o", "json"];
        let output = Command::new(&program).args(args).output().await?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok::<_, anyhow::Error>((output.status.code(), report))
    };
    let (code, report) = run().await?;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["cases"][1]["id"], "R5");
    assert!(report["cases"][1]["verdict"]["not_applicable"].is_string(), "{report}");
    assert_eq!(report["cases"][2]["verdict"], "passed", "{report}");
    let down = Fault::Fail { error: quarterdeck_it::cloud::FailKind::Denied, retry_after_ms: None, at: Moment::Before };
    cloud.fault(Rule::new("identity.probe", down)).await?;
    let (code, report) = run().await?;
    assert_eq!(code, Some(1), "{report}");
    assert!(report["cases"][2]["verdict"]["failed"].as_str().is_some_and(|why| why.contains("denied")), "{report}");
    Ok(())
}
