//! Constraints as Masterminds' library reads them: comparisons joined by a space or comma (and),
//! alternatives by `||`, `1.2 - 1.4` for a closed interval.

use std::cmp::Ordering;

use super::clip;
use super::semver::Version;

/// Longest constraint that is read, bytes.
const MAX_LEN: usize = 512;
/// Most alternatives.
const MAX_ALTERNATIVES: usize = 32;

/// Why a text is no constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Longer than may be read.
    #[error("version constraint {0:?} is longer than {MAX_LEN} bytes")]
    TooLong(String),
    /// More alternatives than may be read.
    #[error("version constraint {0:?} has more than {MAX_ALTERNATIVES} alternatives")]
    TooManyAlternatives(String),
    /// An alternative that cannot be read.
    #[error("version constraint {text:?}: {part:?} is not a list of comparisons such as >=1.2, <2")]
    Malformed {
        /// The whole text.
        text: String,
        /// The alternative.
        part: String,
    },
    /// A version in it that is none.
    #[error("version constraint {text:?}: {part:?} is not a version")]
    Version {
        /// The whole text.
        text: String,
        /// The version.
        part: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    /// `=` or nothing: the same version, or with a part left out as [`Operator::Tilde`].
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    /// `~`: the numbers that are given stay.
    Tilde,
    /// `^`: the first number that is not zero stays.
    Caret,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    bound: Version,
    /// How many numbers are given; the others are left out or `x`.
    given: Given,
}

/// Which of the numbers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Nothing,
    Major,
    MajorMinor,
    All,
}

/// A set of versions, such as `^1.2, !=1.4.0 || 3.x`.
///
/// A pre-release is in it only if a comparison of the same alternative names a pre-release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    alternatives: Vec<Vec<Comparison>>,
}

impl Constraint {
    /// Reads a constraint (`NewConstraint`).
    ///
    /// # Errors
    /// Says which alternative is wrong.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > MAX_LEN {
            return Err(ConstraintError::TooLong(clip(text)));
        }
        let rewritten = rewrite_intervals(text);
        let alternatives: Vec<&str> = rewritten.split("||").collect();
        if alternatives.len() > MAX_ALTERNATIVES {
            return Err(ConstraintError::TooManyAlternatives(clip(text)));
        }
        let alternatives = alternatives.into_iter().map(|part| alternative(text, part)).collect::<Result<_, _>>()?;
        Ok(Self { alternatives })
    }

    /// Whether a version is in it.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|comparisons| {
            let names_pre = comparisons.iter().any(|comparison| !comparison.bound.pre.is_empty());
            (version.pre.is_empty() || names_pre) && comparisons.iter().all(|comparison| comparison.holds(version))
        })
    }
}

impl Comparison {
    fn holds(&self, version: &Version) -> bool {
        let ordering = version.precedence(&self.bound);
        match self.operator {
            Operator::Equal if self.given == Given::All => ordering.is_eq(),
            Operator::Equal | Operator::Tilde => ordering.is_ge() && self.keeps_given(version),
            Operator::Caret => ordering.is_ge() && self.keeps_first(version),
            Operator::NotEqual => self.differs(version),
            Operator::Greater => self.is_below(version, ordering),
            Operator::GreaterOrEqual => ordering.is_ge(),
            Operator::Less => ordering.is_lt(),
            Operator::LessOrEqual => self.is_not_below(version, ordering),
        }
    }

    /// `~1.2.3` stays in 1.2, `~1` in 1; `~0.0.0` and `~x` are everywhere.
    fn keeps_given(&self, version: &Version) -> bool {
        let zero = self.bound.release() == Version::new(0, 0, 0);
        if zero && matches!(self.given, Given::Nothing | Given::All) {
            return true;
        }
        version.major == self.bound.major && (self.given == Given::Major || version.minor == self.bound.minor)
    }

    /// `^1.2.3` stays in 1, `^0.2.3` in 0.2, `^0.0.3` is 0.0.3.
    fn keeps_first(&self, version: &Version) -> bool {
        let bound = &self.bound;
        if bound.major > 0 || self.given == Given::Major {
            return version.major == bound.major;
        }
        if version.major > 0 || version.minor != bound.minor {
            return false;
        }
        bound.minor > 0 || self.given == Given::MajorMinor || version.patch == bound.patch
    }

