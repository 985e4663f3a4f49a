//! What can be said of a provider at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::breaker::BreakerState;
use super::probe::Trouble;
use crate::provider::CallClass;

/// How a provider is.
#[derive(Clone, Debug)]
pub struct ProviderStatus {
    /// Its name.
    pub provider: Arc<str>,
    /// Its breaker.
    pub breaker: BreakerState,
    /// For how long it is left alone, if it is.
    pub left: Option<Duration>,
    /// Calls that run, by class.
    pub in_flight: [(CallClass, usize); 4],
    /// Those of them for which nobody waits any more.
    pub abandoned: usize,
    /// Those of these that block their thread.
    pub stuck: usize,
    /// Calls per second that are begun at most at present, by class.
    pub rates: [(CallClass, f64); 4],
    /// Its last error.
    pub last_error: Option<LastError>,
    /// Account or project that it works in, as of the last good answer about nodes.
    pub account: Option<Arc<str>>,
    /// Age of that answer.
    pub cache_age: Option<Duration>,
    /// What is wrong with it as a whole.
    pub trouble: Option<Trouble>,
}

/// An error of a provider.
#[derive(Clone, Debug)]
pub struct LastError {
    /// The method.
    pub method: &'static str,
    /// What it said.
    pub message: String,
    /// When.
    pub at: Instant,
}

/// The same on the status page: only what can be shown, times as seconds, what there is none of as nothing.
#[derive(Serialize)]
struct Shown<'a> {
    provider: &'a str,
    breaker: &'static str,
    left_alone_for_seconds: Option<u64>,
    trouble: Option<String>,
    in_flight: BTreeMap<&'static str, usize>,
    abandoned: usize,
    stuck: usize,
    calls_per_second: BTreeMap<&'static str, f64>,
    account: Option<&'a str>,
    nodes_read_seconds_ago: Option<u64>,
    last_error: Option<&'a str>,
    last_error_of: Option<&'static str>,
    last_error_seconds_ago: Option<u64>,
}

impl ProviderStatus {
    /// As the status page has it (`/statusz`, under `cloud`); its fields are named in `docs/cloud/guard.md`.
    #[must_use]
    pub fn shown(&self) -> impl Serialize + '_ {
        let last = self.last_error.as_ref();
        Shown {
            provider: &self.provider,
            breaker: self.breaker.name(),
            left_alone_for_seconds: self.left.map(|left| left.as_secs()),
            trouble: self.trouble.as_ref().map(|trouble| format!("{}: {}", trouble.kind.name(), trouble.message)),
            in_flight: self.in_flight.iter().map(|(class, running)| (class.name(), *running)).collect(),
            abandoned: self.abandoned,
            stuck: self.stuck,
            // Rates grow in steps far below what anybody reads.
            calls_per_second: self
                .rates
                .iter()
                .map(|(class, rate)| (class.name(), (rate * 10.0).round() / 10.0))
                .collect(),
            account: self.account.as_deref(),
            nodes_read_seconds_ago: self.cache_age.map(|age| age.as_secs()),
            last_error: last.map(|error| error.message.as_str()),
            last_error_of: last.map(|error| error.method),
            last_error_seconds_ago: last.map(|error| error.at.elapsed().as_secs()),
        }
    }
}

/// One line, for people.
impl fmt::Display for ProviderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: breaker {}", self.provider, self.breaker.name())?;
        if let Some(left) = self.left {
            write!(f, " for {} s", left.as_secs())?;
        }
        if let Some(trouble) = &self.trouble {
            write!(f, ", {}: {}", trouble.kind.name(), trouble.message)?;
        }
        for (class, running) in self.in_flight.iter().filter(|(_, running)| *running > 0) {
            write!(f, ", {running} {} calls", class.name())?;
        }
        if self.abandoned > 0 {
            write!(f, ", {} abandoned ({} stuck)", self.abandoned, self.stuck)?;
        }
        if let Some(account) = &self.account {
            write!(f, ", account {account}")?;
        }
        if let Some(age) = self.cache_age {
            write!(f, ", nodes read {} s ago", age.as_secs())?;
        }
        if let Some(LastError { method, message, at }) = &self.last_error {
            write!(f, ", last error {} s ago, of {method}: {message}", at.elapsed().as_secs())?;
        }
        Ok(())
    }
}
