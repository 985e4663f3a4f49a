//! Waiting for a condition: the one place that sleeps.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Pause between two looks at a condition; grows to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(5);
/// Longest pause between two looks.
const SLOWEST: Duration = Duration::from_millis(100);

/// Asks `condition` until it answers `Ok`, and returns that answer.
///
/// `what` names the awaited thing in the error, which also carries the last
/// answer of `condition`; let that say what was seen instead. A single look is
/// cut off at `timeout`, so one that hangs fails like one that says no.
///
/// # Errors
/// When `timeout` has passed without an `Ok`.
pub async fn eventually<T, F, Fut>(what: &str, timeout: Duration, mut condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    let mut pause = FASTEST;
    let mut last = anyhow!("the first look did not end");
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => last = reason,
            Err(_elapsed) => {
                return Err(last.context(format!("not within {timeout:?}: {what}; last seen")));
            }
        }
        if start.elapsed() >= timeout {
            return Err(last.context(format!("not within {timeout:?}: {what}; last seen")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(SLOWEST);
    }
}
