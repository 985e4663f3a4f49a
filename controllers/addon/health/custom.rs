//! Health by rules of the operator's own: CEL expressions, kind by kind, in the place of kstatus' rules.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::expression::{Expression, Scope};
use super::{Health, rules};
use crate::addon::ident::GroupKind;

/// Largest file of rules, bytes.
const LARGEST: u64 = 1 << 20;
/// Most rules.
const MOST: usize = 200;

/// Health rules by kind; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HealthRules(Arc<HashMap<GroupKind, Rule>>);

#[derive(Debug)]
struct Rule {
    ready: Expression,
    degraded: Option<Expression>,
    message: Option<Expression>,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    group: String,
    kind: Spanned<String>,
    ready: Spanned<String>,
    #[serde(default)]
    degraded: Option<Spanned<String>>,
    #[serde(default)]
    message: Option<Spanned<String>>,
}

impl HealthRules {
    /// Reads a file of rules, as the flag names it.
    ///
    /// # Errors
    /// Names the file, line, rule and field of what is wrong.
    pub fn of_file(path: &str) -> Result<Self, String> {
        let file = Path::new(path);
        let size = std::fs::metadata(file).map_err(|error| format!("file {path}: {error}"))?.len();
        if size > LARGEST {
            return Err(format!("file {path}: it has {size} bytes, more than {LARGEST}"));
        }
        let text = std::fs::read_to_string(file).map_err(|error| format!("file {path}: {error}"))?;
        Self::read(&text).map_err(|error| format!("file {path}, {error}"))
    }

    /// Reads rules.
    ///
    /// # Errors
    /// Names line, rule and field of what is wrong.
    pub fn read(text: &str) -> Result<Self, String> {
        let written: Vec<Written> = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map_or(0, |place| place.line());
            format!("line {line}: {}", error.without_snippet())
        })?;
        if written.len() > MOST {
            return Err(format!("line 1: there are {} rules, more than {MOST}", written.len()));
        }
        let mut rules = HashMap::new();
        for (at, rule) in written.into_iter().enumerate() {
            let kind = GroupKind::new(&*rule.group, &*rule.kind.value);
            let number = at + 1;
            let line = rule.kind.referenced.line();
            if GroupKind::parse(&kind.to_string()).as_ref() != Some(&kind) {
                return Err(format!("line {line}, rule {number}: {kind} is not a kind"));
            }
            let compile = |field: &str, text: &Spanned<String>| {
                let line = text.referenced.line();
                Expression::new(text.value.trim())
                    .map_err(|error| format!("line {line}, rule {number} ({kind}), {field}: {error}"))
            };
            let made = Rule {
                ready: compile("ready", &rule.ready)?,
                degraded: rule.degraded.as_ref().map(|text| compile("degraded", text)).transpose()?,
                message: rule.message.as_ref().map(|text| compile("message", text)).transpose()?,
            };
            if rules.insert(kind.clone(), made).is_some() {
                return Err(format!("line {line}, rule {number}: there is a rule for {kind} already"));
            }
        }
        Ok(Self(Arc::new(rules)))
    }

    /// Whether there is a rule for a kind: its objects have to be known whole.
    #[must_use]
    pub fn has(&self, kind: &GroupKind) -> bool {
        self.0.contains_key(kind)
    }

    /// How an object is, by its kind's rule, or else by kstatus'.
    #[must_use]
    pub fn of(&self, object: &Value) -> Health {
        if self.0.is_empty() || object.pointer("/metadata/deletionTimestamp").is_some() {
            return rules::of(object);
        }
        let group =
            object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
        let kind = GroupKind::new(group, object["kind"].as_str().unwrap_or_default());
        match self.0.get(&kind) {
            Some(rule) => rule.judge(object),
            None => rules::of(object),
        }
    }
}

