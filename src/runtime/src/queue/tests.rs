//! Behaviour of the work queue under paused time.

use std::time::Duration;

use prometheus::Registry;
use tokio::time::Instant;

use super::{Queue, QueueMetricFamilies, Retry};

fn queue() -> Queue<&'static str> {
    let families = QueueMetricFamilies::register(&Registry::new()).expect("a fresh registry");
    Queue::new(families.queue("test"))
}

async fn idle(queue: &Queue<&'static str>) -> bool {
    tokio::time::timeout(Duration::ZERO, queue.take()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once_and_never_in_two_hands() {
    let queue = queue();
    queue.enqueue().add("a");
    queue.enqueue().add("a");
    assert_eq!(queue.take().await.key, "a");
    assert!(idle(&queue).await);
    queue.enqueue().add("a");
    assert!(idle(&queue).await, "it is in a worker's hands");
    queue.done(&"a");
    assert_eq!(queue.take().await.key, "a");
    queue.done(&"a");
    assert!(idle(&queue).await);
    assert_eq!(queue.status().depth, 0);
}

#[tokio::test(start_paused = true)]
async fn changed_keys_go_before_resyncs_and_failures_which_do_not_starve() {
    let queue = queue();
    queue.enqueue().resync("slow");
    for key in ["a", "b", "c", "d", "e", "f"] {
        queue.enqueue().add(key);
    }
    let mut order = Vec::new();
    for _ in 0..7 {
        order.push(queue.take().await.key);
    }
    assert_eq!(order, ["a", "b", "c", "d", "slow", "e", "f"]);
}

#[tokio::test(start_paused = true)]
async fn a_resync_that_changes_moves_to_the_fast_lane_and_is_served_once() {
    let queue = queue();
    queue.enqueue().resync("a");
    queue.enqueue().resync("b");
    queue.enqueue().add("b");
    assert_eq!(queue.take().await.key, "b");
    assert_eq!(queue.take().await.key, "a");
    queue.done(&"a");
    queue.done(&"b");
    assert!(idle(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_are_given_up_until_the_key_changes() {
    let queue = queue();
    let retry = Retry { base: Duration::from_secs(1), max: Duration::from_secs(3), tries: Some(3) };
    queue.enqueue().add("a");
    for expected in [1, 2, 3] {
        let taken = queue.take().await;
        let before = Instant::now();
        assert_eq!(queue.retry(&taken.key, &retry), Some(Duration::from_secs(expected)));
        assert!(idle(&queue).await);
        let again = queue.take().await;
        assert_eq!(before.elapsed(), Duration::from_secs(expected));
        assert_eq!(again.failures, taken.failures + 1);
        queue.give_up(&again.key);
    }
    let taken = queue.take().await;
    assert_eq!(queue.retry(&taken.key, &retry), None);
    assert!(idle(&queue).await);
    queue.enqueue().add("a");
    assert_eq!(queue.take().await.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_does_not_wait_for_the_backoff() {
    let queue = queue();
    queue.enqueue().add("a");
    let taken = queue.take().await;
    queue.retry(&taken.key, &Retry { base: Duration::from_secs(60), ..Retry::default() });
    queue.enqueue().add("a");
    let start = Instant::now();
    assert_eq!(queue.take().await.failures, 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
    queue.done(&"a");
    tokio::time::advance(Duration::from_secs(120)).await;
    assert!(idle(&queue).await, "the backoff's timer was overtaken by the change");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_delay_wins() {
    let queue = queue();
    queue.enqueue().add_after("a", Duration::from_secs(9));
    queue.enqueue().add_after("a", Duration::from_secs(2));
    queue.enqueue().add_after("a", Duration::from_secs(5));
    let start = Instant::now();
    queue.take().await;
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    queue.done(&"a");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(idle(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_waits_for_its_release_whatever_is_added() {
    let queue = queue();
    queue.enqueue().add("a");
    let taken = queue.take().await;
    queue.park(&taken.key);
    queue.enqueue().add("a");
    assert!(idle(&queue).await);
    assert_eq!(queue.status().parked, 1);
    queue.unpark(&"a");
    queue.unpark(&"a");
    assert_eq!(queue.take().await.key, "a");
    queue.done(&"a");
    assert!(idle(&queue).await);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_serves_what_came_after_the_old_ones_last_sign_of_life_first() {
    let queue = queue();
    queue.enqueue().add("old");
    tokio::time::advance(Duration::from_secs(5)).await;
    let sign_of_life = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    queue.enqueue().add("new");
    queue.demote_before(sign_of_life);
    assert_eq!(queue.take().await.key, "new");
    assert_eq!(queue.take().await.key, "old");
}

#[test]
fn the_delay_doubles_up_to_its_limit() {
    let retry = Retry::default();
    assert_eq!(retry.delay(1), Some(Duration::from_millis(5)));
    assert_eq!(retry.delay(4), Some(Duration::from_millis(40)));
    assert_eq!(retry.delay(60), Some(Duration::from_secs(1000)));
}
