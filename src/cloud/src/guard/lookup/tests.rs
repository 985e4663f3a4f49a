use std::collections::BTreeSet;

use super::*;
use crate::model::Proof;
use crate::provider::CallClass;

/// A cloud that writes down what it is asked.
#[derive(Default)]
struct Fake {
    max: usize,
    calls: Mutex<Vec<Vec<String>>>,
    /// Names for which a call is refused whole.
    bad: BTreeSet<String>,
    /// Names for which it says nothing.
    silent: BTreeSet<String>,
    /// What every call fails with.
    broken: Mutex<Option<CloudError>>,
    takes: Duration,
}

impl Asker for Fake {
    fn max_batch(self: Arc<Self>) -> BoxFuture<'static, Result<usize>> {
        async move { Ok(self.max) }.boxed()
    }

    fn ask(self: Arc<Self>, nodes: Arc<[NodeRef]>) -> BoxFuture<'static, Result<Answers>> {
        async move {
            self.calls.lock().push(nodes.iter().map(|node| node.name.to_string()).collect());
            tokio::time::sleep(self.takes).await;
            if let Some(error) = self.broken.lock().clone() {
                return Err(error);
            }
            if let Some(bad) = nodes.iter().find(|node| self.bad.contains(&*node.name)) {
                return Err(CloudError::Invalid(format!("malformed id of {}", bad.name)));
            }
            let heard = nodes.iter().filter(|node| !self.silent.contains(&*node.name));
            let absent = || Ok(Lookup::Absent(Proof { evidence: "not listed".to_owned() }));
            Ok(Answers { account: "acme".to_owned(), nodes: heard.map(|node| (node.clone(), absent())).collect() })
        }
        .boxed()
    }
}

fn node(name: &str) -> NodeRef {
    NodeRef { name: name.into(), provider_id: Some(format!("sim://{name}").into()) }
}

fn many(count: usize) -> Vec<NodeRef> {
    (0..count).map(|number| node(&format!("n{number:04}"))).collect()
}

fn start(fake: Fake) -> (Arc<Fake>, Arc<Lookups>) {
    let fake = Arc::new(fake);
    (Arc::clone(&fake), Arc::new(Lookups::new(Arc::clone(&fake) as Arc<dyn Asker>)))
}

fn fake(max: usize) -> Fake {
    Fake { max, ..Fake::default() }
}

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn callers_of_one_moment_share_one_call() {
    let (fake, lookups) = start(fake(100));
    let ask = |name: &'static str, after: u64| {
        let lookups = Arc::clone(&lookups);
        async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            lookups.look_up(&[node(name), node("shared"), node(name)], Duration::ZERO).await.unwrap()
        }
    };
    let (a, b, c) = tokio::join!(ask("a", 0), ask("b", 50), ask("c", 90));
    assert_eq!(*fake.calls.lock(), [["a", "shared", "b", "c"]]);
    assert_eq!(a.len(), 3, "an answer for each node, in order");
    assert!(a.iter().chain(&b).chain(&c).all(|seen| seen.snapshot == a[0].snapshot && &*seen.account == "acme"));
}

