//! The content of a revision in pieces that a ConfigMap or a Secret holds, and back.
//!
//! What comes back may have been cut short or changed by anybody who may write a ConfigMap: it is
//! compared to the digest in the addon's parent.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::content::{Content, FORMAT, Head, Item, from_items, to_items};
use super::hex;
pub use crate::addon::packed::Limits;
use crate::addon::packed::{PackError, cut, join};

/// A revision in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Everything but Secrets; at least one piece.
    pub open: Vec<Vec<u8>>,
    /// Secrets.
    pub secret: Vec<Vec<u8>>,
    /// Digest of the content.
    pub digest: String,
}

/// Why a revision cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It does not fit.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It is not JSON.
    #[error("it cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Why a stored revision cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It was cut, or grows beyond the limit.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It is not what was stored.
    #[error("its digest is {found}, and {expected} was stored")]
    Changed {
        /// Its digest.
        found: String,
        /// The digest of what was stored.
        expected: String,
    },
    /// A later build stored it.
    #[error("it is stored in form {0}, which is not known here")]
    Form(u32),
    /// It is not JSON of the right shape.
    #[error("it cannot be read")]
    Json(#[from] serde_json::Error),
    /// Something in it is not as it should be.
    #[error("{0}")]
    Content(String),
}

#[derive(Serialize, Deserialize)]
struct Open {
    #[serde(flatten)]
    head: Head,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Form {
    format: u32,
}

/// Cuts a revision into pieces.
///
/// # Errors
/// When it is too large.
pub fn encode(content: &Content, limits: &Limits) -> Result<Packed, EncodeError> {
    let (head, items, secrets) = to_items(content);
    let open = serde_json::to_vec(&Open { head, items })?;
    let secret = if secrets.is_empty() { Vec::new() } else { serde_json::to_vec(&secrets)? };
    Ok(Packed { digest: digest(&open, &secret), open: cut(&open, limits)?, secret: cut(&secret, limits)? })
}

/// Puts a revision together again; `digest` is what [`encode`] said.
///
/// # Errors
/// When it is not what was stored.
pub fn decode(packed: &Packed, limits: &Limits) -> Result<Content, DecodeError> {
    let open = join(&packed.open, limits)?;
    let secret = join(&packed.secret, limits)?;
    let found = digest(&open, &secret);
    if found != packed.digest {
        return Err(DecodeError::Changed { found, expected: packed.digest.clone() });
    }
    let form: Form = read(&open)?;
    if form.format != FORMAT {
        return Err(DecodeError::Form(form.format));
    }
    let Open { head, mut items } = read(&open)?;
    if !secret.is_empty() {
        items.extend(read::<Vec<Item>>(&secret)?);
    }
    from_items(head, items).map_err(DecodeError::Content)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    Ok(serde_json::from_slice(bytes)?)
}

fn digest(open: &[u8], secret: &[u8]) -> String {
    let mut hasher = Sha256::new();
    for part in [open, secret] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize(), 64)
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
