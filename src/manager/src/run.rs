//! A manager's life: set up, connect, serve, watch, stand for election, and stop in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quarterdeck_election::fence::KubeFenceProver;
use quarterdeck_election::{BootClock, Election, ElectionConfig, Gate, KubeLeases, Leadership, Timing};
use quarterdeck_runtime::client::{ClientOptions, Clients, Identity, Source};
use quarterdeck_runtime::controller::Predecessor;
use quarterdeck_runtime::engine::Unit;
use quarterdeck_runtime::events::EventSink;
use quarterdeck_runtime::informer::Informers;
use quarterdeck_runtime::notes::Notes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::announce::Announcer;
use crate::builder::Manager;
use crate::control::{Barrier, Predecessors, State, States, Supervisor};
use crate::flags::{ElectionFlags, FenceMode, Options, Parsed};
use crate::log::LogLevel;
use crate::masters::Masters;
use crate::notify::Notifier;
use crate::replica::{ELECTION_NOTE, ReplicaLease, Standing, VERSION_NOTE};
use crate::serve::{self, Served};
use crate::setup::{Chosen, set_up};
use crate::{metrics, watchdog};

/// How long a stop may wait for its own event to be written.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// What is left of the shutdown time for the release of the Lease after workers were cut off.
const RELEASE_TIME: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(manager: &Manager, parsed: &Parsed, log: LogLevel) -> anyhow::Result<()> {
    let options = &parsed.options;
    refuse_partial_takeover(parsed)?;
    let registry = prometheus::Registry::new();
    log.register(&registry)?;
    let informers = Informers::new();
    informers.register(&registry)?;
    let notes = Notes::new(&replica_name(manager.name, options));
    let connection = Arc::default();
    let (chosen, facilities) = set_up(manager, parsed, &informers, &registry, &notes, &connection)?;
    let (units, states) = sort(chosen, &registry)?;

    let clock = Arc::new(BootClock);
    let (gate, keeper) = if options.election.leader_elect {
        let (gate, keeper) = Gate::new(timing(&options.election)?, clock);
        (gate, Some(keeper))
    } else {
        (Gate::unelected(clock), None)
    };
    let clients = connect(manager, parsed, gate, &registry).await?;
    let _ = connection.set(clients.clone());
    let events = EventSink::start(&clients, &registry)?;
    let stop = CancellationToken::new();

    let identity = identity();
    // Kept to the end: without a sender the supervisors would take the leadership for over.
    let (unelected, always) = watch::channel(Leadership::unelected());
    let (leadership, election) = match keeper {
        None => (always, None),
        Some(keeper) => {
            let flags = &options.election;
            let lease = KubeLeases::new(
                clients.lease_client(),
                &flags.leader_elect_resource_namespace,
                &flags.leader_elect_resource_name,
            );
            let config =
                ElectionConfig { identity: identity.clone(), lease_name: flags.leader_elect_resource_name.clone() };
            let prover = KubeFenceProver::new(clients.lease_client(), flags.leader_elect_resource_name.as_str());
            let election = Election::new(config, lease, keeper).with_fence(fence_mode(flags.fence), Arc::new(prover));
            (election.leadership(), Some(election))
        }
    };

    let lease_name = &options.election.leader_elect_resource_name;
    let lease = format!("{}/{lease_name}", options.election.leader_elect_resource_namespace);
    notes.pin(VERSION_NOTE, manager.program.version.clone());
    notes.pin(ELECTION_NOTE, lease.clone());
    let masters = Masters::new(&informers, notes.replica(), &lease);
    let status = election.as_ref().map(Election::status);
    metrics::election(&registry, lease_name, leadership.clone(), status.clone(), clients.gate().clone())?;
    metrics::units(&registry, units.clone())?;
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let notifier = Notifier::from_env();
    let served = Served {
        name: manager.name,
        version: manager.program.version.clone(),
        lease,
        masters: masters.clone(),
        notes: notes.clone(),
        units: units.clone(),
        states: states.clone(),
        facilities,
        informers: informers.clone(),
        clients: clients.clone(),
        election: status.clone(),
        leadership: leadership.clone(),
        watchdog: watchdog::start(&registry, notifier.clone())?,
        registry: registry.clone(),
        log,
    };
    serve::start(parsed, served, &stop).await?;
    notifier.ready();

    informers.start(Arc::new(clients.clone()), tokio::runtime::Handle::current());
    let mut predecessors = {
        let clients = clients.clone();
        Predecessors::new(move |namespace, name| KubeLeases::new(clients.lease_client(), namespace, name), stop.clone())
    };
    let barrier = Arc::new(Barrier::register(informers.clone(), &registry)?);
    let mut tasks = JoinSet::new();
    let standing = status.clone().map(|status| Standing { leadership: leadership.clone(), status });
    let own_lease = ReplicaLease::new(clients.lease_client(), &notes, &identity, standing);
    tasks.spawn(own_lease.follow(notes.follow(), stop.clone()));
    tasks.spawn(masters.sweep(clients.clone(), leadership.clone(), stop.clone()));
    for unit in units {
        for task in unit.start_loops(&stop) {
            tasks.spawn(async move { drop(task.await) });
        }
        let descriptor = unit.descriptor();
        let predecessor = descriptor
            .predecessor
            .filter(|_| !parsed.selection.is_named(descriptor.name))
            // Under one Lease the election itself keeps the two apart.
            .filter(|predecessor| !holds_the_lease_of(&options.election, *predecessor))
            .map(|predecessor| predecessors.watch(predecessor));
        let supervisor = Supervisor {
            unit,
            states: states.clone(),
            leadership: leadership.clone(),
            predecessor,
            barrier: Arc::clone(&barrier),
            clients: clients.clone(),
            events: events.clone(),
            handed_over: options.election.leader_elect_lease_duration,
        };
        tasks.spawn(supervisor.run(stop.clone()));
    }
    let voice = events.recorder(manager.name, &Identity::Manager);
    let announcer = Announcer::new(&options.election, &identity, voice);
    let leads = leadership.clone();
    tasks.spawn(announcer.clone().follow_trouble(leadership.clone(), status, states, stop.clone()));
    tasks.spawn(notifier.clone().follow(leadership.clone(), stop.clone()));
    tasks.spawn(announcer.clone().follow(leadership, stop.clone()));

    let say_stopping = async {
        notifier.stopping();
        if leads.borrow().tenure().is_some() {
            announcer.stopping();
            events.flush(LAST_WORDS).await;
        }
    };
    lead_until_told_to_stop(election, say_stopping, options.generic.controller_shutdown_timeout).await?;
    stop.cancel();
    informers.stop_all();
    let _ = tokio::time::timeout(RELEASE_TIME, async { while tasks.join_next().await.is_some() {} }).await;
    drop(unelected);
    Ok(())
}

