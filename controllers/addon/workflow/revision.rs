//! The hash that names a revision of an Addon.

use serde_json::Value;

use super::canonical;

/// Hex digits of a revision that stand in names of objects.
const SHORT: usize = 8;

/// SHA-256 of an Addon's `spec`, in lowercase hex: the same for the same content, whatever the order
/// of its keys, and whatever release computes it.
#[must_use]
pub fn revision(spec: &Value) -> String {
    canonical::hash(spec)
}

/// The part of a revision that stands in names.
#[must_use]
pub fn short(revision: &str) -> &str {
    revision.get(..SHORT).unwrap_or(revision)
}

/// What a checksum in a status says of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// None was recorded: the Addon is new.
    Nothing,
    /// Upstream recorded it (Adler-32 of a print of its own types, at most eight hex digits): the Addon
    /// is taken over as it is.
    Adopt,
    /// This revision.
    Same,
    /// Another one.
    Changed,
}

/// Compares `status.checksum` with a revision.
#[must_use]
pub fn recorded(checksum: &str, revision: &str) -> Recorded {
    if checksum.is_empty() {
        Recorded::Nothing
    } else if checksum == revision {
        Recorded::Same
    } else if checksum.len() <= SHORT && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Recorded::Adopt
    } else {
        Recorded::Changed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revision_is_that_of_the_content() {
        let spec = json!({"pkgName": "a", "params": {"namespace": "n", "data": {"x": "1", "y": "2"}}});
        let same: Value =
            serde_json::from_str(r#"{"params":{"data":{"y":"2","x":"1"},"namespace":"n"},"pkgName":"a"}"#).unwrap();
        let one = revision(&spec);
        assert_eq!((one.len(), one.as_str()), (64, revision(&same).as_str()));
        assert_eq!(short(&one).len(), 8);
        assert_ne!(one, revision(&json!({"pkgName": "b"})));
    }

    #[test]
    fn an_old_checksum_is_adopted_and_not_taken_for_a_change() {
        let one = revision(&json!({}));
        for (checksum, expected) in [
            ("", Recorded::Nothing),
            ("5f3a9c1", Recorded::Adopt),
            ("5F3A9C10", Recorded::Adopt),
            (&one, Recorded::Same),
            (short(&one), Recorded::Adopt),
            ("not hex!", Recorded::Changed),
            ("123456789", Recorded::Changed),
            (&"0".repeat(64), Recorded::Changed),
        ] {
            assert_eq!(recorded(checksum, &one), expected, "{checksum}");
        }
    }
}
