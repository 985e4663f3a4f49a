//! Which objects an Addon observes: those that its containers, or Argo, made.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use quarterdeck_api::addon::{Addon, names};
use quarterdeck_runtime::view::Metadata;

/// What an Addon observes: `spec.selector`, and upstream's two labels where the selector does not speak of
/// them itself (`keikoproj/addon-manager:controllers/addon_controller.go`, `observeResources`, which
/// overwrites them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
    /// The label selection of the caches that show it.
    watched: Arc<str>,
    /// The Addon's namespace.
    own: Arc<str>,
    /// `spec.params.namespace`.
    target: Arc<str>,
    /// Whether `spec.selector` says anything.
    is_given: bool,
}

/// What has to hold of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads an Addon's selector.
    ///
    /// # Errors
    /// What is wrong with it, by field.
    pub fn read(addon: &Addon) -> Result<Self, Vec<String>> {
        let mut terms = terms(&addon.spec.selector)?;
        let is_given = !terms.is_empty();
        for (key, value) in [(names::APP_MANAGED_BY_LABEL, names::MANAGED_BY), (names::APP_NAME_LABEL, addon.name())] {
            if !terms.iter().any(|term| term.key == key) {
                terms.push(Term { key: key.to_owned(), rule: Rule::In(vec![value.to_owned()]) });
            }
        }
        // One cache for all that is managed by the same: few ask for anything else.
        let shared = terms.iter().find(|term| term.key == names::APP_MANAGED_BY_LABEL);
        let watched = match shared {
            Some(term) if matches!(term.rule, Rule::In(_)) => term.to_string(),
            _ => terms.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        Ok(Self {
            terms,
            watched: watched.into(),
            own: addon.namespace().into(),
            target: (*addon.spec.params.namespace).into(),
            is_given,
        })
    }

    /// Whether the Addon says anything about what it observes.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.is_given
    }

    /// The label selection of the caches in which all of it is found.
    #[must_use]
    pub fn watched(&self) -> &Arc<str> {
        &self.watched
    }

    /// Whether an object is observed: in the Addon's namespace or its target's, and made by somebody
    /// rather than by a controller for another object. Outside the Addon's own namespace only objects
    /// are shown that say they are an addon's: the selector is no window into other namespaces.
    #[must_use]
    pub fn selects(&self, metadata: &Metadata) -> bool {
        let namespace = metadata.key.namespace();
        let is_addons = || metadata.labels.get(names::APP_MANAGED_BY_LABEL) == Some(names::MANAGED_BY);
        let is_here = namespace == &*self.own || (namespace == &*self.target && is_addons());
        is_here && !metadata.controlled && self.terms.iter().all(|term| term.holds(metadata.labels.get(&term.key)))
    }
}

impl Term {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_one = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
        match &self.rule {
            Rule::In(values) => is_one(values),
            Rule::NotIn(values) => !is_one(values),
            Rule::Exists => value.is_some(),
            Rule::Absent => value.is_none(),
        }
    }
}

/// As in a list request.
impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.key;
        match &self.rule {
            Rule::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Rule::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Rule::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Rule::Exists => f.write_str(key),
            Rule::Absent => write!(f, "!{key}"),
        }
    }
}

fn terms(selector: &LabelSelector) -> Result<Vec<Term>, Vec<String>> {
    let (mut terms, mut wrong) = (Vec::new(), Vec::new());
    for (key, value) in selector.match_labels.iter().flatten() {
        if !is_key(key) || !is_value(value) {
            wrong.push(format!("spec.selector.matchLabels[{key:?}]: {value:?}: not a label"));
        }
        terms.push(Term { key: key.clone(), rule: Rule::In(vec![value.clone()]) });
    }
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = format!("spec.selector.matchExpressions[{index}]");
        let mut values = expression.values.clone().unwrap_or_default();
        values.sort();
        values.dedup();
        if !is_key(&expression.key) {
            wrong.push(format!("{path}.key: {:?}: not a label's name", expression.key));
        }
        wrong.extend(
            values
                .iter()
                .filter(|value| !is_value(value))
                .map(|value| format!("{path}.values: {value:?}: not a label's value")),
        );
        let rule = match (&*expression.operator, values.is_empty()) {
            ("In", false) => Rule::In(values),
            ("NotIn", false) => Rule::NotIn(values),
            ("Exists", true) => Rule::Exists,
            ("DoesNotExist", true) => Rule::Absent,
            ("In" | "NotIn", true) => {
                wrong.push(format!("{path}.values: missing"));
                continue;
            }
            ("Exists" | "DoesNotExist", false) => {
                wrong.push(format!("{path}.values: {} takes none", expression.operator));
                continue;
            }
            (operator, _) => {
                wrong.push(format!("{path}.operator: {operator:?}: In, NotIn, Exists and DoesNotExist are known"));
                continue;
            }
        };
        terms.push(Term { key: expression.key.clone(), rule });
    }
    if wrong.is_empty() { Ok(terms) } else { Err(wrong) }
}

