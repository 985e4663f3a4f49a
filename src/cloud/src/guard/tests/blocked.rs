//! Providers that block threads for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::threads::SHARED;
use super::super::{AbandonedLimits, BreakerLimits, BreakerState, Limits};
use super::provider::{Does, Wild};
use super::{PATIENCE, guard, patient, quick, until};
use crate::error::CloudError;

#[tokio::test]
async fn a_provider_that_blocks_its_thread_does_not_hold_its_caller_or_other_calls() {
    let wild = Wild::that(&[("routes.list", Does::Block)]);
    let limits = quick();
    // However many are known to be stuck already when the last one is made: the breaker stays closed.
    let abandoned = AbandonedLimits { tolerated: 32, ..limits.abandoned };
    let guard = guard(&wild, Limits { abandoned, ..limits });
    // More calls than there are places: an abandoned one keeps its place for a while only. One that was given up before
    // it got a thread blocks none.
    let begun = Instant::now();
    while wild.blocked() < 12 {
        let error = guard.routes().await.unwrap_err();
        assert!(matches!(error, CloudError::Timeout { .. }), "{error:?}");
        guard.probe().await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "{}", guard.status());
    }
    until(&guard, "they are counted", |status| status.stuck >= 12 && status.abandoned >= 12).await;
    wild.release();
    until(&guard, "they ended", |status| status.stuck == 0 && status.in_flight[0].1 == 0).await;
    let begun = Instant::now();
    while guard.routes().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "{}", guard.status());
    }
}

#[tokio::test]
async fn more_blocked_threads_than_tolerated_open_the_breaker_and_too_many_keep_it_open() {
    let wild = Wild::that(&[("routes.list", Does::Block), ("identity.probe", Does::Block)]);
    let limits = quick();
    let pause = Duration::from_millis(20);
    let limits = Limits {
        abandoned: AbandonedLimits { tolerated: 2, most: 4, ..limits.abandoned },
        breaker: BreakerLimits { faults: 1_000, first: pause, longest: pause },
        ..limits
    };
    let guard = guard(&wild, limits);
    let begun = Instant::now();
    while guard.status().stuck < 4 {
        let _ = guard.routes().await;
        assert!(begun.elapsed() < PATIENCE, "{}", guard.status());
        tokio::time::sleep(pause).await;
    }
    until(&guard, "it is held open", |status| status.breaker == BreakerState::Open).await;
    tokio::time::sleep(pause * 5).await;
    let error = guard.routes().await.unwrap_err();
    assert!(
        matches!(&error, CloudError::BreakerOpen { last, .. } if last.contains("block a thread each")),
        "{error:?}"
    );
    assert!(guard.status().to_string().contains("stuck"), "{}", guard.status());
    wild.tell("identity.probe", Does::Answer);
    wild.release();
    until(&guard, "it is tried again", |status| status.stuck == 0).await;
    let begun = Instant::now();
    while guard.routes().await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "{}", guard.status());
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn a_provider_that_blocks_its_shared_threads_gets_others() {
    let wild = Wild::that(&[("routes.list", Does::BlockShared)]);
    let guard = guard(&wild, quick());
    // A call that was given up before it got a thread blocks none.
    let begun = Instant::now();
    while wild.blocked() < SHARED {
        assert!(guard.routes().await.is_err());
        assert!(begun.elapsed() < PATIENCE, "{}", guard.status());
    }
    wild.tell("routes.list", Does::Answer);
    let begun = Instant::now();
    while guard.core.threads.blocked() == 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", guard.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A call that needs such a thread works again as soon as the blocked ones are known.
    let spawned = guard.core.threads.current().unwrap().1.spawn(async {});
    tokio::time::timeout(PATIENCE, spawned).await.unwrap().unwrap();
    assert_eq!(guard.core.threads.blocked(), 1);
    wild.release();
    let begun = Instant::now();
    while guard.core.threads.blocked() > 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An ordinary controller and another provider go on, whatever one provider does.
#[tokio::test]
async fn bulkhead_defect_a_provider_that_blocks_everything_is_nobody_elses_trouble() {
    let hung = Wild::that(&[
        ("routes.list", Does::Block),
        ("identity.probe", Does::BlockShared),
        ("identity.info", Does::Block),
        ("instances.get_many", Does::Block),
    ]);
    let (bad, well) = (guard(&hung, quick()), Wild::that(&[]));
    let good = guard(&well, patient());
    let callers: Vec<_> = (0..30)
        .map(|_| {
            let bad = Arc::clone(&bad);
            tokio::spawn(async move {
                loop {
                    let _ = tokio::join!(bad.routes(), bad.probe(), bad.info());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    until(&bad, "it blocks", |status| status.in_flight[0].1 > 0).await;
    // This test's runtime has one thread: if a call took it, nothing here would go on.
    let (queue, mut worker) = tokio::sync::mpsc::unbounded_channel();
    let keys = tokio::spawn(async move {
        let mut done = 0;
        while worker.recv().await.is_some() {
            done += 1;
        }
        done
    });
    for key in 0..200 {
        good.routes().await.unwrap();
        queue.send(key).unwrap();
    }
    drop(queue);
    assert_eq!(keys.await.unwrap(), 200);
    callers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_end_waits_for_nobody() {
    let wild = Wild::that(&[("routes.list", Does::Block)]);
    let guard = guard(&wild, Limits { deadline: |_| Duration::from_secs(3600), ..patient() });
    let call = tokio::spawn({
        let guard = Arc::clone(&guard);
        async move { guard.routes().await }
    });
    until(&guard, "it runs", |_| wild.count("routes.list") == 1).await;
    let token = wild.last_token("routes.list");
    call.abort();
    let _ = call.await;
    let end = tokio::task::spawn_blocking(move || drop(guard));
    tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap();
    assert!(token.is_cancelled());
}
