//! Versions.

use std::cmp::Ordering;
use std::fmt;

use super::clip;

/// Why a text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Nothing was given.
    #[error("version is empty")]
    Empty,
    /// It has fewer numbers than it needs.
    #[error("version {0:?} has not the three numbers major.minor.patch")]
    Short(String),
    /// A pre-release or build after fewer than three numbers.
    #[error("version {0:?} has a pre-release or build, but not the three numbers major.minor.patch")]
    ShortWithPre(String),
    /// One of the three numbers is none.
    #[error("version {text:?}: {part:?} is not a number")]
    Number {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
    },
    /// A number with zeroes before it.
    #[error("version {text:?}: {part:?} has leading zeroes")]
    LeadingZeroes {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
    },
    /// A part of the pre-release or build is empty or has other characters than letters, digits and dashes.
    #[error("version {text:?}: {part:?} is not letters, digits and dashes")]
    Identifier {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
    },
    /// Longer than may be read.
    #[error("version {0:?} is longer than {max} bytes", max = MAX_LOOSE)]
    TooLong(String),
}

/// Longest text that Masterminds' library reads, bytes.
const MAX_LOOSE: usize = 256;

/// One part of a pre-release. Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// A number.
    Number(u64),
    /// Letters, digits and dashes.
    Word(String),
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// A semantic version. Two are compared with [`Version::precedence`]; equality takes the build into
/// account, precedence does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
    /// Parts of the pre-release; a version without any is newer than one with.
    pub pre: Vec<Identifier>,
    /// Parts of the build; they count for nothing.
    pub build: Vec<String>,
}

impl Version {
    /// A release.
    #[must_use]
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { major, minor, patch, pre: Vec::new(), build: Vec::new() }
    }

    /// Exactly a semantic version (blang's `Parse`).
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        if text.is_empty() {
            return Err(VersionError::Empty);
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VersionError::Short(clip(text)));
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        Ok(Self {
            major: strict_number(text, major)?,
            minor: strict_number(text, minor)?,
            patch: strict_number(text, patch)?,
            pre: pre
                .map_or(Ok(Vec::new()), |pre| pre.split('.').map(|part| strict_identifier(text, part)).collect())?,
            build: build.map_or(Ok(Vec::new()), |build| words(text, build))?,
        })
    }

    /// A version as people write it: with spaces around, a `v` before, leading zeroes, or fewer
    /// than three numbers (blang's `ParseTolerant`).
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse_tolerant(text: &str) -> Result<Self, VersionError> {
        let trimmed = text.trim();
        let trimmed = trimmed.strip_prefix('v').unwrap_or(trimmed);
        let mut parts: Vec<String> = trimmed.splitn(3, '.').map(without_zeroes).collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err(VersionError::ShortWithPre(clip(text)));
        }
        parts.resize(3, "0".to_owned());
        Self::parse(&parts.join("."))
    }

    /// A version as Masterminds' `NewVersion` reads it: with a `v` before, leading zeroes, or fewer
    /// than three numbers, even before a pre-release.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse_loose(text: &str) -> Result<Self, VersionError> {
        if text.len() > MAX_LOOSE {
            return Err(VersionError::TooLong(clip(text)));
        }
        if text.is_empty() {
            return Err(VersionError::Empty);
        }
        let rest = text.strip_prefix('v').unwrap_or(text);
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(numbers, pre)| (numbers, Some(pre)));
        let mut found = [0; 3];
        for (index, part) in numbers.split('.').enumerate() {
            let bad = || VersionError::Number { text: clip(text), part: clip(part) };
            *found.get_mut(index).ok_or_else(bad)? = number(part).ok_or_else(bad)?;
        }
        let [major, minor, patch] = found;
        Ok(Self {
            major,
            minor,
            patch,
            pre: pre.map_or(Ok(Vec::new()), |pre| pre.split('.').map(|part| loose_identifier(text, part)).collect())?,
            build: build.map_or(Ok(Vec::new()), |build| words(text, build))?,
        })
    }

    /// The version of a Kubernetes server, less its pre-release and build, so that `v1.6.0-beta.1`
    /// is in `>=1.6.0` (kops:channels/pkg/cmd/apply_channel.go).
    ///
    /// # Errors
    /// When it is no version.
    pub fn of_kubernetes(git_version: &str) -> Result<Self, VersionError> {
        Self::parse_tolerant(git_version).map(|version| version.release())
    }

    /// The same without pre-release and build.
    #[must_use]
    pub const fn release(&self) -> Self {
        Self::new(self.major, self.minor, self.patch)
    }

    /// Which of two versions is newer; builds do not count.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        numbers(self).cmp(&numbers(other)).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        for (index, part) in self.pre.iter().enumerate() {
            write!(f, "{}{part}", if index == 0 { '-' } else { '.' })?;
        }
        for (index, part) in self.build.iter().enumerate() {
            write!(f, "{}{part}", if index == 0 { '+' } else { '.' })?;
        }
        Ok(())
    }
}