    fn differs(&self, version: &Version) -> bool {
        let bound = &self.bound;
        match self.given {
            Given::Major => version.major != bound.major,
            Given::MajorMinor => {
                (version.major, version.minor) != (bound.major, bound.minor) || version.pre != bound.pre
            }
            Given::Nothing | Given::All => version.precedence(bound).is_ne(),
        }
    }

    /// `>11` wants 12, `>11.1` wants 11.2.
    fn is_below(&self, version: &Version, ordering: Ordering) -> bool {
        let bound = &self.bound;
        match self.given {
            Given::Major => version.major > bound.major,
            Given::MajorMinor => (version.major, version.minor) > (bound.major, bound.minor),
            Given::Nothing => version.major > bound.major || ordering.is_gt(),
            Given::All => ordering.is_gt(),
        }
    }

    /// `<=11` takes all of 11, `<=11.1` all of 11.1.
    fn is_not_below(&self, version: &Version, ordering: Ordering) -> bool {
        let bound = &self.bound;
        match self.given {
            Given::All => ordering.is_le(),
            Given::Major => version.major <= bound.major,
            Given::Nothing | Given::MajorMinor => (version.major, version.minor) <= (bound.major, bound.minor),
        }
    }
}

fn alternative(text: &str, part: &str) -> Result<Vec<Comparison>, ConstraintError> {
    let malformed = || ConstraintError::Malformed { text: clip(text), part: clip(part) };
    let mut comparisons = Vec::new();
    let mut rest = trim_start(part);
    loop {
        let end = rest.find(|c| !"=!<>~^".contains(c)).unwrap_or(rest.len());
        let operator = operator(&rest[..end]).ok_or_else(malformed)?;
        let after = trim_start(&rest[end..]);
        let pattern = Pattern::read(after).ok_or_else(malformed)?;
        comparisons.push(comparison(text, operator, &pattern)?);
        let after = &after[pattern.text.len()..];
        let next = trim_start(after);
        if next.is_empty() {
            return Ok(comparisons);
        }
        rest = match next.strip_prefix(',') {
            Some(next) => trim_start(next),
            None if next.len() < after.len() => next,
            None => return Err(malformed()),
        };
    }
}

fn operator(text: &str) -> Option<Operator> {
    Some(match text {
        "" | "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        ">" => Operator::Greater,
        "<" => Operator::Less,
        ">=" | "=>" => Operator::GreaterOrEqual,
        "<=" | "=<" => Operator::LessOrEqual,
        "~" | "~>" => Operator::Tilde,
        "^" => Operator::Caret,
        _ => return None,
    })
}

fn comparison(text: &str, operator: Operator, pattern: &Pattern<'_>) -> Result<Comparison, ConstraintError> {
    let left_out = |number: &str| matches!(number, "" | "x" | "X" | "*");
    let [major, minor, patch] = pattern.numbers;
    let pre = pattern.pre;
    let (bound, given) = if left_out(major) {
        (format!("0.0.0{pre}"), Given::Nothing)
    } else if left_out(minor) {
        (format!("{major}.0.0{pre}"), Given::Major)
    } else if left_out(patch) {
        (format!("{major}.{minor}.0{pre}"), Given::MajorMinor)
    } else {
        (pattern.text.to_owned(), Given::All)
    };
    let bound = Version::parse_loose(&bound)
        .map_err(|_| ConstraintError::Version { text: clip(text), part: clip(pattern.text) })?;
    Ok(Comparison { operator, bound, given })
}

/// A version in which numbers may be `x` or left out.
struct Pattern<'a> {
    text: &'a str,
    numbers: [&'a str; 3],
    /// The pre-release with its dash, or nothing.
    pre: &'a str,
}

impl<'a> Pattern<'a> {
    /// The longest one that a text begins with.
    fn read(text: &'a str) -> Option<Self> {
        // The library's character class lets a single | through; it never makes a version.
        let number = |c: char| c.is_ascii_digit() || matches!(c, '|' | 'x' | 'X' | '*');
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let mut at = usize::from(text.starts_with('v'));
        let mut numbers = [""; 3];
        for (index, slot) in numbers.iter_mut().enumerate() {
            let dot = usize::from(index > 0);
            if dot == 1 && !text[at..].starts_with('.') {
                break;
            }
            let run = run(&text[at + dot..], number);
            if run == 0 {
                break;
            }
            *slot = &text[at + dot..at + dot + run];
            at += dot + run;
        }
        if numbers[0].is_empty() {
            return None;
        }
        let pre = words(&text[at..], '-', word);
        let pre = &text[at..at + pre];
        at += pre.len();
        at += words(&text[at..], '+', word);
        Some(Self { text: &text[..at], numbers, pre })
    }
}

