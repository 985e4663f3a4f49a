//! The cases, each a function named after it.

mod balancer;
mod balancer_life;
mod instance;
mod provider;
mod route;

use std::pin::Pin;

use crate::suite::{Outcome, Suite};

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its id, such as `L3`.
    pub id: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// Runs it.
    pub run: for<'a> fn(&'a Suite) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>,
}

macro_rules! cases {
    ($($id:literal $title:literal $room:ident::$name:ident,)+) => {
        /// All cases, in order.
        pub const CASES: &[Case] = &[
            $(Case { id: $id, title: $title, run: |suite| Box::pin($room::$name(suite)) },)+
        ];
    };
}

cases! {
    "I1" "metadata by providerID" instance::i1_metadata_by_id,
    "I2" "metadata by name" instance::i2_metadata_by_name,
    "I3" "the providerID never changes" instance::i3_id_stable,
    "I4" "stopped: exists, and is shut down" instance::i4_stopped,
    "I5" "terminated: absent, with proof" instance::i5_terminated,
    "I6" "foreign and malformed ids are not mine" instance::i6_foreign,
    "I7" "a batch answers as its single questions do" instance::i7_batch,
    "I8" "a bad id harms no other" instance::i8_bad_id,
    "I9" "addresses of both families, in order" instance::i9_dual_stack,
    "I10" "labels, none of Kubernetes' own" instance::i10_labels,
    "L1" "a load balancer is made" balancer_life::l1_create,
    "L2" "ensuring it again changes nothing" balancer_life::l2_again,
    "L3" "eight at once make one" balancer_life::l3_concurrent,
    "L4" "ports change; TCP and UDP on one" balancer::l4_ports,
    "L5" "updating backends changes nothing else" balancer::l5_backends,
    "L6" "without nodes it keeps its address" balancer::l6_no_nodes,
    "L7" "source ranges" balancer::l7_source_ranges,
    "L8" "the health check node port" balancer::l8_health_port,
    "L9" "session affinity" balancer::l9_affinity,
    "L10" "no longer wanted, then wanted again" balancer_life::l10_type_change,
    "L11" "deleting twice, and what never was" balancer_life::l11_delete_twice,
    "L12" "deleting what was made half-way" balancer_life::l12_partial,
    "L13" "a new name keeps the address" balancer_life::l13_rename,
    "L14" "one name in two clusters" balancer_life::l14_two_clusters,
    "L15" "a new uid is another load balancer" balancer_life::l15_new_uid,
    "L16" "others' load balancers are untouched" balancer_life::l16_others,
    "L17" "implemented elsewhere, said so that it is understood" balancer_life::l17_elsewhere,
    "L18" "the list comes in pages, each one once" balancer_life::l18_paged,
    "R1" "a route is made, listed, deleted" route::r1_life,
    "R2" "making it twice" route::r2_create_twice,
    "R3" "deleting it twice" route::r3_delete_twice,
    "R4" "others' routes are untouched" route::r4_foreign,
    "R5" "a route to nowhere says so" route::r5_blackhole,
    "R6" "replacing without a gap" route::r6_replace,
    "R7" "two networks of one node" route::r7_two_networks,
    "R8" "more than 200 routes, in pages" route::r8_paged,
    "P1" "it can be probed" provider::p1_probe,
    "P2" "it can what it says, and no more" provider::p2_capabilities,
    "P3" "a call ends at its deadline" provider::p3_deadline,
    "P4" "a call that is cancelled ends, and does nothing" provider::p4_cancel,
    "P5" "while it restarts it is unavailable" provider::p5_restart,
}
