//! Versions and what may be asked of them, as the two Go libraries read them whose texts stand in
//! channels and addons today.
//!
//! - [`Version`]: `github.com/blang/semver/v4` v4.0.0 (`Parse`, `ParseTolerant`) and
//!   `github.com/Masterminds/semver/v3` v3.5.0 (`NewVersion`).
//! - [`Range`]: blang's ranges, such as `>=1.4.0 <1.6.0`, in the `kubernetesVersion` of channels.
//! - [`Constraint`]: Masterminds' constraints, such as `^1.2`, and [`Requirement`], what an addon
//!   asks of a package it depends on.
//!
//! What the libraries make of a text is kept, oddities included: a text that is in use must not
//! change its meaning. `hack/vectors` holds thousands of texts to them.

mod constraint;
mod range;
mod requirement;
mod semver;
#[cfg(test)]
mod vectors_tests;

pub use constraint::{Constraint, ConstraintError};
pub use range::{Range, RangeError};
pub use requirement::Requirement;
pub use semver::{Identifier, Version, VersionError};

/// The start of a text, for messages: input may be long.
fn clip(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
