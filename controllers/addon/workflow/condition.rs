//! `when`: conditions as govaluate reads them (`Knetic/govaluate:parsing.go`, and
//! `argoproj/argo-workflows:workflow/controller/operator.go`, where bare words are texts). A value is
//! one operand, or a part of one, whatever it holds.

use regex::RegexBuilder;

use super::substitute::{Found, Lookup, Miss};
use super::token::token_at;

/// Deepest nesting of parentheses and negations.
const DEPTH: usize = 32;
/// Largest compiled regular expression, bytes.
const REGEX_BYTES: usize = 64 << 10;

/// Whether a condition holds.
pub(super) fn holds(text: &str, path: &str, lookup: &dyn Lookup, longest: usize) -> Result<bool, Miss> {
    if text.len() > longest {
        return Err(Miss::refused(path, format!("longer than {longest} bytes")));
    }
    let refused = |reason: String| Miss::refused(path, reason);
    let words = words(text).map_err(refused)?;
    let mut parser = Parser { words: &words, at: 0, lookup, depth: 0 };
    let tree = parser.either().map_err(refused)?;
    if let Some(word) = parser.words.get(parser.at) {
        return Err(refused(format!("{word:?} where an operator or the end belongs")));
    }
    match evaluate(&tree) {
        Ok(Value::Bool(holds)) => Ok(holds),
        Ok(other) => Err(refused(format!("{other:?} is neither true nor false"))),
        Err(Fault::Wrong(reason)) => Err(refused(reason)),
        Err(Fault::Unknown(reason)) => Err(Miss::Unknown(reason)),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    /// `&&`, `(` and the like.
    Operator(&'static str),
    /// Literal parts (false) and names of references (true).
    Bare(Vec<(bool, String)>),
    Quoted(Vec<(bool, String)>),
}

const OPERATORS: [&str; 13] = ["&&", "||", "==", "!=", "=~", "!~", "<=", ">=", "<", ">", "!", "(", ")"];

fn words(text: &str) -> Result<Vec<Word>, String> {
    let reference_at = |at: usize| token_at(text, at);
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if let Some(operator) = OPERATORS.into_iter().find(|operator| text[at..].starts_with(operator)) {
            words.push(Word::Operator(operator));
            at += operator.len();
        } else if c == '"' || c == '\'' {
            let mut parts = vec![(false, String::new())];
            at += 1;
            loop {
                if let Some(token) = reference_at(at) {
                    parts.push((true, token.name.to_owned()));
                    parts.push((false, String::new()));
                    at = token.end;
                    continue;
                }
                let Some(inner) = text[at..].chars().next() else { return Err("a quote is not closed".to_owned()) };
                at += inner.len_utf8();
                let literal = match inner {
                    _ if inner == c => break,
                    '\\' => {
                        let escaped = text[at..].chars().next().ok_or("a quote is not closed")?;
                        at += escaped.len_utf8();
                        escaped
                    }
                    other => other,
                };
                parts.last_mut().expect("a part is always there").1.push(literal);
            }
            words.push(Word::Quoted(parts));
        } else {
            let mut parts = Vec::new();
            loop {
                if let Some(token) = reference_at(at) {
                    parts.push((true, token.name.to_owned()));
                    at = token.end;
                    continue;
                }
                match text[at..].chars().next() {
                    Some(c) if c.is_alphanumeric() || "_-./:@".contains(c) => {
                        at += c.len_utf8();
                        match parts.last_mut() {
                            Some((false, literal)) => literal.push(c),
                            _ => parts.push((false, c.to_string())),
                        }
                    }
                    _ => break,
                }
            }
            if parts.is_empty() {
                return Err(format!("{c:?} is not in the grammar of conditions; quote texts"));
            }
            words.push(Word::Bare(parts));
        }
    }
    Ok(words)
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Number(f64),
    Text(String),
}

enum Tree {
    Operand(Result<Value, String>),
    Not(Box<Tree>),
    Both(Box<Tree>, Box<Tree>),
    Either(Box<Tree>, Box<Tree>),
    Compare(&'static str, Box<Tree>, Box<Tree>),
}

struct Parser<'a> {
    words: &'a [Word],
    at: usize,
    lookup: &'a dyn Lookup,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, operators: &[&'static str]) -> Option<&'static str> {
        match self.words.get(self.at) {
            Some(Word::Operator(operator)) if operators.contains(operator) => {
                self.at += 1;
                Some(operator)
            }
            _ => None,
        }
    }

    fn either(&mut self) -> Result<Tree, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("nested deeper than {DEPTH}"));
        }
        let mut tree = self.both()?;
        while self.take(&["||"]).is_some() {
            tree = Tree::Either(Box::new(tree), Box::new(self.both()?));
        }
        self.depth -= 1;
        Ok(tree)
    }

    fn both(&mut self) -> Result<Tree, String> {
        let mut tree = self.comparison()?;
        while self.take(&["&&"]).is_some() {
            tree = Tree::Both(Box::new(tree), Box::new(self.comparison()?));
        }
        Ok(tree)
    }

    fn comparison(&mut self) -> Result<Tree, String> {
        let left = self.single()?;
        match self.take(&["==", "!=", "=~", "!~", "<=", ">=", "<", ">"]) {
            Some(operator) => Ok(Tree::Compare(operator, Box::new(left), Box::new(self.single()?))),
            None => Ok(left),
        }
    }

    fn single(&mut self) -> Result<Tree, String> {
        if self.take(&["!"]).is_some() {
            self.depth += 1;
            if self.depth > DEPTH {
                return Err(format!("nested deeper than {DEPTH}"));
            }
            let tree = Tree::Not(Box::new(self.single()?));
            self.depth -= 1;
            return Ok(tree);
        }
        if self.take(&["("]).is_some() {
            let tree = self.either()?;
            return self.take(&[")"]).map(|_| tree).ok_or_else(|| "a parenthesis is not closed".to_owned());
        }
        let word = self.words.get(self.at).ok_or("it ends where a value belongs")?;
        self.at += 1;
        match word {
            Word::Operator(operator) => Err(format!("{operator} where a value belongs")),
            Word::Bare(parts) => Ok(Tree::Operand(self.text(parts)?.map(|text| typed(&text)))),
            Word::Quoted(parts) => Ok(Tree::Operand(self.text(parts)?.map(Value::Text))),
        }
    }

    /// The text of an operand; the inner error says what is not known yet.
    fn text(&self, parts: &[(bool, String)]) -> Result<Result<String, String>, String> {
        let mut out = String::new();
        let mut unknown = None;
        for (refers, text) in parts {
            if !refers {
                out.push_str(text);
                continue;
            }
            match self.lookup.lookup(text).map_err(|reason| format!("{{{{{text}}}}}: {reason}"))? {
                Found::Known(value) => out.push_str(&value),
                Found::Unknown(reason) => unknown = unknown.or(Some(reason)),
            }
        }
        Ok(unknown.map_or(Ok(out), Err))
    }
}

