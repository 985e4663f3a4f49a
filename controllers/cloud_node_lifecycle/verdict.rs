//! Which nodes are deleted, and which are kept although their instances are gone. Pure.

use std::fmt;

use quarterdeck_runtime::view::NodeView;
use tokio::time::Instant;

use super::absence::{Doubt, Suspect};

/// Labels of control-plane nodes: today's, and the one before it.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// Until there are so many nodes in the cluster, a pass deletes one at most.
const SMALL_CLUSTER: usize = 10;
/// So few absent nodes never trip the brake.
const BRAKE_MINIMUM: usize = 3;

/// What is weighed besides the nodes that seem to be gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Census {
    /// All nodes of the cluster.
    pub(super) in_cluster: usize,
    /// Those of this cloud.
    pub(super) in_cloud: usize,
    /// Control-plane nodes that are Ready.
    pub(super) ready_control_planes: usize,
    /// The moment of the judgement.
    pub(super) at: Instant,
    /// The same, in seconds since 1970.
    pub(super) now: i64,
    /// Nodes younger than this many seconds are kept.
    pub(super) grace: i64,
    /// Of how many nodes in a hundred the absence is believed.
    pub(super) percent: usize,
}

/// Why a node is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The cloud's answers do not count.
    Doubt(Doubt),
    /// Too many are absent at once.
    Brake {
        /// How many.
        absent: usize,
        /// Of how many.
        of: usize,
    },
    /// No other control-plane node is Ready.
    LastControlPlane,
}

impl Hold {
    /// Value of the label `reason` of the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Doubt(doubt) => doubt.reason(),
            Self::Brake { .. } => "brake",
            Self::LastControlPlane => "last_control_plane",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubt(doubt) => doubt.fmt(f),
            Self::Brake { absent, of } => write!(
                f,
                "{absent} of {of} nodes are absent at once, and so many are not believed; delete those that are gone \
                 yourself, or raise --cloud-node-deletion-brake"
            ),
            Self::LastControlPlane => f.write_str("no other control-plane node is Ready"),
        }
    }
}

/// What becomes of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is deleted.
    Delete,
    /// Nothing for now, and nothing to tell.
    Wait,
    /// It is kept, and somebody should know.
    Keep(Hold),
}

/// Whether it is a control-plane node.
pub(super) fn is_control_plane(node: &NodeView) -> bool {
    CONTROL_PLANE.iter().any(|label| node.labels.get(label).is_some())
}

