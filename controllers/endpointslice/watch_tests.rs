//! What wakes the controller, and what does not.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use quarterdeck_runtime::informer::Change;
use quarterdeck_runtime::object::ObjectKey;
use quarterdeck_runtime::view::{NodeView, PodPhase, PodView};

use super::fixtures::{World, node, numbered, pods};
use super::own_writes::OwnWrites;
use super::slice::{MANAGED_BY, SERVICE_NAME};
use super::watch::{NodeNews, Waiting, concerned, on_node, on_slice};

#[test]
fn most_updates_of_pods_concern_no_service() {
    type Edit = fn(&mut PodView);
    let edits: [(&str, Edit, usize); 14] = [
        ("version", |pod| pod.resource_version = "2".into(), 0),
        ("time of readiness", |pod| pod.ready_changed = Some(7), 0),
        ("pending to running", |pod| pod.phase = PodPhase::Pending, 0),
        ("readiness", |pod| pod.ready = false, 1),
        ("deletion", |pod| pod.deleting = true, 1),
        ("end", |pod| pod.phase = PodPhase::Succeeded, 1),
        ("bad end", |pod| pod.phase = PodPhase::Failed, 1),
        ("address", |pod| pod.ips = [].into(), 1),
        ("uid", |pod| pod.uid = "other".into(), 1),
        ("node", |pod| pod.node = None, 1),
        ("hostname", |pod| pod.hostname = Some("db".into()), 1),
        ("subdomain", |pod| pod.subdomain = Some("svc".into()), 1),
        ("labels", |pod| pod.labels = [("app", "other")].into_iter().collect(), 2),
        ("nothing", |_| {}, 0),
    ];
    for (what, edit, count) in edits {
        let old = Arc::new(numbered(1));
        let mut new = numbered(1);
        edit(&mut new);
        let new = Arc::new(new);
        assert_eq!(concerned(&Change::Updated { old: &old, new: &new }).count(), count, "{what}");
        assert_eq!(concerned(&Change::Updated { old: &new, new: &old }).count(), count, "{what}, undone");
    }
    let pod = Arc::new(numbered(1));
    assert_eq!(concerned(&Change::Added(&pod)).count(), 1);
    assert_eq!(concerned(&Change::Deleted { last: &pod, is_final: false }).count(), 1);
}

#[test]
fn slices_wake_their_service_when_someone_else_writes_them() {
    let slice = |version: &str, label: Option<(&str, &str)>| {
        let mut world = World::new(pods([1]));
        world.sync();
        world.tamper(0, |slice| {
            if let Some((name, value)) = label {
                slice.metadata.labels.as_mut().unwrap().insert(name.to_owned(), value.to_owned());
            }
        });
        let mut slice = EndpointSlice::clone(&world.slices[0]);
        slice.metadata.resource_version = Some(version.to_owned());
        Arc::new(slice)
    };
    let own = OwnWrites::default();
    let woken = |change: Change<'_, EndpointSlice>| {
        let mut keys = Vec::new();
        on_slice(&change, &own, |key, delay| {
            assert_eq!(delay, Duration::from_secs(1));
            keys.push(key.to_string());
        });
        keys
    };
    let nobody = Vec::<String>::new();
    let (five, six) = (slice("5", None), slice("6", None));
    assert_eq!(woken(Change::Added(&five)), ["ns/svc"], "not written by us");
    let key = ObjectKey::new("ns", five.metadata.name.as_deref().unwrap());
    own.begin(&key).wrote(Some(5));
    assert_eq!(woken(Change::Added(&five)), nobody, "our own write");
    assert_eq!(woken(Change::Updated { old: &five, new: &five }), nobody, "a re-list");
    assert_eq!(woken(Change::Updated { old: &five, new: &six }), ["ns/svc"]);
    let (theirs, moved) = (slice("7", Some((MANAGED_BY, "someone"))), slice("8", Some((SERVICE_NAME, "other"))));
    assert_eq!(woken(Change::Updated { old: &six, new: &theirs }), ["ns/svc"], "taken away");
    assert_eq!(woken(Change::Updated { old: &theirs, new: &six }), ["ns/svc"], "given back");
    assert_eq!(woken(Change::Updated { old: &theirs, new: &theirs }), nobody);
    assert_eq!(woken(Change::Updated { old: &six, new: &moved }), ["ns/other", "ns/svc"]);
    assert_eq!(woken(Change::Deleted { last: &theirs, is_final: true }), nobody);
    assert_eq!(woken(Change::Deleted { last: &six, is_final: true }), ["ns/svc"], "deleted by someone");
    own.begin_delete(&key).deleted();
    assert_eq!(woken(Change::Deleted { last: &six, is_final: true }), nobody, "deleted by us");
}

#[test]
fn nodes_matter_for_their_zone_cpus_and_readiness() {
    type Edit = fn(&mut NodeView);
    let edits: [(&str, Edit, NodeNews); 5] = [
        ("nothing", |_| {}, NodeNews::None),
        ("version", |node| node.resource_version = "2".into(), NodeNews::None),
        ("readiness", |node| node.ready = false, NodeNews::Shares),
        ("cpus", |node| node.allocatable_cpu_milli = 1, NodeNews::Shares),
        ("zone", |node| node.labels = std::iter::empty::<(&str, &str)>().collect(), NodeNews::Shares),
    ];
    for (what, edit, news) in edits {
        let old = Arc::new(node("n1", "a"));
        let mut new = node("n1", "a");
        edit(&mut new);
        assert_eq!(on_node(&Change::Updated { old: &old, new: &Arc::new(new) }), news, "{what}");
    }
    let node = Arc::new(node("n1", "a"));
    assert_eq!(on_node(&Change::Added(&node)), NodeNews::Appeared);
    assert_eq!(on_node(&Change::Deleted { last: &node, is_final: true }), NodeNews::Shares);
}

#[test]
fn services_wait_for_the_nodes_they_miss() {
    let waiting = Waiting::default();
    let (a, b) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"));
    waiting.set(&a, ["n1".into(), "n2".into()].into_iter());
    waiting.set(&b, ["n2".into()].into_iter());
    assert_eq!(waiting.for_node("n1"), std::slice::from_ref(&a));
    assert_eq!(waiting.for_node("n2").len(), 2);
    waiting.set(&a, std::iter::empty());
    assert_eq!(waiting.for_node("n1"), []);
    assert_eq!(waiting.for_node("n2"), [b]);
}
