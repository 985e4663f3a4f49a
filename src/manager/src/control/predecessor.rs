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
        let began = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&api, &lease, &mut observer, &sight) => ended,
        };
        match ended {
            // A watch lasts some minutes, by our own wish: what it showed holds until the next look.
            Ok(()) if began.elapsed() > RETRY => continue,
            Ok(()) => {}
            Err(error) => publish(&sight, Sight::Unknown { lease: lease.clone(), error: error.to_string() }),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Publishes what one Lease shows until its watch ends, or an exchange about it fails.
async fn follow<A: LeaseApi>(
    api: &A,
    lease: &str,
    observer: &mut Observer,
    sight: &watch::Sender<Sight>,
) -> Result<(), LeaseError> {
    let clock = BootClock;
    match api.get(READ_LIMIT).await? {
        Some(view) => observer.saw(clock.now(), &view),
        None => observer.saw_none(clock.now(), None),
    }
    let mut events = api.watch().await?;
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
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
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

#[cfg(test)]
mod tests {
    use futures::stream::BoxStream;
    use quarterdeck_election::record::{LeaseView, Record};

    use super::*;

    /// A server without the Lease, whose watches end after five minutes; the tenth look fails.
    struct Vacant(std::sync::atomic::AtomicU32);

    impl LeaseApi for Vacant {
        async fn get(&self, _: Duration) -> Result<Option<LeaseView>, LeaseError> {
            match self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                9 => Err(LeaseError::Unknown("no answer".to_owned())),
                _ => Ok(None),
            }
        }

        async fn create(&self, _: &Record, _: Duration) -> Result<LeaseView, LeaseError> {
            unreachable!("it is only looked at")
        }

        async fn replace(&self, _: &LeaseView, _: &Record, _: Duration) -> Result<LeaseView, LeaseError> {
            unreachable!("it is only looked at")
        }

        async fn watch(&self) -> Result<BoxStream<'static, Result<LeaseSight, LeaseError>>, LeaseError> {
            let end = tokio::time::sleep(Duration::from_secs(300));
            Ok(futures::stream::once(end).filter_map(|()| std::future::ready(None)).boxed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_watch_says_nothing_and_a_failure_does() {
        let (sender, mut sight) = watch::channel(Sight::NotYet);
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        tokio::spawn(observe(Vacant(0.into()), "kube-system/kcm".to_owned(), sender, stop));
        sight.changed().await.expect("it is being observed");
        assert_eq!(*sight.borrow_and_update(), Sight::Gone);
        let began = tokio::time::Instant::now();
        sight.changed().await.expect("it is being observed");
        assert!(matches!(*sight.borrow_and_update(), Sight::Unknown { .. }), "the tenth look failed");
        assert!(began.elapsed() >= Duration::from_secs(9 * 300), "the end of a watch was taken for a failure");
        sight.changed().await.expect("it is being observed");
        assert_eq!(*sight.borrow_and_update(), Sight::Gone);
    }
}
