//! The Leases of managers that run controllers which we run too: while one of them is held, ours
//! stay out of the way.

use std::collections::HashMap;
use std::sync::Arc;

use std::time::Duration;

use futures::StreamExt as _;
use quarterdeck_election::clock::{BootClock, BootInstant, Clock as _};
use quarterdeck_election::lease_api::{LeaseApi, LeaseError, LeaseSight};
use quarterdeck_election::observer::{Observer, Verdict};
use quarterdeck_runtime::controller::Predecessor;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Stands in for a Lease that names no duration: upstream's default.
const DEFAULT_DURATION: Duration = Duration::from_secs(15);
/// How long one read of a Lease may take.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// When a Lease is looked at again after an error.
const RETRY: Duration = Duration::from_secs(2);

/// What is known of a predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Its Lease has not been looked at yet.
    NotYet,
    /// The look failed: it may be alive.
    Unknown {
        /// The Lease, `namespace/name`.
        lease: String,
        /// Why it is not known.
        error: String,
    },
    /// Somebody holds its Lease and renews it.
    Alive {
        /// The Lease, `namespace/name`.
        lease: String,
        /// The holder's identity.
        holder: Arc<str>,
    },
    /// Nobody holds its Lease.
    Gone,
}

impl Sight {
    /// Why a controller must wait, and how it is handed over.
    pub(crate) fn blocks(&self, controller: &str) -> Option<String> {
        match self {
            Self::Gone | Self::NotYet => None,
            Self::Unknown { lease, error } => {
                Some(format!("cannot tell whether a holder of lease {lease} is alive: {error}"))
            }
            Self::Alive { lease, holder } => Some(format!(
                "{holder} holds lease {lease} and may run it; to take it over, add -{controller} to that manager's \
                 --controllers and name {controller} in ours (quarterdeck --print-kcm-controllers prints the former)"
            )),
        }
    }
}

/// Watches predecessors' Leases, each once.
pub(crate) struct Predecessors<A> {
    leases: HashMap<&'static str, watch::Receiver<Sight>>,
    connect: Box<dyn Fn(&'static str, &'static str) -> A + Send>,
    stop: CancellationToken,
}

impl<A: LeaseApi> Predecessors<A> {
    /// `connect` gives the access to a Lease by namespace and name.
    pub(crate) fn new(
        connect: impl Fn(&'static str, &'static str) -> A + Send + 'static,
        stop: CancellationToken,
    ) -> Self {
        Self { leases: HashMap::new(), connect: Box::new(connect), stop }
    }

    /// What is known of a predecessor, from now on.
    pub(crate) fn watch(&mut self, predecessor: Predecessor) -> watch::Receiver<Sight> {
        let (namespace, name) = ("kube-system", predecessor.lease_name());
        let Self { leases, connect, stop } = self;
        leases
            .entry(name)
            .or_insert_with(|| {
                let lease = format!("{namespace}/{name}");
                let (sender, receiver) = watch::channel(Sight::NotYet);
                tokio::spawn(observe(connect(namespace, name), lease, sender, stop.clone()));
                receiver
            })
            .clone()
    }
}

/// Follows one Lease until `stop`. An error is never taken for "gone": the sight is unknown until
/// the server answers again.
async fn observe<A: LeaseApi>(api: A, lease: String, sight: watch::Sender<Sight>, stop: CancellationToken) {
    let mut observer = Observer::new(DEFAULT_DURATION);
    loop {
        let error = tokio::select! {
            () = stop.cancelled() => return,
            error = follow(&api, &lease, &mut observer, &sight) => error,
        };
        publish(&sight, Sight::Unknown { lease: lease.clone(), error: error.to_string() });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Publishes what one Lease shows until an exchange about it fails.
async fn follow<A: LeaseApi>(
    api: &A,
    lease: &str,
    observer: &mut Observer,
    sight: &watch::Sender<Sight>,
) -> LeaseError {
    let clock = BootClock;
    match api.get(READ_LIMIT).await {
        Ok(Some(view)) => observer.saw(clock.now(), &view),
        Ok(None) => observer.saw_none(clock.now(), None),
        Err(error) => return error,
    }
    let mut events = match api.watch().await {
        Ok(events) => events,
        Err(error) => return error,
    };
    loop {
        let now = clock.now();
        let (seen, until) = judge(lease, observer.verdict(now), now);
        publish(sight, seen);
        let expired = async {
            match until {
                Some(until) => tokio::time::sleep(until.since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(LeaseSight::Is(view))) => observer.saw(clock.now(), &view),
                Some(Ok(LeaseSight::Gone(version))) => observer.saw_none(clock.now(), version),
                Some(Err(error)) => return error,
                None => return LeaseError::Unknown("the watch ended".to_owned()),
            },
            () = expired => {}
        }
    }
}

/// What a verdict means for our controllers, and until when it holds if nothing changes.
fn judge(lease: &str, verdict: Verdict, now: BootInstant) -> (Sight, Option<BootInstant>) {
    let lease = lease.to_owned();
    match verdict {
        Verdict::Unknown => (Sight::NotYet, None),
        Verdict::Held { holder, until } => (Sight::Alive { lease, holder }, Some(until)),
        // A deleted Lease does not stop its holder at once.
        Verdict::Absent { vacant_at } | Verdict::Free { vacant_at } if now < vacant_at => {
            (Sight::Unknown { lease, error: "its last holder may still be at work".to_owned() }, Some(vacant_at))
        }
        Verdict::Free { .. } | Verdict::Expired { .. } | Verdict::Absent { .. } => (Sight::Gone, None),
    }
}

fn publish(sight: &watch::Sender<Sight>, new: Sight) {
    sight.send_if_modified(|old| {
        let changed = *old != new;
        if changed {
            *old = new;
        }
        changed
    });
}
