//! Faults of the bytes between a manager and a plug-in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Result, ensure};
use quarterdeck_cloud::grpc::Plugin;
use quarterdeck_cloud::guard::{BreakerLimits, Guarded, Limits, Timeouts};
use quarterdeck_cloud::model::{ClusterId, LbOutcome, Lookup, NodeRef};
use quarterdeck_election::{BootClock, Gate};
use quarterdeck_it::proxy::{SocketProxy, Wire};
use quarterdeck_it::{CloudSim, eventually};
use quarterdeck_runtime::facility::Authority;
use uuid::Uuid;

use super::faults_world::{LONG, Options, World};
use super::plugin::{node, spec};

/// A fault of the way to a plug-in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Broken {
    /// Nobody listens.
    Refused,
    /// What happens to the bytes; connections of before are never of use again.
    Wire(Wire),
}

pub(super) const FAULTS: [Broken; 8] = [
    Broken::Wire(Wire::Silence),
    Broken::Wire(Wire::LoseAnswers),
    Broken::Wire(Wire::Garbage),
    Broken::Wire(Wire::Cut(20)),
    Broken::Wire(Wire::Cut(0)),
    Broken::Wire(Wire::Drip(Duration::from_millis(200))),
    Broken::Wire(Wire::Reset),
    Broken::Refused,
];

impl Broken {
    pub(super) async fn begin(self, proxy: &SocketProxy) -> Result<()> {
        match self {
            Self::Wire(wire) => proxy.set(wire),
            Self::Refused => {
                proxy.refuse().await?;
                proxy.cut();
            }
        }
        Ok(())
    }

    /// New connections are well again; those that are open stay as they are, as half-open ones do.
    pub(super) async fn end(self, proxy: &SocketProxy) -> Result<()> {
        match self {
            Self::Wire(_) => proxy.set_new(Wire::Pass),
            Self::Refused => proxy.accept().await?,
        }
        Ok(())
    }
}

/// A made-up cloud, and the way to it.
async fn behind_a_wire() -> Result<(CloudSim, SocketProxy)> {
    let cloud = CloudSim::start().await?;
    let proxy = SocketProxy::start(cloud.socket().with_extension("wire"), cloud.socket()).await?;
    Ok((cloud, proxy))
}

/// What the manager's guard makes of it: an error in time, never an absence; afterwards one load balancer.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_on_the_wire_is_taken_for_an_answer() -> Result<()> {
    let (cloud, proxy) = behind_a_wire().await?;
    let plugin = Plugin::new(proxy.uri().parse()?, None);
    let limits = Limits {
        timeouts: Timeouts::parse(["read=1s", "batch=1s", "route=1s", "loadbalancer=1s"])
            .map_err(anyhow::Error::msg)?,
        breaker: BreakerLimits { faults: 1_000, ..BreakerLimits::default() },
        ..Limits::default()
    };
    let cluster = Arc::new(OnceLock::from(ClusterId("cluster-1".into())));
    let guard = Guarded::new("sim", Arc::new(plugin), cluster, limits)?;
    let right = Authority { gate: Gate::unelected(Arc::new(BootClock)), epoch: 7 };
    let id = cloud.add_instance("n").await?;
    let machine: NodeRef = node("n", Some(&id));
    for (index, broken) in FAULTS.into_iter().enumerate() {
        let (uid, op) = (format!("uid-{index}"), Uuid::new_v4());
        let spec = spec(&uid);
        broken.begin(&proxy).await?;
        let error = match guard.ensure_load_balancer(&right, op, &spec, None).await {
            Err(error) => error,
            Ok(outcome) => anyhow::bail!("{broken:?}: {outcome:?}"),
        };
        ensure!(error.maybe_applied() && error.is_providers_fault(), "{broken:?}: {error:?}");
        ensure!(guard.owned_load_balancers().await.is_err(), "{broken:?}: a list");
        ensure!(guard.routes().await.is_err(), "{broken:?}: a list of routes");
        let seen = guard.look_up(std::slice::from_ref(&machine), Duration::ZERO).await;
        let absent = |lookup: &_| !matches!(lookup, Err(_) | Ok(Lookup::Found(_)));
        ensure!(seen.iter().flatten().all(|seen| !absent(&seen.lookup)), "{broken:?}: {seen:?}");
        broken.end(&proxy).await?;
        eventually(&format!("{broken:?} is over"), LONG, async || {
            let outcome = guard.ensure_load_balancer(&right, op, &spec, None).await?;
            ensure!(matches!(outcome, LbOutcome::Ready { .. }), "{outcome:?}");
            let owned = guard.owned_load_balancers().await?;
            ensure!(owned.len() == index + 1, "{owned:?}");
            let seen = guard.look_up(std::slice::from_ref(&machine), Duration::ZERO).await?;
            ensure!(matches!(seen[0].lookup, Ok(Lookup::Found(_))), "{seen:?}");
            Ok(())
        })
        .await?;
        ensure!(cloud.balancers_of(&uid).await?.len() == 1, "{broken:?}");
    }
    Ok(())
}

mod long {
    use super::*;

    /// The same for managers and all that they look after. Each fault takes as long as the breaker leaves the cloud
    /// alone; what runs always of it is `a_go_provider_comes_through_faults_of_the_wire`.
    #[tokio::test(flavor = "multi_thread")]
    async fn all_is_as_it_should_be_after_every_fault_of_the_wire() -> Result<()> {
        managers_after_faults().await
    }
}

async fn managers_after_faults() -> Result<()> {
    let (cloud, proxy) = behind_a_wire().await?;
    let options = Options::of(format!("sim={}", proxy.uri())).hasty(2);
    let world = World::start_with(cloud, options).await?;
    let mut routes = vec![world.make_node("steady", 250).await?];
    let mut uids = vec![world.make_service("old-0").await?];
    world.serves("old-0").await?;
    world.routes_are(&routes).await?;
    for (index, broken) in FAULTS.into_iter().enumerate() {
        world.ready("steady", false).await?;
        let before = world.unanswered().await?;
        broken.begin(&proxy).await?;
        let (old, new, node) = (format!("old-{index}"), format!("old-{}", index + 1), format!("n-{index}"));
        uids.push(world.make_service(&new).await?);
        world.delete_service(&old).await?;
        uids.remove(0);
        routes.push(world.make_node(&node, index).await?);
        eventually(&format!("{broken:?} has struck"), LONG, async || {
            let now = world.unanswered().await?;
            ensure!(now >= before + 3.0, "{now} failures after {before}");
            Ok(())
        })
        .await?;
        broken.end(&proxy).await?;
        world.serves(&new).await?;
        world.is_gone(&old).await?;
        world.initialized(&node).await?;
        world.routes_are(&routes).await?;
        let owners: Vec<&str> = uids.iter().map(String::as_str).collect();
        world.cloud.owned_by(&owners).await?;
        for (_, name) in &routes {
            ensure!(world.has_node(name).await?, "{name} lives, and its Node was deleted by {broken:?}");
        }
        world.ready("steady", true).await?;
    }
    world.tenures_never_go_back().await
}
