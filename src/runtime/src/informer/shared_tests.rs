use std::sync::atomic::AtomicUsize;

use super::*;
use crate::informer::Lister;
use crate::informer::testing::{Feed, lister};
use crate::object::Typed;
use crate::view::PodView;

fn pod(name: &str, uid: &str, version: u64) -> PodView {
    let metadata =
        serde_json::json!({"namespace": "n", "name": name, "uid": uid, "resourceVersion": version.to_string()});
    serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("n", name)
}

/// What a handler was told, as text.
fn record(lister: &Lister<PodView>) -> Arc<Mutex<Vec<String>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    lister.on_change(move |change| {
        let text = |pod: &PodView| format!("{}@{}", pod.key.name(), pod.resource_version);
        log.lock().push(match change {
            Change::Added(pod) => format!("+{}", text(pod)),
            Change::Updated { old, new } => format!("{}>{}", text(old), text(new)),
            Change::Deleted { last, is_final } => format!("-{}{}", text(last), if is_final { "" } else { "?" }),
        });
    });
    told
}

#[test]
fn handlers_are_told_old_and_new_and_late_ones_the_present() {
    let feed = Feed::with([]);
    let early = record(feed.lister());
    feed.apply(pod("a", "u1", 1));
    feed.apply(pod("a", "u1", 2));
    feed.apply(pod("b", "u2", 3));
    let late = record(feed.lister());
    feed.sync([pod("b", "u2", 3)]);
    assert_eq!(*early.lock(), ["+a@1", "a@1>a@2", "+b@3", "b@3>b@3", "-a@2?"]);
    assert_eq!(late.lock()[..2].iter().collect::<std::collections::BTreeSet<_>>().len(), 2);
    assert_eq!(late.lock()[2..], ["b@3>b@3", "-a@2?"]);
}

#[test]
fn a_successor_of_the_same_name_is_told_as_deleted_and_added() {
    let feed = Feed::with([pod("a", "u1", 1)]);
    let told = record(feed.lister());
    feed.apply(pod("a", "u2", 5));
    assert_eq!(*told.lock(), ["+a@1", "-a@1?", "+a@5"]);
}

#[test]
fn a_handler_that_panics_hurts_no_one_else() {
    let feed = Feed::with([]);
    feed.lister().on_change(|_| panic!("on purpose"));
    let told = record(feed.lister());
    feed.apply(pod("a", "u1", 1));
    feed.apply(pod("b", "u1", 2));
    assert_eq!(*told.lock(), ["+a@1", "+b@2"]);
    assert_eq!(feed.lister().len(), 2);
}

#[test]
fn an_index_that_was_not_declared_panics_by_name() {
    let lister = lister([pod("a", "u", 1)]);
    let error = std::panic::catch_unwind(AssertUnwindSafe(|| lister.indexed("nothing", "x").len())).unwrap_err();
    assert!(error.downcast_ref::<String>().unwrap().contains("no index \"nothing\""));
}

/// Waits for something of pod `a` and counts the calls.
fn wait(feed: &Feed<PodView>, expect: Expect) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let callback = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    feed.lister().shared.when_visible(&key("a"), expect, callback);
    calls
}

fn count(calls: &AtomicUsize) -> usize {
    calls.load(Ordering::SeqCst)
}

#[test]
fn a_version_is_visible_with_the_object_or_with_the_collection() {
    let feed = Feed::with([pod("a", "u", 5), pod("b", "u", 6)]);
    assert_eq!(count(&wait(&feed, Expect::AtLeast(5))), 1, "the store shows it already");
    let (by_object, by_collection) = (wait(&feed, Expect::AtLeast(10)), wait(&feed, Expect::AtLeast(20)));
    feed.apply(pod("b", "u", 30));
    assert_eq!((count(&by_object), count(&by_collection)), (0, 0), "another object says nothing");
    feed.apply(pod("a", "u", 12));
    assert_eq!((count(&by_object), count(&by_collection)), (1, 0));
    feed.delete(&key("a"));
    feed.reach(19);
    assert_eq!(count(&by_collection), 0);
    feed.reach(20);
    feed.reach(21);
    assert_eq!((count(&by_object), count(&by_collection)), (1, 1));
}

#[test]
fn a_deletion_is_visible_when_the_uid_is_gone_or_deleting() {
    let feed = Feed::with([pod("a", "u1", 5)]);
    let expect = || Expect::Deleted { uid: "u1".to_owned() };
    let gone = wait(&feed, expect());
    feed.apply(pod("a", "u1", 6));
    assert_eq!(count(&gone), 0);
    feed.delete(&key("a"));
    assert_eq!(count(&gone), 1);

    feed.apply(pod("a", "u1", 7));
    let deleting = wait(&feed, expect());
    feed.apply(PodView { deleting: true, ..pod("a", "u1", 8) });
    assert_eq!(count(&deleting), 1);

    feed.apply(pod("a", "u1", 9));
    let replaced = wait(&feed, expect());
    feed.apply(pod("a", "u2", 10));
    assert_eq!(count(&replaced), 1);
    assert_eq!(count(&wait(&feed, expect())), 1, "at once when it shows already");
}

