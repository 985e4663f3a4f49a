//! Notices when the runtime stands still: a thread of its own looks at a heartbeat that only a
//! runtime that schedules tasks can move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, Registry};

use crate::notify::Notifier;

/// How often the heart beats, and is looked at.
const BEAT: Duration = Duration::from_secs(1);
/// A heart that has not beaten for this long stands still.
const STILL: Duration = Duration::from_secs(5);

/// What the watchdog knows. Clones share it.
#[derive(Clone)]
pub(crate) struct Watchdog {
    start: Instant,
    last_beat: Arc<AtomicU64>,
}

/// Starts the heart in the present runtime, and the thread that listens to it and tells the service manager that it beats.
pub(crate) fn start(registry: &Registry, notifier: Notifier) -> anyhow::Result<Watchdog> {
    let stalls = IntCounter::new("quarterdeck_runtime_stalls_total", "Times the runtime stood still for seconds")?;
    registry.register(Box::new(stalls.clone()))?;
    let dog = Watchdog { start: Instant::now(), last_beat: Arc::default() };
    tokio::spawn({
        let dog = dog.clone();
        async move {
            let mut beats = tokio::time::interval(BEAT);
            loop {
                beats.tick().await;
                dog.last_beat.store(millis(dog.start.elapsed()), Ordering::Relaxed);
            }
        }
    });
    std::thread::Builder::new().name("watchdog".to_owned()).spawn({
        let dog = dog.clone();
        move || dog.listen(&stalls, &notifier)
    })?;
    Ok(dog)
}

impl Watchdog {
    /// How long the runtime has stood still, if it does.
    pub(crate) fn still_for(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        let quiet = self.start.elapsed().saturating_sub(last);
        (quiet > STILL).then_some(quiet)
    }

    fn listen(&self, stalls: &IntCounter, notifier: &Notifier) {
        let mut still = false;
        loop {
            std::thread::sleep(BEAT);
            match self.still_for() {
                Some(quiet) if !still => {
                    still = true;
                    stalls.inc();
                    tracing::error!(
                        seconds = quiet.as_secs(),
                        "the runtime stands still: something blocks its threads"
                    );
                }
                Some(_) => {}
                None => {
                    still = false;
                    notifier.alive();
                }
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
