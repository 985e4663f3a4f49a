//! Which of a replica's connections through a proxy carries what: faults are put on one of them at a time.

use std::time::Duration;

use anyhow::{Result, bail};

use super::group;
use crate::audit::Event;
use crate::proxy::Connection;
use crate::wait::eventually;
use crate::{ControlPlane, Proxy};

/// A request's least bytes on the wire; pings and window updates have fewer.
const REQUEST: u64 = 400;
/// The least bytes of a watch event.
const WATCHED: u64 = 200;
/// Time that anything gets on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// Did this replica ask for a change of a Lease?
#[must_use]
pub fn renewed_lease(event: &Event, replica: usize) -> bool {
    event.verb == "update"
        && event.resource() == "leases.coordination.k8s.io"
        // Not its own one, which says that it is alive.
        && event.namespace() != "quarterdeck-replicas"
        && event.user.groups.contains(&group(replica))
}

/// The connections on which requests were sent since `before`, handshakes aside.
#[must_use]
pub fn busy_since(proxy: &Proxy, before: &[Connection]) -> Vec<u64> {
    grown(proxy, before, |now, then| now.from_client >= then.from_client + REQUEST)
}

fn grown(proxy: &Proxy, before: &[Connection], by: impl Fn(&Connection, &Connection) -> bool) -> Vec<u64> {
    let grown = |now: &Connection| {
        let then = before.iter().find(|then| then.id == now.id && then.from_server > 0)?;
        by(now, then).then_some(now.id)
    };
    proxy.connections().iter().filter_map(grown).collect()
}

/// The connection on which the leader `replica` renews its Lease; it must have nothing else to do.
///
/// # Errors
/// When other connections are busy all the time.
pub async fn lease_connection(control_plane: &ControlPlane, proxy: &Proxy, replica: usize) -> Result<u64> {
    eventually("one connection alone is busy", LONG, async || {
        let before = proxy.connections();
        let mut audit = control_plane.audit_from_now()?;
        let renewed = |event: &Event| renewed_lease(event, replica) && event.succeeded();
        audit.wait_for_count("renewals", 3, LONG, renewed).await?;
        match busy_since(proxy, &before)[..] {
            [lease] => Ok(lease),
            ref busy => bail!("busy: {busy:?}"),
        }
    })
    .await
}

/// The connection, other than `lease`, on which an otherwise idle replica hears of what `change` changes.
///
/// # Errors
/// When it hears of nothing, or on several connections.
pub async fn read_connection(proxy: &Proxy, lease: u64, change: impl Future<Output = Result<()>>) -> Result<u64> {
    let before = proxy.connections();
    change.await?;
    eventually("a watch event", LONG, async || {
        let mut told = grown(proxy, &before, |now, then| now.from_server >= then.from_server + WATCHED);
        told.retain(|id| *id != lease);
        match told[..] {
            [reader] => Ok(reader),
            ref told => bail!("told: {told:?}"),
        }
    })
    .await
}
