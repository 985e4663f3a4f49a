//! The engine over a scripted controller: what one reconcile does to the others, and to its own next one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::client::tests::server::{self, Server, status};
use crate::client::tests::{config_map, leading, stored, versioned};
use crate::controller::{Action, ClientShare, Cx, Error};
use crate::informer::Selection;
use crate::informer::testing::Feed;
use crate::queue::{Enqueue, Retry};
use crate::view::Metadata;

const SECOND: Duration = Duration::from_secs(1);

type Act = dyn Fn(Cx, String) -> BoxFuture<'static, Result<Action, Error>> + Send + Sync;

/// What a test's controller does.
#[derive(Clone, Default)]
struct Script(Arc<Inner>);

#[derive(Default)]
struct Inner {
    act: OnceLock<Box<Act>>,
    workers: usize,
    tries: Option<u32>,
    /// The controller's queue, once it was set up.
    queue: OnceLock<Enqueue<String>>,
    /// How often each key was reconciled.
    runs: Mutex<HashMap<String, u32>>,
    ran: Notify,
}

impl Script {
    fn new<F>(workers: usize, tries: Option<u32>, act: impl Fn(Cx, String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Action, Error>> + Send + 'static,
    {
        let inner = Inner { workers, tries, ..Inner::default() };
        let boxed: Box<Act> = Box::new(move |cx, key| Box::pin(act(cx, key)));
        assert!(inner.act.set(boxed).is_ok());
        Self(Arc::new(inner))
    }

    fn add(&self, key: &str) {
        self.0.queue.get().expect("it is set up").add(key.to_owned());
    }

    fn runs(&self, key: &str) -> u32 {
        self.0.runs.lock().get(key).copied().unwrap_or(0)
    }

    /// Waits until a key was reconciled this often.
    async fn until(&self, key: &str, count: u32) {
        loop {
            let mut ran = std::pin::pin!(self.0.ran.notified());
            ran.as_mut().enable();
            if self.runs(key) >= count {
                return;
            }
            ran.await;
        }
    }
}

#[derive(Clone, clap::Args)]
struct Flags {
    #[arg(skip)]
    script: Script,
}

struct Scripted(Script);

impl Controller for Scripted {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "scripted-controller",
        aliases: &[],
        enabled_by_default: true,
        account: "scripted-controller",
        upstream_role: false,
        writes_anything: false,
        predecessor: None,
        queue: "scripted",
        share: ClientShare::ONE,
    };
    type Config = Flags;
    type Key = String;

    fn setup(config: &Flags, setup: &mut Setup<String>) -> Result<Self, SetupError> {
        let script = config.script.clone();
        setup.workers(script.0.workers);
        setup.retry(Retry { tries: script.0.tries, ..Retry::default() });
        assert!(script.0.queue.set(setup.queue()).is_ok());
        Ok(Self(script))
    }

    async fn reconcile(&self, cx: &Cx, key: String) -> Result<Action, Error> {
        *self.0.0.runs.lock().entry(key.clone()).or_default() += 1;
        self.0.0.ran.notify_waiters();
        (self.0.0.act.get().expect("it has an act"))(cx.clone(), key).await
    }
}

/// The controller of a script, and the metrics of its process.
fn unit(script: &Script, informers: &Informers) -> (Arc<dyn Unit>, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let foundation = Foundation {
        informers: informers.clone(),
        registry: registry.clone(),
        queues: QueueMetricFamilies::register(&registry).unwrap(),
        engine: EngineMetrics::register(&registry).unwrap(),
        deadlines: Deadlines { soft: SECOND * 30, hard: SECOND * 600 },
        notes: crate::notes::Notes::new("test"),
        facilities: crate::facility::Facilities::default(),
    };
    (build::<Scripted>(&Flags { script: script.clone() }, &foundation).unwrap(), registry)
}

/// How many reconciles ended so.
fn ended(registry: &prometheus::Registry, result: &str) -> f64 {
    let families = registry.gather();
    let totals = families.iter().filter(|family| family.name() == "quarterdeck_reconcile_total");
    let counters = totals.flat_map(prometheus::proto::MetricFamily::get_metric);
    let of_it = counters.filter(|metric| metric.get_label().iter().any(|label| label.value() == result));
    of_it.map(|metric| metric.get_counter().get_value()).sum()
}

/// Means to call nobody: an address that is never connected to.
async fn no_means() -> Means {
    let server = Server::start(|_| async { status(500, "InternalError", "not to be asked") }).await;
    means(&server).await.0
}

async fn means(server: &Server) -> (Means, quarterdeck_election::GateKeeper) {
    let (api, keeper) = leading(server).await;
    let authority = crate::facility::Authority { gate: keeper.gate().clone(), epoch: 1 };
    (Means { api, recorder: Recorder::discard(), authority, stop: CancellationToken::new() }, keeper)
}

#[tokio::test]
async fn a_panic_costs_one_reconcile() {
    let script = Script::new(1, None, |cx, key| async move {
        assert!(key != "bad" || cx.attempt > 0, "the first try of {key}");
        Ok(Action::Done)
    });
    let (unit, metrics) = unit(&script, &Informers::new());
    let means = no_means().await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(means.clone()));
    script.add("bad");
    script.add("good");
    script.until("good", 1).await;
    script.until("bad", 2).await;
    means.stop.cancel();
    leading.await.unwrap();
    assert_eq!((ended(&metrics, "panic"), script.runs("bad")), (1.0, 2));
}

