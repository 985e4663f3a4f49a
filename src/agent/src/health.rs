//! Checks of backends: which are made, how often, and when one counts as failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::plan::Check;

/// How checks are made.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two checks of one backend.
    pub every: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// So many failures in a row make a backend unhealthy.
    pub failures: u32,
    /// So many successes in a row make it healthy again.
    pub successes: u32,
}

/// Checks at once.
const AT_ONCE: usize = 256;
/// Checks a second at most: with more backends than that, each is checked less often.
const A_SECOND: usize = 1000;

/// What is known of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether the backend counts as healthy; `None` until that is known.
    pub healthy: Option<bool>,
    /// Results in a row that say otherwise.
    against: u32,
    /// What came of the last failure.
    pub reason: String,
    /// Since when it counts as it does.
    pub since: Timestamp,
}

impl Known {
    fn new(healthy: Option<bool>, now: Timestamp) -> Self {
        Self { healthy, against: 0, reason: String::new(), since: now }
    }

    /// Takes in one result; says whether the verdict changed.
    pub(crate) fn result(&mut self, result: Result<(), String>, timing: &Timing, now: Timestamp) -> bool {
        let well = result.is_ok();
        if let Err(reason) = result {
            self.reason = reason;
        }
        if self.healthy == Some(well) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = match self.healthy {
            // Nothing is known yet: one success will do.
            None if well => 1,
            None | Some(true) => timing.failures,
            Some(false) => timing.successes,
        };
        if self.against < needed {
            return false;
        }
        (self.healthy, self.against, self.since) = (Some(well), 0, now);
        true
    }
}

/// All checks of this agent.
pub struct Health {
    known: Mutex<BTreeMap<Check, Known>>,
    /// Told when a verdict changes.
    pub changed: Notify,
    timing: Timing,
}

impl Health {
    /// No checks yet, but what was known before.
    #[must_use]
    pub fn new(timing: Timing, before: &BTreeMap<Check, bool>) -> Arc<Self> {
        let now = Timestamp::now();
        let known = before.iter().map(|(check, healthy)| (check.clone(), Known::new(Some(*healthy), now)));
        Arc::new(Self { known: Mutex::new(known.collect()), changed: Notify::new(), timing })
    }

    /// Which checks are made from now on. What was known of others is forgotten.
    pub fn set(&self, checks: &BTreeMap<Check, bool>) {
        let now = Timestamp::now();
        let mut known = self.known.lock();
        known.retain(|check, _| checks.contains_key(check));
        for check in checks.keys() {
            known.entry(check.clone()).or_insert_with(|| Known::new(None, now));
        }
    }

    /// The verdicts there are.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<Check, bool> {
        let known = self.known.lock();
        known.iter().filter_map(|(check, known)| Some((check.clone(), known.healthy?))).collect()
    }

    /// Those that count as unhealthy.
    #[must_use]
    pub fn unhealthy(&self) -> Vec<(Check, Known)> {
        let known = self.known.lock();
        let ill = known.iter().filter(|(_, known)| known.healthy == Some(false));
        ill.map(|(check, known)| (check.clone(), known.clone())).collect()
    }

    /// Makes the checks until it is stopped.
    pub fn run(self: &Arc<Self>) -> JoinHandle<()> {
        let health = Arc::clone(self);
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(AT_ONCE));
            let mut due: BTreeMap<Check, Instant> = BTreeMap::new();
            loop {
                health.round(&places, &mut due).await;
                // New checks are seen at the next tick.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }

    async fn round(self: &Arc<Self>, places: &Arc<Semaphore>, due: &mut BTreeMap<Check, Instant>) {
        let now = Instant::now();
        let checks: Vec<Check> = self.known.lock().keys().cloned().collect();
        due.retain(|check, _| checks.binary_search(check).is_ok());
        let slow = Duration::from_secs_f64(checks.len() as f64 / A_SECOND as f64);
        let every = self.timing.every.max(slow);
        for check in checks {
            let at = due.entry(check.clone()).or_insert(now);
            if *at > now {
                continue;
            }
            *at = now + every;
            let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
            let health = Arc::clone(self);
            tokio::spawn(async move {
                let result = make(&check, health.timing.timeout).await;
                drop(place);
                let mut known = health.known.lock();
                let Some(known) = known.get_mut(&check) else { return };
                if known.result(result, &health.timing, Timestamp::now()) {
                    let healthy = known.healthy == Some(true);
                    tracing::info!(%check, healthy, reason = known.reason, "a backend's health changed");
                    health.changed.notify_one();
                }
            });
        }
    }
}

/// Makes one check.
async fn make(check: &Check, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(check)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn ask(check: &Check) -> Result<(), String> {
    let mut stream = TcpStream::connect(check.address).await.map_err(|error| error.to_string())?;
    let Some(path) = &check.path else { return Ok(()) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", check.address);
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 256];
    while !answer.contains(&b'\n') && answer.len() < 1024 {
        match stream.read(&mut buffer).await.map_err(|error| error.to_string())? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default().trim();
    match line.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(code) => Err(format!("answered {code}")),
        None => Err("answered nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing =
        Timing { every: Duration::from_secs(1), timeout: Duration::from_secs(1), failures: 3, successes: 2 };

    #[test]
    fn verdicts_change_after_so_many_results_in_a_row() {
        let now = Timestamp::now();
        let mut known = Known::new(None, now);
        let results = [
            // The first success is enough.
            (true, true, Some(true)),
            (false, false, Some(true)),
            (false, false, Some(true)),
            // A success in between begins anew.
            (true, false, Some(true)),
            (false, false, Some(true)),
            (false, false, Some(true)),
            (false, true, Some(false)),
            (true, false, Some(false)),
            (true, true, Some(true)),
        ];
        for (step, (well, changes, verdict)) in results.into_iter().enumerate() {
            let result = if well { Ok(()) } else { Err("refused".to_owned()) };
            assert_eq!(known.result(result, &TIMING, now), changes, "step {step}");
            assert_eq!(known.healthy, verdict, "step {step}");
        }
    }

    #[test]
    fn what_was_never_well_is_unhealthy_only_after_as_many_failures() {
        let mut known = Known::new(None, Timestamp::now());
        for expected in [None, None, Some(false)] {
            known.result(Err("refused".to_owned()), &TIMING, Timestamp::now());
            assert_eq!(known.healthy, expected);
        }
    }

    #[tokio::test]
    async fn an_answer_other_than_200_is_a_failure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 512];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        let check = Check { address, path: Some("/healthz".to_owned()) };
        let long = Duration::from_secs(60);
        assert_eq!(make(&check, long).await, Ok(()));
        assert_eq!(make(&check, long).await, Err("answered 503".to_owned()));
        server.await.unwrap();
        assert!(make(&Check { address, path: None }, long).await.is_err(), "nobody listens any more");
    }
}
