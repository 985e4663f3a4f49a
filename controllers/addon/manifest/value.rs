//! A JSON value read from YAML or JSON under a budget.
//!
//! Numbers follow Go's reading (`sigs.k8s.io/yaml`): `0644` is octal, `12e03` and `1.0` are
//! integers on the wire. A repeated key is a warning, and its last value counts.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

use super::Limits;

/// What went wrong in reading a value.
#[derive(Debug)]
pub(in crate::addon) struct ReadError {
    /// Line within the text, counted from 1; 0 when it is not known.
    pub(in crate::addon) line: usize,
    /// The field at which reading stopped.
    pub(in crate::addon) field: Option<String>,
    /// What.
    pub(in crate::addon) message: String,
}

/// A value and the keys that stood twice in it.
#[derive(Debug)]
pub(in crate::addon) struct Read {
    /// The value.
    pub(in crate::addon) value: Value,
    /// Paths of repeated keys, at most a few.
    pub(in crate::addon) repeated: Vec<String>,
}

/// Reads one YAML document.
pub(in crate::addon) fn from_yaml(text: &str, limits: &Limits) -> Result<Read, ReadError> {
    read_yaml(text, limits, false)
}

/// Reads one YAML document with its null fields, which in a patch mean removal.
pub(in crate::addon) fn patch_from_yaml(text: &str, limits: &Limits) -> Result<Read, ReadError> {
    read_yaml(text, limits, true)
}

fn read_yaml(text: &str, limits: &Limits, keep_nulls: bool) -> Result<Read, ReadError> {
    let meter = Meter { keep_nulls, ..Meter::new(limits) };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits.depth + 8,
            max_nodes: limits.nodes * 2,
            max_events: limits.nodes * 4,
            max_aliases: 10_000,
            max_anchors: 10_000,
            max_recorded_anchor_events: limits.nodes / 5,
            max_recorded_anchor_bytes: limits.text_bytes,
            max_total_scalar_bytes: limits.text_bytes,
            max_documents: 1,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: limits.nodes, max_replay_stack_depth: 32 },
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Seed { meter: &meter, depth: 0 }.deserialize(deserializer)
    });
    match read {
        Ok(value) => Ok(meter.read(value)),
        Err(error) => {
            let line = error.location().and_then(|place| usize::try_from(place.line()).ok()).unwrap_or(0);
            Err(meter.error(line, error.without_snippet().to_string()))
        }
    }
}

/// Reads the JSON values of a text, one after the other.
pub(super) fn from_json(text: &str, limits: &Limits) -> Vec<Result<(Read, usize), ReadError>> {
    let mut values = Vec::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut line = 1;
    loop {
        let trimmed = rest.trim_start();
        line += count_lines(&rest[..rest.len() - trimmed.len()]);
        rest = trimmed;
        if rest.is_empty() {
            return values;
        }
        let meter = Meter::new(limits);
        // Only the prefix that this value may take is looked at; the reader stops at its end.
        let mut reader = serde_json::Deserializer::from_str(rest).into_iter::<Raw<'_>>();
        let raw = match reader.next() {
            Some(Ok(raw)) => raw.0,
            Some(Err(error)) => {
                values.push(Err(meter.error(line + error.line().saturating_sub(1), error.to_string())));
                return values;
            }
            None => return values,
        };
        let used = reader.byte_offset();
        if used > limits.document_bytes {
            values.push(Err(
                meter.error(line, format!("document of {used} bytes; at most {} are read", limits.document_bytes))
            ));
        } else {
            let mut deserializer = serde_json::Deserializer::from_str(raw.get());
            values.push(match (Seed { meter: &meter, depth: 0 }).deserialize(&mut deserializer) {
                Ok(value) => Ok((meter.read(value), line)),
                Err(error) => Err(meter.error(line + error.line().saturating_sub(1), error.to_string())),
            });
        }
        line += count_lines(&rest[..used]);
        rest = &rest[used..];
    }
}

#[derive(serde::Deserialize)]
struct Raw<'a>(#[serde(borrow)] &'a serde_json::value::RawValue);