/// Splits the table into those that run and the states of all.
fn sort(all: Vec<Chosen>, registry: &prometheus::Registry) -> anyhow::Result<(Vec<Arc<dyn Unit>>, States)> {
    let states = States::register(registry)?;
    let mut units = Vec::new();
    for chosen in all {
        match chosen {
            Chosen::In(unit) => {
                states.set(unit.descriptor().name, State::Warming);
                units.push(unit);
            }
            Chosen::Aside(name, lacks) => {
                tracing::info!(controller = name, reason = lacks, "a controller stays out");
                states.set(name, State::Disabled);
            }
            Chosen::Out(name) => states.set(name, State::Disabled),
        }
    }
    Ok((units, states))
}

/// Stands for election until a signal comes, then gives the lease back within the time given.
async fn lead_until_told_to_stop(
    election: Option<Election<KubeLeases>>,
    say_stopping: impl Future<Output = ()>,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let election = tokio::spawn({
        let stop = stop.clone();
        async move {
            match election {
                Some(election) => election.run(stop).await,
                None => stop.cancelled().await,
            }
        }
    });
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    // The gate shuts with the election; what is to be said as leader is said before.
    say_stopping.await;
    stop.cancel();
    tokio::select! {
        ended = tokio::time::timeout(grace + RELEASE_TIME, election) => match ended {
            Ok(ended) => ended.context("the election ended badly"),
            Err(_) => bail!("controllers did not stop within {grace:?}; the lease expires by itself"),
        },
        _ = terminate.recv() => bail!("told to stop twice; the lease expires by itself"),
        _ = interrupt.recv() => bail!("told to stop twice; the lease expires by itself"),
    }
}

