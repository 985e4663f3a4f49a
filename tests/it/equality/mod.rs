//! The Go controllers and ours, given the same history of services, pods and nodes, end in the same
//! Endpoints and EndpointSlices.
//!
//! Two servers, on one of which the Go kube-controller-manager works and on the other quarterdeck,
//! take the same random steps, a round at a time; after each round both must come to say the same.

mod facts;
mod random;
mod shapes;
mod side;
mod world;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use facts::{Facts, difference};
use quarterdeck_it::eventually;
use side::Side;
use world::{Round, World};

/// Time that anything gets on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Histories, by the seeds of their steps: one in every run of the tests, more in [`long`].
const SEEDS: [u64; 1] = [1];
const MORE_SEEDS: [u64; 5] = [2, 3, 4, 5, 6];
/// Rounds of a history that take random steps.
const ROUNDS: usize = 8;
/// Steps of a round.
const STEPS: usize = 25;
/// Most lines of a difference that are printed.
const LINES: usize = 40;

/// One history on both servers.
struct Run<'a> {
    go: &'a Side,
    ours: &'a Side,
    world: World,
    namespace: String,
    /// Numbers of markers, never used twice on a server.
    next: &'a mut usize,
}

impl Run<'_> {
    async fn history(&mut self) -> Result<()> {
        tokio::try_join!(self.go.namespace(&self.namespace), self.ours.namespace(&self.namespace))?;
        let begin = self.world.begin();
        self.round("the beginning", begin).await?;
        for number in 1..=ROUNDS {
            let steps = self.world.go_on(STEPS);
            self.round(&format!("round {number}"), steps).await?;
            if number.is_multiple_of(2) {
                // Nothing is under way after a round in which nothing happens.
                let nothing = self.world.go_on(0);
                self.round(&format!("the rest after round {number}"), nothing).await?;
                let freeze = self.world.freeze();
                self.round(&format!("the freeze after round {number}"), freeze).await?;
            }
        }
        let nothing = self.world.go_on(0);
        self.round("the end", nothing).await?;
        let last = self.world.end();
        tokio::try_join!(self.go.take(&last), self.ours.take(&last))?;
        Ok(())
    }

    /// Takes the steps on both servers, and waits until both say the same.
    async fn round(&mut self, name: &str, round: Round) -> Result<()> {
        let Self { go, ours, world, namespace, next } = self;
        **next += 1;
        let number = **next;
        let marker = world.marker(number);
        let steps = || -> String { round.steps.iter().map(|step| format!("  {step}\n")).collect() };
        let done = async {
            tokio::try_join!(go.take(&round.steps), ours.take(&round.steps))?;
            tokio::try_join!(go.take(&marker), ours.take(&marker))?;
            tokio::try_join!(marked(go, namespace, number), marked(ours, namespace, number))?;
            // The Go controllers do not look again when a pod ends or is bound and its readiness stays
            // the same; neither side does when a node's zone changes. A change of the service makes them.
            let services = world.service_paths();
            go.prod(&services, number).await?;
            if round.nodes_changed {
                ours.prod(&services, number).await?;
            }
            same(go, ours, namespace).await
        };
        done.await.with_context(|| format!("{name}, whose steps were\n{}", steps()))
    }
}

/// Waits until slices show the objects of a marker: everything before them is in the caches.
async fn marked(side: &Side, namespace: &str, number: usize) -> Result<()> {
    let name = format!("marker-{number}");
    let shows = |facts: &Facts, service: &str, detail: &str| {
        facts.keys().any(|fact| fact.starts_with(&format!("slice of {service} ")) && fact.contains(detail))
    };
    eventually("slices show the marker", PATIENCE, async || {
        let facts = side.facts(namespace).await?;
        ensure!(shows(&facts, &name, &format!("zone=\"{name}\"")), "no {name}");
        ensure!(shows(&facts, &format!("mirrored-{name}"), "10.4.255.1"), "no mirrored-{name}");
        Ok(())
    })
    .await
}

async fn same(go: &Side, ours: &Side, namespace: &str) -> Result<()> {
    eventually("both say the same", PATIENCE, async || {
        tokio::try_join!(go.collect_garbage(namespace), ours.collect_garbage(namespace))?;
        let (go, ours) = tokio::try_join!(go.facts(namespace), ours.facts(namespace))?;
        let lines = difference(["  Go has  ", "  we have"], [&go, &ours]);
        let shown: Vec<_> = lines.iter().take(LINES).map(String::as_str).collect();
        ensure!(lines.is_empty(), "{} differences:\n{}", lines.len(), shown.join("\n"));
        Ok(())
    })
    .await
}

/// These, unless `QUARTERDECK_EQUALITY_SEEDS` names others: numbers with commas between them.
fn seeds(otherwise: &[u64]) -> Result<Vec<u64>> {
    match std::env::var("QUARTERDECK_EQUALITY_SEEDS") {
        Ok(list) => list.split(',').map(|seed| seed.trim().parse().with_context(|| format!("seed {seed:?}"))).collect(),
        Err(_) => Ok(otherwise.to_vec()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_ends_as_with_the_go_controllers() {
    Box::pin(histories(&SEEDS)).await;
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_history_ends_as_with_the_go_controllers() {
        Box::pin(super::histories(&super::MORE_SEEDS)).await;
    }
}

/// Has both take each history.
async fn histories(otherwise: &[u64]) {
    let (go, ours) = tokio::try_join!(Side::go(), Side::ours()).unwrap();
    let mut next = 0;
    for seed in seeds(otherwise).unwrap() {
        let namespace = format!("history-{seed}");
        let world = World::new(seed, &namespace);
        let mut run = Run { go: &go, ours: &ours, world, namespace, next: &mut next };
        if let Err(error) = run.history().await {
            panic!("seed {seed}: {error:#}");
        }
    }
}
