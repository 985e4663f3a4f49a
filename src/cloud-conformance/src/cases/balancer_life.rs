//! How load balancers come, are told apart, and go.

use std::collections::BTreeSet;

use futures::future::join_all;
use quarterdeck_cloud::CloudError;
use quarterdeck_cloud::model::{Handle, LbOutcome, Owner};

use crate::suite::{Outcome, Stop, Suite, check};

/// Steps that no provider has more of.
const STEPS: usize = 12;

async fn nothing_of(suite: &Suite, owner: &Owner) -> Outcome {
    let seen = suite.owned(owner).await?;
    check!(seen.is_empty(), "still there: {seen:?}");
    let listed = suite.listed_if_it_can(&owner.cluster.0).await?.unwrap_or_default();
    check!(!listed.iter().any(|one| one.owner.uid == owner.uid), "still listed");
    match suite.steering.left_of(owner).await {
        Ok(0) | Err(Stop::NotApplicable(_)) => Ok(()),
        Ok(left) => Err(Stop::Failed(format!("{left} things are left of it"))),
        Err(failed) => Err(failed),
    }
}

pub async fn l1_create(suite: &Suite) -> Outcome {
    let owner = suite.owner("l1");
    let served = suite.ensure(&suite.spec(owner.clone()), None).await?;
    let seen = suite.owned(&owner).await?;
    check!(seen.len() == 1, "{} load balancers instead of one", seen.len());
    check!(seen[0].handle == served.handle, "{:?} is shown as {:?}", served.handle, seen[0].handle);
    check!(seen[0].owner == owner, "its owner is {:?}", seen[0].owner);
    check!(
        seen[0].fingerprint == served.fingerprint,
        "nobody changed {:?}: {:?}",
        served.fingerprint,
        seen[0].fingerprint
    );
    if let Some(listed) = suite.listed_if_it_can(&owner.cluster.0).await? {
        check!(listed.iter().any(|one| one.owner == owner && one.handle == served.handle), "it is not listed");
    }
    Ok(())
}

pub async fn l2_again(suite: &Suite) -> Outcome {
    let spec = suite.spec(suite.owner("l2"));
    let first = suite.ensure(&spec, None).await?;
    for known in [Some(&first.handle), None] {
        let again = suite.ensure(&spec, known).await?;
        check!(again == first, "{again:?}, was {first:?}");
    }
    check!(suite.owned(&spec.owner).await?.len() == 1, "there is another one now");
    Ok(())
}

pub async fn l3_concurrent(suite: &Suite) -> Outcome {
    let spec = suite.spec(suite.owner("l3"));
    let (balancers, _) = suite.balancers()?;
    let calls: Vec<_> = (0..8).map(|_| suite.change()).collect();
    let answers = join_all(calls.iter().map(|call| balancers.ensure(call, &spec, None))).await;
    for answer in answers {
        // Who comes second may be told to come again.
        let told_to_wait = matches!(
            answer,
            Err(CloudError::Conflict(_) | CloudError::RetryAfter { .. } | CloudError::Throttled { .. })
        );
        check!(told_to_wait || answer.is_ok(), "{answer:?}");
    }
    let served = suite.ensure(&spec, None).await?;
    let seen = suite.owned(&spec.owner).await?;
    check!(seen.len() == 1, "{} load balancers instead of one", seen.len());
    check!(seen[0].handle == served.handle, "{:?} is shown as {:?}", served.handle, seen[0].handle);
    Ok(())
}

pub async fn l10_type_change(suite: &Suite) -> Outcome {
    let spec = suite.spec(suite.owner("l10"));
    let first = suite.ensure(&spec, None).await?;
    suite.delete(&spec.owner).await?;
    nothing_of(suite, &spec.owner).await?;
    // The handle of what is gone must not be in the way.
    suite.ensure(&spec, Some(&first.handle)).await?;
    check!(suite.owned(&spec.owner).await?.len() == 1, "it is not there again");
    Ok(())
}

pub async fn l11_delete_twice(suite: &Suite) -> Outcome {
    let spec = suite.spec(suite.owner("l11"));
    suite.ensure(&spec, None).await?;
    for _ in 0..2 {
        suite.delete(&spec.owner).await?;
        nothing_of(suite, &spec.owner).await?;
    }
    let never = suite.owner("l11-never");
    suite.delete(&never).await?;
    nothing_of(suite, &never).await
}

pub async fn l12_partial(suite: &Suite) -> Outcome {
    suite.balancers()?;
    for step in 0..STEPS {
        let spec = suite.spec(suite.owner(&format!("l12-{step}")));
        suite.steering.fail_at_step(step).await?;
        let made = suite.ensure(&spec, None).await;
        suite.steering.heal().await?;
        suite.delete(&spec.owner).await?;
        nothing_of(suite, &spec.owner).await?;
        if made.is_ok() {
            return if step == 0 { Err(Stop::Failed("making it did not fail".to_owned())) } else { Ok(()) };
        }
    }
    Ok(())
}

pub async fn l13_rename(suite: &Suite) -> Outcome {
    let mut spec = suite.spec(suite.owner("l13"));
    let first = suite.ensure(&spec, None).await?;
    spec.owner.name = "l13-renamed".to_owned();
    let renamed = suite.ensure(&spec, Some(&first.handle)).await?;
    check!(renamed.handle == first.handle, "it became {:?}, was {:?}", renamed.handle, first.handle);
    check!(renamed.ingress == first.ingress, "the address became {:?}, was {:?}", renamed.ingress, first.ingress);
    check!(suite.owned(&spec.owner).await?.len() == 1, "there is another one now");
    Ok(())
}

