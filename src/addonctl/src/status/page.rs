//! The status page of a manager, as data.

use quarterdeck_api::status::{Status, Statusz};
use serde_json::Value;

/// Where managers tell how they are.
pub(crate) const PATH: &str = "/statusz";

/// An answer that is no status.
#[derive(Debug, thiserror::Error)]
#[error("{place} answers {PATH} with something else than a status: {source}")]
pub(crate) struct NoStatus {
    place: String,
    source: serde_json::Error,
}

/// What a manager tells.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// As it came.
    pub(crate) whole: Value,
    /// As it is understood.
    pub(crate) statusz: Statusz,
    /// Who told it; `None` if that is what the Leases say.
    pub(crate) told_by: Option<String>,
}

impl Page {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it is no status.
    pub(crate) fn read(body: &[u8], place: &str) -> Result<Self, NoStatus> {
        let wrong = |source| NoStatus { place: place.to_owned(), source };
        let whole: Value = serde_json::from_slice(body).map_err(wrong)?;
        let statusz = serde_json::from_value(whole.clone()).map_err(wrong)?;
        Ok(Self { whole, statusz, told_by: Some(place.to_owned()) })
    }

    /// How the manager is.
    pub(crate) fn status(&self) -> &Status {
        &self.statusz.status
    }
}
