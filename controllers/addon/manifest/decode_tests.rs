use std::fmt::Write as _;
use std::time::Instant;

use super::*;

fn yaml(text: &str) -> Decoded {
    decode(text.as_bytes(), Format::Yaml, &Limits::default())
}

fn config_map(name: &str, label: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: a\n  labels: {{{label}}}\n")
}

const RECONCILE: &str = "addonmanager.kubernetes.io/mode: Reconcile";

fn idents(decoded: &Decoded) -> Vec<String> {
    decoded.objects.iter().map(|object| object.ident.to_string()).collect()
}

#[test]
fn labels_choose_the_mode() {
    for (labels, mode) in [
        (RECONCILE, Some(Mode::Reconcile)),
        ("addonmanager.kubernetes.io/mode: EnsureExists", Some(Mode::EnsureExists)),
        (
            "addonmanager.kubernetes.io/mode: EnsureExists, kubernetes.io/cluster-service: 'true'",
            Some(Mode::EnsureExists),
        ),
        ("kubernetes.io/cluster-service: 'true'", Some(Mode::Reconcile)),
        ("addonmanager.kubernetes.io/mode: NotMatch, kubernetes.io/cluster-service: 'true'", Some(Mode::Reconcile)),
        ("addonmanager.kubernetes.io/mode: NotMatch", None),
        ("kubernetes.io/cluster-service: 'false'", None),
        ("", None),
    ] {
        let decoded = yaml(&config_map("x", labels));
        assert_eq!(decoded.problems, [], "{labels}");
        assert_eq!(decoded.objects.first().map(|object| object.mode), mode, "{labels}");
        assert_eq!(decoded.skipped.len(), usize::from(mode.is_none()), "{labels}");
    }
}

#[test]
fn without_labels_every_object_is_managed() {
    let text = format!(
        "{}---\n{}---\n{}",
        config_map("x", ""),
        config_map("w", "addonmanager.kubernetes.io/mode: EnsureExists"),
        config_map("z", "addonmanager.kubernetes.io/mode: NotMatch")
    );
    let decoded = decode_with(text.as_bytes(), Format::Yaml, &Limits::default(), Labels::Ignored);
    assert!(decoded.objects.iter().all(|object| object.mode == Mode::Reconcile), "{decoded:?}");
    assert_eq!(idents(&decoded), ["ConfigMap/a/x", "ConfigMap/a/w", "ConfigMap/a/z"]);
    assert_eq!((decoded.skipped.len(), decoded.problems.len()), (0, 0));
}

#[test]
fn only_the_first_document_is_read() {
    let first = |text: &str| first_document(text.as_bytes(), Format::Yaml, &Limits::default());
    let value = serde_json::json!({"a": 1});
    for text in ["a: 1\n---\nb: [", "# note\n---\na: 1", "{\"a\": 1}", "a: 2\na: 1"] {
        let (found, warnings) = first(text).expect(text);
        assert_eq!(found.as_ref(), Some(&value), "{text}");
        assert_eq!(warnings.len(), usize::from(text.contains("2\na")), "{text}");
    }
    for text in ["", "\n\n", "# nothing\n", "---\n"] {
        assert_eq!(first(text), Ok((None, Vec::new())), "{text:?}");
    }
    assert_eq!(first("not: [valid").expect_err("a problem").place.document, 1);
    assert_eq!(first("x: 1\ny: {").expect_err("a problem").place.document, 1);
    let limits = Limits { file_bytes: 3, ..Limits::default() };
    assert!(first_document(b"a: 1", Format::Yaml, &limits).expect_err("a problem").message.contains("at most 3"));
}

