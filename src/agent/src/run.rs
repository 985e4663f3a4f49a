//! The process.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use prometheus::Registry;
use quarterdeck_election::Gate;
use quarterdeck_runtime::client::{ClientOptions, Clients, Source};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::announce::Bird;
use crate::engine::{Engine, Tools};
use crate::health::{Health, Timing};
use crate::kernel::{Kernel, changes};
use crate::metrics::Metrics;
use crate::nft::Nft;
use crate::options::{Announce, Options};
use crate::serve::{Shown, listen, serve};
use crate::source::cluster::{self, Heartbeat};
use crate::source::{Told, file};
use crate::store::{Kept, Store};

/// How often nftables' count of changes is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a change in the kernel that somebody else made, so long is waited for more of them.
const SETTLE: Duration = Duration::from_millis(200);
/// After a pass that did not all work, and while gateways' link-layer addresses are looked for.
const RETRY: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot start: no state directory, no netlink, an unreadable state or kubeconfig.
pub async fn run(options: Options) -> Result<()> {
    let name = match options.node_name.clone().or_else(|| std::env::var("NODE_NAME").ok()) {
        Some(name) => name,
        None => nix::unistd::gethostname().context("the host's name")?.to_string_lossy().to_lowercase(),
    };
    let mut store = Store::open(&options.state_dir).context("the state directory")?;
    let mut kept = match store.load() {
        Ok(kept) => kept,
        // Everything goes on being removed whatever the file holds.
        Err(_) if options.cleanup => Kept::default(),
        Err(error) => {
            bail!(
                "{error}; the kernel keeps what it has; --cleanup removes all of it, and the agent then starts afresh"
            )
        }
    };
    if options.forget_epoch {
        kept.accepted.forget();
    }
    let registry = Registry::new();
    let timing = Timing {
        every: options.check_interval,
        timeout: options.check_timeout,
        failures: options.check_failures,
        successes: options.check_successes,
    };
    let health = Health::new(timing, &kept.health());
    let bird = (options.announce == Announce::Bgp).then(|| Bird {
        include: options.bird_include.clone(),
        program: options.birdc.clone(),
        socket: options.bird_socket.clone(),
    });
    let tools = Tools {
        settings: options.settings(&name),
        nft: Nft::new(options.nft.clone()),
        kernel: Kernel::connect().context("netlink")?,
        store,
        bird,
        health: Arc::clone(&health),
        metrics: Metrics::new(&registry)?,
    };
    let mut engine = Engine::new(tools, kept, options.hold_vanished);
    if options.accept_deletions {
        engine.accept_deletions();
    }
    if options.cleanup {
        return match engine.clean_up().await {
            Ok(()) => Ok(()),
            Err(errors) => bail!("not all could be removed: {}", errors.join("; ")),
        };
    }
    tracing::info!(node = name, version = env!("CARGO_PKG_VERSION"), "started");

    let (status, reports) = watch::channel(None);
    let (is_gateway, gateway) = watch::channel(false);
    let (tell, told) = mpsc::channel(16);
    let passed = Arc::new(Mutex::new(Instant::now()));
    let listener =
        listen(options.bind_address).await.with_context(|| format!("--bind-address {}", options.bind_address))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(
        listener,
        Shown { registry: registry.clone(), status: reports.clone(), passed: Arc::clone(&passed) },
    ));
    match &options.state_file {
        Some(path) => drop(tasks.spawn(file::follow(path.clone(), tell))),
        None => {
            let clients = connect(options.kubeconfig.as_deref(), &registry).await?;
            let heartbeat = Heartbeat { gateway: options.gateway_lease, node: options.node_lease };
            tasks.spawn(cluster::beat(clients.lease_client(), name.clone(), heartbeat, gateway));
            tasks.spawn(cluster::report(clients.lease_client(), name.clone(), reports));
            tasks.spawn(cluster::follow(clients, tell));
        }
    }
    let checks = health.run();
    let (notices, watcher) = changes().context("netlink")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = work(&mut engine, told, notices, &health, &options, |engine| {
            *passed.lock() = Instant::now();
            is_gateway.send_if_modified(|there| std::mem::replace(there, engine.is_gateway()) != engine.is_gateway());
            status.send_if_modified(|there| {
                let new = Some(engine.status().clone());
                let changed = *there != new;
                *there = new;
                changed
            });
        }) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    checks.abort();
    watcher.abort();
    tasks.shutdown().await;
    tracing::info!("stopped; the kernel keeps what it has");
    Ok(())
}

/// Passes, one after another, whenever there is a reason.
async fn work(
    engine: &mut Engine,
    mut told: mpsc::Receiver<Told>,
    mut notices: mpsc::Receiver<()>,
    health: &Health,
    options: &Options,
    mut passed: impl FnMut(&Engine),
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut source_ended = false;
    loop {
        let worked = engine.converge().await;
        passed(engine);
        let repair = Instant::now() + options.repair_interval;
        let retry = (!worked || engine.is_looking()).then(|| Instant::now() + RETRY.min(options.repair_interval));
        // Until there is a reason for another pass.
        loop {
            let next = [Some(repair), retry, engine.next_due()].into_iter().flatten().min().unwrap_or(repair);
            let finish = engine.finish_due();
            tokio::select! {
                biased;
                new = told.recv(), if !source_ended => {
                    let Some(new) = new else {
                        source_ended = true;
                        continue;
                    };
                    engine.hear(new);
                    while let Ok(more) = told.try_recv() {
                        engine.hear(more);
                    }
                    if !engine.quick() {
                        break;
                    }
                }
                () = health.changed.notified() => {
                    if !engine.quick() {
                        break;
                    }
                }
                () = sleep_until(finish.unwrap_or(repair)), if finish.is_some() => {
                    engine.finish().await;
                    passed(engine);
                }
                notice = notices.recv() => {
                    if notice.is_none() {
                        // The watcher is gone: the periodic comparison remains.
                        pending::<()>().await;
                    }
                    tokio::time::sleep(SETTLE).await;
                    let _ = notices.try_recv();
                    break;
                }
                _ = look.tick() => {
                    if engine.tables_changed() {
                        break;
                    }
                }
                () = sleep_until(next) => break,
            }
        }
    }
}

async fn connect(kubeconfig: Option<&Path>, registry: &Registry) -> Result<Clients> {
    let source = kubeconfig.map_or(Source::InCluster, Source::kubeconfig);
    // Nothing passes this gate but what needs none: the agent has a Lease and a report of its own, and no election.
    let gate = Gate::unelected(Arc::new(quarterdeck_election::BootClock));
    let user_agent = concat!("quarterdeck-agent/", env!("CARGO_PKG_VERSION")).to_owned();
    let options = ClientOptions { user_agent, ..ClientOptions::default() };
    Ok(Clients::connect(source, options, gate, registry).await?)
}