#[test]
fn another_version_is_visible_when_it_differs() {
    let feed = Feed::with([pod("a", "u", 5)]);
    let other = wait(&feed, Expect::OtherThan("5".to_owned()));
    feed.reach(9);
    assert_eq!(count(&other), 0);
    feed.apply(pod("a", "u", 8));
    assert_eq!(count(&other), 1);
}

#[test]
fn absence_counts_only_after_a_complete_list() {
    let feed = Feed::<PodView>::of(&crate::informer::Informers::new(), Selection::default());
    let gone = wait(&feed, Expect::Deleted { uid: "u".to_owned() });
    feed.apply(pod("b", "u2", 1));
    assert_eq!(count(&gone), 0);
    feed.sync([]);
    assert_eq!(count(&gone), 1);
}

#[test]
fn a_stopped_informer_leaves_nobody_waiting() {
    let feed = Feed::with([pod("a", "u", 5)]);
    let waiting = wait(&feed, Expect::AtLeast(100));
    feed.lister().shared.stopped();
    assert_eq!(count(&waiting), 1);
    assert_eq!(count(&wait(&feed, Expect::AtLeast(100))), 1);
}

#[test]
fn all_informers_that_may_hold_an_object_must_show_it() {
    let informers = crate::informer::Informers::new();
    let all = Feed::<PodView>::of(&informers, Selection::default());
    let here = Feed::<PodView>::of(&informers, Selection { namespace: Some("n".into()), ..Selection::default() });
    let _elsewhere = Feed::<PodView>::of(&informers, Selection { namespace: Some("m".into()), ..Selection::default() });
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    informers.when_visible(all.lister().kind(), &key("a"), &Expect::AtLeast(3), move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    all.apply(pod("a", "u", 3));
    assert_eq!(count(&calls), 0);
    here.apply(pod("a", "u", 3));
    assert_eq!(count(&calls), 1);
}

#[test]
fn an_informer_is_shared_by_kind_selection_form_and_identity() {
    let informers = crate::informer::Informers::new();
    let lister = || informers.typed::<PodView>(Selection::default());
    assert!(Arc::ptr_eq(&lister().shared, &lister().shared));
    let other = Identity::ServiceAccount { namespace: "kube-system".into(), name: "quarterdeck-addons".into() };
    let addons = informers.reading_as(other).typed::<PodView>(Selection::default());
    assert!(!Arc::ptr_eq(&lister().shared, &addons.shared));
    let metadata = informers.dynamic::<Metadata>(PodView::kind(), Selection::default());
    assert!(metadata.shared.core.metadata_only && !addons.shared.core.metadata_only);
    assert_eq!(informers.by_kind(&PodView::kind()).len(), 3);
    informers.stop(&PodView::kind());
    assert_eq!(informers.by_kind(&PodView::kind()).len(), 2, "only the dynamic one is stopped");
    assert_eq!(metadata.status().state, State::Stopped);
}

#[test]
fn one_is_stopped_and_nobody_waits_for_what_others_read() {
    let informers = crate::informer::Informers::new();
    let other = Identity::ServiceAccount { namespace: "a".into(), name: "narrow".into() };
    let theirs = informers.reading_as(other);
    let everywhere = theirs.dynamic::<Metadata>(PodView::kind(), Selection::default());
    let here = Selection { namespace: Some("n".into()), ..Selection::default() };
    let narrow = theirs.dynamic::<Metadata>(PodView::kind(), here.clone());

    let calls = Arc::new(AtomicUsize::new(0));
    let wait = |informers: &crate::informer::Informers| {
        let calls = Arc::clone(&calls);
        let call = move || {
            calls.fetch_add(1, Ordering::Relaxed);
        };
        informers.when_visible(&PodView::kind(), &ObjectKey::new("n", "p"), &Expect::AtLeast(5), call);
    };
    wait(&informers);
    assert_eq!(calls.load(Ordering::Relaxed), 1, "an informer of another identity may never be allowed to read");
    wait(&theirs);
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    theirs.stop_one(&narrow);
    assert_eq!((narrow.status().state, everywhere.status().state), (State::Stopped, State::Declared));
    let again = theirs.dynamic::<Metadata>(PodView::kind(), here);
    theirs.stop_one(&narrow);
    assert_eq!(again.status().state, State::Declared, "an old lister does not stop its successor");
    let fixed = informers.typed::<PodView>(Selection::default());
    informers.stop_one(&fixed);
    assert_eq!(fixed.status().state, State::Declared, "what was declared in setup stays");
}
