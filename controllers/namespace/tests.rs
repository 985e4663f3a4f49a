use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use quarterdeck_runtime::informer::Change;
use quarterdeck_runtime::object::Kind;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::content::{Leftover, Report, Step, Survey, Target, step};
use super::discovery::{Catalog, Failure, Group, Index, ListedResource, choose, path_of, usable};
use super::outcome::{Outcome, Times, Verdict, blocked, verdict};
use super::sweep::{Request, Unsupported, no_pods};
use super::{calls_for_work, conditions, object};

const SETTLE: Duration = Duration::from_millis(500);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn kind(plural: &'static str, group: &'static str) -> Kind {
    Kind::new(group, "v1", "X", plural, true)
}

fn item(name: &str, deleting: bool, finalizers: &[&str], grace: Option<u64>) -> Leftover {
    serde_json::from_value(json!({"metadata": {
        "name": name, "uid": format!("uid-{name}"), "finalizers": finalizers,
        "deletionTimestamp": deleting.then_some("2024-01-01T00:00:00Z"),
        "deletionGracePeriodSeconds": grace,
    }}))
    .expect("metadata")
}

fn survey(items: &[Leftover]) -> Survey {
    let mut survey = Survey::default();
    survey.page(items, false);
    survey
}

fn report(plural: &'static str, survey: Survey) -> Report {
    Report { kind: kind(plural, if plural == "widgets" { "example.com" } else { "" }), survey, errors: vec![] }
}

fn broken(plural: &'static str, error: &str) -> Report {
    Report { errors: vec![error.to_owned()], ..report(plural, Survey::default()) }
}

fn outcome(reports: Vec<Report>) -> Outcome {
    Outcome { reports, untouched: true, ..Outcome::default() }
}

fn silent_group() -> Failure {
    Failure { group_version: "metrics.k8s.io/v1beta1".to_owned(), reason: "503".to_owned() }
}

fn times(waited: Duration) -> Times {
    Times { waited, took: Duration::ZERO, settle: SETTLE, at_most: seconds(300) }
}

// --- one kind ---

#[test]
fn each_kind_takes_the_step_its_leftovers_ask_for() {
    let live = || item("a", false, &[], None);
    let held = || item("b", true, &["x/y"], None);
    let cases: Vec<(&str, Vec<Leftover>, bool, Step)> = vec![
        ("nothing", vec![], true, Step::Clear),
        ("one, fence verified", vec![live()], true, Step::Collect),
        ("one, no fence", vec![live()], false, Step::Each),
        ("all on their way", vec![held()], true, Step::Wait),
        ("some on their way", vec![held(), live()], true, Step::Collect),
    ];
    for (case, items, collect, expected) in cases {
        assert_eq!(step(&survey(&items), collect), expected, "{case}");
    }
}

#[test]
fn objects_behind_a_page_of_held_ones_are_deleted_one_by_one() {
    let mut items: Vec<_> = (0..200).map(|i| item(&format!("a{i}"), true, &["x/y"], None)).collect();
    items.push(item("b", false, &[], None));
    let behind = survey(&items);
    assert_eq!(step(&behind, true), Step::Each, "a deletecollection would take the same 200 for ever");
    assert_eq!(behind.pending, [Target { name: "b".to_owned(), uid: "uid-b".to_owned() }]);
    items.remove(0);
    assert_eq!(step(&survey(&items), true), Step::Collect);
}

#[test]
fn pages_are_read_for_the_count_and_further_only_for_work() {
    let held = [item("a", true, &["x/y"], None)];
    let live = [item("b", false, &[], None)];
    let mut survey = Survey::default();
    let read: Vec<bool> = (0..4).map(|_| survey.page(&held, true)).collect();
    assert_eq!(read, [true, true, true, true], "nothing to do yet: go on");
    assert!(!survey.page(&live, true), "counted enough, and there is work");
    assert!(!survey.exact);
    assert_eq!((survey.remaining, survey.finalizers["x/y"]), (5, 4));

    let mut survey = Survey::default();
    assert!(survey.page(&live, true));
    assert!(!survey.page(&live, false), "no further page");
    assert!(survey.exact && !survey.is_clear());
}

