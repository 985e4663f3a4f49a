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
mod masters;
mod memory;
mod namespace;
mod report;
mod rest;
mod yard;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, ValueEnum};

use crate::machine::Machine;
use crate::report::Report;
use crate::yard::Yard;

#[derive(Parser)]
#[command(name = "hack/bench", about = "Measures quarterdeck beside the Go kube-controller-manager")]
struct Cli {
    /// What to measure; everything without it. What follows a slash is a part of a group
    #[arg(value_parser = Choice::parser())]
    name: Option<Choice>,
    /// Rounds of each figure, instead of its own number
    #[arg(long)]
    rounds: Option<usize>,
    /// A tenth of the clouds' sizes, to see that the bench itself works: its figures then say nothing
    #[arg(long)]
    small: bool,
    /// Folder for the results
    #[arg(long, value_name = "D", default_value_os_t = quarterdeck_it::repository().join("target/bench"))]
    out: PathBuf,
    /// Keep the crowded control plane in this folder, and use it again: thousands of pods take time
    #[arg(long, value_name = "D")]
    keep: Option<PathBuf>,
}

/// A group of figures, or a part of one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Choice {
    group: Name,
    /// All of the group without one.
    part: Option<cloud::Part>,
}

impl Choice {
    fn all() -> impl Iterator<Item = Self> {
        let parts = cloud::Part::ALL.map(|part| Self { group: Name::Cloud, part: Some(part) });
        Name::ALL.map(|group| Self { group, part: None }).into_iter().chain(parts)
    }

    fn title(self) -> String {
        let group = self.group.to_possible_value().expect("no group is hidden").get_name().to_owned();
        self.part.map_or(group.clone(), |part| format!("{group}/{}", part.name()))
    }

    fn parser() -> impl TypedValueParser<Value = Self> {
        let named = |text: String| Self::all().find(|choice| choice.title() == text).expect("it is a possible value");
        PossibleValuesParser::new(Self::all().map(Self::title)).map(named)
    }
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
    /// Static pods on three real masters, which are killed; takes root
    Masters,
    /// Memory and processor time from the start until all is written, by number of pods
    Memory,
    /// 2,000 pods change their readiness
    Flips,
    /// Three replicas with nothing to do
    Rest,
}

impl Name {
    /// All groups; those that load thousands of pods come last and share them.
    const ALL: [Self; 9] = [
        Self::Failover,
        Self::Namespace,
        Self::Addon,
        Self::Fleet,
        Self::Cloud,
        Self::Masters,
        Self::Memory,
        Self::Flips,
        Self::Rest,
    ];
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let whole = Name::ALL.map(|group| Choice { group, part: None });
    let choices = cli.name.map_or(whole.to_vec(), |choice| vec![choice]);
    let title = cli.name.map_or_else(|| "all".to_owned(), |choice| choice.title().replace('/', "-"));
    let mut report = Report::new(&title, Machine::look(), cli.rounds, cli.small);
    let mut small = None;
    let mut large = None;
    for choice in choices {
        let name = choice.group;
        eprintln!("== {} (load average {:.1})", choice.title(), machine::load_average());
        let crowded = matches!(name, Name::Memory | Name::Flips | Name::Rest);
        let measured = match name {
            // On servers of their own; nobody else's runs beside them.
            Name::Fleet | Name::Cloud | Name::Masters => {
                small = None;
                match name {
                    Name::Fleet => fleet::run(&mut report).await,
                    Name::Masters => masters::run(&mut report).await,
                    _ => cloud::run(choice.part, &mut report).await,
                }
            }
            _ => {
                let place = if crowded { &mut large } else { &mut small };
                if place.is_none() {
                    *place = Some(Yard::open(cli.keep.as_deref().filter(|_| crowded)).await?);
                }
                let yard = place.as_mut().expect("it was just made");
                shared(name, yard, &mut report).await
            }
        };
        // What is measured already is worth keeping.
        if let Err(error) = measured {
            report.print();
            report.save(&cli.out)?;
            return Err(error).with_context(|| format!("measuring {}", choice.title()));
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

/// Measures a group that works on a server which it shares with others.
async fn shared(name: Name, yard: &mut Yard, report: &mut Report) -> Result<()> {
    match name {
        Name::Failover => failover::run(yard, report).await,
        Name::Namespace => namespace::run(yard, report).await,
        Name::Addon => addon::run(yard, report).await,
        Name::Memory => memory::run(yard, report).await,
        Name::Flips => flips::run(yard, report).await,
        Name::Rest => rest::run(yard, report).await,
        Name::Fleet | Name::Cloud | Name::Masters => unreachable!("they have servers of their own"),
    }
}
