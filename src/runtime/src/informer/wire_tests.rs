use proptest::prelude::*;

use super::*;
use crate::view::PodView;

proptest! {
    #[test]
    fn lines_do_not_depend_on_the_pieces(
        lines in prop::collection::vec("[a-z]{0,20}", 0..20),
        cuts in prop::collection::vec(0..400_usize, 0..10),
    ) {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).chain([0, body.len()]).collect();
        cuts.sort_unstable();
        let (mut splitter, mut found) = (Lines::default(), Vec::new());
        for cut in cuts.windows(2) {
            splitter
                .split(&body.as_bytes()[cut[0]..cut[1]], |line| {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                    Ok::<_, ()>(())
                })
                .unwrap();
        }
        prop_assert_eq!(found, lines);
    }
}

fn read(line: &str) -> Result<Event<PodView>, serde_json::Error> {
    event(line.as_bytes())
}

#[test]
fn events_are_read_in_either_order_of_fields() {
    let object = r#"{"metadata":{"name":"p","namespace":"n","resourceVersion":"3"}}"#;
    for line in [
        format!(r#"{{"type":"ADDED","object":{object}}}"#),
        format!(r#"{{"type":"MODIFIED","extra":[1],"object":{object}}}"#),
        format!(r#"{{"object":{object},"type":"ADDED"}}"#),
    ] {
        assert!(matches!(read(&line).unwrap(), Event::Put(pod) if pod.key.name() == "p"), "{line}");
    }
    let deleted = read(&format!(r#"{{"type":"DELETED","object":{object}}}"#)).unwrap();
    assert!(matches!(deleted, Event::Deleted(pod) if &*pod.resource_version == "3"));
}

#[test]
fn bookmarks_tell_whether_they_end_the_list() {
    let bookmark = |annotations: &str| {
        let line = format!(r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"9"{annotations}}}}}}}"#);
        match read(&line).unwrap() {
            Event::Bookmark { version, ends_list } => (version, ends_list),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bookmark(""), ("9".to_owned(), false));
    assert_eq!(bookmark(r#","annotations":null"#), ("9".to_owned(), false));
    assert_eq!(bookmark(r#","annotations":{"k8s.io/initial-events-end":"true"}"#), ("9".to_owned(), true));
}

#[test]
fn an_error_event_carries_the_status() {
    let line = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
        "message":"too old resource version","reason":"Expired","code":410}}"#;
    assert!(matches!(read(line).unwrap(), Event::Failed(status) if status.code == Some(410)));
}

#[test]
fn an_unreadable_object_is_named() {
    let line = |kind: &str, meta: &str| format!(r#"{{"type":"{kind}","object":{{"metadata":{meta},"spec":7}}}}"#);
    let named = r#"{"name":"p","namespace":"n","resourceVersion":"3"}"#;
    for (kind, is_deleted) in [("ADDED", false), ("DELETED", true)] {
        let Event::Unreadable(object) = read(&line(kind, named)).unwrap() else { panic!("{kind}") };
        assert_eq!((object.key, object.deleted), (Some(ObjectKey::new("n", "p")), is_deleted));
        assert_eq!(object.version.as_deref(), Some("3"));
    }
    let Event::Unreadable(object) = read(&line("ADDED", r#"{"name":7}"#)).unwrap() else { panic!("no name") };
    assert_eq!((object.key, object.version), (None, None));
}

#[test]
fn what_is_no_event_breaks_the_stream() {
    for line in ["", "{", "[]", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"NEWS","object":{}}"#, "<html>"] {
        assert!(read(line).is_err(), "{line:?}");
    }
}

#[test]
fn a_page_keeps_good_objects_beside_a_bad_one() {
    let body = br#"{"kind":"PodList","metadata":{"resourceVersion":"11","continue":"c"},
        "items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b","namespace":"n"},"status":7},{"metadata":{"name":"c"}}]}"#;
    let page = page(body).unwrap();
    assert_eq!((&*page.version, page.next.as_deref()), ("11", Some("c")));
    let names: Vec<_> = page
        .objects::<PodView>()
        .map(|(object, _)| match object {
            Ok(pod) => pod.key.to_string(),
            Err(bad) => format!("!{}", bad.key.unwrap()),
        })
        .collect();
    assert_eq!(names, ["a", "!n/b", "c"]);
    let empty = super::page(br#"{"metadata":{"resourceVersion":"1","continue":""},"items":null}"#).unwrap();
    assert!(empty.next.is_none() && empty.items.is_empty());
}
