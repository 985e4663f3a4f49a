//! Three replicas over the crowded namespace with nothing to do for a minute.

use std::time::Duration;

use anyhow::Result;

use crate::audit::{Requests, is_object_write};
use crate::contestant::{Crew, Side};
use crate::memory::{CONTROLLERS, NODES, PODS, SERVICES, written};
use crate::report::{Collector, Goal, Report};
use crate::yard::Yard;

/// After the last write, until the start has died down: caches trim, connections settle.
const CALM: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);

/// Measures requests and processor time in a minute.
pub(crate) async fn run(yard: &mut Yard, report: &mut Report) -> Result<()> {
    yard.fill(PODS, SERVICES, NODES).await?;
    let mut writes = Collector::new("at rest for 60 s: writes of objects", "writes", Goal::AtMost(0.0));
    let mut lists = Collector::new("at rest for 60 s: lists", "lists", Goal::AtMost(0.0));
    let mut requests = Collector::new("at rest for 60 s: all requests", "requests", Goal::None);
    let mut cpu = Collector::new("at rest for 60 s: CPU of three replicas", "s", Goal::Ratio(0.5));
    let mut resident = Collector::new("at rest: RSS of three replicas", "MiB", Goal::None);
    for round in 0..report.rounds(2) {
        for side in Side::both(round) {
            let crew = Crew::start(&yard.control_plane, &yard.http, side, &CONTROLLERS, 3, &[]).await?;
            written(yard, PODS).await?;
            tokio::time::sleep(CALM).await;
            let audit = yard.control_plane.audit_from_now()?;
            let before = crew.cpu()?;
            tokio::time::sleep(MINUTE).await;
            cpu.add(side, crew.cpu()? - before);
            let asked = Requests::since(&yard.control_plane, audit, side).await?;
            writes.add(side, asked.count(is_object_write));
            lists.add(side, asked.count(|event| event.verb == "list"));
            requests.add(side, asked.count(|_| true));
            resident.add(side, crew.resident()?);
            if round == 0 {
                report.note(format!("At rest, {} sent: {}.", side.title(), asked.summary()));
            }
            crew.stop().await?;
        }
    }
    report.take("rest", [writes, lists, requests, cpu, resident]);
    Ok(())
}
