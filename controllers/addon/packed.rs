//! Bytes in compressed pieces that a ConfigMap or a Secret holds, and back.
//!
//! What comes back may have been cut short or changed by whoever may write them: it never grows beyond
//! [`Limits::content`], and whoever reads it compares it to a digest.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// Bounds on what is stored, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest piece: an object holds 1 MiB, which base64 and its metadata count against.
    pub piece: usize,
    /// Most pieces.
    pub pieces: usize,
    /// Largest content before it is compressed.
    pub content: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { piece: 640 << 10, pieces: 16, content: 64 << 20 }
    }
}

/// Why something is not stored, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is larger than what is kept.
    #[error("it has more than {most} bytes")]
    Large {
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
    /// It was cut or changed.
    #[error("its pieces are damaged: {0}")]
    Damaged(#[from] std::io::Error),
}

/// Compresses and cuts; nothing becomes no piece.
///
/// # Errors
/// When it is too large.
pub fn cut(bytes: &[u8], limits: &Limits) -> Result<Vec<Vec<u8>>, PackError> {
    if bytes.len() > limits.content {
        return Err(PackError::Large { most: limits.content });
    }
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    let pieces: Vec<Vec<u8>> = encoder.finish()?.chunks(limits.piece.max(1)).map(<[u8]>::to_vec).collect();
    if pieces.len() > limits.pieces {
        return Err(PackError::Pieces { pieces: pieces.len(), most: limits.pieces });
    }
    Ok(pieces)
}

/// Puts pieces together again.
///
/// # Errors
/// When they are damaged, or too large.
pub fn join(pieces: &[Vec<u8>], limits: &Limits) -> Result<Vec<u8>, PackError> {
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let (joined, most) = (pieces.concat(), limits.content);
    let one_more = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    ZlibDecoder::new(&joined[..]).take(one_more).read_to_end(&mut bytes)?;
    if bytes.len() > most { Err(PackError::Large { most }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { piece: 7, pieces: 400, content: 2_000 };

    #[test]
    fn what_is_too_large_is_refused_both_ways() {
        let large = vec![0_u8; 2_001];
        assert!(matches!(cut(&large, &SMALL), Err(PackError::Large { most: 2_000 })));
        let random: Vec<u8> = (0..2_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let few = Limits { pieces: 3, ..SMALL };
        assert!(matches!(cut(&random, &few), Err(PackError::Pieces { most: 3, .. })));
        // A bomb of somebody else's making.
        let bomb = cut(&vec![0_u8; 1 << 20], &Limits::default()).expect("pieces");
        assert!(matches!(join(&bomb, &SMALL), Err(PackError::Large { .. })));
    }

    #[test]
    fn damage_is_seen() {
        let mut pieces = cut(b"some text that is long enough for pieces", &SMALL).expect("pieces");
        pieces.pop();
        assert!(matches!(join(&pieces, &SMALL), Err(PackError::Damaged(_))));
        assert!(join(&[b"nonsense".to_vec()], &SMALL).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_cut_is_joined(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1_500)) {
            let pieces = cut(&bytes, &SMALL).expect("pieces");
            proptest::prop_assert!(pieces.iter().all(|piece| piece.len() <= 7));
            proptest::prop_assert_eq!(join(&pieces, &SMALL).expect("bytes"), bytes);
        }
    }
}
