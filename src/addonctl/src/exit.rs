//! How the program ends.

use std::io::ErrorKind;
use std::process::ExitCode;

/// Exit codes; docs/addonctl.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Fine = 0,
    /// Something failed.
    Failed = 1,
    /// `plan`: something would be changed.
    Changes = 2,
    /// The object does not exist.
    NotFound = 3,
    /// What was waited for did not come in time.
    TimedOut = 4,
    /// `status`, `top --once`: something is wrong with the managers.
    Unhealthy = 5,
    /// The command line is wrong.
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An object that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFound(pub(crate) String);

/// Something that did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TimedOut(pub(crate) String);

/// Prints an error, and says how to end with it.
pub(crate) fn tell(error: &anyhow::Error) -> Exit {
    let closed = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(closed) {
        // Whoever read our output has seen enough.
        return Exit::Fine;
    }
    eprintln!("error: {error:#}");
    if error.is::<NotFound>() {
        Exit::NotFound
    } else if error.is::<TimedOut>() {
        Exit::TimedOut
    } else {
        Exit::Failed
    }
}
