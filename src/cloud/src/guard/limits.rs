//! What is limited, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use quarterdeck_api::duration;
use quarterdeck_api::nearest::nearest;

use super::Method;
use super::breaker::BreakerLimits;
use super::rate::Rate;
use crate::provider::CallClass;

/// The longest deadline that makes sense: a cloud that needs more has to answer that it is at it.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is limited, and how.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a call of a method may take, where `timeouts` say nothing.
    pub deadline: fn(&Method) -> Duration,
    /// Deadlines by flag.
    pub timeouts: Timeouts,
    /// How long a caller may wait for a place and for the rate, together.
    pub patience: Duration,
    /// How many calls of a class may be begun in a second.
    pub rate: Rate,
    /// When the provider is left alone.
    pub breaker: BreakerLimits,
    /// What becomes of calls whose caller gave up.
    pub abandoned: AbandonedLimits,
    /// How often the provider is asked whether it is well, while it is in use.
    pub probe_every: Duration,
    /// How often it is asked what it is, while it is in use.
    pub info_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: |method| method.class.default_deadline(),
            timeouts: Timeouts::default(),
            patience: Duration::from_secs(10),
            rate: Rate::default(),
            breaker: BreakerLimits::default(),
            abandoned: AbandonedLimits::default(),
            probe_every: Duration::from_secs(60),
            info_every: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// How long a call of this method may take.
    #[must_use]
    pub fn deadline_of(&self, method: &Method) -> Duration {
        self.timeouts.of(method).unwrap_or_else(|| (self.deadline)(method))
    }
}

/// What becomes of calls whose caller gave up. They are told at once ([`CallCtx::cancel`](crate::CallCtx::cancel)),
/// then dropped; only one that blocks its thread, or spins, outlives that.
#[derive(Clone, Debug)]
pub struct AbandonedLimits {
    /// How long such a call may take to end by itself before it is dropped.
    pub grace: Duration,
    /// How long one that cannot be dropped keeps its place.
    pub keeps_place: Duration,
    /// More such calls than this, and the breaker opens.
    pub tolerated: usize,
    /// With this many the provider gets no further call, however long it was left alone, until one of them ends: each
    /// of them has a thread.
    pub most: usize,
}

impl Default for AbandonedLimits {
    fn default() -> Self {
        Self { grace: Duration::from_secs(1), keeps_place: Duration::from_secs(60), tolerated: 8, most: 32 }
    }
}

/// Deadlines by `--cloud-timeout`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    classes: BTreeMap<CallClass, Duration>,
    methods: BTreeMap<&'static str, Duration>,
}

impl Timeouts {
    /// Reads entries `METHOD=DURATION` or `CLASS=DURATION`; of two for one thing the later counts, and a method's counts
    /// more than its class's.
    ///
    /// # Errors
    /// Names the entry that makes no sense, and the nearest name that would.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut timeouts = Self::default();
        for entry in entries.into_iter().filter(|entry| !entry.is_empty()) {
            let (name, time) =
                entry.split_once('=').ok_or_else(|| format!("{entry:?} is not METHOD=DURATION, such as read=10s"))?;
            let (name, time) = (name.trim(), time.trim());
            let time = duration::parse(time).map_err(|error| format!("{name}: {error}"))?;
            if time.is_zero() || time > LONGEST {
                return Err(format!("{name}: a deadline lies between 1ns and {}", duration::format(LONGEST)));
            }
            if let Some(class) = CallClass::ALL.into_iter().find(|class| class.name() == name) {
                timeouts.classes.insert(class, time);
            } else if let Some(method) = Method::ALL.into_iter().find(|method| method.name == name) {
                timeouts.methods.insert(method.name, time);
            } else {
                return Err(unknown(name));
            }
        }
        Ok(timeouts)
    }

    fn of(&self, method: &Method) -> Option<Duration> {
        self.methods.get(method.name).or_else(|| self.classes.get(&method.class)).copied()
    }
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> =
        CallClass::ALL.map(CallClass::name).into_iter().chain(Method::ALL.map(|method| method.name)).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("{name:?} is no method and no class of calls; did you mean {near:?}?"),
        None => format!("{name:?} is no method and no class of calls; there are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::method::{ENSURE_BALANCER, GET_MANY, INFO, UPDATE_BACKENDS};
    use super::*;

    #[test]
    fn deadlines_are_set_by_class_and_by_method() {
        let entries = ["loadbalancer=90s", "loadbalancers.ensure=5m", "read=1s", "read=3s", ""];
        let limits = Limits { timeouts: Timeouts::parse(entries).unwrap(), ..Limits::default() };
        let seconds = |method: &Method| limits.deadline_of(method).as_secs();
        assert_eq!(seconds(&ENSURE_BALANCER), 300);
        assert_eq!(seconds(&UPDATE_BACKENDS), 90);
        assert_eq!(seconds(&INFO), 3);
        assert_eq!(seconds(&GET_MANY), 20);
    }

    #[test]
    fn a_deadline_that_makes_no_sense_names_what_would() {
        for (entry, part) in [
            ("loadbalancers.ensur=1s", "\"loadbalancers.ensure\""),
            ("reads=1s", "did you mean \"read\""),
            ("tea=1s", "there are read, batch, route, loadbalancer, identity.info"),
            ("read", "METHOD=DURATION"),
            ("read=soon", "read: "),
            ("read=0s", "between"),
            ("read=2h", "between"),
        ] {
            let error = Timeouts::parse([entry]).unwrap_err();
            assert!(error.contains(part), "{entry}: {error}");
        }
    }
}
