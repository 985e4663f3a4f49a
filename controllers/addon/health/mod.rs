//! Whether an object does what it is there for, told from its status: the rules of kstatus
//! (`kubernetes-sigs/cli-utils:pkg/kstatus/status`, v0.37), and what an addon makes of them.

mod custom;
mod expression;
mod observed;
mod rules;
mod whole;

use std::fmt;
use std::sync::Arc;

pub use custom::HealthRules;
pub use observed::{Observed, is_idle};
pub use rules::of;
pub use whole::{Entire, Text};

/// How an object is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It is as its spec says, or has nothing to tell.
    #[default]
    Ready,
    /// It is on its way.
    Progressing(Arc<str>),
    /// A claim that no volume is bound to. Where its class binds when a pod first uses it, that is
    /// how it ought to be.
    Unbound {
        /// `spec.storageClassName`, empty for the cluster's default.
        class: Arc<str>,
    },
    /// It will not come right by itself.
    Degraded(Arc<str>),
}

impl Health {
    fn progressing(reason: impl Into<Arc<str>>) -> Self {
        Self::Progressing(reason.into())
    }

    fn degraded(reason: impl Into<Arc<str>>) -> Self {
        Self::Degraded(reason.into())
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}

/// Prints the state and why.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Progressing(reason) => write!(f, "progressing: {reason}"),
            Self::Unbound { class } if class.is_empty() => f.write_str("progressing: no volume is bound"),
            Self::Unbound { class } => write!(f, "progressing: no volume of class {class} is bound"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
        }
    }
}
