use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::runtime::Handle;

use super::*;
use crate::client::Expect;
use crate::informer::fake_server::FakeServer;
use crate::informer::{Change, Freshness, Informers, Lister, Selection};
use crate::object::{Kind, ObjectKey, Typed};
use crate::view::PodView;

/// A process with one informer of pods, and its server.
struct World {
    server: FakeServer,
    informers: Informers,
    pods: Lister<PodView>,
    audits: Vec<Arc<Mutex<Audit>>>,
}

/// What a handler believes, and what it was told that contradicts it.
#[derive(Default)]
struct Audit {
    present: BTreeMap<String, (String, String)>,
    faults: Vec<String>,
}

fn state_of(pod: &PodView) -> (String, String) {
    (pod.uid.to_string(), pod.resource_version.to_string())
}

impl Audit {
    fn told(&mut self, change: &Change<'_, PodView>) {
        let name = change.object().key.name().to_owned();
        let known = self.present.get(&name).cloned();
        let consistent = match change {
            Change::Added(_) => known.is_none(),
            Change::Updated { old, new } => known == Some(state_of(old)) && old.uid == new.uid,
            Change::Deleted { last, is_final: false } => known == Some(state_of(last)),
            Change::Deleted { last, is_final: true } => known.as_ref().is_some_and(|(uid, _)| **uid == *last.uid),
        };
        if !consistent {
            self.faults.push(format!("told {change:?} while believing {known:?}"));
        }
        match change {
            Change::Deleted { .. } => self.present.remove(&name),
            Change::Added(pod) | Change::Updated { new: pod, .. } => self.present.insert(name, state_of(pod)),
        };
    }
}

impl World {
    fn new() -> Self {
        let (server, informers) = (FakeServer::new(), Informers::new());
        let pods = informers.typed(Selection::default());
        Self { server, informers, pods, audits: Vec::new() }
    }

    fn start(&self) {
        self.informers.start(Arc::new(self.server.clone()), Handle::current());
    }

    fn add_handler(&mut self) {
        let audit = Arc::new(Mutex::new(Audit::default()));
        self.audits.push(Arc::clone(&audit));
        self.pods.on_change(move |change| audit.lock().told(&change));
    }

