//! What may be done to the tested cloud besides calling it. Every ability may be missing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use ipnet::IpNet;
use quarterdeck_cloud::model::{ClusterId, Owner, Protocol};
use quarterdeck_cloud::sim::{Command, Dump, FailKind, Fault, Moment, NewInstance, Power, Rule, Settings, Sim};

use crate::known::{Machine, Restart};
use crate::suite::Stop;

/// What a load balancer is configured as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its ports.
    pub ports: Vec<(Protocol, u16)>,
    /// Names of the nodes that get traffic.
    pub backends: Vec<String>,
    /// Who may connect.
    pub source_ranges: Vec<IpNet>,
    /// Port at which nodes tell whether they have endpoints, if only such nodes serve.
    pub health_check_node_port: Option<u16>,
    /// For how long a client sticks to a backend.
    pub affinity: Option<Duration>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

fn cannot<T>(what: &str) -> Result<T, Stop> {
    Err(Stop::NotApplicable(format!("there is no way to {what}")))
}

/// What may be done to the tested cloud.
#[async_trait]
pub trait Steering: Send + Sync {
    /// Has calls of this method hang, before they did anything.
    async fn hang(&self, _method: &str) -> Result<(), Stop> {
        cannot("have a call hang")
    }

    /// Has the making of the next load balancer end after so many steps.
    async fn fail_at_step(&self, _step: usize) -> Result<(), Stop> {
        cannot("have the making of a load balancer fail half-way")
    }

    /// Ends all that was made to go wrong.
    async fn heal(&self) -> Result<(), Stop> {
        Ok(())
    }

    /// Stops the provider; returns when it is down.
    async fn stop(&self) -> Result<(), Stop> {
        cannot("stop the provider")
    }

    /// Starts it again; returns when it is up.
    async fn start(&self) -> Result<(), Stop> {
        cannot("start the provider")
    }

    /// A new running machine of this name.
    async fn make_machine(&self, _name: &str) -> Result<Machine, Stop> {
        cannot("make a machine")
    }

    /// Ends a machine for good.
    async fn terminate(&self, _machine: &Machine) -> Result<(), Stop> {
        cannot("terminate a machine")
    }

    /// Puts a route of somebody else into the cluster's table.
    async fn add_foreign_route(&self, _cluster: &str, _destination: IpNet) -> Result<(), Stop> {
        cannot("make a route of somebody else")
    }

    /// Whether there is a route of somebody else to this destination.
    async fn has_foreign_route(&self, _destination: IpNet) -> Result<bool, Stop> {
        cannot("see routes of somebody else")
    }

    /// Removes it again.
    async fn remove_foreign_route(&self, _destination: IpNet) -> Result<(), Stop> {
        cannot("remove a route of somebody else")
    }

    /// Has lists come in pages of this size.
    async fn page(&self, _size: usize) -> Result<(), Stop> {
        cannot("choose how large a page is")
    }

    /// What the owner's load balancers are configured as.
    async fn described(&self, _owner: &Owner) -> Result<Vec<Described>, Stop> {
        cannot("see how a load balancer is configured")
    }

    /// How many things are left of an owner's load balancer.
    async fn left_of(&self, _owner: &Owner) -> Result<usize, Stop> {
        cannot("see what a provider leaves behind")
    }
}

/// Nothing can be done but to call the provider, and to restart it if a command does that.
#[derive(Default)]
pub struct Unsteered {
    /// The commands.
    pub restart: Option<Restart>,
}

impl Unsteered {
    async fn run(command: &str) -> Result<(), Stop> {
        let status = tokio::process::Command::new("sh").arg("-c").arg(command).status().await?;
        if !status.success() {
            return Err(Stop::Failed(format!("{command}: {status}")));
        }
        Ok(())
    }
}

#[async_trait]
impl Steering for Unsteered {
    async fn stop(&self) -> Result<(), Stop> {
        match &self.restart {
            Some(restart) => Self::run(&restart.stop).await,
            None => cannot("stop the provider"),
        }
    }

    async fn start(&self) -> Result<(), Stop> {
        match &self.restart {
            Some(restart) => Self::run(&restart.start).await,
            None => cannot("start the provider"),
        }
    }
}

/// A made-up cloud that can be commanded.
#[async_trait]
pub trait Commanded: Send + Sync {
    /// Does one thing to the cloud; returns the id of what was made.
    async fn command(&self, command: Command) -> Result<String>;

    /// Everything there is to know of it.
    async fn dump(&self) -> Result<Dump>;
}

#[async_trait]
impl Commanded for Arc<Sim> {
    async fn command(&self, command: Command) -> Result<String> {
        Ok(Sim::command(self, command)?.id)
    }

    async fn dump(&self) -> Result<Dump> {
        Ok(Sim::dump(self))
    }
}

#[async_trait]
impl Commanded for quarterdeck_cloud_sim::Client {
    async fn command(&self, command: Command) -> Result<String> {
        Self::command(self, &command).await
    }

