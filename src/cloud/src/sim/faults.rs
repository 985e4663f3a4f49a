//! What goes wrong, when it is asked to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::CloudError;

/// One fault, and the calls that it befalls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The methods: `loadbalancers.ensure`, `loadbalancers.*` or `*`.
    pub method: String,
    /// What happens.
    pub fault: Fault,
    /// Only calls about this: name of a Service, Node or route; empty: all.
    #[serde(default)]
    pub subject: String,
    /// How many calls are spared first.
    #[serde(default)]
    pub skip: u32,
    /// How many calls it befalls; all if absent.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// No answer, until the fault is taken away; then the call fails.
    Hang {
        /// Before or after it was done.
        at: Moment,
    },
    /// No answer, until the fault is taken away; then the call goes on. Who waits for the call to be held can do
    /// something at just this moment, such as kill the caller.
    Hold {
        /// Before or after it is done.
        at: Moment,
    },
    /// The answer takes this long.
    Delay {
        /// In ms.
        ms: u64,
        /// Before or after it was done.
        at: Moment,
    },
    /// The call fails.
    Fail {
        /// How.
        error: FailKind,
        /// When to call again, in ms, with errors that can say so.
        #[serde(default)]
        retry_after_ms: Option<u64>,
        /// Before or after it was done: a reply that was lost.
        at: Moment,
    },
    /// Making or deleting a load balancer ends after so many steps, which stay done.
    FailAtStep {
        /// How many are done; `STEPS` names them.
        step: usize,
    },
    /// Reads see the cloud as it was this long ago, but not before the fault was added.
    ReadLag {
        /// In ms.
        ms: u64,
    },
    /// New load balancers stay in the making.
    StuckPending,
    /// New load balancers fail in the making, and stay as failures.
    ErrorLb,
    /// Reads find so many things, in the order of their ids, and say that these are all.
    Partial {
        /// How many.
        keep: usize,
    },
    /// Reads look into another account, where there is nothing.
    WrongAccount {
        /// Its id.
        account: String,
    },
    /// The call blocks the thread that it runs on.
    BlockThread {
        /// For how many ms, or until the fault is taken away.
        ms: u64,
    },
    /// A call about many nodes fails whole if it is about the node of this name.
    PoisonNode {
        /// The name.
        name: String,
    },
    /// The call panics.
    Panic,
}

/// Before or after a call did what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Nothing was done yet.
    #[default]
    Before,
    /// It was done, and nobody was told.
    After,
}

/// Errors that calls can be made to fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "as in CloudError")]
pub enum FailKind {
    NotFound,
    NotImplemented,
    ImplementedElsewhere,
    RetryAfter,
    Throttled,
    Conflict,
    Immutable,
    Quota,
    Denied,
    Invalid,
    Unavailable,
    Superseded,
    Other,
}

impl FailKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::NotImplemented,
        Self::ImplementedElsewhere,
        Self::RetryAfter,
        Self::Throttled,
        Self::Conflict,
        Self::Immutable,
        Self::Quota,
        Self::Denied,
        Self::Invalid,
        Self::Unavailable,
        Self::Superseded,
        Self::Other,
    ];

    /// The error.
    #[must_use]
    pub fn error(self, retry_after_ms: Option<u64>) -> CloudError {
        let message = "as the fault asks".to_owned();
        let after = retry_after_ms.map(Duration::from_millis);
        match self {
            Self::NotFound => CloudError::NotFound(message),
            Self::NotImplemented => CloudError::NotImplemented(message),
            Self::ImplementedElsewhere => CloudError::ImplementedElsewhere(message),
            Self::RetryAfter => CloudError::RetryAfter { after: after.unwrap_or(Duration::from_secs(1)), message },
            Self::Throttled => CloudError::Throttled { after, message },
            Self::Conflict => CloudError::Conflict(message),
            Self::Immutable => CloudError::Immutable(message),
            Self::Quota => CloudError::Quota(message),
            Self::Denied => CloudError::Denied(message),
            Self::Invalid => CloudError::Invalid(message),
            Self::Unavailable => CloudError::Unavailable(message),
            Self::Superseded => CloudError::Superseded(message),
            Self::Other => CloudError::Other(message),
        }
    }
}