/// How many bytes at the start are of a kind of ASCII character.
fn run(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

/// How many bytes at the start are a sign and words joined by dots.
fn words(text: &str, sign: char, of: impl Fn(char) -> bool) -> usize {
    let mut end = 0;
    let mut joint = sign;
    while text[end..].starts_with(joint) {
        let run = run(&text[end + 1..], &of);
        if run == 0 {
            break;
        }
        end += 1 + run;
        joint = '.';
    }
    end
}

/// Go's `\s`.
const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// Writes `a - b` as `>= a, <= b`.
fn rewrite_intervals(text: &str) -> String {
    let mut out = text.to_owned();
    let mut at = 0;
    while at < text.len() {
        match interval(&text[at..]) {
            Some((len, low, high)) => {
                out = out.replacen(&text[at..at + len], &format!(">= {low}, <= {high} "), 1);
                at += len;
            }
            None => at += text[at..].chars().next().map_or(1, char::len_utf8),
        }
    }
    out
}

/// The interval that a text begins with: its length and its ends.
fn interval(text: &str) -> Option<(usize, &str, &str)> {
    let low = Pattern::read(trim_start(text))?.text;
    let after_low = &trim_start(text)[low.len()..];
    let dash = trim_start(after_low);
    let after_dash = dash.strip_prefix('-')?;
    let high = Pattern::read(trim_start(after_dash))?.text;
    let spaced = dash.len() < after_low.len() && trim_start(after_dash).len() < after_dash.len();
    let rest = trim_start(&trim_start(after_dash)[high.len()..]);
    spaced.then_some((text.len() - rest.len(), low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(constraint: &str, version: &str) -> bool {
        Constraint::parse(constraint).expect(constraint).contains(&Version::parse_loose(version).expect(version))
    }

    #[test]
    fn each_operator_means_what_the_library_says() {
        for (constraint, inside, outside) in [
            ("1.2.3", "1.2.3", "1.2.4"),
            ("1.2", "1.2.9", "1.3.0"),
            ("*", "7.0.0", "7.0.0-rc.1"),
            ("~1.2.3", "1.2.9", "1.3.0"),
            ("~>1", "1.9.0", "2.0.0"),
            ("^1.2.3", "1.9.0", "2.0.0"),
            ("^0.2.3", "0.2.9", "0.3.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            (">11", "12.0.0", "11.1.0"),
            ("<=11", "11.9.0", "12.0.0"),
            ("!=1.x", "2.0.0", "1.4.0"),
            ("1.2 - 1.4.5", "1.4.5", "1.4.6"),
            (">=1.2, <2 || =3.0.0", "3.0.0", "2.5.0"),
            (">=1.2.0-0", "1.3.0-rc.1", "1.1.0-rc.1"),
        ] {
            assert!(contains(constraint, inside), "{constraint} {inside}");
            assert!(!contains(constraint, outside), "{constraint} {outside}");
        }
    }

    #[test]
    fn errors_say_which_alternative() {
        for (constraint, message) in [
            ("", "is not a list of comparisons"),
            ("1.2 || ", r#"" " is not a list"#),
            (">1<2", r#"">1<2" is not a list"#),
            ("latest", r#""latest" is not a list"#),
            ("1.2.3-01", r#""1.2.3-01" is not a version"#),
        ] {
            let error = Constraint::parse(constraint).expect_err(constraint).to_string();
            assert!(error.contains(message), "{constraint}: {error}");
        }
        assert!(matches!(Constraint::parse(&"1".repeat(513)), Err(ConstraintError::TooLong(_))));
        assert!(matches!(Constraint::parse(&vec!["1"; 33].join("||")), Err(ConstraintError::TooManyAlternatives(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", like in "([<>=!~^]{0,2} ?v?[0-9xX*|]{1,2}(\\.[0-9x*]{1,2}){0,3}(-[a-z0-9.]{0,3})?(, ?| - | |\\|\\|)?){0,5}") {
            for text in [&text, &like] {
                if let Ok(constraint) = Constraint::parse(text) {
                    let _ = constraint.contains(&Version::new(1, 2, 3));
                }
            }
        }
    }
}