fn count_lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// What reading has used up, and where it is.
struct Meter<'a> {
    limits: &'a Limits,
    keep_nulls: bool,
    nodes: Cell<usize>,
    text: Cell<usize>,
    path: RefCell<Vec<Step>>,
    repeated: RefCell<Vec<String>>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl<'a> Meter<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            keep_nulls: false,
            nodes: Cell::new(0),
            text: Cell::new(0),
            path: RefCell::default(),
            repeated: RefCell::default(),
        }
    }

    fn node<E: serde::de::Error>(&self) -> Result<(), E> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > self.limits.nodes {
            return Err(E::custom(format_args!("more than {} values, aliases counted", self.limits.nodes)));
        }
        Ok(())
    }

    fn text<E: serde::de::Error>(&self, length: usize) -> Result<(), E> {
        self.text.set(self.text.get().saturating_add(length));
        if self.text.get() > self.limits.text_bytes {
            return Err(E::custom(format_args!("more than {} bytes of text, aliases counted", self.limits.text_bytes)));
        }
        Ok(())
    }

    fn path(&self) -> String {
        let mut text = String::new();
        for step in self.path.borrow().iter() {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => {
                    text.push('.');
                    text.push_str(key);
                }
                Step::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    fn read(self, value: Value) -> Read {
        Read { value, repeated: self.repeated.into_inner() }
    }

    fn error(&self, line: usize, message: String) -> ReadError {
        let field = Some(self.path()).filter(|path| !path.is_empty());
        ReadError { line, field, message }
    }
}

#[derive(Clone, Copy)]
struct Seed<'m, 'a> {
    meter: &'m Meter<'a>,
    depth: usize,
}

impl Seed<'_, '_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= self.meter.limits.depth {
            return Err(E::custom(format_args!("nested deeper than {}", self.meter.limits.depth)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.meter.node()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::from)
            .or_else(|_| u64::try_from(value).map(Value::from))
            .map_err(|_| E::custom("integer out of range"))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        u64::try_from(value).map(Value::from).map_err(|_| E::custom("integer out of range"))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // Go writes a whole float without a fraction; beyond 2^53 a float is not exact anyway.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            return Ok(Value::from(value as i64));
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.meter.text(value.len())?;
        Ok(value.into())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.meter.text(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        self.meter.path.borrow_mut().push(Step::Index(0));
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
            if let Some(Step::Index(index)) = self.meter.path.borrow_mut().last_mut() {
                *index = items.len();
            }
        }
        self.meter.path.borrow_mut().pop();
        Ok(Value::Array(items))
    }

    /// Null fields are left out: to a server they mean the same as absent ones.
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        const NAMED_REPEATS: usize = 8;
        let inner = self.deeper()?;
        let mut fields = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            self.meter.text::<A::Error>(key.len())?;
            self.meter.path.borrow_mut().push(Step::Key(key.clone()));
            let value = access.next_value_seed(inner)?;
            let dropped = value.is_null() && !self.meter.keep_nulls;
            let repeated = if dropped { fields.remove(&key).is_some() } else { fields.insert(key, value).is_some() };
            if repeated && self.meter.repeated.borrow().len() < NAMED_REPEATS {
                let path = self.meter.path();
                self.meter.repeated.borrow_mut().push(path);
            }
            self.meter.path.borrow_mut().pop();
        }
        Ok(Value::Object(fields))
    }

    fn visit_bytes<E: serde::de::Error>(self, _bytes: &[u8]) -> Result<Value, E> {
        Err(E::custom("binary data; write it as base64 text"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Value {
        from_yaml(text, &Limits::default()).expect(text).value
    }

    #[test]
    fn scalars_are_read_as_go_reads_them() {
        for (text, value) in [
            ("0644", json!(420)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("1_000", json!(1000)),
            ("12e03", json!(12000)),
            ("1.0", json!(1)),
            ("1.5", json!(1.5)),
            ("'0644'", json!("0644")),
            ("2006-01-02", json!("2006-01-02")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ] {
            assert_eq!(yaml(&format!("a: {text}")), json!({"a": value}), "{text}");
        }
    }

    #[test]
    fn merges_are_expanded_and_nulls_left_out() {
        assert_eq!(
            yaml("b: &b {x: 1, y: 2}\na: {<<: *b, y: 3}\nn: null\nm: ~"),
            json!({"b": {"x": 1, "y": 2}, "a": {"x": 1, "y": 3}})
        );
    }

    #[test]
    fn the_last_of_repeated_keys_counts_and_is_told() {
        let read = from_yaml("a: {b: 1, c: 2, b: 3}\n", &Limits::default()).expect("readable");
        assert_eq!(read.value, json!({"a": {"b": 3, "c": 2}}));
        assert_eq!(read.repeated, ["a.b"]);
        let read = from_json(r#"{"a": {"b": 1, "b": 2}}"#, &Limits::default()).remove(0).expect("readable").0;
        assert_eq!((read.value, read.repeated), (json!({"a": {"b": 2}}), vec!["a.b".to_owned()]));
    }

    #[test]
    fn errors_name_line_and_field() {
        let error = from_yaml("a:\n  b: [1, {c: .nan}]\n", &Limits::default()).expect_err("not a number");
        assert_eq!(error.line, 2, "{error:?}");
        assert_eq!(error.field.as_deref(), Some("a.b[1].c"));
        let error = from_json("{\"a\": 1}\n\n{\"b\":\n [}", &Limits::default()).pop().expect("two").expect_err("bad");
        assert_eq!(error.line, 4, "{error:?}");
    }

    #[test]
    fn json_values_follow_each_other() {
        let values = from_json("{\"a\": 1}\n{\"b\": 2}", &Limits::default());
        let values: Vec<_> =
            values.into_iter().map(|read| read.expect("readable")).map(|(read, line)| (read.value, line)).collect();
        assert_eq!(values, [(json!({"a": 1}), 1), (json!({"b": 2}), 2)]);
    }
}