#[test]
fn lists_and_documents_are_taken_apart() {
    let text = format!(
        "{}---\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Secret, metadata: {{name: s, labels: {{{RECONCILE}}}}}}}\n- apiVersion: v1\n  kind: ConfigMapList\n  items:\n  - {{apiVersion: v1, kind: ConfigMap, metadata: {{name: c, labels: {{{RECONCILE}}}}}}}\n",
        config_map("x", RECONCILE)
    );
    let decoded = yaml(&text);
    assert_eq!(idents(&decoded), ["ConfigMap/a/x", "Secret//s", "ConfigMap//c"]);
    assert!(decoded.is_complete());
    assert_eq!(decoded.objects[1].place, Place { document: 2, line: 8 });
}

#[test]
fn one_bad_document_spares_the_others_and_is_named() {
    let text = format!("{}---\na: [1\n---\n{}", config_map("x", RECONCILE), config_map("z", RECONCILE));
    let decoded = yaml(&text);
    assert_eq!(idents(&decoded), ["ConfigMap/a/x", "ConfigMap/a/z"]);
    assert!(!decoded.is_complete());
    assert_eq!(decoded.problems.len(), 1);
    assert_eq!(decoded.problems[0].place.document, 2);
    assert!((8..=9).contains(&decoded.problems[0].place.line), "{}", decoded.problems[0]);
}

#[test]
fn faults_name_object_and_field() {
    for (text, object, field) in [
        ("kind: A\nmetadata: {name: x}", Some("A x"), "apiVersion"),
        ("apiVersion: v1\nmetadata: {name: x}", None, "kind"),
        ("apiVersion: v1\nkind: A", Some("A"), "metadata"),
        ("apiVersion: v1\nkind: A\nmetadata: {}", Some("A"), "metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: 5}", Some("A"), "metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: ../../x}", Some("A ../../x"), "metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: x?force=1}", Some("A x?force=1"), "metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: x, namespace: ../y}", Some("A ../y/x"), "metadata.namespace"),
        ("apiVersion: ../v1\nkind: A\nmetadata: {name: x}", Some("A x"), "apiVersion"),
        ("apiVersion: a/v1/b\nkind: A\nmetadata: {name: x}", Some("A x"), "apiVersion"),
        ("apiVersion: v1\nkind: A/b\nmetadata: {name: x}", Some("A/b x"), "kind"),
        ("apiVersion: v1\nkind: A\nmetadata: {generateName: x-}", Some("A"), "metadata.generateName"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: x, labels: {kubernetes.io/cluster-service: true}}",
            Some("A x"),
            "metadata.labels",
        ),
        ("apiVersion: v1\nkind: A\nmetadata: {name: x, annotations: [1]}", Some("A x"), "metadata.annotations"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: x, labels: {applyset.kubernetes.io/part-of: y}}",
            Some("A x"),
            "metadata.labels",
        ),
    ] {
        let decoded = yaml(text);
        assert_eq!(decoded.problems.len(), 1, "{text}");
        assert_eq!(decoded.problems[0].object.as_deref(), object, "{text}");
        assert_eq!(decoded.problems[0].field.as_deref(), Some(field), "{text}");
        assert!(decoded.objects.is_empty() && decoded.skipped.is_empty(), "{text}");
    }
}

#[test]
fn json_is_read_by_its_ending_and_by_its_look() {
    let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","labels":{"addonmanager.kubernetes.io/mode":"Reconcile"}},"data":{"a":"	tab"}}"#;
    let text = text.replace('\t', "\\t");
    for format in [Format::Json, Format::Yaml] {
        assert_eq!(idents(&decode(text.as_bytes(), format, &Limits::default())), ["ConfigMap//x"]);
    }
    let indented = text.replacen('{', "{\n\t", 1);
    assert_eq!(idents(&decode(indented.as_bytes(), Format::Yaml, &Limits::default())), ["ConfigMap//x"]);
}