/// What becomes of each node whose instance seems to be gone: all of those of one cloud, in order of preference.
pub(super) fn judge(census: &Census, suspects: &[(&NodeView, &Suspect)]) -> Vec<Verdict> {
    let (absent, of) = (suspects.len(), census.in_cloud);
    let braked = absent >= BRAKE_MINIMUM && absent * 100 > of * census.percent;
    let mut left = if census.in_cluster < SMALL_CLUSTER { 1 } else { usize::MAX };
    let mut one = |(node, suspect): &(&NodeView, &Suspect)| {
        if let Some(doubt) = &suspect.doubt {
            return if suspect.is_doubt_lasting() { Verdict::Keep(Hold::Doubt(doubt.clone())) } else { Verdict::Wait };
        }
        if braked {
            return Verdict::Keep(Hold::Brake { absent, of });
        }
        if !suspect.is_proven_at(census.at) || census.now.saturating_sub(node.created) < census.grace {
            return Verdict::Wait;
        }
        if is_control_plane(node) && census.ready_control_planes == 0 {
            return Verdict::Keep(Hold::LastControlPlane);
        }
        if left == 0 {
            return Verdict::Wait;
        }
        left -= 1;
        Verdict::Delete
    };
    suspects.iter().map(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quarterdeck_cloud::guard::Seen;
    use quarterdeck_cloud::model::{Lookup, Proof};

    use super::super::absence::{SPACING, Suspects};
    use super::*;

    const NOW: i64 = 10_000;

    fn census() -> Census {
        Census {
            in_cluster: 100,
            in_cloud: 100,
            ready_control_planes: 1,
            at: Instant::now() + SPACING,
            now: NOW,
            grace: 300,
            percent: 20,
        }
    }

    fn nodes(count: usize) -> Vec<NodeView> {
        let node = |index| NodeView { uid: format!("uid-{index}").into(), ..NodeView::named(&format!("n{index}")) };
        (0..count).map(node).collect()
    }

    /// Two answers, the second so much later.
    fn suspects(nodes: &[NodeView], apart: Duration, doubt: Option<&Doubt>) -> Suspects {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        for node in nodes {
            for at in [start, start + apart] {
                let lookup = Ok(Lookup::Absent(Proof { evidence: "404".to_owned() }));
                suspects.hear(node, &Seen { lookup, account: "a".into(), at, snapshot: 1 }, doubt);
            }
        }
        suspects
    }

    fn judged(census: &Census, nodes: &[NodeView], apart: Duration, doubt: Option<&Doubt>) -> Vec<Verdict> {
        let suspects = suspects(nodes, apart, doubt);
        let pairs: Vec<_> = nodes.iter().map(|node| (node, suspects.get(node).unwrap())).collect();
        judge(census, &pairs)
    }

    fn deleted(census: &Census, nodes: &[NodeView]) -> usize {
        judged(census, nodes, SPACING, None).iter().filter(|verdict| **verdict == Verdict::Delete).count()
    }

    #[test]
    fn proof_is_needed() {
        assert_eq!(judged(&census(), &nodes(1), SPACING, None), [Verdict::Delete]);
        assert_eq!(judged(&census(), &nodes(1), SPACING - Duration::from_millis(1), None), [Verdict::Wait]);
        let kept = Verdict::Keep(Hold::Doubt(Doubt::NoWitness));
        assert_eq!(judged(&census(), &nodes(1), SPACING, Some(&Doubt::NoWitness)), [kept]);
    }

    #[test]
    fn young_nodes_have_grace() {
        let of_age = |age: i64| {
            let node = NodeView { created: NOW - age, ..nodes(1).remove(0) };
            judged(&census(), &[node], SPACING, None).remove(0)
        };
        assert_eq!([of_age(299), of_age(300), of_age(-5)], [Verdict::Wait, Verdict::Delete, Verdict::Wait]);
    }

    #[test]
    fn many_at_once_are_not_believed() {
        let of = |in_cloud| Census { in_cloud, ..census() };
        assert_eq!(deleted(&of(100), &nodes(20)), 20, "a fifth is believed");
        assert_eq!(deleted(&of(100), &nodes(21)), 0);
        assert_eq!(deleted(&of(4), &nodes(2)), 2, "so few never are too many");
        assert_eq!(deleted(&of(4), &nodes(3)), 0);
        assert_eq!(deleted(&Census { percent: 100, ..of(3) }, &nodes(3)), 3, "it can be released");
        let kept = Verdict::Keep(Hold::Brake { absent: 3, of: 4 });
        assert!(
            judged(&of(4), &nodes(3), Duration::ZERO, None).iter().all(|verdict| *verdict == kept),
            "also before proof"
        );
    }

    #[test]
    fn a_small_cluster_loses_one_node_at_a_time() {
        assert_eq!(deleted(&Census { in_cluster: 9, ..census() }, &nodes(2)), 1);
        assert_eq!(deleted(&Census { in_cluster: 10, ..census() }, &nodes(2)), 2);
    }

    #[test]
    fn the_last_control_plane_node_stays() {
        for label in CONTROL_PLANE {
            let node = NodeView { labels: [(label, "")].into_iter().collect(), ..nodes(1).remove(0) };
            let none_left = Census { ready_control_planes: 0, ..census() };
            assert_eq!(
                judged(&none_left, std::slice::from_ref(&node), SPACING, None),
                [Verdict::Keep(Hold::LastControlPlane)]
            );
            assert_eq!(judged(&census(), &[node], SPACING, None), [Verdict::Delete], "{label}");
        }
    }
}