async fn connect(
    manager: &Manager,
    parsed: &Parsed,
    gate: Gate,
    registry: &prometheus::Registry,
) -> anyhow::Result<Clients> {
    let options = &parsed.options;
    let client = ClientOptions {
        qps: options.generic.kube_api_qps,
        burst: u32::try_from(options.generic.kube_api_burst).unwrap_or(0),
        user_agent: format!("{}/{}", manager.program.name, manager.program.version),
    };
    Ok(Clients::connect(source(parsed)?, client, gate, registry).await?)
}

/// Where the API server is, by `--kubeconfig` and `--master`.
pub(crate) fn source(parsed: &Parsed) -> anyhow::Result<Source> {
    let misc = &parsed.options.misc;
    if !misc.master.is_empty() {
        bail!("--master is not supported; put the server's address into the kubeconfig");
    }
    Ok(if misc.kubeconfig.is_empty() { Source::InCluster } else { Source::kubeconfig(&misc.kubeconfig) })
}

fn timing(flags: &ElectionFlags) -> anyhow::Result<Timing> {
    Ok(Timing::new(
        flags.leader_elect_lease_duration,
        flags.leader_elect_renew_deadline,
        flags.leader_elect_retry_period,
    )?)
}

fn fence_mode(flag: FenceMode) -> quarterdeck_election::FenceMode {
    match flag {
        FenceMode::Auto => quarterdeck_election::FenceMode::Auto,
        FenceMode::Required => quarterdeck_election::FenceMode::Required,
    }
}

/// This process's name in the Lease, in upstream's form.
fn identity() -> String {
    format!("{}_{}", hostname(), uuid::Uuid::new_v4())
}

/// This replica's name: that of the flag, or the host's. Another election than the program's own has replicas of its
/// own on the same hosts.
fn replica_name(program: &str, options: &Options) -> String {
    let (flag, lease) = (&options.generic.replica_name, &options.election.leader_elect_resource_name);
    match (flag.as_str(), lease == "quarterdeck" && program == "quarterdeck") {
        ("", true) => hostname(),
        ("", false) => format!("{}.{lease}", hostname()),
        (name, _) => name.to_owned(),
    }
}

fn hostname() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    host.unwrap_or_else(|| "localhost".to_owned())
}

/// Whether this process stands for election under the Lease of a predecessor.
fn holds_the_lease_of(flags: &ElectionFlags, predecessor: Predecessor) -> bool {
    flags.leader_elect
        && flags.leader_elect_resource_namespace == "kube-system"
        && flags.leader_elect_resource_name == predecessor.lease_name()
}

/// Holding an upstream manager's Lease keeps that manager out, and with it every controller that
/// this build lacks.
fn refuse_partial_takeover(parsed: &Parsed) -> anyhow::Result<()> {
    let flags = &parsed.options.election;
    let upstream = [Predecessor::KubeControllerManager, Predecessor::CloudControllerManager];
    let shares = upstream.into_iter().any(|predecessor| holds_the_lease_of(flags, predecessor));
    if shares && !parsed.options.generic.allow_partial_takeover {
        bail!(
            "--leader-elect-resource-name={}: while this process holds that Lease nobody runs the controllers that this \
             build lacks; use another name, or say --allow-partial-takeover",
            flags.leader_elect_resource_name
        );
    }
    Ok(())
}
