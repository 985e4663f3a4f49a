//! The cloud's controllers: what a hung cloud costs others, how few calls suffice, how soon nodes and load balancers
//! are done, what killed leaders leave behind, and how fast a gateway of `metal` changes.
//!
//! quarterdeck's cloud is the made-up one (`quarterdeck-cloud-sim`), as a plug-in; the peer is the
//! cloud-controller-manager of Kubernetes' libraries with the fake provider of the same libraries inside
//! (`hack/cloud-peer`), each with a server of its own.

mod balancers;
mod calls;
mod hung;
mod hung_one;
mod kills;
mod metal;
mod nodes;
mod peer;
mod place;
mod queues;

use anyhow::{Context, Result};

use crate::report::{Collector, Report, Scale};

/// A part that can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A cloud that hangs as a whole: what others notice, when calls are given up, how soon the process stops.
    Hung,
    /// A cloud that hangs for one Service and one node.
    HungOne,
    /// New nodes.
    Nodes,
    /// Calls for a thousand nodes.
    Calls,
    /// Five hundred Services.
    Balancers,
    /// Leaders that are killed while load balancers are being made.
    Kills,
    /// A gateway of `metal`.
    Metal,
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub(crate) const ALL: [Self; 7] =
        [Self::Hung, Self::HungOne, Self::Nodes, Self::Balancers, Self::Metal, Self::Calls, Self::Kills];

    /// Its name, as in `cloud/calls`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hung => "hung",
            Self::HungOne => "hung-one",
            Self::Nodes => "nodes",
            Self::Calls => "calls",
            Self::Balancers => "balancers",
            Self::Kills => "kills",
            Self::Metal => "metal",
        }
    }

    async fn measure(self, scale: Scale) -> Result<Vec<Collector>> {
        let measured = match self {
            Self::Hung => Box::pin(hung::measure(scale)).await,
            Self::HungOne => Box::pin(hung_one::measure(scale)).await,
            Self::Nodes => Box::pin(nodes::measure(scale)).await,
            Self::Calls => Box::pin(calls::measure(scale)).await,
            Self::Balancers => Box::pin(balancers::measure(scale)).await,
            Self::Kills => Box::pin(kills::measure(scale)).await,
            Self::Metal => Box::pin(metal::measure(scale)).await,
        };
        measured.with_context(|| self.name())
    }
}

/// Measures one part, or all of them, each on servers of its own. What fails does not keep the rest from being measured.
pub(crate) async fn run(part: Option<Part>, report: &mut Report) -> Result<()> {
    let scale = report.scale();
    if let Some(part) = part {
        report.take("cloud", part.measure(scale).await?);
        return Ok(());
    }
    let mut errors = Vec::new();
    let mut take = |measured: Result<Vec<Collector>>| match measured {
        Ok(figures) => report.take("cloud", figures),
        Err(error) => {
            eprintln!("   {error:#}");
            errors.push(error);
        }
    };
    let alone = Part::ALL.into_iter().filter(|part| !matches!(part, Part::Calls | Part::Kills));
    for part in alone {
        take(part.measure(scale).await);
    }
    // Both only count, and the first is five minutes of waiting.
    let (calls, kills) = tokio::join!(Part::Calls.measure(scale), Part::Kills.measure(scale));
    take(calls);
    take(kills);
    errors.into_iter().next().map_or(Ok(()), Err)
}
