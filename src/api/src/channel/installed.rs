//! The note of what is installed: an annotation `addons.k8s.io/<name>` of the addon's namespace,
//! which kOps reads and writes too.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// What the key of the annotation begins with.
pub const ANNOTATION_PREFIX: &str = "addons.k8s.io/";

/// Generation of what channels can do: 1 since they prune. An addon that an older one installed is
/// applied again (kops:channels/pkg/channels/channel_version.go).
pub const SYSTEM_GENERATION: i64 = 1;

/// Key of an addon's annotation.
#[must_use]
pub fn annotation(name: &str) -> String {
    format!("{ANNOTATION_PREFIX}{name}")
}

/// Why an annotation cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstalledError {
    /// It is not JSON.
    #[error("not JSON (column {0})")]
    Json(usize),
    /// It is not a mapping.
    #[error("not a JSON object")]
    NotAnObject,
    /// A field has another type.
    #[error("field {field}: not {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// What is noted of an installed addon, or would be. Empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Its version; kOps wrote it until 1.22 and passes over it since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// URL of the channel it came from; it is not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// What tells entries of one version apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Hash of its manifest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub manifest_hash: String,
    /// What the program that installed it could do, see [`SYSTEM_GENERATION`].
    #[serde(skip_serializing_if = "is_zero")]
    pub system_generation: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Installed {
    /// Reads an annotation's value as Go's decoder does: keys in any case, unknown ones passed over,
    /// null as nothing.
    ///
    /// # Errors
    /// Whoever reads it takes the addon as not installed, and says so.
    pub fn parse(text: &str) -> Result<Self, InstalledError> {
        let value: Value = serde_json::from_str(text).map_err(|error| InstalledError::Json(error.column()))?;
        let map = match value {
            Value::Object(map) => map,
            Value::Null => return Ok(Self::default()),
            _ => return Err(InstalledError::NotAnObject),
        };
        let mut installed = Self::default();
        for (key, value) in map.into_iter().filter(|(_, value)| !value.is_null()) {
            let text = |field: &'static str, value: Value| match value {
                Value::String(text) => Ok(text),
                _ => Err(InstalledError::Field { field, expected: "text" }),
            };
            match key.to_ascii_lowercase().as_str() {
                "version" => installed.version = Some(text("version", value)?).filter(|text| !text.is_empty()),
                "channel" => installed.channel = Some(text("channel", value)?),
                "id" => installed.id = text("id", value)?,
                "manifesthash" => installed.manifest_hash = text("manifestHash", value)?,
                "systemgeneration" => {
                    let number = InstalledError::Field { field: "systemGeneration", expected: "a whole number" };
                    installed.system_generation = value.as_i64().ok_or(number)?;
                }
                _ => {}
            }
        }
        Ok(installed)
    }

    /// The annotation's value, byte for byte as Go writes it.
    #[must_use]
    pub fn print(&self) -> String {
        let json = serde_json::to_string(self).expect("texts and a number always become JSON");
        let mut out = String::with_capacity(json.len());
        for character in json.chars() {
            match character {
                '<' => out.push_str("\\u003c"),
                '>' => out.push_str("\\u003e"),
                '&' => out.push_str("\\u0026"),
                '\u{2028}' => out.push_str("\\u2028"),
                '\u{2029}' => out.push_str("\\u2029"),
                other => out.push(other),
            }
        }
        out
    }
}

/// What a namespace's annotations say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What is installed, by addon.
    pub installed: BTreeMap<String, Installed>,
    /// Annotations that cannot be read, by addon: these count as not installed.
    pub unreadable: BTreeMap<String, InstalledError>,
}

/// All addons that a namespace's annotations speak of.
pub fn find<'a>(annotations: impl IntoIterator<Item = (&'a String, &'a String)>) -> Found {
    let mut found = Found::default();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION_PREFIX) else { continue };
        match Installed::parse(value) {
            Ok(installed) => {
                found.installed.insert(name.to_owned(), installed);
            }
            Err(error) => {
                found.unreadable.insert(name.to_owned(), error);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Installed {
        Installed {
            version: Some("1.5.0".into()),
            channel: Some("s3://bucket/addons/bootstrap-channel.yaml".into()),
            id: "k8s-1.16".into(),
            manifest_hash: "abc".into(),
            system_generation: 1,
        }
    }

    #[test]
    fn it_is_printed_as_kops_prints_it() {
        let modern = Installed { version: None, ..full() };
        assert_eq!(
            modern.print(),
            r#"{"channel":"s3://bucket/addons/bootstrap-channel.yaml","id":"k8s-1.16","manifestHash":"abc","systemGeneration":1}"#
        );
        assert_eq!(Installed::default().print(), "{}");
        let odd = Installed { channel: Some("https://a/?x=<1>&y=\u{2028}\u{7}\"é".into()), ..Installed::default() };
        assert_eq!(odd.print(), r#"{"channel":"https://a/?x=\u003c1\u003e\u0026y=\u2028\u0007\"é"}"#);
        // Until 1.22 the version stood first.
        let old = Installed { system_generation: 0, ..full() };
        assert!(old.print().starts_with(r#"{"version":"1.5.0","channel":"#), "{}", old.print());
    }

    #[test]
    fn what_is_printed_is_read() {
        for installed in [full(), Installed::default(), Installed { system_generation: -3, ..full() }] {
            assert_eq!(Installed::parse(&installed.print()), Ok(installed));
        }
    }

    #[test]
    fn it_is_read_as_go_reads_it() {
        let parsed = Installed::parse(r#" {"ID": "a", "channel": null, "later": [1], "systemgeneration": 2} "#);
        assert_eq!(parsed, Ok(Installed { id: "a".into(), system_generation: 2, ..Installed::default() }));
        assert_eq!(Installed::parse("null"), Ok(Installed::default()));
        for (text, error) in [
            ("", "not JSON (column 0)"),
            ("{", "not JSON (column 1)"),
            ("[]", "not a JSON object"),
            (r#""x""#, "not a JSON object"),
            (r#"{"id": 1}"#, "field id: not text"),
            (r#"{"systemGeneration": 1.5}"#, "field systemGeneration: not a whole number"),
            (r#"{"systemGeneration": "1"}"#, "field systemGeneration: not a whole number"),
        ] {
            assert_eq!(Installed::parse(text).expect_err(text).to_string(), error, "{text}");
        }
    }

    #[test]
    fn unreadable_annotations_are_told_and_count_as_absent() {
        let annotations: BTreeMap<String, String> = [
            ("addons.k8s.io/a", r#"{"id":"1"}"#),
            ("addons.k8s.io/b", "{"),
            ("other/a", "{}"),
            ("addons.k8s.io/", "{}"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let found = find(&annotations);
        assert_eq!(found.installed.keys().collect::<Vec<_>>(), ["", "a"]);
        assert_eq!(found.unreadable.keys().collect::<Vec<_>>(), ["b"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_any_note_survives(text in "\\PC{0,80}", id in "\\PC{0,20}", hash in "[ -~]{0,20}", generation in 0_i64..9) {
            let _ = Installed::parse(&text);
            let note = Installed { id, manifest_hash: hash, system_generation: generation, ..Installed::default() };
            proptest::prop_assert_eq!(Installed::parse(&note.print()), Ok(note));
        }
    }
}
