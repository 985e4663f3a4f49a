use std::sync::Arc;

use proptest::prelude::*;
use quarterdeck_runtime::controller::Account;
use serde_json::{Value, json};

use super::*;
use crate::addon::manifest::{Mode, Place, read_object};
use crate::addon::revision::crds;
use crate::addon::source::{Object, Package};

fn object(body: Value) -> Object {
    let Value::Object(body) = body else { panic!("a mapping") };
    let (desired, _) = read_object(body, Place { document: 2, line: 7 }).expect("an object");
    desired.into()
}

fn map(name: &str, text: &str) -> Object {
    object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}))
}

/// Text that does not compress.
fn noise(bytes: usize) -> String {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).expect("small"))
    };
    (0..bytes).map(|_| next()).collect()
}

fn content(objects: Vec<Object>) -> Content {
    let package = Some(Package { name: "core/dns".into(), version: "1.2".into() });
    Content { version: "v".into(), package, objects }
}

fn mixed() -> Content {
    let account = Some(Account { namespace: "addons".into(), name: "installer".into() });
    let mut ensured = map("ensured", "x");
    Arc::make_mut(&mut ensured.desired).mode = Mode::EnsureExists;
    let secret = object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}, "stringData": {"k": "hidden-word"},
    }));
    content(vec![
        Object { account, namespace: "other".into(), ..map("one", "plain-word") },
        secret,
        ensured,
        object(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}}),
        ),
    ])
}

fn plain(pieces: &[Vec<u8>]) -> String {
    String::from_utf8(join(pieces, &Limits::default()).expect("whole")).expect("text")
}

#[test]
fn what_is_stored_comes_back_and_secrets_stand_apart() {
    let content = mixed();
    let packed = encode(&content, &Limits::default()).expect("pieces");
    assert_eq!((packed.open.len(), packed.secret.len()), (1, 1));
    assert_eq!(decode(&packed, &Limits::default()).expect("the content"), content);
    assert!(plain(&packed.open).contains("plain-word") && !plain(&packed.open).contains("hidden-word"));
    assert!(plain(&packed.secret).contains("hidden-word") && !plain(&packed.secret).contains("plain-word"));
    assert_eq!(encode(&content, &Limits::default()).expect("pieces"), packed, "the same each time");
    let none = Content { package: None, ..super::Content { objects: Vec::new(), ..mixed() } };
    let packed = encode(&none, &Limits::default()).expect("pieces");
    assert_eq!((packed.open.len(), packed.secret.len()), (1, 0));
    assert_eq!(decode(&packed, &Limits::default()).expect("the content"), none);
}

#[test]
fn pieces_are_cut_at_their_limit() {
    let limits = Limits { piece: 1000, ..Limits::default() };
    let whole = content(vec![map("noise", &noise(5000))]);
    let packed = encode(&whole, &Limits::default()).expect("pieces");
    let bytes = packed.open[0].len();
    for (piece, expected) in
        [(bytes, 1), (bytes - 1, 2), (bytes.div_ceil(2), 2), (bytes + 1, 1), (1000, bytes.div_ceil(1000))]
    {
        let limits = Limits { piece, ..limits };
        let packed = encode(&whole, &limits).expect("pieces");
        assert_eq!(packed.open.len(), expected, "{piece}");
        assert!(packed.open.iter().all(|one| one.len() <= piece && !one.is_empty()));
        assert_eq!(decode(&packed, &limits).expect("the content"), whole);
    }
}

#[test]
fn what_is_too_large_is_refused_both_ways() {
    let whole = content(vec![map("zeros", &"0".repeat(100_000))]);
    let small = Limits { content: 50_000, ..Limits::default() };
    assert!(matches!(encode(&whole, &small), Err(EncodeError::Pack(PackError::Large { most: 50_000 }))));
    let packed = encode(&whole, &Limits::default()).expect("pieces");
    assert!(packed.open[0].len() < 2_000, "it compresses well");
    assert!(matches!(decode(&packed, &small), Err(DecodeError::Pack(PackError::Large { most: 50_000 }))));
    let few = Limits { piece: 100, pieces: 2, ..Limits::default() };
    let whole = content(vec![map("noise", &noise(5000))]);
    assert!(matches!(encode(&whole, &few), Err(EncodeError::Pack(PackError::Pieces { most: 2, .. }))));
}

