//! What is traced, and where it goes: upstream's file (`k8s.io/component-base:tracing/api/v1/types.go` v0.36.3).

use std::path::Path;

use serde::Deserialize;

/// Where a collector listens unless the file says otherwise: upstream's default.
const ENDPOINT: &str = "localhost:4317";
/// All spans.
const MILLION: u32 = 1_000_000;
/// The versions that upstream has of it.
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

/// Why a file is no configuration of traces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadConfig {
    /// It cannot be read.
    #[error("--tracing-config-file: {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such object.
    #[error("--tracing-config-file: {path}: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong, with the line where it is known.
        reason: String,
    },
    /// A field makes no sense.
    #[error("--tracing-config-file: {path}: {field}: {reason}")]
    Field {
        /// The file.
        path: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// `TracingConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Config {
    api_version: String,
    kind: String,
    /// Host and port of the collector.
    #[serde(default)]
    endpoint: Option<String>,
    /// How many of a million reconciles are traced; none by default.
    #[serde(default)]
    sampling_rate_per_million: Option<i64>,
}

impl Config {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, BadConfig> {
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&shown, &text),
            Err(source) => Err(BadConfig::Unreadable { path: shown, source }),
        }
    }

    fn parse(path: &str, text: &str) -> Result<Self, BadConfig> {
        let bad = |field, reason: String| BadConfig::Field { path: path.to_owned(), field, reason };
        let config: Self = serde_saphyr::from_str(text)
            .map_err(|error| BadConfig::Malformed { path: path.to_owned(), reason: error.to_string() })?;
        if !VERSIONS.contains(&&*config.api_version) {
            return Err(bad("apiVersion", format!("{:?} is none of {}", config.api_version, VERSIONS.join(", "))));
        }
        if config.kind != "TracingConfiguration" {
            return Err(bad("kind", format!("{:?} is not TracingConfiguration", config.kind)));
        }
        if let Some(rate) = config.sampling_rate_per_million
            && !(0..=i64::from(MILLION)).contains(&rate)
        {
            return Err(bad("samplingRatePerMillion", format!("{rate} is not between 0 and {MILLION}")));
        }
        if let Some(endpoint) = &config.endpoint {
            let plain = endpoint.strip_prefix("http://").unwrap_or(endpoint);
            if plain.contains("://") {
                let reason = format!("{endpoint:?}: only connections without TLS are known, as upstream: host:port");
                return Err(bad("endpoint", reason));
            }
            let authority: Result<http::uri::Authority, _> = plain.trim_end_matches('/').parse();
            if !authority.is_ok_and(|authority| authority.port().is_some() && !authority.host().is_empty()) {
                return Err(bad("endpoint", format!("{endpoint:?} is not host:port")));
            }
        }
        Ok(config)
    }

    /// Where the collector listens, as the exporter takes it.
    pub(crate) fn url(&self) -> String {
        let endpoint = self.endpoint.as_deref().unwrap_or(ENDPOINT);
        format!("http://{}", endpoint.strip_prefix("http://").unwrap_or(endpoint))
    }

    /// The share of reconciles that are traced, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        let rate = self.sampling_rate_per_million.and_then(|rate| u32::try_from(rate).ok()).unwrap_or_default();
        f64::from(rate) / f64::from(MILLION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n";
        Config::parse("t.yaml", &format!("{head}{text}")).map_err(|error| error.to_string())
    }

    #[test]
    fn upstreams_files_are_read() {
        let config = parse("endpoint: collector.tracing:4317\nsamplingRatePerMillion: 250000\n").unwrap();
        assert_eq!((config.url(), config.share()), ("http://collector.tracing:4317".to_owned(), 0.25));
        let config = parse("").unwrap();
        assert_eq!(
            (config.url(), config.share()),
            ("http://localhost:4317".to_owned(), 0.0),
            "as upstream: no root is sampled"
        );
        assert_eq!(parse("endpoint: http://[::1]:4317\n").unwrap().url(), "http://[::1]:4317");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, told) in [
            ("samplingRatePerMillion: 1000001\n", "t.yaml: samplingRatePerMillion: 1000001 is not between"),
            ("samplingRatePerMillion: -1\n", "samplingRatePerMillion: -1"),
            ("endpoint: https://a:1\n", "endpoint: \"https://a:1\": only connections without TLS"),
            ("endpoint: a\n", "endpoint: \"a\" is not host:port"),
            ("endpiont: a:1\n", "endpiont"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told) && error.starts_with("--tracing-config-file: t.yaml"), "{error}");
        }
        let other = Config::parse("t", "apiVersion: v1\nkind: Pod\n").unwrap_err().to_string();
        assert!(other.contains("apiVersion: \"v1\""), "{other}");
        assert!(Config::read(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere: "));
    }
}
