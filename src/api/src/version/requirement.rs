//! What an addon asks of a package it depends on.

use super::constraint::{Constraint, ConstraintError};
use super::semver::Version;

/// A value of `pkgDeps`: `*` for any version, the very text of one, or a constraint
/// (keikoproj/addon-manager:pkg/addon/validate.go 43e3ef6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    text: String,
    constraint: Option<Constraint>,
}

impl Requirement {
    /// Reads a requirement.
    ///
    /// # Errors
    /// When the text is no constraint. It may still be the text of a version that is no semantic
    /// version: ask [`Requirement::exactly`] for that.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let text = text.trim().to_owned();
        let constraint = if text == "*" { None } else { Some(Constraint::parse(&text)?) };
        Ok(Self { text, constraint })
    }

    /// Exactly this text, whether or not it is a version.
    #[must_use]
    pub fn exactly(text: &str) -> Self {
        Self { text: text.trim().to_owned(), constraint: None }
    }

    /// Whether a version satisfies it.
    #[must_use]
    pub fn is_satisfied_by(&self, version: &str) -> bool {
        let version = version.trim();
        self.text == "*" || self.text == version || self.holds(version)
    }

    fn holds(&self, version: &str) -> bool {
        let Some(constraint) = &self.constraint else { return false };
        Version::parse_loose(version).is_ok_and(|version| constraint.contains(&version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_exact_and_constraint() {
        for (requirement, version, satisfied) in [
            ("*", "v2-of-a-friend", true),
            ("*", "1.0.0-rc.1", true),
            ("1.0.0-rc.1", "1.0.0-rc.1", true),
            ("v1.2.0", "1.2.0", true),
            ("^1.2", "v1.9.0", true),
            ("^1.2", "2.0.0", false),
            (">=1", "not a version", false),
        ] {
            let requirement = Requirement::parse(requirement).expect(requirement);
            assert_eq!(requirement.is_satisfied_by(version), satisfied, "{requirement:?} {version}");
        }
        assert!(Requirement::parse("stable").is_err());
        let exact = Requirement::exactly("stable");
        assert!(exact.is_satisfied_by("stable") && !exact.is_satisfied_by("beta"));
    }
}
