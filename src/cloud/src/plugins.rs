//! The providers of a process, and those that join it later: plug-ins whose sockets appear in a watched folder.
//!
//! A provider that joined never leaves: one whose socket goes is unavailable until it comes back, and nothing of it is
//! absent meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};

use crate::growing::Growing;
use crate::guard::{CloudMetrics, Guarded, Limits};
use crate::model::ClusterId;
use crate::provider::SharedProvider;

/// How many plug-ins may join a process that watches a folder: each has threads of its own.
pub(crate) const SPARE: usize = 8;

/// A folder of plug-ins' sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// What the names of its plug-ins begin with.
    pub(crate) prefix: Option<String>,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// What a provider is guarded with.
pub(crate) struct Guarding {
    pub(crate) cluster: Arc<OnceLock<ClusterId>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Option<CloudMetrics>,
}

impl Guarding {
    /// Puts a guard around a provider.
    pub(crate) fn guard(&self, name: &str, provider: SharedProvider) -> std::io::Result<Arc<Guarded>> {
        let guarded = Guarded::new(name, provider, Arc::clone(&self.cluster), self.limits.clone())?;
        Ok(Arc::new(match &self.metrics {
            Some(metrics) => guarded.measured(metrics),
            None => guarded,
        }))
    }
}

/// Why a plug-in is not taken; one metric counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "grpc"), allow(dead_code))]
pub(crate) enum Reason {
    /// Another provider has its name.
    NameTaken,
    /// No more can join.
    TooMany,
    /// Its socket has no name that can be said.
    NoName,
    /// The folder cannot be read.
    Folder,
    /// It could not be given a runtime.
    NotStarted,
}

impl Reason {
    const ALL: [Self; 5] = [Self::NameTaken, Self::TooMany, Self::NoName, Self::Folder, Self::NotStarted];

    /// Value of the label `reason`.
    fn name(self) -> &'static str {
        match self {
            Self::NameTaken => "name_taken",
            Self::TooMany => "too_many",
            Self::NoName => "no_name",
            Self::Folder => "folder",
            Self::NotStarted => "not_started",
        }
    }
}

/// Something to tell the operator, in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) reason: quarterdeck_runtime::events::Reason,
    pub(crate) message: String,
}

/// Metrics of plug-ins that come and are not taken.
#[derive(Clone)]
pub(crate) struct PluginMetrics {
    joined: IntCounter,
    refused: IntGaugeVec,
}

impl PluginMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let joined = IntCounter::new(
            "quarterdeck_cloudprovider_plugins_joined_total",
            "Plug-ins whose sockets appeared in a watched folder while the process ran",
        )?;
        let refused = IntGaugeVec::new(
            Opts::new(
                "quarterdeck_cloudprovider_plugins_refused",
                "Plug-ins in watched folders that are not taken, and folders that cannot be read",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(joined.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { joined, refused })
    }
}

type Joined = Box<dyn Fn(usize) + Send + Sync>;

/// The providers of a process.
pub(crate) struct Providers {
    list: Growing<Guarded>,
    /// How many there may be.
    most: usize,
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    guarding: Guarding,
    metrics: Option<PluginMetrics>,
    /// Told of each provider that joins.
    listeners: Mutex<Vec<Joined>>,
    notices: Mutex<Vec<Notice>>,
    /// What is not taken, and was told.
    refused: Mutex<BTreeSet<(Reason, String)>>,
}

impl Providers {
    pub(crate) fn new(
        list: Vec<Arc<Guarded>>,
        spare: usize,
        guarding: Guarding,
        metrics: Option<PluginMetrics>,
    ) -> Self {
        Self {
            most: list.len() + spare,
            list: Growing::new(list),
            guarding,
            metrics,
            listeners: Mutex::default(),
            notices: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    pub(crate) fn all(&self) -> &[Arc<Guarded>] {
        self.list.all()
    }

    /// How many there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Has `listener` told the place of each provider that joins.
    pub(crate) fn on_join(&self, listener: impl Fn(usize) + Send + Sync + 'static) {
        self.listeners.lock().push(Box::new(listener));
    }

    /// What is to be told, once.
    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock())
    }
}

#[cfg(feature = "grpc")]
impl Providers {
    /// Takes a provider that came.
    pub(crate) fn join(&self, name: &str, provider: SharedProvider) -> Result<(), (Reason, String)> {
        if self.list.all().len() >= self.most {
            let message = format!("{SPARE} plug-ins have joined; this process takes no more until it is started again");
            return Err((Reason::TooMany, message));
        }
        let guarded = self.guarding.guard(name, provider);
        let guarded = guarded.map_err(|error| (Reason::NotStarted, format!("starting its runtime: {error}")))?;
        let at = self.list.push(&guarded);
        tracing::info!(provider = name, "a plug-in joined");
        if let Some(metrics) = &self.metrics {
            metrics.joined.inc();
        }
        let message = format!("Cloud provider {name} joined: its socket appeared");
        self.notices.lock().push(Notice { reason: crate::reasons::JOINED, message });
        for listener in &*self.listeners.lock() {
            listener(at);
        }
        Ok(())
    }

    /// Notes all that is not taken now; what is new is told.
    pub(crate) fn refuse(&self, now: BTreeSet<(Reason, String)>) {
        let mut told = self.refused.lock();
        for (reason, message) in now.difference(&told) {
            tracing::warn!(reason = reason.name(), error = message, "a plug-in is not taken");
            let message = message.clone();
            self.notices.lock().push(Notice { reason: crate::reasons::REFUSED, message });
        }
        if let Some(metrics) = &self.metrics {
            for reason in Reason::ALL {
                let count = now.iter().filter(|(one, _)| *one == reason).count();
                let gauge = metrics.refused.with_label_values(&[reason.name()]);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        *told = now;
    }
}
