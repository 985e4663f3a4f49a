//! When a failed attempt may be followed by another one.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// How often a request that the server turned away is tried again; upstream's number
/// (`client-go:rest/request.go`).
const TURNED_AWAY: usize = 10;
/// How often a read that failed on the way, or in the server, is tried again.
const FAILED: usize = 3;
/// The longest that a `Retry-After` is heeded for; what asks for more is left to the caller's queue.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Counts the attempts of one request.
pub(crate) struct Attempts {
    turned_away: usize,
    failed: usize,
    backoff: ExponentialBackoff,
}

impl Attempts {
    /// Before the first attempt.
    pub(crate) fn new() -> Self {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter()
            .build();
        Self { turned_away: 0, failed: 0, backoff }
    }

    /// How long to wait before a read is tried again, if it may be: after no answer, 429, and 5xx.
    pub(crate) fn read_again(&mut self, status: Option<StatusCode>, headers: Option<&HeaderMap>) -> Option<Duration> {
        let asked = headers.and_then(retry_after);
        match status {
            Some(status)
                if status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && asked.is_some()) =>
            {
                self.turned_away(asked)
            }
            Some(status) if !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED => None,
            _ if self.failed == FAILED => None,
            _ => {
                self.failed += 1;
                self.backoff.next()
            }
        }
    }

    /// How long to wait before a write is tried again: only after 429, which says that it was not
    /// carried out.
    pub(crate) fn write_again(&mut self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        if status != StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        self.turned_away(retry_after(headers))
    }

    fn turned_away(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.turned_away == TURNED_AWAY || asked.is_some_and(|wait| wait > LONGEST_WAIT) {
            return None;
        }
        self.turned_away += 1;
        let own = self.backoff.next()?;
        // Jitter on top, so that clients turned away together do not come back together.
        Some(asked.map_or(own, |asked| asked + own.min(asked / 4)))
    }
}

/// The header's seconds; its date form is not used by Kubernetes.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(seconds: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, seconds.parse().unwrap())])
    }

    #[test]
    fn writes_are_repeated_after_429_only() {
        let none = HeaderMap::new();
        for code in [200, 400, 409, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(Attempts::new().write_again(status, &asking("1")), None, "{code}");
        }
        assert!(Attempts::new().write_again(StatusCode::TOO_MANY_REQUESTS, &none).is_some());
        let wait = Attempts::new().write_again(StatusCode::TOO_MANY_REQUESTS, &asking("2")).unwrap();
        assert!(wait >= Duration::from_secs(2) && wait < Duration::from_secs(3), "{wait:?}");
        assert_eq!(Attempts::new().write_again(StatusCode::TOO_MANY_REQUESTS, &asking("3600")), None);
    }

    #[test]
    fn reads_are_repeated_a_bounded_number_of_times() {
        let mut attempts = Attempts::new();
        assert_eq!(std::iter::from_fn(|| attempts.read_again(None, None)).count(), FAILED);
        let mut attempts = Attempts::new();
        let asking = asking("1");
        let busy = Some(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(std::iter::from_fn(|| attempts.read_again(busy, Some(&asking))).count(), TURNED_AWAY);
        for code in [200, 401, 403, 404, 409, 410, 422, 501] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(Attempts::new().read_again(Some(status), Some(&HeaderMap::new())), None, "{code}");
        }
    }
}