#[test]
fn what_a_server_sets_is_taken_out() {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x, uid: u, resourceVersion: '5', creationTimestamp: null, managedFields: [], labels: {{{RECONCILE}}}, annotations: {{kubectl.kubernetes.io/last-applied-configuration: x}}}}"
    );
    let body = &yaml(&text).objects[0].body.tree();
    assert_eq!(
        body["metadata"],
        serde_json::json!({"name": "x", "labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}, "annotations": {}})
    );
}

#[test]
fn an_empty_file_has_nothing_and_no_fault() {
    for text in ["", "\n\n", "# nothing\n", "---\n---\n", "null\n", "\u{feff}"] {
        assert_eq!(yaml(text), Decoded::default(), "{text:?}");
    }
}

/// Each must be refused, quickly and in bounded memory: a bomb that were expanded would take
/// gigabytes and minutes, and end this test by that.
#[test]
fn hostile_documents_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let _ = writeln!(bomb, "a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 10].join(", "));
    }
    let mut text_bomb = format!("t: &t {}\nl: [", "x".repeat(1 << 20));
    text_bomb.push_str(&vec!["*t"; 10_000].join(", "));
    text_bomb.push(']');
    let mut merge_bomb = String::from("a0: &a0 {k: v}\n");
    for level in 1..30 {
        let _ = writeln!(merge_bomb, "a{level}: &a{level} {{x: *a{0}, y: *a{0}}}", level - 1);
    }
    let hostile: Vec<(&str, String)> = vec![
        ("alias bomb", bomb),
        ("text bomb", text_bomb),
        ("doubling aliases", merge_bomb),
        ("deep flow", format!("a: {}1{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("deep block", (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("many values", format!("a: [{}]", vec!["1"; 400_000].join(","))),
        ("large document", format!("a: {}", "x".repeat(4 << 20))),
        ("self reference", "a: &a [*a]".to_owned()),
        ("unknown alias", "a: *nope".to_owned()),
        ("tabs", "a:\n\t- b".to_owned()),
        ("not closed", "a: \"x".to_owned()),
        ("scalar", "just text".to_owned()),
        ("list", "[1, 2]".to_owned()),
        ("key of a mapping", "{a: b}: c".to_owned()),
    ];
    for (name, text) in hostile {
        let begun = Instant::now();
        let decoded = decode(text.as_bytes(), Format::Yaml, &Limits::default());
        assert_eq!(decoded.objects.len() + decoded.skipped.len(), 0, "{name}");
        assert!(!decoded.is_complete(), "{name}");
        assert!(decoded.problems[0].to_string().len() < 2_000, "{name}: a message repeats its input");
        eprintln!("{name}: {:?}: {}", begun.elapsed(), decoded.problems[0]);
    }
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert!(!decode(deep.as_bytes(), Format::Json, &Limits::default()).is_complete());
    let wide = format!("{{\"a\":[{}]}}", vec!["1"; 400_000].join(","));
    assert!(!decode(wide.as_bytes(), Format::Json, &Limits::default()).is_complete());
    assert!(!decode(b"a: \xff\xfe", Format::Yaml, &Limits::default()).is_complete());
    assert_eq!(decode(b"a: 1\nb: \xff", Format::Yaml, &Limits::default()).problems[0].place.line, 2);
    let limits = Limits { file_bytes: 10, ..Limits::default() };
    assert!(!decode(b"a: 0123456789", Format::Yaml, &limits).is_complete());
}

#[test]
fn objects_past_the_limit_are_told() {
    let limits = Limits { objects: 2, ..Limits::default() };
    let text = (0..3).map(|n| config_map(&format!("x{n}"), RECONCILE)).collect::<Vec<_>>().join("---\n");
    let decoded = decode(text.as_bytes(), Format::Yaml, &limits);
    assert_eq!((decoded.objects.len(), decoded.problems.len()), (2, 1));
    assert!(!decoded.is_complete());
}

proptest::proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), text in "[-a-z:{}\\[\\]&*,'\"|>#!% \n]{0,200}") {
        let _ = decode(&bytes, Format::Yaml, &Limits::default());
        let _ = decode(text.as_bytes(), Format::Yaml, &Limits::default());
        let _ = decode(text.as_bytes(), Format::Json, &Limits::default());
    }
}