#[test]
fn a_list_that_failed_is_never_an_empty_one() {
    assert!(!Survey::default().is_clear());
    assert!(!broken("widgets", "503").is_clear());
    assert!(report("pods", survey(&[])).is_clear());
}

#[test]
fn other_kinds_wait_until_it_is_certain_that_no_pod_is_left() {
    let catalog = Catalog::default();
    let silent = Catalog {
        failures: vec![Failure { group_version: "v1".to_owned(), reason: "503".to_owned() }],
        ..Catalog::default()
    };
    assert!(no_pods(Some(&report("pods", survey(&[]))), &catalog));
    assert!(!no_pods(Some(&report("pods", survey(&[item("p", true, &[], Some(30))]))), &catalog));
    assert!(!no_pods(Some(&broken("pods", "503")), &catalog));
    assert!(no_pods(None, &catalog), "a server without pods");
    assert!(!no_pods(None, &silent), "a core group that did not answer");
}

#[tokio::test(start_paused = true)]
async fn refused_requests_are_spared_for_a_while() {
    let memory = Unsupported::default();
    let pods = Kind::of::<Pod>();
    assert!(!memory.recently(&pods, Request::List));
    memory.refused(&pods, Request::List);
    assert!(memory.recently(&pods, Request::List));
    assert!(!memory.recently(&pods, Request::DeleteCollection));
    tokio::time::advance(seconds(61)).await;
    assert!(!memory.recently(&pods, Request::List), "the kind may have been defined anew");
}

// --- the whole pass ---

#[test]
fn a_namespace_goes_only_when_found_empty_after_it_settled() {
    let empty = || outcome(vec![report("pods", survey(&[]))]);
    let swept = Outcome { untouched: false, ..empty() };
    let silent = Outcome { failures: vec![silent_group()], ..empty() };
    let odd = Outcome { unparsable: vec!["a/b/c".to_owned()], ..empty() };
    let held = || survey(&[item("a", true, &["x/y"], None)]);
    let ms = Duration::from_millis;
    let fail = |text: &str| Verdict::Failed(text.to_owned());
    let cases: Vec<(&str, Outcome, Duration, Verdict)> = vec![
        ("empty and settled", empty(), SETTLE, Verdict::Finish),
        ("empty, not settled", empty(), ms(100), Verdict::Again(ms(400))),
        ("emptied by this pass", swept.clone(), seconds(9), Verdict::Again(ms(1))),
        ("emptied early", swept, ms(200), Verdict::Again(ms(300))),
        ("a silent group", silent, seconds(9), fail("metrics.k8s.io/v1beta1: 503")),
        ("an odd group version", odd, seconds(9), fail("unexpected group version \"a/b/c\"")),
        ("held, at first", outcome(vec![report("pods", held())]), ms(20), Verdict::Again(ms(50))),
        ("held, later", outcome(vec![report("pods", held())]), seconds(10), Verdict::Again(seconds(2))),
        ("held, long", outcome(vec![report("pods", held())]), seconds(900), Verdict::Again(seconds(5))),
        ("only errors", outcome(vec![broken("widgets", "503")]), seconds(9), fail("503")),
        (
            "errors beside what moves",
            outcome(vec![broken("widgets", "503"), report("pods", held())]),
            seconds(5),
            Verdict::Again(seconds(1)),
        ),
    ];
    for (case, outcome, waited, expected) in cases {
        assert_eq!(verdict(&outcome, times(waited)), expected, "{case}");
    }
}

#[test]
fn the_time_a_pass_took_counts_for_the_settling() {
    let swept = Outcome { untouched: false, ..outcome(vec![report("pods", survey(&[]))]) };
    let after = |took| {
        let took = Duration::from_millis(took);
        verdict(&swept, Times { took, ..times(Duration::ZERO) })
    };
    assert_eq!(after(300), Verdict::Again(Duration::from_millis(200)));
    assert_eq!(after(4000), Verdict::Again(Duration::from_millis(1)));
    let untouched = Outcome { untouched: true, ..swept.clone() };
    let slow = Times { took: seconds(4), ..times(Duration::ZERO) };
    assert_eq!(verdict(&untouched, slow), Verdict::Again(Duration::from_millis(1)), "it looked too early");
}

