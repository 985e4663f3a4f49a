//! One replica, and what it says of itself.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::wait::eventually;
use crate::{ControlPlane, Credentials, Launch, Process, ReservedPort};

/// One replica of quarterdeck.
pub struct Replica {
    process: parking_lot::Mutex<Process>,
    port: ReservedPort,
    kubeconfig: Kubeconfig,
}

impl Replica {
    pub(super) fn start(launch: &Launch, port: ReservedPort, control_plane: &ControlPlane) -> Result<Self> {
        let url = format!("https://127.0.0.1:{}", port.port());
        let path = control_plane.kubeconfig_at(&url, &Credentials::admin())?;
        Self::start_asked_by(launch, port, Kubeconfig::read_from(path)?)
    }

    /// Starts a replica that is asked with the user of this kubeconfig.
    pub(super) fn start_asked_by(launch: &Launch, port: ReservedPort, mut kubeconfig: Kubeconfig) -> Result<Self> {
        // The replica serves with a certificate it made itself.
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("https://127.0.0.1:{}", port.port()));
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        let process = parking_lot::Mutex::new(launch.spawn()?);
        Ok(Self { process, port, kubeconfig })
    }

    /// Its process: to kill, stop, pause.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process.lock().clone()
    }

    /// Starts it again with the same flags, after it ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self) -> Result<()> {
        let launch = self.process().launch().clone();
        *self.process.lock() = launch.spawn()?;
        Ok(())
    }

    /// Where it serves.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.port())
    }

    /// How to ask it as an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// The body of a path, asked as an administrator.
    ///
    /// # Errors
    /// When it does not answer, or not with success.
    pub async fn get(&self, path: &str) -> Result<String> {
        let mut config =
            kube::Config::from_custom_kubeconfig(self.kubeconfig.clone(), &KubeConfigOptions::default()).await?;
        config.connect_timeout = Some(Duration::from_secs(2));
        config.read_timeout = Some(Duration::from_secs(10));
        config.default_retry = false;
        let client = kube::Client::try_from(config)?;
        let request =
            http::Request::get(path).header(http::header::ACCEPT, "application/json, text/plain").body(Vec::new())?;
        client.request_text(request).await.with_context(|| format!("GET {}{path}", self.url()))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Status> {
        let page: Value = serde_json::from_str(&self.get("/statusz").await?)?;
        Ok(Status(page["status"].clone()))
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When that takes longer than `timeout`; the error carries the end of its log.
    pub async fn ready(&self, timeout: Duration) -> Result<()> {
        eventually("the replica is ready", timeout, || async { self.get("/readyz").await.map(drop) })
            .await
            .with_context(|| format!("its log ends:\n{}", self.process().log_end()))
    }

    /// The value of a metric: the sum over the series of this name whose labels hold all of `labels`.
    ///
    /// # Errors
    /// When it does not answer, or there is no such series.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let text = self.get("/metrics").await?;
        let mut sum = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            let matches = labels.iter().all(|(key, value)| series_labels.contains(&format!("{key}=\"{value}\"")));
            if series_name == name && matches {
                *sum.get_or_insert(0.0) += value.parse::<f64>()?;
            }
        }
        sum.ok_or_else(|| anyhow!("no series {name} with {labels:?}"))
    }
}

/// The status page of a replica.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// Does it lead?
    #[must_use]
    pub fn leads(&self) -> bool {
        self.0["election"]["leading"] == true
    }

    /// Its name in the Lease.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.0["election"]["identity"].as_str()
    }

    /// The state of a controller, such as `running`.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<&str> {
        self.find(name)?["state"].as_str()
    }

    /// Why a controller is in its state.
    #[must_use]
    pub fn reason(&self, name: &str) -> Option<&str> {
        self.find(name)?["reason"].as_str()
    }

    fn find(&self, name: &str) -> Option<&Value> {
        self.0["controllers"].as_array()?.iter().find(|controller| controller["name"] == name)
    }
}
