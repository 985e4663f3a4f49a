//! The connections there are, so that many idle ones cannot keep a probe out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All connections.
pub(crate) struct Connections {
    open: Mutex<(u64, HashMap<u64, Arc<Activity>>)>,
    limit: usize,
    stop: CancellationToken,
}

/// One connection; leaves the list when it is dropped.
pub(crate) struct Connection {
    id: u64,
    activity: Arc<Activity>,
    all: Arc<Connections>,
}

/// What a connection is doing.
struct Activity {
    end: CancellationToken,
    /// Requests under way, and since when there have been as many.
    requests: Mutex<(u32, Instant)>,
}

/// A request under way.
pub(crate) struct Busy(Arc<Activity>);

impl Connections {
    /// At most `limit` at a time; all end with `stop`.
    pub(crate) fn new(limit: usize, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), limit, stop })
    }

    /// A place for one more; the connection that has been idle longest makes room. `None` if all
    /// are busy.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut open = self.open.lock();
        if open.1.len() >= self.limit {
            let idlest = open
                .1
                .iter()
                .filter_map(|(id, activity)| Some((activity.idle_since()?, *id)))
                .min()
                .map(|(_, id)| id)?;
            if let Some(activity) = open.1.remove(&idlest) {
                activity.end.cancel();
            }
        }
        open.0 += 1;
        let (id, end) = (open.0, self.stop.child_token());
        let activity = Arc::new(Activity { end, requests: Mutex::new((0, Instant::now())) });
        open.1.insert(id, Arc::clone(&activity));
        Some(Arc::new(Connection { id, activity, all: Arc::clone(self) }))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().1.len()
    }
}

impl Connection {
    /// Cancelled when the connection must end.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.activity.end
    }

    /// Marks a request as under way, as long as the mark lives.
    pub(crate) fn busy(&self) -> Busy {
        let mut requests = self.activity.requests.lock();
        *requests = (requests.0 + 1, Instant::now());
        Busy(Arc::clone(&self.activity))
    }

    /// Returns when nothing has been under way for this long.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        loop {
            let until = match self.activity.idle_since() {
                Some(since) if since + limit <= Instant::now() => return,
                Some(since) => since + limit,
                None => Instant::now() + limit,
            };
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Activity {
    fn idle_since(&self) -> Option<Instant> {
        let (requests, since) = *self.requests.lock();
        (requests == 0).then_some(since)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.lock().1.remove(&self.id);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut requests = self.0.requests.lock();
        *requests = (requests.0.saturating_sub(1), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_idlest_makes_room_and_the_busy_stay() {
        let all = Connections::new(2, CancellationToken::new());
        let (a, b) = (all.open().unwrap(), all.open().unwrap());
        let busy = a.busy();
        tokio::time::advance(Duration::from_secs(1)).await;
        let c = all.open().unwrap();
        assert!(b.ended().is_cancelled() && !a.ended().is_cancelled());
        let _busy = c.busy();
        assert!(all.open().is_none());
        drop(busy);
        assert!(all.open().is_some());
        assert!(a.ended().is_cancelled());
        drop((a, b, c));
        assert_eq!(all.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_counts_from_the_last_request() {
        let all = Connections::new(2, CancellationToken::new());
        let connection = all.open().unwrap();
        let started = Instant::now();
        let busy = connection.busy();
        let idle = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move { connection.idle_for(Duration::from_secs(10)).await }
        });
        tokio::time::sleep(Duration::from_secs(25)).await;
        drop(busy);
        idle.await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(35));
    }
}
