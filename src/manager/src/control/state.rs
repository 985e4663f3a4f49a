//! The states of controllers, as the status page and the metrics show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};
use tokio::sync::watch;

/// What a controller is doing on this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `--controllers` leaves it out.
    Disabled,
    /// It could run, but something must happen first.
    Blocked(String),
    /// Its caches are being filled.
    Warming,
    /// Its caches are warm; another replica leads.
    Standby,
    /// It reconciles.
    Running,
    /// Its workers are being joined.
    Draining,
    /// It ended by itself and will be started again with the next tenure.
    Failed(String),
}

impl State {
    /// All state names, as label values.
    pub(crate) const NAMES: [&'static str; 7] =
        ["disabled", "blocked", "warming", "standby", "running", "draining", "failed"];

    /// The state's name, as a label value.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Blocked(_) => "blocked",
            Self::Warming => "warming",
            Self::Standby => "standby",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Failed(_) => "failed",
        }
    }

    /// Why, for the states that have a reason.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Blocked(reason) | Self::Failed(reason) => Some(reason),
            _ => None,
        }
    }
}

/// The states of all controllers of a process. Clones share them.
#[derive(Clone)]
pub(crate) struct States {
    states: Arc<Mutex<BTreeMap<&'static str, State>>>,
    gauge: IntGaugeVec,
    changed: Arc<watch::Sender<()>>,
}

impl States {
    /// No controller yet.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = IntGaugeVec::new(
            Opts::new("quarterdeck_controller_state", "1 for the state each controller is in on this replica"),
            &["controller", "state"],
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self { states: Arc::default(), gauge, changed: Arc::default() })
    }

    /// Notes a state and logs the change.
    pub(crate) fn set(&self, controller: &'static str, state: State) {
        let (name, reason) = (state.name(), state.reason().map(str::to_owned));
        let failed = matches!(state, State::Failed(_));
        let before = {
            let mut states = self.states.lock();
            if states.get(controller) == Some(&state) {
                return;
            }
            states.insert(controller, state)
        };
        for other in State::NAMES {
            self.gauge.with_label_values(&[controller, other]).set(i64::from(other == name));
        }
        let from = before.as_ref().map(State::name);
        match reason {
            Some(reason) if failed => {
                tracing::error!(controller, from, state = name, reason, "the state of a controller changed");
            }
            Some(reason) => tracing::warn!(controller, from, state = name, reason, "the state of a controller changed"),
            None => tracing::info!(controller, from, state = name, "the state of a controller changed"),
        }
        self.changed.send_replace(());
    }

    /// Tells of each change from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All states by controller.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, State> {
        self.states.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_state_of_a_controller_is_set() {
        let states = States::register(&Registry::new()).expect("a fresh registry");
        states.set("a", State::Warming);
        states.set("a", State::Blocked("forbidden".to_owned()));
        let value = |name| states.gauge.with_label_values(&["a", name]).get();
        assert_eq!(State::NAMES.map(value), [0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(states.all()["a"].reason(), Some("forbidden"));
    }
}
