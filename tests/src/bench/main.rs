//! The figures of `docs/performance.md` and `docs/failover.md`: quarterdeck and the Go
//! kube-controller-manager in turns on one server. `hack/bench` runs it.

mod addon;
mod api;
mod audit;
mod cloud;
mod contestant;
mod failover;
mod fleet;
mod flips;
mod load;
mod machine;
mod memory;
mod namespace;
mod report;
mod rest;
mod yard;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use crate::machine::Machine;
use crate::report::Report;
use crate::yard::Yard;

#[derive(Parser)]
#[command(name = "hack/bench", about = "Measures quarterdeck beside the Go kube-controller-manager")]
struct Cli {
    /// What to measure; everything without it
    #[arg(value_enum)]
    name: Option<Name>,
    /// Rounds of each figure, instead of its own number
    #[arg(long)]
    rounds: Option<usize>,
    /// Folder for the results
    #[arg(long, value_name = "D", default_value_os_t = quarterdeck_it::repository().join("target/bench"))]
    out: PathBuf,
    /// Keep the crowded control plane in this folder, and use it again: thousands of pods take time
    #[arg(long, value_name = "D")]
    keep: Option<PathBuf>,
}

/// A group of figures that share a set-up.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The leader ends or dies: another holds the Lease, and works
    Failover,
    /// A namespace is deleted until it is gone
    Namespace,
    /// Addons drift or their files change
    Addon,
    /// Three hundred addons of all sources: applied, kept, repaired
    Fleet,
    /// A made-up cloud: it hangs, is slow, has a thousand nodes
    Cloud,
    /// Memory and processor time from the start until all is written, by number of pods
    Memory,
    /// 2,000 pods change their readiness
    Flips,
    /// Three replicas with nothing to do
    Rest,
}

impl Name {
    /// All groups; those that load thousands of pods come last and share them.
    const ALL: [Self; 8] =
        [Self::Failover, Self::Namespace, Self::Addon, Self::Fleet, Self::Cloud, Self::Memory, Self::Flips, Self::Rest];

    fn title(self) -> String {
        self.to_possible_value().expect("no group is hidden").get_name().to_owned()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let names = cli.name.map_or(Name::ALL.to_vec(), |name| vec![name]);
    let title = cli.name.map_or_else(|| "all".to_owned(), Name::title);
    let mut report = Report::new(&title, Machine::look(), cli.rounds);
    let mut small = None;
    let mut large = None;
    for name in names {
        eprintln!("== {} (load average {:.1})", name.title(), machine::load_average());
        let crowded = matches!(name, Name::Memory | Name::Flips | Name::Rest);
        let place = if crowded { &mut large } else { &mut small };
        if place.is_none() {
            *place = Some(Yard::open(cli.keep.as_deref().filter(|_| crowded)).await?);
        }
        let yard = place.as_mut().expect("it was just made");
        let measured = match name {
            Name::Failover => failover::run(yard, &mut report).await,
            Name::Namespace => namespace::run(yard, &mut report).await,
            Name::Addon => addon::run(yard, &mut report).await,
            // On servers of its own: "from nothing" means a fresh one each time.
            Name::Fleet => fleet::run(&mut report).await,
            Name::Cloud => cloud::run(&mut report).await,
            Name::Memory => memory::run(yard, &mut report).await,
            Name::Flips => flips::run(yard, &mut report).await,
            Name::Rest => rest::run(yard, &mut report).await,
        };
        // What is measured already is worth keeping.
        if let Err(error) = measured {
            report.print();
            report.save(&cli.out)?;
            return Err(error).with_context(|| format!("measuring {}", name.title()));
        }
        if crowded {
            small = None;
        }
    }
    report.print();
    let file = report.save(&cli.out)?;
    eprintln!("saved {}", file.display());
    Ok(())
}
