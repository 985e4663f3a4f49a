//! Spans of what reconciles do, for traces (`docs/tracing.md`).
//!
//! They are spans of `tracing`, all under one target: where nobody asks for them, as in every build without traces, each costs
//! the look at one flag.

use tracing::Span;

/// Target of the spans: what a subscriber asks for who wants traces.
pub const TARGET: &str = "quarterdeck_spans";

/// A reconcile, until it is given back to its queue.
#[macro_export]
macro_rules! span {
    ($name:literal, $($fields:tt)*) => {
        $crate::spans::tracing::debug_span!(target: $crate::spans::TARGET, $name, $($fields)*)
    };
}

#[doc(hidden)]
pub use tracing;

/// A span for what a reconcile waits for; none outside of reconciles, so that a trace always says what it was for.
pub fn child(make: impl FnOnce() -> Span) -> Span {
    if Span::current().is_none() { Span::none() } else { make() }
}
