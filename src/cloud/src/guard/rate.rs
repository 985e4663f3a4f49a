//! How many calls are begun in a second: a token bucket a class of calls, which gives way when the cloud throttles.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Calls per second where no limit was asked for: a bucket needs one.
const UNLIMITED: f64 = 10_000.0;
/// The slowest that throttling makes us, in calls per second.
const SLOWEST: f64 = 0.1;
/// How long the rate takes from nothing to its limit, once the cloud does not throttle any more.
const RECOVERY: Duration = Duration::from_secs(60);
/// Calls that were throttled within this time count as one: they were begun at one rate.
const TOGETHER: Duration = Duration::from_secs(1);
/// The longest that a cloud may ask to be left alone.
const LONGEST: Duration = Duration::from_secs(300);

/// How many calls of a class may be begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// In a second, on average; zero: as many as there are places.
    pub per_second: f64,
    /// At once, after a pause.
    pub burst: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 20.0, burst: 40 }
    }
}

/// A bucket of tokens, one a call.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
    /// Callers are served in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    as_of: Instant,
    /// Calls per second at present.
    rate: f64,
    /// The cloud asked not to be called before.
    not_before: Option<Instant>,
    lowered: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: Rate) -> Self {
        let unlimited = rate.per_second <= 0.0;
        let per_second = if unlimited { UNLIMITED } else { rate.per_second };
        let burst = if unlimited { UNLIMITED } else { f64::from(rate.burst.max(1)) };
        let now = Instant::now();
        let state = State { tokens: burst, as_of: now, rate: per_second, not_before: None, lowered: None };
        Self { per_second, burst, state: Mutex::new(state), turn: tokio::sync::Mutex::default() }
    }

    /// Waits for a token until `until` at most.
    ///
    /// # Errors
    /// When there will be none by then: how long it would take.
    pub(super) async fn wait(&self, until: Instant) -> Result<(), Duration> {
        let turn = tokio::time::timeout_at(until, self.turn.lock()).await;
        let Ok(_turn) = turn else {
            return Err(Duration::from_secs_f64(1.0 / self.rate(Instant::now())));
        };
        loop {
            let now = Instant::now();
            match self.take(now) {
                Ok(()) => return Ok(()),
                Err(wait) if now + wait > until => return Err(wait),
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Takes a token, or says when there will be one if nobody else comes.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        self.bring_up(&mut state, now);
        if let Some(not_before) = state.not_before.filter(|not_before| *not_before > now) {
            return Err(not_before - now);
        }
        if state.tokens >= 1.0 {
            state.tokens -= 1.0;
            return Ok(());
        }
        // A little more than it takes: a wait that is rounded down would be for nothing.
        Err(Duration::from_secs_f64((1.0 - state.tokens) / state.rate) + Duration::from_millis(1))
    }

    /// The cloud throttled a call.
    pub(super) fn throttled(&self, now: Instant, after: Option<Duration>) {
        let mut state = self.state.lock();
        self.bring_up(&mut state, now);
        if let Some(after) = after {
            let not_before = now + after.min(LONGEST);
            state.not_before = Some(state.not_before.map_or(not_before, |before| before.max(not_before)));
        }
        if state.lowered.is_some_and(|lowered| now.saturating_duration_since(lowered) < TOGETHER) {
            return;
        }
        state.lowered = Some(now);
        state.rate = (state.rate / 2.0).max(SLOWEST.min(self.per_second));
        state.tokens = 0.0;
    }

    /// Calls per second at present.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let mut state = self.state.lock();
        self.bring_up(&mut state, now);
        state.rate
    }

    fn bring_up(&self, state: &mut State, now: Instant) {
        // Nothing is gained while the cloud wants to be left alone.
        let from = state.not_before.map_or(state.as_of, |not_before| state.as_of.max(not_before));
        let elapsed = now.saturating_duration_since(from).as_secs_f64();
        let most = (self.burst * state.rate / self.per_second).max(1.0);
        state.tokens = (state.tokens + elapsed * state.rate).min(most.max(state.tokens));
        state.rate = (state.rate + elapsed * self.per_second / RECOVERY.as_secs_f64()).min(self.per_second);
        state.as_of = state.as_of.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: f64, burst: u32) -> Bucket {
        Bucket::new(Rate { per_second, burst })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let bucket = bucket(10.0, 3);
        let start = Instant::now();
        for _ in 0..23 {
            bucket.wait(start + Duration::from_secs(60)).await.unwrap();
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_told_at_once() {
        let bucket = bucket(0.1, 1);
        let start = Instant::now();
        bucket.wait(start).await.unwrap();
        let wait = bucket.wait(start + Duration::from_secs(5)).await.unwrap_err();
        assert!(wait >= Duration::from_secs(10), "{wait:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_throttling_lowers_the_rate_and_calm_raises_it_slowly() {
        let bucket = bucket(20.0, 40);
        // Twenty calls of one moment are one reason.
        for _ in 0..20 {
            bucket.throttled(Instant::now(), None);
        }
        assert_eq!(bucket.rate(Instant::now()), 10.0);
        assert!(bucket.take(Instant::now()).is_err(), "what was saved up is gone");
        for _ in 0..30 {
            tokio::time::advance(TOGETHER).await;
            bucket.throttled(Instant::now(), None);
        }
        let low = bucket.rate(Instant::now());
        assert!(low < 1.0, "{low}");
        tokio::time::advance(RECOVERY / 2).await;
        let middle = bucket.rate(Instant::now());
        assert!(middle > 8.0 && middle < 13.0, "{middle}");
        tokio::time::advance(RECOVERY).await;
        assert_eq!(bucket.rate(Instant::now()), 20.0);
    }

    /// azure#5904: hours of 429, with every caller asking again as soon as it may.
    #[tokio::test(start_paused = true)]
    async fn throttling_defect_a_storm_of_ten_minutes_costs_few_calls_and_is_forgotten() {
        let (bucket, begun, mut refused) = (bucket(20.0, 40), Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(600) {
            if bucket.wait(Instant::now() + Duration::from_secs(10)).await.is_ok() {
                refused += 1;
                bucket.throttled(Instant::now(), None);
            }
        }
        // 12,000 of them at a rate that does not give way.
        assert!(refused < 1_200, "{refused} calls");
        let low = bucket.rate(Instant::now());
        assert!(low < 3.0, "{low} calls a second");
        tokio::time::advance(RECOVERY + Duration::from_secs(1)).await;
        assert_eq!(bucket.rate(Instant::now()), 20.0);
        let start = Instant::now();
        for _ in 0..60 {
            bucket.wait(start + Duration::from_secs(10)).await.unwrap();
        }
        assert!(start.elapsed() <= Duration::from_millis(3_100), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_cloud_asks_for_is_respected() {
        let bucket = bucket(20.0, 40);
        bucket.throttled(Instant::now(), Some(Duration::from_secs(7)));
        let start = Instant::now();
        bucket.wait(start + Duration::from_secs(60)).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
        // A cloud that asks for a year does not get it.
        bucket.throttled(Instant::now(), Some(Duration::from_secs(31_536_000)));
        let start = Instant::now();
        bucket.wait(start + LONGEST * 2).await.unwrap();
        assert!(start.elapsed() < LONGEST + Duration::from_secs(11), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_is_none() {
        let bucket = bucket(0.0, 1);
        let start = Instant::now();
        for _ in 0..5_000 {
            bucket.wait(start).await.unwrap();
        }
    }
}