impl Rule {
    fn judge(&self, object: &Value) -> Health {
        let scope = match Scope::new(object) {
            Ok(scope) => scope,
            Err(error) => return Health::progressing(format!("its health rule: {error}")),
        };
        let message = |default: &str| {
            let said = self.message.as_ref().and_then(|message| message.says(&scope).ok());
            said.filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        match self.degraded.as_ref().map(|degraded| degraded.holds(&scope)) {
            Some(Ok(true)) => return Health::degraded(message("its health rule says so")),
            Some(Err(error)) => return Health::progressing(format!("its health rule, degraded: {error}")),
            Some(Ok(false)) | None => {}
        }
        match self.ready.holds(&scope) {
            Ok(true) => Health::Ready,
            Ok(false) => Health::progressing(message("its health rule does not hold yet")),
            Err(error) => Health::progressing(format!("its health rule, ready: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &str = "\
- group: fleet.example
  kind: Ship
  ready: self.status.phase == 'Afloat'
  degraded: has(self.status.phase) && self.status.phase == 'Sunk'
  message: \"'at ' + self.status.place\"
- kind: ConfigMap
  ready: |
    has(self.data)
";

    fn ship(status: &Value) -> Value {
        json!({"apiVersion": "fleet.example/v1", "kind": "Ship", "metadata": {"name": "s", "generation": 7}, "status": status})
    }

    #[test]
    fn a_rule_takes_the_place_of_kstatus() {
        let rules = HealthRules::read(RULES).expect("rules");
        assert!(rules.has(&GroupKind::new("fleet.example", "Ship")) && !rules.has(&GroupKind::new("", "Ship")));
        let of = |status| rules.of(&ship(&status));
        assert_eq!(of(json!({"phase": "Afloat", "observedGeneration": 1})), Health::Ready);
        assert_eq!(of(json!({"phase": "Sunk", "place": "sea"})), Health::degraded("at sea"));
        assert_eq!(of(json!({"phase": "Sunk"})), Health::degraded("its health rule says so"));
        assert_eq!(of(json!({"phase": "Built", "place": "dock"})), Health::progressing("at dock"));
        let Health::Progressing(reason) = of(json!({})) else { panic!("an error is no crash") };
        assert!(reason.starts_with("its health rule, ready: ") && reason.contains("phase"), "{reason}");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {}});
        assert_eq!(rules.of(&map), Health::Ready);
        let gone = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"deletionTimestamp": "x"}});
        assert!(matches!(rules.of(&gone), Health::Progressing(_)));
        // Other kinds are as they were, and so is everything without rules.
        let other = json!({"apiVersion": "fleet.example/v1", "kind": "Boat", "metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(matches!(rules.of(&other), Health::Progressing(_)));
        assert_eq!(HealthRules::default().of(&ship(&json!({"phase": "Sunk"}))), Health::Ready);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_rule_and_field() {
        let of = |text: &str| HealthRules::read(text).expect_err("bad rules");
        let bad = RULES.replace("self.status.phase == 'Afloat'", "self..phase");
        assert!(of(&bad).starts_with("line 3, rule 1 (Ship.fleet.example), ready: "), "{}", of(&bad));
        let bad = RULES.replace("has(self.data)", "other");
        let error = of(&bad);
        assert!(error.starts_with("line 8, rule 2 (ConfigMap), ready: it refers to other"), "{error}");
        let twice = format!("{RULES}- kind: ConfigMap\n  ready: 'true'\n");
        assert_eq!(of(&twice), "line 9, rule 3: there is a rule for ConfigMap already");
        assert!(of("- kind: Ship\n").contains("ready"));
        assert!(of("- kind: Ship\n  ready: 'true'\n  reddy: x\n").contains("line 3"), "a field that is none");
        assert!(of("- kind: 'a b'\n  ready: 'true'\n").contains("not a kind"));
        assert!(of("[").starts_with("line "));
        assert!(
            HealthRules::of_file("/nowhere/rules.yaml").expect_err("no file").starts_with("file /nowhere/rules.yaml: ")
        );
        assert!(HealthRules::read("[]").is_ok());
    }
}