#[tokio::test]
async fn a_poison_key_costs_its_own_tries_and_no_others() {
    let script = Script::new(1, Some(3), |_, key| async move {
        if key == "poison" { Err(Error::Transient("always".into())) } else { Ok(Action::Done) }
    });
    let (unit, metrics) = unit(&script, &Informers::new());
    let means = no_means().await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(means.clone()));
    script.add("poison");
    for round in 1..=20 {
        script.add("good");
        script.until("good", round).await;
    }
    // The first and three more; then it is left alone until something changes.
    script.until("poison", 4).await;
    script.add("good");
    script.until("good", 21).await;
    assert_eq!(unit.queue().delayed, 0);
    script.add("poison");
    script.until("poison", 5).await;
    means.stop.cancel();
    leading.await.unwrap();
    assert!(ended(&metrics, "error") >= 4.0);
}

#[tokio::test]
async fn a_terminal_error_waits_for_a_change() {
    let script = Script::new(1, None, |_, key| async move {
        if key == "wrong" { Err(Error::Terminal("it makes no sense".into())) } else { Ok(Action::Done) }
    });
    let (unit, _) = unit(&script, &Informers::new());
    let means = no_means().await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(means.clone()));
    script.add("wrong");
    script.add("good");
    script.until("good", 1).await;
    assert_eq!((unit.queue().delayed, script.runs("wrong")), (0, 1));
    script.add("wrong");
    script.until("wrong", 2).await;
    means.stop.cancel();
    leading.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_hangs_is_cut_off_and_holds_up_no_other_key() {
    let (dropped, mut was_dropped) = mpsc::unbounded_channel();
    let script = Script::new(2, None, move |cx, key| {
        let dropped = dropped.clone();
        async move {
            if key != "hangs" || cx.attempt > 0 {
                return Ok(Action::Done);
            }
            let _told = on_drop(move || dropped.send(Instant::now()).unwrap());
            std::future::pending().await
        }
    });
    let (unit, metrics) = unit(&script, &Informers::new());
    let means = no_means().await;
    let begun = Instant::now();
    let leading = tokio::spawn(Arc::clone(&unit).lead(means.clone()));
    script.add("hangs");
    script.until("hangs", 1).await;
    script.add("good");
    script.until("good", 1).await;
    assert!(unit.stuck_for().is_none(), "nothing waits for a worker");
    assert_eq!(was_dropped.recv().await.unwrap() - begun, SECOND * 600);
    script.until("hangs", 2).await;
    means.stop.cancel();
    leading.await.unwrap();
    assert_eq!(ended(&metrics, "timeout"), 1.0);
}

