//! What is served, path by path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode, header};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::health::{Checks, Probe};
use super::respond::{Answer, JSON, answer, not_found, text};
use super::status::{self, Component, StatusSource};

/// Type of metrics in Prometheus' text form.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Gives the configuration of the moment, a map from name to object, for `/configz`.
pub type ConfigSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Reads and sets how much is logged, for `/debug/flags/v`.
pub trait Verbosity: Send + Sync + 'static {
    /// The level of the moment.
    fn get(&self) -> i32;
    /// Sets the level.
    ///
    /// # Errors
    /// When it cannot be set.
    fn set(&self, level: i32) -> Result<(), String>;
}

/// Everything that is served.
pub struct Endpoints {
    /// What runs.
    pub component: Component,
    /// `/healthz`, `/livez`, `/readyz`, `/metrics/slis`.
    pub checks: Arc<Checks>,
    /// `/metrics`.
    pub metrics: Registry,
    /// Names of metrics to leave out (`--disabled-metrics`).
    pub disabled_metrics: BTreeSet<String>,
    /// `/statusz` and `/status`.
    pub status: StatusSource,
    /// `/flagz`: every flag with its value.
    pub flags: BTreeMap<String, String>,
    /// `/configz`.
    pub config: ConfigSource,
    /// `/debug/flags/v`, if it is served (`--profiling`).
    pub verbosity: Option<Arc<dyn Verbosity>>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("component", &self.component).finish_non_exhaustive()
    }
}

/// Paths that are listed at `/statusz`.
const PATHS: &[&str] = &[
    "/configz",
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/readyz",
    crate::page::PATH,
    "/statusz",
    "/version",
];

/// The path as it may stand in a metric's label: one of a fixed set.
pub(crate) fn label(path: &str) -> &'static str {
    let known = PATHS.iter().find(|known| **known == path).copied();
    known.or_else(|| path.starts_with("/debug/").then_some("/debug")).unwrap_or_else(|| {
        let probe = Probe::ALL.iter().find(|probe| path.starts_with(&format!("/{}/", probe.name())));
        match probe {
            Some(Probe::Healthz) => "/healthz/*",
            Some(Probe::Livez) => "/livez/*",
            Some(Probe::Readyz) => "/readyz/*",
            None => "other",
        }
    })
}

impl Endpoints {
    /// Answers a request that passed authorization.
    pub(crate) async fn answer(self: &Arc<Self>, parts: &Parts, body: Bytes) -> Answer {
        let path = parts.uri.path();
        let reads = parts.method == Method::GET || parts.method == Method::HEAD;
        match path {
            "/metrics/slis" if parts.method == Method::DELETE => {
                self.checks.reset_slis();
                text(StatusCode::OK, "metrics reset\n")
            }
            "/debug/flags/v" => match &self.verbosity {
                Some(verbosity) => debug_level(verbosity.as_ref(), &parts.method, &body),
                None => not_found(),
            },
            _ if !reads && label(path) != "other" => {
                let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
                refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
                refused
            }
            "/metrics" => {
                let this = Arc::clone(self);
                // Thousands of series take milliseconds to write: not on a thread that serves others.
                let page = tokio::task::spawn_blocking(move || this.metrics_page()).await;
                page.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
            }
            "/metrics/slis" => encode(&self.checks.slis().gather()),
            "/configz" => answer(StatusCode::OK, JSON, (self.config)().to_string()),
            "/version" => self.version(),
            "/statusz" => status::statusz(&self.component, PATHS, &self.status, &parts.headers),
            crate::page::PATH => {
                status::page(&self.component, PATHS, &self.status, parts.uri.query().unwrap_or_default())
            }
            "/flagz" => status::flagz(&self.component, &self.flags, &parts.headers),
            _ => self.health(path, parts.uri.query().unwrap_or_default()),
        }
    }

    fn health(&self, path: &str, query: &str) -> Answer {
        let Some(rest) = path.strip_prefix('/') else { return not_found() };
        let (first, check) = match rest.split_once('/') {
            Some((first, check)) => (first, Some(check)),
            None => (rest, None),
        };
        let Some(probe) = Probe::ALL.into_iter().find(|probe| probe.name() == first) else { return not_found() };
        match check {
            Some(check) => self.checks.answer_one(probe, check),
            None => self.checks.answer(probe, &pairs(query)),
        }
    }

    fn metrics_page(&self) -> Answer {
        let mut families = self.metrics.gather();
        if !self.disabled_metrics.is_empty() {
            families.retain(|family| !self.disabled_metrics.contains(family.name()));
        }
        encode(&families)
    }

    fn version(&self) -> Answer {
        let version = &self.component.version;
        let mut numbers = version.split(['.', '-', '+']);
        let object = serde_json::json!({
            "major": numbers.next().unwrap_or_default(),
            "minor": numbers.next().unwrap_or_default(),
            "gitVersion": format!("v{version}"),
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        });
        answer(StatusCode::OK, JSON, object.to_string())
    }
}

fn encode(families: &[MetricFamily]) -> Answer {
    let mut page = Vec::with_capacity(64 << 10);
    match TextEncoder::new().encode(families, &mut page) {
        Ok(()) => answer(StatusCode::OK, METRICS, page),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n")),
    }
}

/// `GET` tells the level, `PUT n` sets it (component-base:logs, apiserver:routes/flags.go, v1.36.3).
fn debug_level(verbosity: &dyn Verbosity, method: &Method, body: &[u8]) -> Answer {
    match *method {
        Method::GET | Method::HEAD => text(StatusCode::OK, format!("{}\n", verbosity.get())),
        Method::PUT => {
            let given = String::from_utf8_lossy(body);
            let Ok(level) = given.trim().parse::<i32>() else {
                return text(StatusCode::BAD_REQUEST, format!("{:?} is not a log level\n", given.trim()));
            };
            match verbosity.set(level) {
                Ok(()) => text(StatusCode::OK, format!("successfully set -v to {level}\n")),
                Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
            }
        }
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n"),
    }
}

/// The pairs of a query; `+` and `%20` stand for a space.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| super::authn::unescape(&text.replace('+', " "));
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}
