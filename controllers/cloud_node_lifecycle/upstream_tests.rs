//! The rows of upstream's own tests of this controller, by their names
//! (k8s.io/cloud-provider:controllers/nodelifecycle/node_lifecycle_controller_test.go v0.36.3). Rows that it has once
//! for each of its two interfaces of instances stand here once. Where we answer otherwise the row says so, and
//! `docs/controllers/cloud-node-lifecycle-controller.md` says why.

use std::sync::Arc;
use std::time::Duration;

use quarterdeck_cloud::CloudError;
use quarterdeck_cloud::guard::Seen;
use quarterdeck_cloud::model::{Instance, Lookup, Proof};
use quarterdeck_runtime::view::{NodeView, Taint};
use tokio::time::Instant;

use super::absence::{Record, SPACING, Suspects, doubt_of};
use super::look::{Sign, parted, sign};
use super::taint;
use super::verdict::{Census, Verdict, judge};

type Answer = Result<Lookup, CloudError>;

/// What becomes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Deleted,
    /// It gets the taint of instances that are shut down.
    Tainted,
    /// It loses it.
    Untainted,
    Kept,
}
use End::{Deleted, Kept, Tainted, Untainted};

fn found(shutdown: bool) -> Answer {
    Ok(Lookup::Found(Box::new(Instance {
        provider_id: "foo://12345".to_owned(),
        instance_type: String::new(),
        addresses: Vec::new(),
        zone: String::new(),
        region: String::new(),
        labels: Default::default(),
        shutdown,
    })))
}

fn absent() -> Answer {
    Ok(Lookup::Absent(Proof { evidence: "404".to_owned() }))
}

fn failed() -> Answer {
    Err(CloudError::Other("err!".to_owned()))
}

/// `node0`, long since made.
fn node(ready: bool, provider_id: Option<&str>) -> NodeView {
    NodeView { uid: "uid-0".into(), provider_id: provider_id.map(Into::into), ready, ..NodeView::named("node0") }
}

/// What a cloud that says this, again and again, makes of a node that stands beside a Ready one.
fn end(node: &NodeView, answer: &Answer) -> End {
    let witness = NodeView { uid: "uid-w".into(), ..self::node(true, Some("foo://w")) };
    let witness = Arc::new(NodeView { key: NodeView::named("witness").key, ..witness });
    let all = [Arc::new(node.clone()), Arc::clone(&witness)];
    let (ready, troubled) = parted(&all, &["foo".to_owned()]);
    if ready.iter().any(|one| one.uid == node.uid) {
        return if taint::patch(node, false).is_some() { Untainted } else { Kept };
    }
    if troubled.is_empty() {
        return Kept;
    }
    match sign(answer) {
        Sign::Shut => return if taint::patch(node, true).is_some() { Tainted } else { Kept },
        Sign::Nothing | Sign::Unknown(_) => return Kept,
        Sign::Gone => {}
    }
    let (mut suspects, start, account) = (Suspects::default(), Instant::now(), Arc::<str>::from("a"));
    for at in [start, start + SPACING] {
        let seen = |lookup: Answer| Seen { lookup, account: Arc::clone(&account), at, snapshot: 1 };
        let (gone, beside) = (seen(answer.clone()), seen(found(false)));
        let doubt = doubt_of(&[(node, &gone), (&witness, &beside)], Record { name: "foo", account: Some(&account) });
        suspects.hear(node, &gone, doubt.as_ref());
    }
    let census = Census {
        in_cluster: 2,
        in_cloud: 2,
        ready_control_planes: 1,
        at: start + SPACING + Duration::from_secs(1),
        now: 10_000,
        grace: 300,
        percent: 20,
    };
    match judge(&census, &[(node, suspects.get(node).unwrap())])[..] {
        [Verdict::Delete] => Deleted,
        _ => Kept,
    }
}

/// Upstream tells `False` from `Unknown`; both are not Ready.
#[test]
fn nodes_deleted() {
    let id = Some("foo://12345");
    for (row, node, answer, expected) in [
        ("node is not ready and does not exist", node(false, id), absent(), Deleted),
        // There nodes without a providerID are deleted, by name.
        ("node is not ready and does not exist, no providerID", node(false, None), absent(), Kept),
        ("node is not ready and provider returns err", node(false, id), failed(), Kept),
        ("node is not ready but still exists", node(false, id), found(false), Kept),
        ("node ready condition is unknown, node doesn't exist", node(false, id), absent(), Deleted),
        ("node ready condition is unknown, node exists", node(false, id), found(false), Kept),
        ("node is ready, but provider said it is deleted (maybe a bug in provider)", node(true, id), absent(), Kept),
    ] {
        assert_eq!(end(&node, &answer), expected, "{row}");
    }
}

#[test]
fn nodes_shutdown() {
    let id = Some("foo://12345");
    let shut = |ready| {
        let key = "node.cloudprovider.kubernetes.io/shutdown";
        let taint = Taint { key: key.into(), value: "".into(), effect: "NoSchedule".into(), time_added: None };
        NodeView { taints: [taint].into(), ..node(ready, id) }
    };
    let not_found = || Err(CloudError::NotFound("instance not found".to_owned()));
    for (row, node, answer, expected) in [
        ("node is not ready and was shutdown, but exists", node(false, id), found(true), Tainted),
        // There it is tainted: it is asked for by name. Here it is left alone until it has a providerID.
        (
            "node with empty spec providerID is not ready and was shutdown, but exists",
            node(false, None),
            found(true),
            Kept,
        ),
        // There it is deleted.
        (
            "node with non-existing providerID (missing in cloud provider) gets deleted",
            node(false, None),
            absent(),
            Kept,
        ),
        ("node with error when getting providerID does not have shutdown taint", node(false, None), failed(), Kept),
        // There it is deleted: an error is taken for absence. Here no error is.
        ("node with InstanceID returning InstanceNotFound gets deleted", node(false, id), not_found(), Kept),
        // There it is deleted, since the fake says that it does not exist; whether it is shut down is part of one
        // answer here, and an error of it is an error.
        ("node is not ready, but there is error checking if node is shutdown", node(false, id), failed(), Kept),
        ("node is not ready and is not shutdown", node(false, id), absent(), Deleted),
        ("node is ready but provider says it's shutdown (maybe a bug by provider)", node(true, id), found(true), Kept),
        ("node is shutdown but provider says it does not exist", shut(false), absent(), Deleted),
        // Upstream has no rows of these.
        ("a node that is Ready again loses the taint", shut(true), found(false), Untainted),
        ("a node that has the taint is not written again", shut(false), found(true), Kept),
    ] {
        assert_eq!(end(&node, &answer), expected, "{row}");
    }
}

/// Upstream asks the cloud for the providerID of a node that has none. Here only the node's own counts: the cloud node
/// controller writes it there.
#[test]
fn get_provider_id() {
    for (row, own, looked_at) in [
        ("node initialized with provider ID", Some("fake://12345"), true),
        ("node initialized with provider ID with InstancesV2", Some("fake://12345"), true),
        ("cloud implemented with Instances", None, false),
        ("cloud implemented with InstancesV2", None, false),
        ("cloud implemented with InstancesV2 (without providerID)", None, false),
        ("cloud implemented with Instances with instance missing", None, false),
        ("cloud implemented with Instances with unknown error", None, false),
        ("an id of another cloud", Some("other://12345"), false),
    ] {
        let (_, troubled) = parted(&[Arc::new(node(false, own))], &["fake".to_owned()]);
        assert_eq!(!troubled.is_empty(), looked_at, "{row}");
    }
}
