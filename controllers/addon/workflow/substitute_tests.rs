use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Values by name, under `workflow.parameters.`.
struct Values(BTreeMap<&'static str, String>);

impl Values {
    fn of<const N: usize>(pairs: [(&'static str, &str); N]) -> Self {
        Self(pairs.map(|(name, value)| (name, value.to_owned())).into())
    }
}

impl Lookup for Values {
    fn lookup(&self, name: &str) -> Result<Found, String> {
        match name.strip_prefix("workflow.parameters.") {
            Some("later") => Ok(Found::Unknown("step a has not ended".into())),
            Some(name) => {
                self.0.get(name).cloned().map(Found::Known).ok_or_else(|| "there is no such parameter".to_owned())
            }
            None => Err("not in the grammar".into()),
        }
    }
}

fn refs(text: &str) -> String {
    text.replace("<<", "{{workflow.parameters.").replace(">>", "}}")
}

fn trees(source: &str, values: &Values) -> Result<Vec<Value>, Miss> {
    let trees = embedded(&refs(source), "spec.templates[0].resource.manifest", values)?;
    Ok(trees.into_iter().map(|(tree, _)| tree).collect())
}

#[test]
fn a_lone_reference_is_typed_and_any_other_is_text() {
    let values = Values::of([("n", "3"), ("b", "true"), ("t", "abc"), ("e", ""), ("q", "a \"b\" 'c'"), ("w", "a: b")]);
    for (source, expected) in [
        ("a: <<n>>", json!({"a": 3})),
        ("a: \"<<n>>\"", json!({"a": "3"})),
        ("a: '<<n>>'", json!({"a": "3"})),
        ("a: <<b>> # said", json!({"a": true})),
        ("a: x<<n>>", json!({"a": "x3"})),
        ("a: -<<n>>", json!({"a": "-3"})),
        ("a: <<n>>.5", json!({"a": "3.5"})),
        ("a: 1<<n>>", json!({"a": "13"})),
        ("a: <<n>><<n>>", json!({"a": "33"})),
        ("a: <<n>> <<n>>", json!({"a": "3 3"})),
        ("a: the <<n>> of <<t>>", json!({"a": "the 3 of abc"})),
        ("a: [<<n>>, <<b>>,<<t>>]", json!({"a": [3, true, "abc"]})),
        ("a: {b: <<n>>}", json!({"a": {"b": 3}})),
        ("{a: {b: <<n>>}}", json!({"a": {"b": 3}})),
        ("a: <<e>>\nb: 1", json!({"b": 1})),
        ("a: \"<<e>>\"", json!({"a": ""})),
        ("a: |\n  <<n>>\n  x <<t>>\n", json!({"a": "3\nx abc\n"})),
        ("a: >-\n  <<n>>\n  <<t>>\n", json!({"a": "3 abc"})),
        ("- <<n>>\n- <<t>>", json!([3, "abc"])),
        ("<<t>>: 1", json!({"abc": 1})),
        ("\"<<t>>\": 1", json!({"abc": 1})),
        ("? <<t>>\n: 1", json!({"abc": 1})),
        ("a: !!str <<n>>", json!({"a": "3"})),
        ("a: \"<<q>>\"", json!({"a": "a \"b\" 'c'"})),
        ("a: '<<q>>'", json!({"a": "a \"b\" 'c'"})),
        ("a: <<q>>", json!({"a": "a \"b\" 'c'"})),
        ("a: \"<<w>>\"", json!({"a": "a: b"})),
        ("a: x <<w>>", json!({"a": "x a: b"})),
        ("a: {{ workflow.parameters.n }}", json!({"a": 3})),
        ("a: \"{{ .Values.x }}\"", json!({"a": "{{ .Values.x }}"})),
        ("a: 1 # <<t>>", json!({"a": 1})),
        ("a: &x <<n>>\nb: *x", json!({"a": 3, "b": 3})),
        ("a: 731415926000000 # <<t>>", json!({"a": 731_415_926_000_000_u64})),
    ] {
        match trees(source, &values) {
            Ok(found) => assert_eq!(found, [expected], "{source}"),
            Err(miss) => panic!("{source}: {miss:?}"),
        }
    }
}

#[test]
fn a_placeholder_that_a_text_makes_up_is_no_way_in() {
    let source = "a: {{workflow.parameters.n}}\nb: x";
    let prepared = Prepared::new(source);
    let text = |index: usize| format!("{}{index:06}", prepared.number);
    assert_eq!(prepared.replace(&text(0), |_, out| out.push('n')), "n");
    for foreign in [text(1), format!("{}00000", prepared.number), format!("{}é", prepared.word)] {
        assert_eq!(prepared.replace(&foreign, |_, out| out.push('n')), foreign);
        assert_eq!(prepared.alone(&json!(foreign.parse::<u64>().ok())), None);
    }
    let both = format!("{}000000x-{} {}", prepared.word, text(0), text(7));
    assert_eq!(prepared.replace(&both, |_, out| out.push('n')), format!("n-n {}", text(7)));
    assert_eq!(prepared.replace(&format!("{}000000", prepared.word), |_, out| out.push('n')), "n");
}

#[test]
fn many_references_are_replaced_in_one_pass_and_never_without_end() {
    let values = Values::of([("v", "x"), ("big", &"y".repeat(60_000))]);
    let many = "<<v>> ".repeat(3_000);
    let found = trees(&format!("a: \"{many}\""), &values).unwrap();
    assert_eq!(found[0]["a"].as_str().map(str::len), Some(6_000));
    assert_eq!(text(&refs(&many), "", &values).unwrap().len(), 6_000);
    let huge = "<<big>>".repeat(1000);
    assert!(matches!(text(&refs(&huge), "p", &values), Err(Miss::Refused(_))));
    assert!(matches!(trees(&format!("a: \"{huge}\""), &values), Err(Miss::Refused(_))));
}

#[test]
fn what_would_change_the_structure_is_refused_by_its_field() {
    let values = Values::of([
        ("map", "a: b"),
        ("flow", "{a: b}"),
        ("list", "[1]"),
        ("lines", "a\nb: c"),
        ("big", "99999999999999999999"),
        ("name", "x"),
    ]);
    for (source, field) in [
        ("metadata: {name: <<map>>}", "document 1, line 1, metadata.name"),
        ("a: <<flow>>", "document 1, line 1, a"),
        ("a:\n- 1\n- <<list>>", "document 1, line 1, a[1]"),
        ("a: <<lines>>", "document 1, line 1, a"),
        ("a: \"<<lines>>\"", "document 1, line 1, a"),
        ("a: |\n  <<lines>>", "document 1, line 1, a"),
        ("<<lines>>: 1", "document 1, line 1, "),
        ("a: <<big>>", "document 1, line 1, a"),
        ("x: 1\n<<name>>: 2", "document 1, line 1, "),
        ("a: 1\n---\nb: <<nothing>>", "document 2, line 2, b"),
        ("a: {{steps.x.y}}", "document 1, line 1, a"),
        ("a: {{=1+1}}", "document 1, line 1, a"),
        ("a: [<<name>>", "document 1, line"),
        ("a: 1\na: 2", "document 1, line 1, a"),
    ] {
        match trees(source, &values) {
            Err(Miss::Refused(refusals)) => {
                let path = &refusals[0].field_path;
                let expected = format!("spec.templates[0].resource.manifest, {field}");
                assert!(path.starts_with(&expected), "{source}: {path}");
            }
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn what_is_refused_counts_for_more_than_what_is_not_known() {
    let values = Values::of([]);
    assert_eq!(trees("a: <<later>>", &values), Err(Miss::Unknown("step a has not ended".into())));
    assert!(matches!(trees("a: <<later>>\nb: <<nothing>>", &values), Err(Miss::Refused(_))));
    assert!(matches!(trees("a: <<later>>\nb: [", &values), Err(Miss::Refused(_))));
}

#[test]
fn shell_text_takes_plain_words_only() {
    let values = Values::of([
        ("ok", "a.b_c:d/e@f=g+h,i-1"),
        ("blank", "a b"),
        ("semi", "a;b"),
        ("quote", "a'b"),
        ("dollar", "$(x)"),
        ("lines", "a\nb"),
        ("option", "--all"),
        ("empty", ""),
        ("unicode", "ü"),
        ("star", "*"),
        ("tilde", "~"),
    ]);
    let run = |source: &str| shell(&refs(source), "spec.templates[0].container.args[0]", &values);
    assert_eq!(
        run("kubectl get <<ok>> -n '<<ok>>'").unwrap(),
        "kubectl get a.b_c:d/e@f=g+h,i-1 -n 'a.b_c:d/e@f=g+h,i-1'"
    );
    for fine in
        ["x --flag=<<option>>", "x \"<<empty>>\"", "x<<empty>>", "x/<<empty>>/y", "a<<option>>", "${x}<<option>>"]
    {
        assert!(run(fine).is_ok(), "{fine}");
    }
    for bad in [
        "<<blank>>",
        "'<<blank>>'",
        "<<semi>>",
        "<<quote>>",
        "<<dollar>>",
        "<<lines>>",
        "<<unicode>>",
        "<<star>>",
        "<<tilde>>",
        "x <<option>>",
        "<<option>>",
        "x '<<option>>'",
        "x;<<option>>",
        "x <<empty>><<option>>",
        "x <<empty>> y",
        "<<empty>>",
        "x <<empty>>;",
        "<<nothing>>",
    ] {
        match run(bad) {
            Err(Miss::Refused(refusals)) => assert_eq!(refusals[0].field_path, "spec.templates[0].container.args[0]"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn a_template_keeps_its_references_as_they_are_written() {
    let text = "a: {{workflow.parameters.x}}\nb: \"{{ item }}\"\nc: |\n  d: {{inputs.parameters.y}}\n  e: {{ .z }}\n";
    assert_eq!(
        read_template(text).unwrap(),
        json!({"a": "{{workflow.parameters.x}}", "b": "{{ item }}", "c": "d: {{inputs.parameters.y}}\ne: {{ .z }}\n"})
    );
    for bad in ["", "a: 1\n---\nb: 1", "a: [", "a: 1\na: 2"] {
        assert!(read_template(bad).is_err(), "{bad}");
    }
}

/// The shape of a tree: its keys and lengths, with every scalar the same.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        _ => Value::Null,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_value_changes_the_shape_of_a_manifest(value in hostile()) {
        let source = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: \"<<v>>\"\n  labels: {a: <<v>>, b: 'x<<v>>'}\n\
                      data:\n  list: [<<v>>, 1]\n  block: |\n    one\n    <<v>>\n  long: a <<v>> b\n---\nb: \"<<v>>\"\n";
        let plain = trees(source, &Values::of([("v", "plain")])).unwrap();
        if let Ok(found) = trees(source, &Values::of([("v", &value)])) {
            prop_assert_eq!(found.len(), plain.len());
            for (found, plain) in found.iter().zip(&plain) {
                let mut found = shape(found);
                // A null in a map is left out; nothing else may differ.
                let labels = found.pointer_mut("/metadata/labels").and_then(Value::as_object_mut);
                labels.map(|labels| labels.entry("a").or_insert(Value::Null));
                prop_assert_eq!(found, shape(plain));
            }
        }
    }

    #[test]
    fn no_value_adds_a_word_to_shell_text(value in hostile()) {
        if let Ok(found) = shell(&refs("kubectl delete -n <<v>> -f /tmp/doc"), "", &Values::of([("v", &value)])) {
            let words: Vec<&str> = found.split_whitespace().collect();
            prop_assert_eq!(&words, &["kubectl", "delete", "-n", value.as_str(), "-f", "/tmp/doc"]);
        }
    }

    #[test]
    fn no_text_upsets_the_reader(text in "[a-z{}\\[\\]:,\\-'\"#&*!|> \n.=%@`?73145926]{0,80}", value in hostile()) {
        let values = Values::of([("v", &value)]);
        let _ = embedded(&text, "", &values);
        let _ = embedded(&text.replace('.', "{{workflow.parameters.v}}"), "", &values);
        let _ = read_template(&text.replace('.', "{{workflow.parameters.v}}"));
    }
}

/// Values that mean something to YAML, to a shell or to us.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just("\n".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("---".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("#".to_owned()),
        Just(" ".to_owned()),
        Just(",".to_owned()),
        Just("&x".to_owned()),
        Just("*x".to_owned()),
        Just("!!map".to_owned()),
        Just("|".to_owned()),
        Just("{{workflow.parameters.v}}".to_owned()),
        Just("7".to_owned()),
        Just("731415926000000".to_owned()),
        Just("qdt31415926x000000x".to_owned()),
        Just("--all".to_owned()),
        Just(";".to_owned()),
        Just("$(x)".to_owned()),
        Just("\\".to_owned()),
        Just("\u{2028}".to_owned()),
        Just("\0".to_owned()),
        Just("? ".to_owned()),
        Just("<<".to_owned()),
        Just("\t".to_owned()),
        any::<char>().prop_map(|c| c.to_string()),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}
