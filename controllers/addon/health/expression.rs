//! One CEL expression on an object, within limits: whoever writes rules is trusted, whoever writes
//! objects is not, and neither may stop the process.
//!
//! CEL always ends, but the time of nested macros grows with a power of the object. So an expression is
//! short and flat, macros are not nested, and objects with long lists are not looked at.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr};
use cel::{Context, Program, Value as Outcome};
use serde_json::Value;

/// Longest expression, bytes.
const LONGEST: usize = 1024;
/// Deepest nesting of brackets, and of the tree that an expression comes to.
const DEEPEST: usize = 24;
/// Longest list or map in an object that expressions are evaluated on.
const MOST_ITEMS: usize = 4096;
/// Most values in such an object.
const MOST_VALUES: usize = 100_000;
/// Stack of the thread that compiles, bytes: the parser calls itself often.
const STACK: usize = 256 << 20;
/// Longest text that comes of an expression, characters.
const LONGEST_TEXT: usize = 300;

/// An expression that may be evaluated.
pub(super) struct Expression {
    program: Program,
    text: String,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    /// Compiles an expression; else what is wrong with it, in one line.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it has {} bytes, more than {LONGEST}", text.len()));
        }
        if nesting(text) > DEEPEST {
            return Err(format!("its brackets are nested deeper than {DEEPEST}"));
        }
        let own = text.to_owned();
        let compile = move || {
            let program = Program::compile(&own).map_err(|errors| one_line(&errors.to_string()))?;
            // Looked at here, where the stack is large enough for any tree.
            check(program.expression())?;
            Ok::<Program, String>(program)
        };
        let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(STACK).spawn(compile);
        let thread = thread.map_err(|error| format!("no thread to compile it: {error}"))?;
        let program = thread.join().map_err(|_| "it cannot be compiled".to_owned())??;
        Ok(Self { program, text: text.to_owned() })
    }

    /// What it says of an object.
    fn evaluate(&self, scope: &Scope) -> Result<Outcome, String> {
        let done = catch_unwind(AssertUnwindSafe(|| self.program.execute(&scope.0)));
        match done {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(shortened(&one_line(&error.to_string()))),
            Err(_) => Err("it cannot be evaluated".to_owned()),
        }
    }

    /// Whether it holds.
    pub(super) fn holds(&self, scope: &Scope) -> Result<bool, String> {
        match self.evaluate(scope)? {
            Outcome::Bool(holds) => Ok(holds),
            other => Err(format!("it comes to {:?}, and should come to true or false", other.type_of())),
        }
    }

    /// The text that it comes to.
    pub(super) fn says(&self, scope: &Scope) -> Result<String, String> {
        match self.evaluate(scope)? {
            Outcome::String(text) => Ok(shortened(&one_line(&text))),
            other => Err(format!("it comes to {:?}, and should come to a text", other.type_of())),
        }
    }
}

/// An object as expressions see it.
pub(super) struct Scope(Context<'static, 'static>);

impl Scope {
    /// An object; else why none may be evaluated on it.
    pub(super) fn new(object: &Value) -> Result<Self, String> {
        let mut left = MOST_VALUES;
        measure(object, &mut left)?;
        let done = catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::default();
            context.add_variable("self", object).map(|()| context).map_err(|error| error.to_string())
        }));
        Ok(Self(done.map_err(|_| "it cannot be read".to_owned())??))
    }
}

fn measure(value: &Value, left: &mut usize) -> Result<(), String> {
    *left = left.checked_sub(1).ok_or_else(|| format!("it has more than {MOST_VALUES} values"))?;
    let long = |count: usize| match count > MOST_ITEMS {
        true => Err(format!("a list or map in it has {count} items, more than {MOST_ITEMS}")),
        false => Ok(()),
    };
    match value {
        Value::Array(items) => {
            long(items.len())?;
            items.iter().try_for_each(|item| measure(item, left))
        }
        Value::Object(fields) => {
            long(fields.len())?;
            fields.values().try_for_each(|field| measure(field, left))
        }
        _ => Ok(()),
    }
}