#[tokio::test(start_paused = true)]
async fn who_wants_no_old_answer_gets_none() {
    let (fake, lookups) = start(fake(100));
    let first = lookups.look_up(&[node("a")], Duration::ZERO).await.unwrap();
    let again = lookups.look_up(&[node("a")], HALF_A_MINUTE).await.unwrap();
    assert_eq!(again[0].snapshot, first[0].snapshot);
    let insisted = Instant::now();
    let third = lookups.look_up(&[node("a")], Duration::ZERO).await.unwrap();
    assert!(third[0].at >= insisted && third[0].snapshot > first[0].snapshot);
    assert_eq!(fake.calls.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_question_under_way_serves_who_can_do_with_it() {
    let (fake, lookups) = start(Fake { takes: Duration::from_secs(8), ..fake(100) });
    let a = [node("a")];
    let asked = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let late = lookups.look_up(&a, HALF_A_MINUTE).await.unwrap();
        assert_eq!(fake.calls.lock().len(), 1);
        late[0].snapshot
    };
    let (first, late) = tokio::join!(lookups.look_up(&a, Duration::ZERO), asked);
    assert_eq!(first.unwrap()[0].snapshot, late);
}

/// 5 minutes of a controller that looks at all nodes once, and at 50 of them each 5 s, node by node.
#[tokio::test(start_paused = true)]
async fn throttling_defect_a_thousand_nodes_take_few_calls() {
    let (fake, lookups) = start(fake(100));
    let nodes = many(1_000);
    let pass = |lookups: Arc<Lookups>, node: NodeRef, phase: u64| async move {
        tokio::time::sleep(Duration::from_millis(phase)).await;
        for _ in 0..60 {
            lookups.look_up(std::slice::from_ref(&node), HALF_A_MINUTE).await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    let single = nodes[..50].iter().enumerate().map(|(number, node)| {
        // Each at a moment of its own.
        pass(Arc::clone(&lookups), node.clone(), number as u64 * 97)
    });
    lookups.look_up(&nodes, Duration::from_secs(60)).await.unwrap();
    futures::future::join_all(single).await;
    let calls = fake.calls.lock();
    assert!(calls.len() <= 20, "{} calls", calls.len());
    assert!(calls.iter().all(|call| call.len() <= 100));
}

#[tokio::test(start_paused = true)]
async fn a_bad_id_costs_the_others_nothing() {
    let bad = BTreeSet::from(["n0007".to_owned(), "n0050".to_owned()]);
    let (fake, lookups) = start(Fake { bad, ..fake(64) });
    let seen = lookups.look_up(&many(64), Duration::ZERO).await.unwrap();
    for (number, seen) in seen.iter().enumerate() {
        assert_eq!(seen.lookup.is_err(), [7, 50].contains(&number), "{number}: {:?}", seen.lookup);
    }
    // From now on the bad ones are left out, and cost at most a call of their own when somebody insists.
    fake.calls.lock().clear();
    tokio::time::sleep(Duration::from_secs(60)).await;
    lookups.look_up(&many(64), HALF_A_MINUTE).await.unwrap();
    assert_eq!(fake.calls.lock().len(), 1);
    fake.calls.lock().clear();
    let seen = lookups.look_up(&[node("n0007"), node("n0008")], Duration::ZERO).await.unwrap();
    assert!(seen[0].lookup.is_err() && seen[1].lookup.is_ok());
    let calls = fake.calls.lock();
    assert!(calls.iter().any(|call| *call == ["n0007"]), "{calls:?}");
    assert_eq!(calls.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_refuses_everything_is_not_asked_for_ever() {
    let bad = many(1_000).iter().map(|node| node.name.to_string()).collect();
    let (fake, lookups) = start(Fake { bad, ..fake(100) });
    let seen = lookups.look_up(&many(1_000), Duration::ZERO).await;
    assert!(seen.is_err() || seen.unwrap().iter().all(|seen| seen.lookup.is_err()));
    assert!(fake.calls.lock().len() <= 80, "{}", fake.calls.lock().len());
}

/// cloud-provider-azure#2880: a refresh that failed emptied the cache, and live Nodes were deleted.
#[tokio::test(start_paused = true)]
async fn failed_refresh_defect_an_error_is_no_absence() {
    let (fake, lookups) = start(fake(100));
    let good = lookups.look_up(&[node("a"), node("b")], Duration::ZERO).await.unwrap();
    *fake.broken.lock() = Some(CloudError::Unavailable("502".to_owned()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Who needs a newer answer gets the error, and who does not, the old answer as it was.
    assert_eq!(
        lookups.look_up(&[node("a")], HALF_A_MINUTE).await.unwrap_err(),
        CloudError::Unavailable("502".to_owned())
    );
    let old = lookups.look_up(&[node("a")], Duration::from_secs(300)).await.unwrap();
    assert_eq!((old[0].snapshot, old[0].at), (good[0].snapshot, good[0].at));
    // Where some are known well enough, the others have the error.
    let mixed = lookups.look_up(&[node("a"), node("c")], Duration::from_secs(300)).await.unwrap();
    assert!(mixed[0].lookup.is_ok());
    assert_eq!(mixed[1].lookup, Err(CloudError::Unavailable("502".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn silence_about_a_node_is_an_error() {
    let (_fake, lookups) = start(Fake { silent: BTreeSet::from(["b".to_owned()]), ..fake(100) });
    let seen = lookups.look_up(&[node("a"), node("b")], Duration::ZERO).await.unwrap();
    assert!(seen[0].lookup.is_ok());
    assert!(matches!(seen[1].lookup, Err(CloudError::Other(_))));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_unwell_is_not_asked_again_by_the_same_question() {
    let (fake, lookups) = start(Fake { takes: Duration::from_secs(20), ..fake(10) });
    *fake.broken.lock() = Some(CloudError::Unavailable("502".to_owned()));
    let begun = Instant::now();
    assert!(lookups.look_up(&many(1_000), Duration::ZERO).await.is_err());
    assert!(fake.calls.lock().len() <= CallClass::Batch.places(), "{}", fake.calls.lock().len());
    assert!(begun.elapsed() < Duration::from_secs(21));
}

#[tokio::test(start_paused = true)]
async fn a_question_ends_with_its_last_caller_and_not_before() {
    let (fake, lookups) = start(Fake { takes: Duration::from_secs(8), ..fake(100) });
    let (a, b, c) = ([node("a")], [node("b")], [node("c")]);
    let impatient = tokio::time::timeout(Duration::from_millis(50), lookups.look_up(&a, Duration::ZERO));
    let (gone, stays) = tokio::join!(impatient, lookups.look_up(&b, Duration::ZERO));
    assert!(gone.is_err());
    assert!(stays.unwrap()[0].lookup.is_ok());
    // With nobody left it is not put at all, and the next caller begins a new one.
    let calls = fake.calls.lock().len();
    let alone = tokio::time::timeout(Duration::from_millis(50), lookups.look_up(&c, Duration::ZERO));
    assert!(alone.await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.calls.lock().len(), calls);
    assert!(lookups.look_up(&c, Duration::ZERO).await.unwrap()[0].lookup.is_ok());
}