pub async fn l14_two_clusters(suite: &Suite) -> Outcome {
    suite.balancers()?;
    if suite.known.other_cluster.is_empty() {
        return Err(Stop::NotApplicable("the fixture says that no other cluster can have the same cloud".to_owned()));
    }
    let here = suite.owner("l14");
    // The same namespace, name and uid: only the cluster differs.
    let there = suite.owner_in(&suite.known.other_cluster, &here.name, &here.uid);
    let one = suite.ensure(&suite.spec(here.clone()), None).await?;
    let other = suite.ensure(&suite.spec(there.clone()), None).await?;
    check!(one.handle != other.handle, "both are {:?}", one.handle);
    check!(one.ingress != other.ingress, "both have {:?}", one.ingress);
    let listed = suite.listed_if_it_can(&suite.known.cluster).await?.unwrap_or_default();
    check!(listed.iter().all(|listed| listed.handle != other.handle), "the other cluster's is listed");
    suite.delete(&there).await?;
    let left = suite.owned(&here).await?;
    check!(left.len() == 1 && left[0].handle == one.handle, "the other cluster's deletion left {left:?}");
    check!(left[0].fingerprint == one.fingerprint, "the other cluster's deletion changed it");
    Ok(())
}

pub async fn l15_new_uid(suite: &Suite) -> Outcome {
    let old = suite.owner("l15");
    let new = suite.owner_in(&suite.known.cluster, &old.name, &format!("{}-new", old.uid));
    let first = suite.ensure(&suite.spec(old.clone()), None).await?;
    let second = suite.ensure(&suite.spec(new.clone()), None).await?;
    check!(first.handle != second.handle, "both are {:?}", first.handle);
    suite.delete(&old).await?;
    nothing_of(suite, &old).await?;
    let left = suite.owned(&new).await?;
    check!(left.len() == 1 && left[0].handle == second.handle, "the old one's deletion left {left:?}");
    Ok(())
}

pub async fn l16_others(suite: &Suite) -> Outcome {
    let (other, own) = (suite.spec(suite.owner("l16-other")), suite.spec(suite.owner("l16")));
    let before = suite.ensure(&other, None).await?;
    // The handle is somebody else's: the owner's tags count.
    let made = suite.ensure(&own, Some(&before.handle)).await?;
    check!(made.handle != before.handle, "it was made of somebody else's {:?}", before.handle);
    let (balancers, _) = suite.balancers()?;
    let stolen = balancers.update_backends(&suite.change(), &own, &before.handle).await;
    check!(stolen.is_err(), "backends of somebody else's load balancer were updated");
    balancers.ensure_deleted(&suite.change(), &own.owner, Some(&before.handle)).await?;
    suite.delete(&own.owner).await?;
    let after = suite.owned(&other.owner).await?;
    check!(after.len() == 1 && after[0].handle == before.handle, "somebody else's became {after:?}");
    check!(after[0].fingerprint == before.fingerprint, "somebody else's was changed");
    Ok(())
}

pub async fn l17_elsewhere(suite: &Suite) -> Outcome {
    let (balancers, may) = suite.balancers()?;
    if may.elsewhere.is_empty() {
        return Err(Stop::NotApplicable("the fixture has no annotations for it".to_owned()));
    }
    let mut spec = suite.spec(suite.owner("l17"));
    spec.annotations.extend(may.elsewhere.clone());
    let answer = balancers.ensure(&suite.change(), &spec, None).await;
    check!(matches!(answer, Err(CloudError::ImplementedElsewhere(_))), "{answer:?} instead of implemented elsewhere");
    check!(suite.owned(&spec.owner).await?.is_empty(), "it was made all the same");
    Ok(())
}

pub async fn l18_paged(suite: &Suite) -> Outcome {
    let (balancers, may) = suite.balancers()?;
    let many = if may.many == 0 { 3 } else { may.many };
    let small = suite.steering.page(2).await;
    let mut wanted = BTreeSet::new();
    for index in 0..many {
        let spec = suite.spec(suite.owner(&format!("l18-{index}")));
        let mut known: Option<Handle> = None;
        while let LbOutcome::Provisioning { handle, poll_after } =
            balancers.ensure(&suite.change(), &spec, known.as_ref()).await?
        {
            if handle.is_some() {
                break;
            }
            known = handle.or(known);
            tokio::time::sleep(poll_after).await;
        }
        wanted.insert(spec.owner.uid);
    }
    let (listed, pages) = suite.listed(&suite.known.cluster).await?;
    if small.is_ok() {
        suite.steering.page(100).await?;
    }
    let found: Vec<&String> = listed.iter().map(|one| &one.owner.uid).filter(|uid| wanted.contains(*uid)).collect();
    let once: BTreeSet<&String> = found.iter().copied().collect();
    check!(once.len() == wanted.len(), "{} of {} are listed", once.len(), wanted.len());
    check!(found.len() == once.len(), "{} are listed twice", found.len() - once.len());
    if pages < 2 {
        return Err(Stop::NotApplicable(format!(
            "{many} load balancers came in one page; the fixture says how many are made"
        )));
    }
    Ok(())
}