#[test]
fn long_grace_periods_are_looked_at_less_often_within_the_flags() {
    let graceful = outcome(vec![report("pods", survey(&[item("p", true, &[], Some(3600))]))]);
    assert_eq!(verdict(&graceful, times(seconds(1000))), Verdict::Again(seconds(30)));
    let tight = Times { at_most: seconds(1), ..times(seconds(1000)) };
    assert_eq!(verdict(&graceful, tight), Verdict::Again(seconds(1)));
    let tiny = Times { at_most: Duration::from_millis(10), ..times(seconds(1000)) };
    assert_eq!(verdict(&graceful, tiny), Verdict::Again(Duration::from_millis(10)));
}

#[test]
fn what_blocks_is_named_once_it_lasts() {
    let mut all = outcome(vec![
        report("configmaps", survey(&[item("a", true, &["x/hold"], None), item("b", true, &["x/hold"], None)])),
        report("widgets", survey(&[item("w", true, &["x/hold"], None)])),
        broken("secrets", "list secrets: denied"),
        report("pods", survey(&[item("p", true, &[], Some(30))])),
    ]);
    all.failures = vec![silent_group()];
    assert_eq!(blocked(&all, seconds(1)), None);
    assert_eq!(
        blocked(&all, seconds(3)).expect("a silent group"),
        "Deletion waits for: API group metrics.k8s.io/v1beta1 does not answer: 503; secrets: list secrets: denied"
    );
    let late = blocked(&all, seconds(41)).expect("all of it");
    assert!(late.ends_with("; finalizer x/hold on configmaps, widgets.example.com; pods past their grace period"));
    assert_eq!(blocked(&outcome(vec![report("pods", survey(&[item("p", true, &[], Some(30))]))]), seconds(39)), None);

    let long = outcome(vec![broken("secrets", &"ä".repeat(2000))]);
    let message = blocked(&long, seconds(3)).expect("an error");
    assert!(message.len() <= 1000 && message.ends_with("..."));
}

// --- conditions ---

fn statuses(conditions: &[NamespaceCondition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason.as_deref().unwrap_or_default())).collect()
}

fn message(conditions: &[NamespaceCondition], type_: &str) -> String {
    let found = conditions.iter().find(|c| c.type_ == type_).expect("the condition");
    found.message.clone().expect("a message")
}

#[test]
fn all_five_conditions_are_true_to_life_while_pods_drain() {
    let mut drain = outcome(vec![
        report("pods", survey(&[item("p", true, &["x/p"], Some(30))])),
        report("widgets", survey(&[item("a", false, &["x/w"], None), item("b", false, &[], None)])),
        broken("secrets", "denied"),
    ]);
    drain.failures = vec![silent_group()];
    let now = Timestamp::from_second(1_704_067_200).expect("a time");
    let written = conditions::update(&[], &drain, now).expect("new conditions");
    assert_eq!(
        statuses(&written),
        [
            "NamespaceDeletionDiscoveryFailure True DiscoveryFailed",
            "NamespaceDeletionGroupVersionParsingFailure False ParsedGroupVersions",
            "NamespaceDeletionContentFailure True ContentDeletionFailed",
            "NamespaceContentRemaining True SomeResourcesRemain",
            "NamespaceFinalizersRemaining True SomeFinalizersRemain",
        ]
    );
    assert!(written.iter().all(|c| c.last_transition_time.as_ref().is_some_and(|t| t.0 == now)));
    assert_eq!(
        message(&written, "NamespaceContentRemaining"),
        "Some resources are remaining: pods. has 1 resource instances, widgets.example.com has 2 resource instances"
    );
    assert!(
        message(&written, "NamespaceFinalizersRemaining")
            .ends_with("x/p in 1 resource instances, x/w in 1 resource instances")
    );
    assert!(message(&written, "NamespaceDeletionContentFailure").contains("secrets: denied"));
    assert!(message(&written, "NamespaceDeletionDiscoveryFailure").contains("1 failing: metrics.k8s.io/v1beta1: 503"));
}

