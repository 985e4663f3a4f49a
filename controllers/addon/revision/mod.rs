//! Revisions of an addon: what was asked for, kept beside its parent, so that it can be gone back to.
//!
//! A *revision* is one state of what a source asks for. The last [`MOST`] are kept: a record of each in
//! the parent ([`Revisions`]), its content compressed in ConfigMaps and, of Secrets, in Secrets
//! ([`encode`]). Which of them are kept is decided in [`begin`]; whether a new one is given up for an
//! older one in [`plan`]. Nothing here talks to a server.

mod choose;
mod content;
mod pack;
mod plan;
mod record;

use std::fmt;

use sha2::{Digest as _, Sha256};

pub use choose::{Asked, Wish, begin, find, wish};
pub use content::{Content, crds};
pub use pack::{DecodeError, EncodeError, Limits, Packed, decode, encode};
pub use plan::{Judgement, Trial, plan};
pub use record::public;

/// Most revisions that are kept of an addon.
pub const MOST: usize = 3;

/// What is done about revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// None is kept.
    #[default]
    Off,
    /// They are kept, and gone back to when a person says so.
    Manual,
    /// They are also gone back to when a new one fails.
    Auto,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Off, Self::Manual, Self::Auto];

    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Manual => "manual",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is not one of off, manual, auto"))
    }
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It is being tried.
    #[default]
    New,
    /// All of it was applied, and healthy.
    Good,
    /// It failed while it was tried.
    Bad,
    /// Its time was over, and it was neither: it is not given up any more.
    Late,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::New, Self::Good, Self::Bad, Self::Late];

    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Late => "late",
        }
    }
}

/// One revision that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its name: [`key_of`] the addon's version.
    pub hash: String,
    /// The version of its package, where it has one.
    pub version: String,
    /// When it came into force, Unix time in milliseconds.
    pub time: i64,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it is bad, or cannot be gone back from.
    pub reason: String,
    /// Digest of its content; empty while that is not stored.
    pub digest: String,
    /// Into how many ConfigMaps its content is cut.
    pub maps: usize,
    /// Into how many Secrets its Secrets are cut.
    pub secrets: usize,
    /// Digest of its CustomResourceDefinitions; empty if it has none.
    pub crds: String,
}

impl Kept {
    /// Whether its content is stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !self.digest.is_empty()
    }
}

/// Prints `1.2 (0123456789abcdef)`, or the hash alone.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.version.is_empty() { f.write_str(&self.hash) } else { write!(f, "{} ({})", self.version, self.hash) }
    }
}

/// A roll-back that holds: until the source asks for something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollBack {
    /// The revision that the source asks for, and that is not applied.
    pub from: String,
    /// The revision that is applied in its place.
    pub to: String,
    /// Whether a person asked for it.
    pub by_person: bool,
    /// Why.
    pub reason: String,
}

/// What a parent says of its addon's revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// Those that are known, the newest first.
    pub kept: Vec<Kept>,
    /// The roll-back that holds.
    pub back: Option<RollBack>,
    /// What a person asked for last, and which revision the source asked for then.
    pub asked: Option<Asked>,
}

impl Revisions {
    /// A revision by its hash.
    #[must_use]
    pub fn of(&self, hash: &str) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.hash == hash)
    }

    /// The revision that is in force.
    #[must_use]
    pub fn in_force(&self) -> Option<&str> {
        match &self.back {
            Some(back) => Some(&back.to),
            None => self.kept.first().map(|kept| kept.hash.as_str()),
        }
    }

    /// What people are told of a revision.
    #[must_use]
    pub fn state_of(&self, kept: &Kept) -> &'static str {
        match kept.verdict {
            Verdict::Bad => "bad",
            _ if self.in_force() == Some(&kept.hash) => "current",
            Verdict::Good => "good",
            Verdict::New | Verdict::Late => "",
        }
    }

    /// What people are told of the roll-back that holds.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let back = self.back.as_ref()?;
        let named = |hash: &str| self.of(hash).map_or_else(|| hash.to_owned(), ToString::to_string);
        Some(format!("rolled back from {} to {}: {}", named(&back.from), named(&back.to), back.reason))
    }
}

/// The name of the revision that an addon of this version is: the beginning of the version where that is
/// a hash itself.
#[must_use]
pub fn key_of(version: &str) -> String {
    const DIGITS: usize = 16;
    if version.len() == 64 && version.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return version[..DIGITS].to_owned();
    }
    hex(&Sha256::digest(version.as_bytes()), DIGITS)
}

/// The first hexadecimal digits of a digest.
fn hex(digest: &[u8], digits: usize) -> String {
    digest.iter().take(digits / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_named_by_its_version() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(key_of(&hash), "0123456789abcdef");
        let other = key_of("v1.2");
        assert_eq!(other.len(), 16);
        assert_ne!(other, key_of("v1.3"));
    }

    #[test]
    fn modes_are_words() {
        for mode in Mode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert_eq!("on".parse::<Mode>(), Err("\"on\" is not one of off, manual, auto".to_owned()));
    }

    #[test]
    fn what_is_in_force_is_current_unless_it_is_bad() {
        let kept = |hash: &str, verdict| Kept { hash: hash.into(), verdict, ..Kept::default() };
        let mut revisions = Revisions {
            kept: vec![kept("c", Verdict::Bad), kept("b", Verdict::Late), kept("a", Verdict::Good)],
            ..Revisions::default()
        };
        let states = |revisions: &Revisions| -> Vec<&str> {
            revisions.kept.iter().map(|kept| revisions.state_of(kept)).collect()
        };
        assert_eq!(states(&revisions), ["bad", "", "good"]);
        assert_eq!(revisions.told(), None);
        revisions.back = Some(RollBack { from: "c".into(), to: "a".into(), reason: "why".into(), by_person: false });
        revisions.kept[2].version = "1.0".into();
        assert_eq!(states(&revisions), ["bad", "", "current"]);
        assert_eq!(revisions.told().as_deref(), Some("rolled back from c to 1.0 (a): why"));
    }
}