#[test]
fn damage_is_an_error_that_says_so() {
    let limits = Limits { piece: 500, ..Limits::default() };
    let packed = encode(&content(vec![map("noise", &noise(3000))]), &limits).expect("pieces");
    assert!(packed.open.len() > 3);
    let damaged = |edit: fn(&mut Packed)| {
        let mut packed = packed.clone();
        edit(&mut packed);
        decode(&packed, &limits).expect_err("damaged").to_string()
    };
    assert!(damaged(|packed| packed.open[1][7] ^= 1).contains("damaged"));
    assert!(damaged(|packed| packed.open[2].truncate(3)).contains("damaged"));
    assert!(damaged(|packed| drop(packed.open.pop())).contains("damaged"));
    assert!(damaged(|packed| packed.open.swap(0, 1)).contains("damaged"));
    assert!(damaged(|packed| packed.open.clear()).contains("digest"));
    assert!(damaged(|packed| packed.digest.replace_range(..1, "x")).contains("digest"));
    let other = encode(&content(vec![map("other", "x")]), &limits).expect("pieces");
    let swapped = Packed { digest: packed.digest.clone(), ..other };
    assert!(matches!(decode(&swapped, &limits), Err(DecodeError::Changed { .. })));
}

#[test]
fn what_a_later_build_stored_is_not_guessed_at() {
    let limits = Limits::default();
    let pack = |value: Value| {
        let open = value.to_string().into_bytes();
        Packed { digest: digest(&open, &[]), open: cut(&open, &limits).expect("pieces"), secret: Vec::new() }
    };
    assert!(matches!(decode(&pack(json!({"format": 9, "all": "new"})), &limits), Err(DecodeError::Form(9))));
    assert!(matches!(decode(&pack(json!([])), &limits), Err(DecodeError::Json(_))));
    let item = json!({"at": 0, "namespace": "a", "document": 1, "line": 1, "body": {"kind": "ConfigMap"}});
    let one = json!({"format": 1, "version": "v", "package": null, "objects": 1, "items": [item]});
    assert!(matches!(decode(&pack(one), &limits), Err(DecodeError::Content(text)) if text.contains("apiVersion")));
    let short = json!({"format": 1, "version": "v", "package": null, "objects": 2, "items": []});
    assert!(matches!(decode(&pack(short), &limits), Err(DecodeError::Content(text)) if text.contains("should have 2")));
}

#[test]
fn only_definitions_count_for_their_digest() {
    let crd = |versions: u32| {
        object(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "ships.fleet.example"}, "spec": {"versions": versions},
        }))
    };
    assert_eq!(crds(&[map("a", "x")]), "");
    assert_eq!(crds(&[crd(1), map("a", "x")]), crds(&[map("a", "y"), crd(1)]));
    assert_ne!(crds(&[crd(1)]), crds(&[crd(2)]));
    assert_ne!(crds(&[crd(1)]), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_to_an_error_and_no_panic(
        open in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4),
        secret in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..3),
    ) {
        let packed = Packed { open, secret, digest: "x".into() };
        prop_assert!(decode(&packed, &Limits::default()).is_err());
    }

    #[test]
    fn any_text_comes_back(texts in proptest::collection::vec(".{0,200}", 0..6), piece in 1_usize..400) {
        let limits = Limits { piece, pieces: usize::MAX, ..Limits::default() };
        let objects = texts.iter().enumerate().map(|(at, text)| map(&format!("m{at}"), text)).collect();
        let content = content(objects);
        prop_assert_eq!(decode(&encode(&content, &limits).expect("pieces"), &limits).expect("content"), content);
    }
}