fn is_name(text: &str, more: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// `apimachinery:pkg/util/validation/validation.go`, `IsQualifiedName`.
fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix = prefix.is_none_or(|prefix| prefix.len() <= 253 && is_name(prefix, "-."));
    prefix && name.len() <= 63 && is_name(name, "-_.")
}

/// `apimachinery:pkg/util/validation/validation.go`, `IsValidLabelValue`.
fn is_value(value: &str) -> bool {
    value.is_empty() || (value.len() <= 63 && is_name(value, "-_."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn selector(selector: Value) -> Result<Selector, Vec<String>> {
        let addon = serde_json::from_value(json!({
            "metadata": {"name": "argo", "namespace": "system"},
            "spec": {"params": {"namespace": "target"}, "selector": selector},
        }));
        Selector::read(&addon.expect("an Addon"))
    }

    fn object(namespace: &str, labels: Value, controlled: bool) -> Metadata {
        let owners = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u", "controller": controlled}]);
        let metadata = json!({"name": "o", "namespace": namespace, "uid": "u", "resourceVersion": "1", "labels": labels, "ownerReferences": owners});
        serde_json::from_value(json!({"metadata": metadata})).expect("metadata")
    }

    const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    const NAME: &str = "app.kubernetes.io/name";

    #[test]
    fn upstreams_labels_are_asked_for_where_the_selector_does_not_speak_of_them() {
        let ours = |name: &str| json!({MANAGED_BY: "addonmgr.keikoproj.io", NAME: name, "app": "x"});
        let empty = selector(json!({})).unwrap();
        assert_eq!(
            (&**empty.watched(), empty.is_given()),
            ("app.kubernetes.io/managed-by=addonmgr.keikoproj.io", false)
        );
        assert!(empty.selects(&object("system", ours("argo"), false)));
        assert!(empty.selects(&object("target", ours("argo"), false)), "keiko_b7: any namespace of the addon");
        assert!(!empty.selects(&object("elsewhere", ours("argo"), false)));
        assert!(!empty.selects(&object("system", ours("other"), false)));
        assert!(!empty.selects(&object("system", json!({NAME: "argo"}), false)));
        assert!(!empty.selects(&object("system", ours("argo"), true)), "a controller made it");
        let named = selector(json!({"matchLabels": {NAME: "other", "app": "x"}})).unwrap();
        assert!(named.is_given() && named.watched() == empty.watched(), "one cache for both");
        assert!(named.selects(&object("target", ours("other"), false)));
        assert!(!named.selects(&object("target", ours("argo"), false)));
    }

    #[test]
    fn another_manager_is_observed_in_the_addons_own_namespace_only() {
        let helm = selector(json!({"matchLabels": {MANAGED_BY: "Helm", NAME: "x"}})).unwrap();
        assert_eq!(&**helm.watched(), "app.kubernetes.io/managed-by=Helm");
        let labels = json!({MANAGED_BY: "Helm", NAME: "x"});
        assert!(helm.selects(&object("system", labels.clone(), false)));
        assert!(!helm.selects(&object("target", labels, false)));
    }

    #[test]
    fn expressions_mean_what_they_mean_to_the_server() {
        let all = selector(json!({"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["2", "1"]}, {"key": "b", "operator": "NotIn", "values": ["1"]},
            {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"},
            {"key": MANAGED_BY, "operator": "Exists"}, {"key": NAME, "operator": "DoesNotExist"}]}))
        .unwrap();
        assert_eq!(
            &**all.watched(),
            "a in (1,2),b notin (1),c,!d,app.kubernetes.io/managed-by,!app.kubernetes.io/name"
        );
        for (labels, selected) in [
            (json!({"a": "1", "c": "", MANAGED_BY: "x"}), true),
            (json!({"a": "2", "b": "2", "c": "x", MANAGED_BY: "x"}), true),
            (json!({"a": "3", "c": "", MANAGED_BY: "x"}), false),
            (json!({"a": "1", "b": "1", "c": "", MANAGED_BY: "x"}), false),
            (json!({"a": "1", MANAGED_BY: "x"}), false),
            (json!({"a": "1", "c": "", "d": "", MANAGED_BY: "x"}), false),
            (json!({"a": "1", "c": ""}), false),
        ] {
            assert_eq!(all.selects(&object("system", labels.clone(), false)), selected, "{labels}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_by_field() {
        for (given, field) in [
            (json!({"matchLabels": {"a": "b,c!=d"}}), "spec.selector.matchLabels[\"a\"]"),
            (json!({"matchLabels": {"a b": "c"}}), "spec.selector.matchLabels[\"a b\"]"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "Is", "values": ["x"]}]}),
                "matchExpressions[0].operator",
            ),
            (json!({"matchExpressions": [{"key": "a", "operator": "In"}]}), "matchExpressions[0].values: missing"),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}), "Exists takes none"),
            (json!({"matchExpressions": [{"key": "", "operator": "Exists"}]}), "matchExpressions[0].key"),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x)"]}]}),
                "matchExpressions[0].values",
            ),
        ] {
            let wrong = selector(given.clone()).unwrap_err();
            assert!(wrong[0].contains(field), "{given}: {wrong:?}");
        }
    }
}