#[test]
fn conditions_are_written_only_when_they_change_and_keep_their_times() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let held = outcome(vec![report("pods", survey(&[item("p", true, &["x/p"], None)]))]);
    let foreign = NamespaceCondition { type_: "Mine".to_owned(), status: "True".to_owned(), ..Default::default() };
    let first = conditions::update(std::slice::from_ref(&foreign), &held, at(100)).expect("new conditions");
    assert_eq!(first[0], foreign);
    assert!(!conditions::present(std::slice::from_ref(&foreign)) && conditions::present(&first));
    assert_eq!(conditions::update(&first, &held, at(200)), None);

    let done = conditions::update(&first, &outcome(vec![]), at(300)).expect("changed conditions");
    let time = |type_: &str| {
        let found = done.iter().find(|c| c.type_ == type_).expect("the condition");
        (found.status.clone(), found.last_transition_time.as_ref().map(|t| t.0.as_second()))
    };
    assert_eq!(time("NamespaceContentRemaining"), ("False".to_owned(), Some(300)));
    assert_eq!(time("NamespaceDeletionContentFailure"), ("False".to_owned(), Some(100)));
    assert_eq!(done.len(), 6);
}

#[test]
fn counts_that_are_not_complete_say_so() {
    let mut partial = Survey::default();
    partial.page(&[item("a", false, &[], None)], true);
    let written = conditions::update(&[], &outcome(vec![report("widgets", partial)]), Timestamp::UNIX_EPOCH)
        .expect("new conditions");
    assert!(message(&written, "NamespaceContentRemaining").ends_with("has at least 1 resource instances"));
}

// --- discovery ---

fn listed(name: &str, namespaced: bool, verbs: &[&str]) -> ListedResource {
    serde_json::from_value(json!({"name": name, "namespaced": namespaced, "kind": "X", "verbs": verbs}))
        .expect("a resource")
}

#[test]
fn the_preferred_version_of_each_deletable_namespaced_resource_is_chosen() {
    let all = &["delete", "list", "deletecollection"];
    let catalog = choose(vec![
        Group {
            name: "b".to_owned(),
            preferred: Some("v2".to_owned()),
            versions: vec![
                ("v1".to_owned(), Ok(vec![listed("both", true, all), listed("old", true, &["delete"])])),
                ("v2".to_owned(), Ok(vec![listed("both", true, all), listed("both/status", true, all)])),
                ("v3".to_owned(), Err("503".to_owned())),
            ],
        },
        Group {
            name: String::new(),
            preferred: Some("v1".to_owned()),
            versions: vec![(
                "v1".to_owned(),
                Ok(vec![listed("nodes", false, all), listed("bindings", true, &["create"]), listed("pods", true, all)]),
            )],
        },
    ]);
    let found: Vec<_> = catalog
        .resources
        .iter()
        .map(|r| format!("{} {} {} {}", r.kind, r.kind.version, r.list, r.delete_collection))
        .collect();
    assert_eq!(found, ["pods v1 true true", "old.b v1 false false", "both.b v2 true true"]);
    assert_eq!(catalog.failures, [Failure { group_version: "b/v3".to_owned(), reason: "503".to_owned() }]);
}

#[test]
fn aggregated_discovery_is_read_and_stale_versions_are_failures() {
    let index: Index = serde_json::from_value(json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "freshness": "Current", "resources": [
                {"resource": "deployments", "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                 "scope": "Namespaced", "singularResource": "deployment", "verbs": ["delete", "list"],
                 "subresources": [{"subresource": "status", "verbs": ["get"]}]},
                {"resource": "clusterthings", "scope": "Cluster", "verbs": ["delete", "list"]},
            ]}]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [
                {"version": "v1beta1", "freshness": "Stale", "resources": []},
            ]},
        ],
    }))
    .expect("an index");
    let Index::Aggregated { items } = index else { panic!("{index:?}") };
    let catalog = choose(items.into_iter().map(Group::from).collect());
    assert_eq!(catalog.resources.len(), 1);
    assert_eq!(catalog.resources[0].kind, Kind::new("apps", "v1", "Deployment", "deployments", true));
    assert_eq!(catalog.failures[0].group_version, "metrics.k8s.io/v1beta1");
}