/// A bare word: a number, a boolean, or else a text.
fn typed(text: &str) -> Value {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && !digits.ends_with('.');
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match text.parse() {
            Ok(number) if numeric => Value::Number(number),
            _ => Value::Text(text.to_owned()),
        },
    }
}

enum Fault {
    Wrong(String),
    Unknown(String),
}

fn evaluate(tree: &Tree) -> Result<Value, Fault> {
    let truth = |tree: &Tree| match evaluate(tree)? {
        Value::Bool(truth) => Ok(truth),
        other => Err(Fault::Wrong(format!("{other:?} is neither true nor false"))),
    };
    Ok(Value::Bool(match tree {
        Tree::Operand(operand) => return operand.clone().map_err(Fault::Unknown),
        Tree::Not(tree) => !truth(tree)?,
        Tree::Both(left, right) => truth(left)? && truth(right)?,
        Tree::Either(left, right) => truth(left)? || truth(right)?,
        Tree::Compare(operator, left, right) => compare(operator, &evaluate(left)?, &evaluate(right)?)?,
    }))
}

fn compare(operator: &str, left: &Value, right: &Value) -> Result<bool, Fault> {
    let ordering = || match (left, right) {
        (Value::Number(left), Value::Number(right)) => Ok(left.total_cmp(right)),
        (Value::Text(left), Value::Text(right)) => Ok(left.cmp(right)),
        _ => Err(Fault::Wrong(format!("{left:?} and {right:?} have no order"))),
    };
    let matches = || match (left, right) {
        (Value::Text(text), Value::Text(pattern)) => RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES)
            .build()
            .map(|regex| regex.is_match(text))
            .map_err(|_| Fault::Wrong(format!("{pattern:?} is not a regular expression"))),
        _ => Err(Fault::Wrong(format!("{left:?} cannot be matched against {right:?}: both must be texts"))),
    };
    Ok(match operator {
        // Values of different types are different, not an error.
        "==" => left == right,
        "!=" => left != right,
        "<" => ordering()?.is_lt(),
        "<=" => ordering()?.is_le(),
        ">" => ordering()?.is_gt(),
        ">=" => ordering()?.is_ge(),
        "=~" => matches()?,
        _ => !matches()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Values;

    impl Lookup for Values {
        fn lookup(&self, name: &str) -> Result<Found, String> {
            match name.strip_prefix("inputs.parameters.").unwrap_or_default() {
                "later" => Ok(Found::Unknown("step a has not ended".into())),
                "word" => Ok(Found::Known("heads".into())),
                "five" => Ok(Found::Known("5".into())),
                "empty" => Ok(Found::Known(String::new())),
                "sly" => Ok(Found::Known("x || true".into())),
                "quote" => Ok(Found::Known("a' == 'a' || 'b".into())),
                _ => Err("there is no such thing".into()),
            }
        }
    }

    fn when(text: &str) -> Result<bool, Miss> {
        let text = text.replace("<<", "{{inputs.parameters.").replace(">>", "}}");
        holds(&text, "spec.templates[0].steps[0][0].when", &Values, 4096)
    }

    #[test]
    fn conditions_hold_as_they_do_upstream() {
        for (text, expected) in [
            ("<<word>> == heads", true),
            ("<<word>>==heads", true),
            ("'<<word>>' == \"heads\"", true),
            ("<<word>> != tails", true),
            ("<<word>>-x == heads-x", true),
            ("<<five>> > 4", true),
            ("<<five>> == 5.0", true),
            ("'<<five>>' == 5", false),
            ("'<<five>>' != 5", true),
            ("'10' < '9'", true),
            ("10 < 9", false),
            ("<<five>> >= 5 && <<five>> <= 5", true),
            ("-1 < 0", true),
            ("<<word>> =~ '^he'", true),
            ("<<word>> !~ '^he'", false),
            ("true || false && false", true),
            ("(true || false) && false", false),
            ("!(<<word>> == tails)", true),
            ("!false && true", true),
            ("true", true),
            ("<<empty>> == ''", true),
            ("<<sly>> == x", false),
            ("'<<quote>>' == 'b'", false),
            ("<<sly>> == 'x || true'", true),
            ("false && <<later>>", false),
            ("1.2.3 == 1.2.3", true),
            ("v1.2 == v1.2", true),
            (r"'it\'s' == 'it\'s'", true),
        ] {
            assert_eq!(when(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_long_condition_is_read() {
        assert_eq!(when(&vec!["true"; 580].join("&& ")), Ok(true));
        assert_eq!(when(&vec!["false"; 500].join("|| ")), Ok(false));
    }

    #[test]
    fn what_is_no_condition_is_refused_by_its_field() {
        let deep = "(".repeat(100_000);
        for text in [
            "",
            "heads",
            "5",
            "== x",
            "a ==",
            "a b",
            "(true",
            "true)",
            "'a",
            "a == 'b",
            "1 < a",
            "5 =~ '5'",
            "a =~ '('",
            "a && true",
            "a + b == c",
            "<<nothing>> == a",
            "a == {{=1}}",
            "a in (a, b)",
            "!5",
            "a ? b : c",
            "true && (",
            &deep[..3000],
            &"!".repeat(3000),
            &"a".repeat(5000),
        ] {
            match when(text) {
                Err(Miss::Refused(refusals)) => {
                    assert_eq!(refusals[0].field_path, "spec.templates[0].steps[0][0].when")
                }
                other => panic!("{text:.40}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_known_yet_is_said() {
        for text in ["<<later>> == a", "true && <<later>> == 1", "!(<<later>> =~ 'x')"] {
            assert_eq!(when(text), Err(Miss::Unknown("step a has not ended".into())), "{text}");
        }
    }
}
