//! The content of a revision in pieces that a ConfigMap or a Secret holds, and back.
//!
//! What comes back may have been cut short or changed by anybody who may write a ConfigMap: it is
//! compared to the digest in the addon's parent, and never grows beyond [`Limits::content`].

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::content::{Content, FORMAT, Head, Item, from_items, to_items};
use super::hex;

/// Bounds on what is stored, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest piece: an object holds 1 MiB, which base64 and its metadata count against.
    pub piece: usize,
    /// Most pieces of either sort.
    pub pieces: usize,
    /// Largest content before it is compressed, of either sort.
    pub content: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { piece: 640 << 10, pieces: 16, content: 32 << 20 }
    }
}

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
    /// It is larger than what is kept.
    #[error("it has {bytes} bytes, more than the {most} that are kept")]
    Large {
        /// Its size, bytes.
        bytes: usize,
        /// The limit, bytes.
        most: usize,
    },
    /// It does not fit into the objects that it may have.
    #[error("compressed it has {pieces} pieces, more than the {most} that are kept")]
    Pieces {
        /// Pieces that it would have.
        pieces: usize,
        /// The limit.
        most: usize,
    },
    /// It is not JSON.
    #[error("it cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// It cannot be compressed.
    #[error("it cannot be compressed")]
    Compress(#[from] std::io::Error),
}

/// Why a stored revision cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It grows beyond the limit.
    #[error("it has more than {most} bytes")]
    Large {
        /// The limit, bytes.
        most: usize,
    },
    /// It was cut or changed.
    #[error("its pieces are damaged: {0}")]
    Damaged(std::io::Error),
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

fn cut(bytes: &[u8], limits: &Limits) -> Result<Vec<Vec<u8>>, EncodeError> {
    if bytes.len() > limits.content {
        return Err(EncodeError::Large { bytes: bytes.len(), most: limits.content });
    }
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    let pieces: Vec<Vec<u8>> = encoder.finish()?.chunks(limits.piece).map(<[u8]>::to_vec).collect();
    if pieces.len() > limits.pieces {
        return Err(EncodeError::Pieces { pieces: pieces.len(), most: limits.pieces });
    }
    Ok(pieces)
}

fn join(pieces: &[Vec<u8>], limits: &Limits) -> Result<Vec<u8>, DecodeError> {
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let joined = pieces.concat();
    let mut bytes = Vec::new();
    let most = limits.content;
    let one_more = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    ZlibDecoder::new(&joined[..]).take(one_more).read_to_end(&mut bytes).map_err(DecodeError::Damaged)?;
    if bytes.len() > most { Err(DecodeError::Large { most }) } else { Ok(bytes) }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