#[test]
fn plain_discovery_is_read() {
    let parse = |value: Value| serde_json::from_value::<Index>(value).expect("an index");
    let core = parse(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}));
    assert!(matches!(core, Index::Versions { versions } if versions == ["v1"]));
    let groups = parse(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        {"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
         "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"}},
    ]}));
    assert!(matches!(groups, Index::Groups { groups } if groups.len() == 1));
    assert!(serde_json::from_value::<Index>(json!({"kind": "Status", "code": 503})).is_err());

    assert_eq!(path_of("v1").as_deref(), Some("/api/v1"));
    assert_eq!(path_of("apps/v1").as_deref(), Some("/apis/apps/v1"));
    assert_eq!(path_of("a/b/c"), None);
    assert_eq!(path_of(""), None);
    assert_eq!(path_of("/v1"), None);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_serves_for_a_short_time_and_never_one_from_before_the_settling() {
    let asked = Instant::now();
    let whole = Catalog::default();
    let partial = Catalog { failures: vec![silent_group()], ..Catalog::default() };
    let cases = [
        (&whole, Duration::ZERO, seconds(4), true),
        (&whole, Duration::ZERO, seconds(6), false),
        (&whole, seconds(1), seconds(2), false),
        (&partial, Duration::ZERO, Duration::from_millis(900), true),
        (&partial, Duration::ZERO, seconds(2), false),
    ];
    for (catalog, not_before, now, expected) in cases {
        assert_eq!(usable(asked, catalog, asked + not_before, asked + now), expected, "{not_before:?} {now:?}");
    }
}

// --- the namespace object ---

fn namespace(value: Value) -> Namespace {
    serde_json::from_value(value).expect("a namespace")
}

fn deleting(finalizers: &[&str]) -> Namespace {
    namespace(json!({
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "5", "deletionTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"finalizers": finalizers}, "status": {"phase": "Active"},
    }))
}

#[test]
fn the_phase_is_set_once_and_only_while_deleting() {
    let live = namespace(json!({"metadata": {"name": "n"}, "status": {"phase": "Active"}}));
    assert_eq!(object::terminating(&live), None);
    let marked = object::terminating(&deleting(&["kubernetes"])).expect("a change");
    assert_eq!(marked.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Terminating"));
    assert_eq!(marked.metadata.resource_version.as_deref(), Some("5"));
    assert_eq!(object::terminating(&marked), None);
}

#[test]
fn only_our_finalizer_is_removed() {
    let next = object::finalized(&deleting(&["other", "kubernetes"])).expect("a change");
    assert_eq!(next.spec.and_then(|spec| spec.finalizers), Some(vec!["other".to_owned()]));
    assert_eq!(object::finalized(&deleting(&["other"])), None);
    assert!(object::goes_with_ours(&deleting(&["kubernetes"])));
    assert!(!object::goes_with_ours(&deleting(&["kubernetes", "other"])));
    let mut held = deleting(&["kubernetes"]);
    held.metadata.finalizers = Some(vec!["x/y".to_owned()]);
    assert!(!object::goes_with_ours(&held));
}

#[test]
fn only_the_start_of_a_deletion_calls_for_work() {
    let live =
        Arc::new(namespace(json!({"metadata": {"name": "n", "uid": "u"}, "spec": {"finalizers": ["kubernetes"]}})));
    let gone = Arc::new(deleting(&["kubernetes"]));
    let mut told = deleting(&["kubernetes"]);
    told.status.get_or_insert_default().conditions = Some(vec![NamespaceCondition::default()]);
    let told = Arc::new(told);
    let mut next = deleting(&["kubernetes"]);
    next.metadata.uid = Some("other".to_owned());
    let next = Arc::new(next);
    assert!(!calls_for_work(&Change::Added(&live)));
    assert!(calls_for_work(&Change::Added(&gone)));
    assert!(calls_for_work(&Change::Updated { old: &live, new: &gone }));
    assert!(!calls_for_work(&Change::Updated { old: &gone, new: &told }), "our own conditions");
    assert!(calls_for_work(&Change::Updated { old: &gone, new: &next }), "another namespace of that name");
    assert!(!calls_for_work(&Change::Deleted { last: &gone, is_final: true }));
}
