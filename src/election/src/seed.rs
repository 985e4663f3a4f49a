//! Faults that a test build carries on purpose: a checker of split-brain histories proves nothing until it has caught each
//! of them. Without the feature `seeded-bugs` every answer here is a constant `false`, and nothing is left of them.

/// A defence that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The gate, once opened, lets every write out.
    GateOff,
    /// Writes carry no precondition.
    PreconditionsOff,
    /// The deadline counts from the answer to a renewal instead of its sending.
    DeadlineFromAnswer,
    /// Writes carry no token, whatever the fence.
    FenceOff,
}

/// Names the faults to carry, separated by commas: `gate`, `preconditions`, `deadline`, `fence`.
#[cfg(feature = "seeded-bugs")]
pub const VARIABLE: &str = "QUARTERDECK_SEEDED_BUGS";

/// Whether this process carries `bug`.
#[cfg(not(feature = "seeded-bugs"))]
#[inline]
pub const fn carries(_bug: Bug) -> bool {
    false
}

/// Whether this process carries `bug`.
#[cfg(feature = "seeded-bugs")]
pub fn carries(bug: Bug) -> bool {
    static NAMES: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let name = match bug {
        Bug::GateOff => "gate",
        Bug::PreconditionsOff => "preconditions",
        Bug::DeadlineFromAnswer => "deadline",
        Bug::FenceOff => "fence",
    };
    NAMES.get_or_init(|| std::env::var(VARIABLE).unwrap_or_default()).split(',').any(|seeded| seeded == name)
}