/// Calls a function when it is dropped.
fn on_drop(call: impl FnOnce() + Send) -> impl Send {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(call) = self.0.take() {
                call();
            }
        }
    }
    Guard(Some(call))
}

#[tokio::test(start_paused = true)]
async fn a_lost_tenure_ends_in_place_and_the_next_goes_on_with_its_keys() {
    let script = Script::new(1, None, |cx, key| async move {
        if key == "in-hand" && !cx.stop.is_cancelled() {
            std::future::pending::<()>().await;
        }
        Ok(Action::Done)
    });
    let (unit, metrics) = unit(&script, &Informers::new());
    let first = no_means().await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(first.clone()));
    script.add("in-hand");
    script.until("in-hand", 1).await;
    script.add("queued");
    first.stop.cancel();
    leading.await.unwrap();
    assert_eq!((script.runs("queued"), unit.queue().depth), (0, 2), "both wait for the next tenure");
    assert_eq!(ended(&metrics, "cancelled"), 1.0);

    let second = no_means().await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(second.clone()));
    script.until("in-hand", 2).await;
    second.stop.cancel();
    leading.await.unwrap();
}

/// A cache of ConfigMaps' metadata that the test fills.
fn config_maps(informers: &Informers) -> Feed<Metadata> {
    Feed::dynamic(informers, Kind::of::<k8s_openapi::api::core::v1::ConfigMap>(), Selection::default())
}

fn metadata(version: &str) -> Metadata {
    let object = serde_json::json!({"metadata": {
        "namespace": "a", "name": "one", "uid": "u1", "resourceVersion": version,
    }});
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn a_key_rests_until_the_cache_shows_its_own_write() {
    let server = Server::start(|_| async { server::json(201, &stored("12")) }).await;
    let script = Script::new(1, None, |cx, key| async move {
        if key == "writer" && cx.attempt == 0 {
            cx.api.create(&config_map("one")).await?;
        }
        Ok(Action::Done)
    });
    let informers = Informers::new();
    let feed = config_maps(&informers);
    feed.sync([]);
    let (unit, _) = unit(&script, &informers);
    let (means, _keeper) = means(&server).await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(means.clone()));
    script.add("writer");
    script.until("writer", 1).await;
    // Not while the cache is older than the write; other keys go on meanwhile.
    script.add("writer");
    for round in 1..=5 {
        script.add("other");
        script.until("other", round).await;
    }
    assert_eq!((script.runs("writer"), unit.queue().parked), (1, 1));
    feed.apply(metadata("12"));
    script.until("writer", 2).await;
    means.stop.cancel();
    leading.await.unwrap();
}

#[tokio::test]
async fn a_conflict_waits_for_the_version_that_was_in_the_way() {
    let server = Server::start(|seen| async move {
        match seen.number {
            0 => status(409, "Conflict", "it changed"),
            // What is stored, should the engine look for itself.
            _ if seen.body.is_null() => server::json(200, &stored("12")),
            _ => server::json(200, &stored("13")),
        }
    })
    .await;
    let script = Script::new(1, None, |cx, key| async move {
        if key == "writer" {
            let version = if cx.attempt == 0 { "11" } else { "12" };
            cx.api.replace(&versioned("one", version)).await?;
        }
        Ok(Action::Done)
    });
    let informers = Informers::new();
    let feed = config_maps(&informers);
    feed.sync([metadata("11")]);
    let (unit, metrics) = unit(&script, &informers);
    let (means, _keeper) = means(&server).await;
    let leading = tokio::spawn(Arc::clone(&unit).lead(means.clone()));
    script.add("writer");
    script.until("writer", 1).await;
    script.add("other");
    script.until("other", 1).await;
    assert_eq!(script.runs("writer"), 1, "the cache still shows what the conflict was about");
    feed.apply(metadata("12"));
    script.until("writer", 2).await;
    assert_eq!(ended(&metrics, "conflict"), 1.0);
    means.stop.cancel();
    leading.await.unwrap();
}