/// The deepest nesting of brackets, those in texts counted, too.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Whether a tree is flat, has no macro within a macro, and refers to nothing but the object.
fn check(root: &IdedExpr) -> Result<(), String> {
    let mut open = vec![(root, 1, false)];
    let (mut named, mut bound) = (BTreeSet::new(), BTreeSet::from(["self"]));
    while let Some((node, depth, within)) = open.pop() {
        if depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}; it may be shorter in several parts"));
        }
        let mut visit = |node, within| open.push((node, depth + 1, within));
        match &node.expr {
            Expr::Call(call) => {
                call.target.iter().for_each(|target| visit(target, within));
                call.args.iter().for_each(|arg| visit(arg, within));
            }
            Expr::Comprehension(_) if within => {
                return Err("a macro (all, exists, filter, map) within another one takes too long".to_owned());
            }
            Expr::Comprehension(each) => {
                bound.extend([&*each.iter_var, &*each.accu_var]);
                bound.extend(each.iter_var2.as_deref());
                visit(&each.iter_range, within);
                for part in [&each.accu_init, &each.loop_cond, &each.loop_step, &each.result] {
                    visit(part, true);
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|item| visit(item, within)),
            Expr::Map(map) => entries(&map.entries).for_each(|item| visit(item, within)),
            Expr::Struct(map) => entries(&map.entries).for_each(|item| visit(item, within)),
            Expr::Select(select) => visit(&select.operand, within),
            Expr::Ident(name) => drop(named.insert(&**name)),
            Expr::Unspecified | Expr::Literal(_) => {}
        }
    }
    match named.difference(&bound).next() {
        Some(name) => Err(format!("it refers to {name}; there is nothing but self")),
        None => Ok(()),
    }
}

fn entries(entries: &[IdedEntryExpr]) -> impl Iterator<Item = &IdedExpr> {
    entries.iter().flat_map(|entry| match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    })
}

/// The first line of a text, without what only helps beside its second.
fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().trim_start_matches("ERROR: <input>:").to_owned()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(text: &str, object: &Value) -> Result<bool, String> {
        Expression::new(text).expect("an expression").holds(&Scope::new(object).expect("a scope"))
    }

    #[test]
    fn expressions_see_the_object() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}}, "spec": {"replicas": 3},
            "status": {"replicas": 3, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        for (text, expected) in [
            ("self.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')", true),
            ("self.status.replicas == self.spec.replicas", true),
            ("self.status.replicas > 3", false),
            ("self.status.conditions.filter(c, c.type == 'Ready').all(c, c.status == 'True')", true),
            ("has(self.status.phase) && self.status.phase == 'Up'", false),
            ("self.metadata.labels['a.b/c'].startsWith('x')", true),
        ] {
            assert_eq!(holds(text, &object), Ok(expected), "{text}");
        }
        for (text, words) in
            [("self.status.phase == 'Up'", "phase"), ("self.status.replicas", "true or false"), ("1 / 0 == 1", "")]
        {
            assert!(holds(text, &object).is_err_and(|error| error.contains(words)), "{text}");
        }
        let says = Expression::new("'has ' + string(self.status.replicas)").expect("an expression");
        assert_eq!(says.says(&Scope::new(&object).expect("a scope")), Ok("has 3".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_or_takes_too_long_is_refused() {
        let exists = "self.a.exists(x, x.b.exists(y, y))";
        for (text, words) in [
            ("self..x".to_owned(), "Syntax error"),
            (String::new(), "Syntax error"),
            ("a b".to_owned(), "Syntax error"),
            ("'x".to_owned(), "Syntax error"),
            ("other.x == 1".to_owned(), "nothing but self"),
            (format!("self.a == '{}'", "x".repeat(LONGEST)), "bytes"),
            (format!("{}1{}", "(".repeat(300), ")".repeat(300)), "nested"),
            (format!("{}1 == 1", "1 + ".repeat(200)), "nested"),
            (format!("{}b", "self.".to_owned() + &"a.".repeat(300)), "nested"),
            (exists.to_owned(), "within another"),
        ] {
            let error = Expression::new(&text).expect_err(&text);
            assert!(error.contains(words) && !error.contains('\n'), "{text}: {error}");
        }
        let long = json!({"list": vec![0; MOST_ITEMS + 1]});
        assert!(Scope::new(&long).is_err_and(|error| error.contains("items")));
        let many = Value::Array(vec![Value::Array(vec![Value::Null; 4000]); 30]);
        assert!(Scope::new(&many).is_err_and(|error| error.contains("values")));
    }

    #[test]
    fn the_largest_object_is_done_soon() {
        let object = json!({"list": vec!["aaaaaaaaaaaaaaaaaaaaaaaa!"; MOST_ITEMS]});
        for text in ["self.list.map(x, x + x).size() == 4096", "self.list.all(x, !x.matches('(a+)+$'))"] {
            assert_eq!(holds(text, &object), Ok(true), "{text}");
        }
    }
}
