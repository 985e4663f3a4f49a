//! Sets up what a command line enables: facilities first, then controllers. No I/O.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use quarterdeck_runtime::client::Clients;
use quarterdeck_runtime::engine::{Deadlines, EngineMetrics, Foundation, Unit};
use quarterdeck_runtime::facility::{Facilities, Ground};
use quarterdeck_runtime::informer::Informers;
use quarterdeck_runtime::notes::Notes;
use quarterdeck_runtime::queue::QueueMetricFamilies;

use crate::builder::Manager;
use crate::flags::Parsed;

/// A controller of the table, as the command line has it.
pub(crate) enum Chosen {
    /// It runs.
    In(Arc<dyn Unit>),
    /// It is enabled, but lacks something and stays out: its name, and what it lacks.
    Aside(&'static str, String),
    /// `--controllers` leaves it out.
    Out(&'static str),
}

/// Every controller of the table, set up if it is enabled, and what they share.
pub(crate) fn set_up(
    manager: &Manager,
    parsed: &Parsed,
    informers: &Informers,
    registry: &prometheus::Registry,
    notes: &Notes,
    clients: &Arc<OnceLock<Clients>>,
) -> anyhow::Result<(Vec<Chosen>, Facilities)> {
    let ground = Ground {
        informers: informers.clone(),
        registry: registry.clone(),
        clients: Arc::clone(clients),
        given: manager.given.clone(),
    };
    let mut facilities = Facilities::default();
    for shared in &manager.shared {
        (shared.bring)(parsed, &ground, &mut facilities)?;
    }
    let foundation = Foundation {
        informers: informers.clone(),
        registry: registry.clone(),
        queues: QueueMetricFamilies::register(registry)?,
        engine: EngineMetrics::register(registry)?,
        deadlines: Deadlines::default(),
        notes: notes.clone(),
        facilities,
    };
    let mut all = Vec::new();
    for entry in &manager.entries {
        let name = entry.descriptor.name;
        if !parsed.selection.is_enabled(name) {
            all.push(Chosen::Out(name));
            continue;
        }
        let unit = (entry.build)(parsed, &foundation).with_context(|| name)?;
        all.push(match unit.aside().map(str::to_owned) {
            Some(lacks) if parsed.selection.is_named(name) => bail!("--controllers: {name}: {lacks}"),
            Some(lacks) => Chosen::Aside(name, lacks),
            None => Chosen::In(unit),
        });
    }
    Ok((all, foundation.facilities))
}