    async fn dump(&self) -> Result<Dump> {
        Self::dump(self).await
    }
}

/// What stops and starts the provider itself.
#[async_trait]
pub trait Restarted: Send + Sync {
    /// Stops it; returns when it is down.
    async fn stop(&self) -> Result<()>;

    /// Starts it again; returns when it is up.
    async fn start(&self) -> Result<()>;
}

/// A made-up cloud.
pub struct ByCommand<C> {
    cloud: C,
    restarted: Option<Box<dyn Restarted>>,
}

impl<C: Commanded> ByCommand<C> {
    /// One that is unavailable by a fault, not by being stopped.
    pub fn new(cloud: C) -> Self {
        Self { cloud, restarted: None }
    }

    /// One that can be stopped for real.
    #[must_use]
    pub fn restarted_by(mut self, restarted: impl Restarted + 'static) -> Self {
        self.restarted = Some(Box::new(restarted));
        self
    }

    async fn fault(&self, rule: Rule) -> Result<(), Stop> {
        self.cloud.command(Command::AddFault(rule)).await.map(drop).map_err(Stop::from_any)
    }

    async fn ask(&self) -> Result<Dump, Stop> {
        self.cloud.dump().await.map_err(Stop::from_any)
    }

    async fn tell(&self, command: Command) -> Result<String, Stop> {
        self.cloud.command(command).await.map_err(Stop::from_any)
    }
}

#[async_trait]
impl<C: Commanded> Steering for ByCommand<C> {
    async fn hang(&self, method: &str) -> Result<(), Stop> {
        self.fault(Rule::new(method, Fault::Hang { at: Moment::Before })).await
    }

    async fn fail_at_step(&self, step: usize) -> Result<(), Stop> {
        self.fault(Rule::new("loadbalancers.ensure", Fault::FailAtStep { step }).times(1)).await
    }

    async fn heal(&self) -> Result<(), Stop> {
        self.tell(Command::ClearFaults { id: None }).await.map(drop)
    }

    async fn stop(&self) -> Result<(), Stop> {
        if let Some(restarted) = &self.restarted {
            return restarted.stop().await.map_err(Stop::from_any);
        }
        let down = Fault::Fail { error: FailKind::Unavailable, retry_after_ms: None, at: Moment::Before };
        self.fault(Rule::new("*", down)).await
    }

    async fn start(&self) -> Result<(), Stop> {
        match &self.restarted {
            Some(restarted) => restarted.start().await.map_err(Stop::from_any),
            None => self.heal().await,
        }
    }

    async fn make_machine(&self, name: &str) -> Result<Machine, Stop> {
        let provider_id = self.tell(Command::AddInstance(NewInstance::named(name))).await?;
        Ok(Machine { name: name.to_owned(), provider_id, addresses: Vec::new() })
    }

    async fn terminate(&self, machine: &Machine) -> Result<(), Stop> {
        self.tell(Command::SetPower { name: machine.name.clone(), power: Power::Terminated }).await.map(drop)
    }

    async fn add_foreign_route(&self, cluster: &str, destination: IpNet) -> Result<(), Stop> {
        let cluster = ClusterId(cluster.into());
        self.tell(Command::AddForeignRoute { cluster, destination }).await.map(drop)
    }

    async fn has_foreign_route(&self, destination: IpNet) -> Result<bool, Stop> {
        let state = self.ask().await?.state;
        Ok(state.routes.values().any(|one| !one.owned && one.destination == destination))
    }

    async fn remove_foreign_route(&self, destination: IpNet) -> Result<(), Stop> {
        self.tell(Command::LoseRoutes { destination }).await.map(drop)
    }

    async fn page(&self, size: usize) -> Result<(), Stop> {
        let settings = Settings { page: size, ..self.ask().await?.state.settings };
        self.tell(Command::SetSettings(settings)).await.map(drop)
    }

    async fn described(&self, owner: &Owner) -> Result<Vec<Described>, Stop> {
        let state = self.ask().await?.state;
        let own = state.balancers.into_values().filter(|one| one.owner.uid == owner.uid);
        let own = own.filter(|one| one.owner.cluster == owner.cluster);
        let described = own.map(|one| Described {
            ports: one.ports.iter().map(|port| (port.protocol, port.port)).collect(),
            backends: one.backends.iter().map(|backend| backend.name.clone()).collect(),
            source_ranges: one.source_ranges,
            health_check_node_port: Some(one.health_check_node_port).filter(|port| *port > 0),
            affinity: one.affinity,
            addresses: one.addresses,
        });
        Ok(described.collect())
    }

    async fn left_of(&self, owner: &Owner) -> Result<usize, Stop> {
        let state = self.ask().await?.state;
        let is_its = |other: &Owner| other.uid == owner.uid && other.cluster == owner.cluster;
        let reserved = state.reservations.iter().filter(|one| is_its(&one.owner)).count();
        Ok(reserved + state.balancers.values().filter(|one| is_its(&one.owner)).count())
    }
}