/// A call that stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Number of the call in the journal.
    pub call: u64,
    /// Its method.
    pub method: String,
    /// What it is about.
    pub subject: String,
    /// Before or after it was done.
    pub at: Moment,
}

impl Rule {
    /// A fault of all calls of a method.
    #[must_use]
    pub fn new(method: &str, fault: Fault) -> Self {
        Self { method: method.to_owned(), fault, subject: String::new(), skip: 0, times: None }
    }

    /// Spares the first calls.
    #[must_use]
    pub fn skip(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// Befalls so many calls, then no more.
    #[must_use]
    pub fn times(mut self, calls: u32) -> Self {
        self.times = Some(calls);
        self
    }

    /// Only calls about this Service, Node or route.
    #[must_use]
    pub fn about(mut self, subject: &str) -> Self {
        self.subject = subject.to_owned();
        self
    }

    fn matches(&self, method: &str, subjects: &[String]) -> bool {
        let named = match self.method.strip_suffix('*') {
            Some(prefix) => method.starts_with(prefix),
            None => self.method == method,
        };
        named && (self.subject.is_empty() || subjects.contains(&self.subject))
    }
}

/// The rules that are in force.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    rules: Vec<(u64, Rule)>,
    last: u64,
}

/// What befalls one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn {
    /// Each with the number of its rule.
    pub faults: Vec<(u64, Fault)>,
}

/// How what a call does is changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Twist {
    pub stop_after: Option<usize>,
    pub stuck: bool,
    pub error_lb: bool,
    pub keep: Option<usize>,
    pub account: Option<String>,
    pub poison: Vec<String>,
    /// See the cloud as it was so many ms ago.
    pub lag: Option<u64>,
}

impl Faults {
    /// Adds a rule, and returns its number.
    pub fn add(&mut self, rule: Rule) -> u64 {
        self.last += 1;
        self.rules.push((self.last, rule));
        self.last
    }

    /// Takes one rule away, or all.
    pub fn clear(&mut self, id: Option<u64>) {
        self.rules.retain(|(one, _)| id.is_some_and(|id| id != *one));
    }

    /// The rules, by number.
    pub fn rules(&self) -> &[(u64, Rule)] {
        &self.rules
    }

    /// Whether a rule is in force.
    pub fn has(&self, id: u64) -> bool {
        self.rules.iter().any(|(one, _)| *one == id)
    }

    /// Whether reads may have to see the past.
    pub fn lags(&self) -> bool {
        self.rules.iter().any(|(_, rule)| matches!(rule.fault, Fault::ReadLag { .. }))
    }

    /// What befalls a call; counts it. A rule that has befallen all its calls stays, spent, until it is taken away: who
    /// is held by it goes on only then.
    pub fn draw(&mut self, method: &str, subjects: &[String]) -> Drawn {
        let mut drawn = Drawn::default();
        for (id, rule) in &mut self.rules {
            if !rule.matches(method, subjects) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            match &mut rule.times {
                Some(0) => continue,
                Some(left) => *left -= 1,
                None => {}
            }
            drawn.faults.push((*id, rule.fault.clone()));
        }
        drawn
    }
}

impl Drawn {
    /// How what the call does is changed.
    pub fn twist(&self) -> Twist {
        let mut twist = Twist::default();
        for (_, fault) in &self.faults {
            match fault {
                Fault::FailAtStep { step } => twist.stop_after = Some(*step),
                Fault::StuckPending => twist.stuck = true,
                Fault::ErrorLb => twist.error_lb = true,
                Fault::Partial { keep } => twist.keep = Some(*keep),
                Fault::WrongAccount { account } => {
                    twist.account = Some(account.clone());
                    twist.keep = Some(0);
                }
                Fault::PoisonNode { name } => twist.poison.push(name.clone()),
                Fault::ReadLag { ms } => twist.lag = Some(*ms),
                _ => {}
            }
        }
        twist
    }
}
