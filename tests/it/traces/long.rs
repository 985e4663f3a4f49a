//! A replica with traces, and a collector that comes and goes. Building that replica takes minutes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quarterdeck_it::deck::Demo;
use quarterdeck_it::{ControlPlane, Deck, ReservedPort, eventually, repository};
use tokio::process::Command;

use super::collector::Collector;
use super::otlp::{Span, texts};

const PATIENCE: Duration = Duration::from_secs(60);

/// The program with traces: `QUARTERDECK_TRACED_BIN`, else built now.
async fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("QUARTERDECK_TRACED_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--quiet", "-p", "quarterdeck", "--features", "otel", "--bin", "quarterdeck-traced"];
    let built = Command::new(cargo).args(arguments).current_dir(repository()).status().await?;
    ensure!(built.success(), "building quarterdeck-traced: {built}");
    let own = std::env::current_exe()?;
    own.ancestors()
        .map(|folder| folder.join("quarterdeck-traced"))
        .find(|path| path.is_file())
        .with_context(|| format!("no quarterdeck-traced above {}", own.display()))
}

async fn sail(control_plane: &ControlPlane, endpoint: &str) -> Result<(Deck, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tracing.yaml");
    let config = format!(
        "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\nendpoint: {endpoint}\n\
         samplingRatePerMillion: 1000000\n"
    );
    std::fs::write(&file, config)?;
    let addons = folder.path().join("addons");
    std::fs::create_dir(&addons)?;
    let deck = Deck::builder(control_plane)
        .replicas(1)
        .program(program().await?)
        .args([
            format!("--tracing-config-file={}", file.display()),
            format!("--state-dir={}", folder.path().join("state").display()),
            format!("--addon-path={}", addons.display()),
        ])
        .start()
        .await?;
    deck.leader(PATIENCE).await?;
    Ok((deck, folder))
}

/// A service with a pod, whose slice is there: two controllers worked.
async fn work(control_plane: &ControlPlane, namespace: &str) -> Result<()> {
    control_plane.namespace(namespace).await?;
    let demo = Demo::new(control_plane.admin().await?, namespace);
    demo.node("node-a", "a").await?;
    demo.service("web").await?;
    demo.pod("web-0", "web", "node-a", "10.1.0.1").await?;
    eventually("the slice shows the pod", PATIENCE, || async {
        let seen = demo.endpoints("web").await?;
        if seen.is_empty() { bail!("none") } else { Ok(()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_reconciles_with_their_writes() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    let collector = Collector::start().await?;
    let (deck, _folder) = sail(&control_plane, &collector.address().to_string()).await?;
    work(&control_plane, "traced").await?;

    let is_it = |span: &&Span| {
        let said = texts(&span.attributes);
        let of = |name: &str, value: &str| said.get(name).is_some_and(|text| text == value);
        span.name == "reconcile" && of("controller", "endpointslice-controller") && said["key"].contains("traced/web")
    };
    let (reconcile, write) = eventually("a reconcile and its write", PATIENCE, || async {
        collector.look(|received| {
            ensure!(received.wrong.is_empty(), "{:?}", received.wrong);
            let reconciles = received.spans.iter().filter(is_it);
            let pairs = reconciles.flat_map(|parent| {
                let of_it = move |span: &&Span| span.parent_span_id == parent.span_id && span.name == "write";
                received.spans.iter().filter(of_it).map(move |child| (parent.clone(), child.clone()))
            });
            let mut creates = pairs.filter(|(_, child)| texts(&child.attributes)["verb"] == "create");
            creates.next().with_context(|| format!("{} spans", received.spans.len()))
        })
    })
    .await?;
    let said = texts(&reconcile.attributes);
    assert!(reconcile.parent_span_id.is_empty(), "a reconcile is the root of its trace");
    assert_eq!(said["result"], "success", "{said:?}");
    assert_eq!(said["attempt"], "0", "{said:?}");
    assert!(said["epoch"].parse::<u64>()? > 0, "{said:?}");
    assert_eq!(write.trace_id, reconcile.trace_id);
    assert!(reconcile.start <= write.start && write.start <= write.end && write.end <= reconcile.end);
    let wrote = texts(&write.attributes);
    assert_eq!(wrote["code"], "201", "{wrote:?}");
    assert!(wrote["object"].contains("endpointslices") && wrote["object"].contains("traced"), "{wrote:?}");
    collector.look(|received| {
        let resource = received.resources.first().context("no resource")?;
        assert_eq!(texts(&resource.attributes)["service.name"], "quarterdeck");
        // Writes outside of reconciles, such as Events, are no traces of their own.
        assert!(received.spans.iter().all(|span| span.name == "reconcile" || !span.parent_span_id.is_empty()));
        Ok::<_, anyhow::Error>(())
    })?;
    let sent = deck.replica(0).metric("quarterdeck_trace_spans_total", &[("outcome", "sent")]).await?;
    assert!(sent > 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_spans_and_nothing_else() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    // Nobody listens there.
    let port = ReservedPort::take()?;
    let (deck, _folder) = sail(&control_plane, &format!("127.0.0.1:{}", port.port())).await?;
    work(&control_plane, "untraced").await?;
    let replica = deck.replica(0);
    eventually("spans are lost", PATIENCE, || async {
        replica.metric("quarterdeck_trace_spans_total", &[("outcome", "lost")]).await.map(drop)
    })
    .await?;
    work(&control_plane, "still-untraced").await?;
    let lost = |text: &str| text.lines().filter(|line| line.contains("the collector takes no traces")).count();
    assert_eq!(lost(&replica.process().log_text()), 1, "once");
    let ended = replica.process().stop(PATIENCE).await?;
    ensure!(ended.success(), "{ended:?}: {}", replica.process().log_text());
    let text = replica.process().log_text();
    assert!(!text.contains("BatchSpanProcessor") && !text.contains("opentelemetry"), "{text}");
    Ok(())
}