    /// Waits until a condition holds; it is looked at whenever the informer moves.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let mut moved = pin!(self.pods.shared.core.progress.moved.notified());
            moved.as_mut().enable();
            if holds(self) {
                return;
            }
            moved.await;
        }
    }

    /// Waits until the informer follows the server again and has seen all.
    async fn settle(&self) {
        self.settle_with(1).await;
    }

    /// The same, with this many informers at the server.
    async fn settle_with(&self, informers: usize) {
        if self.pods.status().state == State::Watching {
            // What was cut silently shows with the next request only.
            self.server.bookmark();
        }
        let seen = |world: &Self| {
            let status = world.pods.status();
            status.state == State::Watching
                && world.server.watches() == informers
                && status.version == world.server.version().to_string()
        };
        for round in 0.. {
            if seen(self) {
                return;
            }
            assert!(round < 50_000, "never settles: {:?}", self.pods.status());
            tokio::task::yield_now().await;
            self.server.bookmark();
            // Time is paused: it moves on to the next retry only when nothing else can be done.
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Compares the store with the server, and handlers with the store.
    fn check(&self) {
        let present: BTreeMap<_, _> =
            self.pods.all().iter().map(|pod| (pod.key.name().to_owned(), state_of(pod))).collect();
        let stored = self.server.pods();
        for (name, pod) in &stored {
            let held = present.get(name);
            if pod.broken {
                let was_real = held.is_none_or(|(uid, version)| self.server.was(name, uid, version.parse().unwrap()));
                assert!(was_real, "{name}: {held:?} never was");
            } else {
                assert_eq!(held, Some(&(pod.uid.clone(), pod.version.to_string())), "{name}");
            }
        }
        assert_eq!(present.keys().find(|name| !stored.contains_key(*name)), None, "held, but gone from the server");
        for audit in &self.audits {
            let audit = audit.lock();
            assert_eq!(audit.faults, Vec::<String>::new());
            assert_eq!(audit.present, present);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8),
    PutBroken(u8),
    Delete(u8),
    Skip,
    Bookmark,
    Cut { dirty: bool },
    Compact,
    FailWatches(u16),
    FailNext(u16),
    BreakNextStream(usize),
    RefuseStreams(bool),
    Garbage,
    AddHandler,
    Wait(u8),
    Chunk(usize),
    Yield,
    Settle,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (0..8_u8).prop_map(Op::Put),
        2 => (0..8_u8).prop_map(Op::PutBroken),
        6 => (0..8_u8).prop_map(Op::Delete),
        1 => Just(Op::Skip),
        1 => Just(Op::Bookmark),
        2 => any::<bool>().prop_map(|dirty| Op::Cut { dirty }),
        2 => Just(Op::Compact),
        2 => prop_oneof![Just(410), Just(500)].prop_map(Op::FailWatches),
        2 => prop_oneof![Just(500), Just(403), Just(404), Just(410), Just(429)].prop_map(Op::FailNext),
        1 => (0..400_usize).prop_map(Op::BreakNextStream),
        1 => any::<bool>().prop_map(Op::RefuseStreams),
        1 => Just(Op::Garbage),
        1 => Just(Op::AddHandler),
        1 => (0..8_u8).prop_map(Op::Wait),
        1 => (1..200_usize).prop_map(Op::Chunk),
        4 => Just(Op::Yield),
        3 => Just(Op::Settle),
    ]
}

async fn live(ops: Vec<Op>) {
    let mut world = World::new();
    world.add_handler();
    let (calls, mut waits) = (Arc::new(AtomicUsize::new(0)), 0);
    world.start();
    for op in ops.into_iter().chain([Op::Settle]) {
        match op {
            Op::Put(name) => world.server.put(&name.to_string(), false),
            Op::PutBroken(name) => world.server.put(&name.to_string(), true),
            Op::Delete(name) => world.server.delete(&name.to_string()),
            Op::Skip => world.server.skip(),
            Op::Bookmark => world.server.bookmark(),
            Op::Cut { dirty } => world.server.cut(dirty),
            Op::Compact => world.server.compact(),
            Op::FailWatches(code) => world.server.fail_watches(code),
            Op::FailNext(code) => world.server.fail_next(code),
            Op::BreakNextStream(after) => world.server.break_next_stream(after),
            Op::RefuseStreams(refuse) => world.server.refuse_streams(refuse),
            Op::Garbage => world.server.send("<html>\n"),
            Op::AddHandler => world.add_handler(),
            Op::Wait(name) => {
                waits += 1;
                let calls = Arc::clone(&calls);
                let (kind, key) = (PodView::kind(), ObjectKey::new("n", name.to_string()));
                let expect = Expect::AtLeast(world.server.version());
                world.informers.when_visible(&kind, &key, &expect, move || {
                    calls.fetch_add(1, Ordering::SeqCst);
                });
            }
            Op::Chunk(size) => world.server.set_chunk(size),
            Op::Yield => tokio::task::yield_now().await,
            Op::Settle => {
                world.settle().await;
                world.check();
                assert_eq!(calls.load(Ordering::SeqCst), waits, "all that was awaited shows");
            }
        }
    }
}

fn in_paused_time(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_store_equals_the_server(ops in prop::collection::vec(op(), 0..80)) {
        in_paused_time(live(ops));
    }
}

/// A started world with these pods, synced.
async fn world_with(names: &[&str]) -> World {
    let mut world = World::new();
    names.iter().for_each(|name| world.server.put(name, false));
    world.add_handler();
    world.start();
    world.settle().await;
    world
}

/// Requests after the first `skip`, without what is the same in all.
fn requests(world: &World, skip: usize) -> Vec<String> {
    let short = |uri: &String| {
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let told = query.split('&').filter(|pair| !pair.starts_with("timeoutSeconds") && *pair != "watch=1");
        told.filter(|pair| *pair != "allowWatchBookmarks=true").collect::<Vec<_>>().join("&")
    };
    world.server.requests().iter().skip(skip).map(short).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_resumed_after_the_last_version_without_a_list() {
    let world = world_with(&["a"]).await;
    world.server.put("b", false);
    world.settle().await;
    world.server.skip();
    world.server.bookmark();
    world.settle().await;
    world.server.cut(false);
    world.server.put("c", false);
    world.settle().await;
    world.check();
    assert_eq!(
        requests(&world, 0),
        ["sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "resourceVersion=103"]
    );
    assert_eq!(world.pods.status().relists, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_replaced_by_pages() {
    let mut world = World::new();
    (0..7).for_each(|n| world.server.put(&n.to_string(), false));
    world.server.refuse_streams(true);
    world.add_handler();
    world.start();
    world.settle().await;
    world.check();
    assert_eq!(
        requests(&world, 1),
        ["limit=500", "limit=500&continue=107.3", "limit=500&continue=107.6", "resourceVersion=107"]
    );
}

#[tokio::test(start_paused = true)]
async fn pages_that_expire_are_replaced_by_a_whole_list() {
    let world = World::new();
    (0..7).for_each(|n| world.server.put(&n.to_string(), false));
    world.server.refuse_streams(true);
    world.server.expire_pages();
    world.start();
    world.settle().await;
    world.check();
    assert_eq!(requests(&world, 1), ["limit=500", "limit=500&continue=107.3", "", "resourceVersion=107"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_the_wish_for_a_stream_is_listed_in_pages() {
    let world = World::new();
    (0..4).for_each(|n| world.server.put(&n.to_string(), false));
    world.server.ignore_streams();
    world.start();
    world.settle().await;
    world.check();
    assert_eq!(requests(&world, 1), ["limit=500", "limit=500&continue=104.3", "resourceVersion=104"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_after_410_finds_what_is_gone() {
    let world = world_with(&["a", "b"]).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    world.pods.on_change(move |change| {
        if let Change::Deleted { last, is_final } = change {
            log.lock().push((last.key.name().to_owned(), is_final));
        }
    });
    world.server.cut(false);
    world.server.delete("a");
    world.server.compact();
    world.settle().await;
    world.server.delete("b");
    world.settle().await;
    world.check();
    assert_eq!(*told.lock(), [("a".to_owned(), false), ("b".to_owned(), true)]);
    assert_eq!(world.pods.status().relists, 1);
}

#[tokio::test(start_paused = true)]
async fn half_a_list_removes_nothing() {
    for refuses_streams in [false, true] {
        let world = world_with(&["a", "b", "c", "d", "e"]).await;
        world.server.refuse_streams(refuses_streams);
        world.server.break_next_stream(300);
        world.server.expire_pages();
        world.pods.on_change(|change| assert!(!matches!(change, Change::Deleted { .. }), "{change:?}"));
        let panics = world.pods.shared.core.counters.handler_panics.clone();
        world.server.fail_watches(410);
        world.settle().await;
        world.check();
        assert_eq!((panics.get(), world.pods.status().relists), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_show_what_is_held() {
    let world = world_with(&["a", "b"]).await;
    let registry = prometheus::Registry::new();
    world.informers.register(&registry).unwrap();
    world.server.put("b", true);
    world.settle().await;
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let pods = r#"group="",resource="pods",version="v1""#;
    for line in [
        format!("quarterdeck_informer_objects{{{pods}}} 2"),
        format!("quarterdeck_informer_synced{{{pods}}} 1"),
        format!("quarterdeck_informer_watching{{{pods}}} 1"),
        format!("quarterdeck_informer_lists_total{{{pods}}} 1"),
        format!("quarterdeck_informer_decode_errors_total{{{pods}}} 1"),
        r#"informer_store_resource_version{group="",name="quarterdeck",resource="pods",version="v1"} 103"#.to_owned(),
    ] {
        assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_object_keeps_its_last_good_state_through_lists() {
    let world = world_with(&["a"]).await;
    world.server.put("a", true);
    world.server.put("b", false);
    world.settle().await;
    assert_eq!(&*world.pods.get(&ObjectKey::new("n", "a")).unwrap().resource_version, "101");
    world.server.fail_watches(410);
    world.settle().await;
    world.check();
    assert_eq!(&*world.pods.get(&ObjectKey::new("n", "a")).unwrap().resource_version, "101");
    assert_eq!(world.pods.status().decode_errors, 2);
    world.server.delete("a");
    world.settle().await;
    assert!(world.pods.get(&ObjectKey::new("n", "a")).is_none());
}

#[tokio::test(start_paused = true)]
async fn refused_reads_and_unserved_kinds_are_states_and_remove_nothing() {
    let world = world_with(&["a"]).await;
    for (code, expected) in [
        (403, State::Forbidden("status 403".into())),
        (404, State::NotServed),
        (500, State::Retrying("status 500".into())),
    ] {
        world.server.fail_next(code);
        world.server.cut(false);
        world.until(|world| world.pods.status().state == expected).await;
        assert!(world.pods.has_synced() && world.pods.len() == 1);
        world.settle().await;
        world.check();
    }
    assert_eq!(world.pods.status().relists, 1, "only a kind that was not served is listed again");
}

#[tokio::test(start_paused = true)]
async fn a_retry_may_be_asked_for() {
    let world = World::new();
    (0..20).for_each(|_| world.server.fail_next(404));
    world.start();
    world.until(|world| world.pods.status().state == State::NotServed).await;
    let before = Instant::now();
    for asked in 2..10 {
        world.informers.retry_now(&PodView::kind());
        while world.server.requests().len() < asked {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up() {
    let world = world_with(&["a"]).await;
    let before = world.server.requests().len();
    let begun = Instant::now();
    world.until(|world| world.server.requests().len() > before).await;
    assert!(begun.elapsed() <= Duration::from_secs(WATCH_SECONDS.end) + GRACE + Duration::from_secs(31));

    world.settle().await;
    world.server.bookmark();
    world.settle().await;
    let begun = Instant::now();
    let before = world.server.requests().len();
    world.until(|world| world.server.requests().len() > before).await;
    assert!(begun.elapsed() <= SILENT_WATCH + Duration::from_secs(31), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_index_does_not_end_the_informer() {
    let world = World::new();
    static PANICS: AtomicUsize = AtomicUsize::new(2);
    world.pods.add_index(crate::informer::Index {
        name: "treacherous",
        keys: |_, _| {
            let left = PANICS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            assert!(left.is_err(), "on purpose");
        },
    });
    world.server.put("a", false);
    world.start();
    world.settle().await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_stopped_informer_asks_for_nothing_more() {
    let world = World::new();
    let kind = Kind::new("", "v1", "Pod", "pods", true);
    let dynamic = world.informers.dynamic::<crate::view::Metadata>(kind.clone(), Selection::default());
    world.server.put("a", false);
    world.start();
    world.settle_with(2).await;
    assert_eq!(dynamic.len(), 1);
    world.informers.stop(&kind);
    while world.server.watches() == 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(dynamic.status().state, State::Stopped);
    assert_eq!(dynamic.len(), 1, "the last state stays");
    world.settle().await;
}

async fn barrier(world: &World, version: u64) -> Freshness {
    world.informers.barrier(world.pods.kind(), version, Duration::from_secs(1)).await.remove(0).1
}

#[tokio::test(start_paused = true)]
async fn the_barrier_asks_the_server_only_where_it_must() {
    let world = world_with(&["a"]).await;
    let before = world.server.requests().len();
    assert_eq!(barrier(&world, 101).await, Freshness::Current);
    assert_eq!(world.server.requests().len(), before);

    world.server.skip();
    assert_eq!(barrier(&world, 102).await, Freshness::Asked);
    assert_eq!(world.server.requests().len(), before + 1);

    world.server.refuse_streams(true);
    assert_eq!(barrier(&world, 102).await, Freshness::Asked);
    assert!(requests(&world, before + 2)[0].starts_with("limit=1&fieldSelector"));
}

#[tokio::test(start_paused = true)]
async fn after_the_barrier_the_store_shows_what_lay_in_the_stream() {
    let world = world_with(&["a"]).await;
    world.server.set_chunk(1);
    for round in 0..50 {
        world.server.put("b", false);
        world.server.skip();
        let version = world.server.version();
        assert_eq!(barrier(&world, version).await, Freshness::Asked, "round {round}");
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn the_barrier_reports_who_is_late() {
    let world = World::new();
    assert_eq!(barrier(&world, 1).await, Freshness::Unsynced);
    let world = world_with(&["a"]).await;
    world.server.fail_next(403);
    world.server.cut(false);
    world.until(|world| matches!(world.pods.status().state, State::Forbidden(_))).await;
    assert_eq!(barrier(&world, 900).await, Freshness::Late("status 403".into()));

    let world = world_with(&["a"]).await;
    (0..10).for_each(|_| world.server.fail_next(500));
    world.server.cut(false);
    world.until(|world| matches!(world.pods.status().state, State::Retrying(_))).await;
    let begun = Instant::now();
    assert!(matches!(barrier(&world, 900).await, Freshness::Late(_)));
    assert!(begun.elapsed() <= Duration::from_secs(1));
}