/// Takes the zeroes before a number away; what is left begins with a digit.
fn without_zeroes(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn has_leading_zeroes(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0')
}

/// Digits only: a sign, which `parse` would take, is none.
fn number(part: &str) -> Option<u64> {
    is_digits(part).then(|| part.parse().ok())?
}

fn strict_number(text: &str, part: &str) -> Result<u64, VersionError> {
    let found = number(part).ok_or_else(|| VersionError::Number { text: clip(text), part: clip(part) })?;
    if has_leading_zeroes(part) {
        return Err(VersionError::LeadingZeroes { text: clip(text), part: clip(part) });
    }
    Ok(found)
}

fn strict_identifier(text: &str, part: &str) -> Result<Identifier, VersionError> {
    let identifier = loose_identifier(text, part)?;
    if matches!(identifier, Identifier::Word(_)) && is_digits(part) {
        return Err(VersionError::Number { text: clip(text), part: clip(part) });
    }
    Ok(identifier)
}

/// A number too large for 64 bits is a word here.
fn loose_identifier(text: &str, part: &str) -> Result<Identifier, VersionError> {
    if !is_word(part) {
        return Err(VersionError::Identifier { text: clip(text), part: clip(part) });
    }
    if is_digits(part) && has_leading_zeroes(part) {
        return Err(VersionError::LeadingZeroes { text: clip(text), part: clip(part) });
    }
    Ok(number(part).map_or_else(|| Identifier::Word(part.to_owned()), Identifier::Number))
}

fn words(text: &str, build: &str) -> Result<Vec<String>, VersionError> {
    let word = |part: &str| {
        if is_word(part) {
            Ok(part.to_owned())
        } else {
            Err(VersionError::Identifier { text: clip(text), part: clip(part) })
        }
    };
    build.split('.').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_part() {
        for (text, message) in [
            ("", "version is empty"),
            ("1.2", r#"version "1.2" has not the three numbers major.minor.patch"#),
            ("1.a.3", r#"version "1.a.3": "a" is not a number"#),
            ("1.+2.3", r#"version "1.+2.3": "+2" is not a number"#),
            ("1.02.3", r#"version "1.02.3": "02" has leading zeroes"#),
            ("1.2.3-a..b", r#"version "1.2.3-a..b": "" is not letters, digits and dashes"#),
            ("1.2.3-01", r#"version "1.2.3-01": "01" has leading zeroes"#),
            ("1.2.99999999999999999999", "is not a number"),
        ] {
            let error = Version::parse(text).expect_err(text).to_string();
            assert!(error.ends_with(message), "{text}: {error}");
        }
        assert!(Version::parse(&"9".repeat(100_000)).expect_err("long").to_string().len() < 400);
    }

    #[test]
    fn a_kubernetes_version_loses_pre_release_and_build() {
        for (text, release) in [
            ("v1.6.0-beta.1", "1.6.0"),
            ("v1.29.3-eks-adc7111", "1.29.3"),
            ("v1.30.1+k3s1", "1.30.1"),
            (" 1.36 ", "1.36.0"),
        ] {
            assert_eq!(Version::of_kubernetes(text).expect(text).to_string(), release);
        }
        assert!(Version::of_kubernetes("unknown").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_printed_is_read_again(text in "\\PC{0,40}", like in "v?[0-9]{1,3}(\\.[0-9]{1,3}){0,3}([-+.][0-9A-Za-z.-]{0,8}){0,2}") {
            for text in [&text, &like] {
                let _ = Version::parse_loose(text);
                if let Ok(version) = Version::parse_tolerant(text) {
                    proptest::prop_assert_eq!(&Version::parse(&version.to_string()).expect("readable"), &version);
                    proptest::prop_assert_eq!(&Version::parse_loose(&version.to_string()).expect("readable"), &version);
                }
            }
        }
    }
}
