//! The provider as such.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quarterdeck_cloud::guard::{Guarded, Limits};
use quarterdeck_cloud::model::{ClusterId, NodeRef};
use quarterdeck_cloud::{CallCtx, CloudError};
use tokio::time::Instant;

use crate::suite::{Outcome, Stop, Suite, check};

/// How long a call may take to notice that it was cancelled.
const PATIENCE: Duration = Duration::from_secs(5);
/// The deadline of a call that hangs.
const DEADLINE: Duration = Duration::from_secs(1);

pub async fn p1_probe(suite: &Suite) -> Outcome {
    for _ in 0..2 {
        suite.provider.probe(&suite.read()).await?;
    }
    Ok(())
}

pub async fn p2_capabilities(suite: &Suite) -> Outcome {
    let info = suite.provider.info(&suite.read()).await?;
    check!(!info.name.is_empty(), "it has no name");
    check!(!info.instances || !info.schemes.is_empty(), "it has instances, and no scheme of their ids");
    check!(!info.instances || info.max_batch > 0, "one call may ask for no instance");
    let told = [("instances", info.instances), ("load balancers", info.load_balancers), ("routes", info.routes)];
    let found = [
        match suite.provider.instances() {
            Some(instances) => !Suite::is_unable(&instances.get_many(&suite.read(), &[]).await),
            None => false,
        },
        match suite.provider.load_balancers() {
            // Not by the list: a provider may have load balancers and no list of them.
            Some(balancers) => !Suite::is_unable(&balancers.get(&suite.read(), &suite.nobody()).await),
            None => false,
        },
        match suite.provider.routes() {
            Some(routes) => !Suite::is_unable(&routes.list(&suite.read(), None).await),
            None => false,
        },
    ];
    for ((what, told), found) in told.into_iter().zip(found) {
        check!(told == found, "{what}: told {told}, found {found}");
    }
    check!(suite.provider.info(&suite.read()).await? == info, "it says something else the second time");
    Ok(())
}

pub async fn p3_deadline(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    suite.steering.hang("instances.get_many").await?;
    let cluster = Arc::new(OnceLock::from(ClusterId(suite.known.cluster.as_str().into())));
    let limits = Limits { deadline: |_| DEADLINE, ..Limits::default() };
    let guarded = Guarded::new("conformance", Arc::clone(&suite.provider), cluster, limits)?;
    let node = NodeRef { name: machine.name.as_str().into(), provider_id: Some(machine.provider_id.as_str().into()) };
    let start = Instant::now();
    let answer = guarded.look_up(&[node], Duration::ZERO).await;
    let took = start.elapsed();
    let gave_up = match &answer {
        Err(error) => matches!(error, CloudError::Timeout { .. }),
        Ok(seen) => seen.iter().all(|one| matches!(one.lookup, Err(CloudError::Timeout { .. }))),
    };
    check!(gave_up, "a call that hangs yields {answer:?}");
    check!(took + suite.tolerance >= DEADLINE, "given up after {took:?}, before its deadline of {DEADLINE:?}");
    check!(took <= DEADLINE + suite.tolerance, "given up after {took:?}, its deadline was {DEADLINE:?}");
    Ok(())
}

pub async fn p4_cancel(suite: &Suite) -> Outcome {
    let (balancers, _) = suite.balancers()?;
    suite.steering.hang("loadbalancers.ensure").await?;
    let spec = suite.spec(suite.owner("p4"));
    let call: CallCtx = suite.change();
    let cancel = call.cancel.clone();
    let calling = balancers.ensure(&call, &spec, None);
    tokio::pin!(calling);
    // It has to hang before it is cancelled; how long it takes to get there nobody says.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut calling).await;
    check!(early.is_err(), "a call that should hang yields {early:?}");
    cancel.cancel();
    let answer = tokio::time::timeout(PATIENCE, calling).await;
    let ended = answer.map_err(|_| Stop::Failed("it goes on although it was cancelled".to_owned()))?;
    check!(ended.is_err(), "it was cancelled, and yields {ended:?}");
    // What is asked after it on the same way is answered after a plug-in heard of the end.
    suite.provider.info(&suite.read()).await?;
    suite.steering.heal().await?;
    let seen = suite.owned(&spec.owner).await?;
    check!(seen.is_empty(), "it was cancelled before it did anything, and made {seen:?}");
    Ok(())
}

pub async fn p5_restart(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?.clone();
    let kept = match suite.balancers() {
        Ok(_) => Some(suite.owner("p5")),
        Err(_) => None,
    };
    if let Some(owner) = &kept {
        suite.ensure(&suite.spec(owner.clone()), None).await?;
    }
    suite.steering.stop().await?;
    let down = while_down(suite, &machine.name, &machine.provider_id).await;
    suite.steering.start().await?;
    suite.until_available().await?;
    down?;
    suite.found(&machine).await?;
    if let Some(owner) = &kept {
        check!(suite.owned(owner).await?.len() == 1, "after the restart its load balancer is gone");
    }
    Ok(())
}

async fn while_down(suite: &Suite, name: &str, provider_id: &str) -> Outcome {
    let node = NodeRef { name: name.into(), provider_id: Some(provider_id.into()) };
    let answer = suite.instances()?.get_many(&suite.read(), &[node]).await;
    check!(matches!(answer, Err(CloudError::Unavailable(_))), "stopped, it answers {answer:?}");
    if let Ok((balancers, _)) = suite.balancers() {
        let answer = balancers.get(&suite.read(), &suite.nobody()).await;
        check!(matches!(answer, Err(CloudError::Unavailable(_))), "stopped, it tells of {answer:?}");
    }
    Ok(())
}
