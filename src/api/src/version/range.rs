//! Ranges as blang's library reads them: comparisons joined by a space (and), alternatives by `||`.

use std::cmp::Ordering;

use super::clip;
use super::semver::{Version, VersionError};

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing that could be a comparison.
    #[error("version range {0:?} is empty")]
    Empty(String),
    /// `||` without something on both sides.
    #[error("version range {0:?} has nothing beside a ||")]
    EmptyAlternative(String),
    /// A comparison without a version.
    #[error("version range {text:?}: {part:?} has no version")]
    NoVersion {
        /// The whole text.
        text: String,
        /// The comparison.
        part: String,
    },
    /// A comparison that does not exist.
    #[error("version range {text:?}: {operator:?} is none of = == != ! > >= < <=")]
    Operator {
        /// The whole text.
        text: String,
        /// What stands before the version.
        operator: String,
    },
    /// The version of a comparison is none.
    #[error("version range {text:?}: {source}")]
    Version {
        /// The whole text.
        text: String,
        /// What is wrong with it.
        source: VersionError,
    },
    /// Characters that no version has.
    #[error("version range {0:?} has characters that are not ASCII")]
    NotAscii(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "=" | "==" => Self::Equal,
            "!" | "!=" => Self::NotEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            _ => return None,
        })
    }

    const fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// A set of versions, such as `>=1.4.0 <1.6.0 || 2.x`.
///
/// Versions in it have three numbers; `x` may stand for the last of two or three. Pre-releases are
/// ordered like any version: whoever asks about a Kubernetes server cuts its pre-release first
/// ([`Version::of_kubernetes`]). Two oddities of the library are kept: `1.x.x` means `1.0.x`, and a
/// comparison of a single character is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    alternatives: Vec<Vec<(Operator, Version)>>,
}

impl Range {
    /// Reads a range (blang's `ParseRange`).
    ///
    /// # Errors
    /// Says what is wrong with which part.
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        if !text.is_ascii() {
            return Err(RangeError::NotAscii(clip(text)));
        }
        let parts = split(text);
        if parts.is_empty() {
            return Err(RangeError::Empty(clip(text)));
        }
        let mut alternatives = Vec::new();
        for alternative in parts.split(|part| part == "||") {
            if alternative.is_empty() {
                return Err(RangeError::EmptyAlternative(clip(text)));
            }
            let mut comparisons = Vec::new();
            for part in alternative {
                for part in expand(text, part)? {
                    comparisons.push(comparison(text, &part)?);
                }
            }
            alternatives.push(comparisons);
        }
        Ok(Self { alternatives })
    }

    /// Whether a version is in it.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        let holds = |(operator, bound): &(Operator, Version)| operator.holds(version.precedence(bound));
        self.alternatives.iter().any(|comparisons| comparisons.iter().all(holds))
    }
}

/// Comparisons and `||`, without spaces. A space after an operator separates nothing.
fn split(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut start, mut before) = (0, b' ');
    let mut push = |part: &str| {
        if part.len() > 1 {
            parts.push(part.replace(' ', ""));
        }
    };
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' ' if !matches!(before, b'<' | b'>' | b'=') => {
                push(&text[start..at]);
                start = at + 1;
            }
            b' ' => {}
            _ => before = byte,
        }
    }
    push(&text[start..]);
    parts
}

/// Operator and version of a comparison.
fn halves<'a>(text: &str, part: &'a str) -> Result<(&'a str, &'a str), RangeError> {
    let at = part
        .find(|c: char| c.is_ascii_digit())
        .ok_or_else(|| RangeError::NoVersion { text: clip(text), part: clip(part) })?;
    let (operator, version) = part.split_at(at);
    Ok((operator.trim(), version))
}

fn comparison(text: &str, part: &str) -> Result<(Operator, Version), RangeError> {
    let (operator, version) = halves(text, part)?;
    let known =
        Operator::parse(operator).ok_or_else(|| RangeError::Operator { text: clip(text), operator: clip(operator) })?;
    let version = Version::parse(version).map_err(|source| RangeError::Version { text: clip(text), source })?;
    Ok((known, version))
}

/// A comparison with an `x` as comparisons without one (blang's `expandWildcardVersion`).
fn expand(text: &str, part: &str) -> Result<Vec<String>, RangeError> {
    if !part.contains('x') {
        return Ok(vec![part.to_owned()]);
    }
    let (operator, version) = halves(text, part)?;
    let floor = floor(version);
    let next = || next(version, &floor);
    Ok(match operator {
        ">" => vec![format!(">={}", next())],
        ">=" => vec![format!(">={floor}")],
        "<" => vec![format!("<{floor}")],
        "<=" => vec![format!("<{}", next())],
        "" | "=" | "==" => vec![format!(">={floor}"), format!("<{}", next())],
        "!" | "!=" => vec![format!("<{floor}"), format!(">={}", next())],
        _ => vec![floor],
    })
}

/// The lowest version that a version with an `x` stands for.
fn floor(version: &str) -> String {
    let floor = version.replacen(".x.x", ".x", 1).replacen(".x", ".0", 1);
    if floor.split('.').count() == 2 { floor + ".0" } else { floor }
}

/// The lowest version above those that a version with an `x` stands for; empty if there is none.
fn next(version: &str, floor: &str) -> String {
    let parts: Vec<&str> = version.split('.').collect();
    let grows = match parts.as_slice() {
        [_, "x"] => 0,
        [_, _, "x"] => 1,
        _ => return String::new(),
    };
    let mut parts: Vec<String> = floor.split('.').map(str::to_owned).collect();
    let Some(Ok(number)) = parts.get(grows).map(|part| part.parse::<i64>()) else { return String::new() };
    parts[grows] = number.wrapping_add(1).to_string();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, version: &str) -> bool {
        Range::parse(range).expect(range).contains(&Version::parse_tolerant(version).expect(version))
    }

    #[test]
    fn the_ranges_of_the_channel_documents_work() {
        for (range, version, expected) in [
            (">=1.6.0", "1.6.0", true),
            ("<1.6.0", "1.6.0", false),
            (">=1.6.0", "1.5.9", false),
            (">=1.4.0 <1.6.0", "1.5.9", true),
            (">=1.4.0 <1.6.0", "1.6.0", false),
            ("<1.6.0 || >=2.0.0", "2.1.0", true),
            ("<1.6.0 || >=2.0.0", "1.7.0", false),
            (">=1.4.0 !=1.5.0", "1.5.0", false),
            ("1.5.x", "1.5.9", true),
            ("1.x", "2.0.0", false),
        ] {
            assert_eq!(contains(range, version), expected, "{range} {version}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (range, message) in [
            ("", "is empty"),
            ("||", "nothing beside a ||"),
            (">=1.4.0 || || <1.0.0", "nothing beside a ||"),
            (">=", r#"">=" has no version"#),
            ("~1.2.3", r#""~" is none of"#),
            (">=1.4", "three numbers"),
            ("1.2.3-x", r#""<" has no version"#),
            (">=1.4.0 <1.é.0", "not ASCII"),
        ] {
            let error = Range::parse(range).expect_err(range).to_string();
            assert!(error.contains(message), "{range}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", like in "([<>=!]{0,2} ?[0-9x*]{1,2}(\\.[0-9x]{1,2}){0,3}(-[a-z0-9.]{0,3})?( {1,2}|  \\|\\| )?){0,5}") {
            for text in [&text, &like] {
                if let Ok(range) = Range::parse(text) {
                    let _ = range.contains(&Version::new(1, 2, 3));
                }
            }
        }
    }
}
