//! Routes.

use std::collections::BTreeSet;

use futures::future::join_all;
use quarterdeck_cloud::CloudError;

use crate::suite::{Outcome, Stop, Suite, check};

pub async fn r1_life(suite: &Suite) -> Outcome {
    let route = suite.route(0, suite.running(0)?)?;
    let routes = suite.routes()?;
    check!(suite.route_to(&route).await?.is_none(), "there is a route to {} already", route.destination);
    routes.create(&suite.change(), &route).await?;
    let made = suite.route_to(&route).await?;
    let made = made.ok_or_else(|| Stop::Failed(format!("the route to {} is not listed", route.destination)))?;
    check!(made.node == route.node, "it leads to {:?} instead of {}", made.node, route.node);
    check!(!made.blackhole, "it is said to lead nowhere");
    routes.delete(&suite.change(), &made).await?;
    check!(suite.route_to(&route).await?.is_none(), "it is still listed");
    Ok(())
}

pub async fn r2_create_twice(suite: &Suite) -> Outcome {
    let route = suite.route(0, suite.running(0)?)?;
    for _ in 0..2 {
        suite.routes()?.create(&suite.change(), &route).await?;
    }
    check!(suite.route_to(&route).await?.is_some(), "the route is not listed");
    Ok(())
}

pub async fn r3_delete_twice(suite: &Suite) -> Outcome {
    let route = suite.route(0, suite.running(0)?)?;
    suite.routes()?.create(&suite.change(), &route).await?;
    let made = suite.route_to(&route).await?.ok_or_else(|| Stop::Failed("the route is not listed".to_owned()))?;
    for _ in 0..2 {
        suite.routes()?.delete(&suite.change(), &made).await?;
        check!(suite.route_to(&route).await?.is_none(), "it is still listed");
    }
    Ok(())
}

pub async fn r4_foreign(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    let mine = suite.route(1, machine)?;
    let own = suite.route(0, machine)?;
    suite.routes()?;
    let foreign = match suite.steering.add_foreign_route(&suite.known.cluster, mine.destination).await {
        Ok(()) => mine.destination,
        Err(Stop::NotApplicable(why)) => suite.paths()?.foreign.ok_or(Stop::NotApplicable(why))?,
        Err(failed) => return Err(failed),
    };
    suite.routes()?.create(&suite.change(), &own).await?;
    let (listed, _) = suite.routes_of(&suite.known.cluster).await?;
    check!(listed.iter().all(|route| route.destination != foreign), "somebody else's route to {foreign} is listed");
    if foreign == mine.destination {
        // What becomes of these calls is the provider's business; the route has to stay.
        let _ = suite.routes()?.create(&suite.change(), &mine).await;
        let _ = suite.routes()?.replace(&suite.change(), &mine, &mine).await;
        let _ = suite.routes()?.delete(&suite.change(), &mine).await;
        let stays = suite.steering.has_foreign_route(foreign).await?;
        suite.steering.remove_foreign_route(foreign).await?;
        check!(stays, "somebody else's route to {foreign} is gone");
    }
    Ok(())
}

pub async fn r5_blackhole(suite: &Suite) -> Outcome {
    suite.routes()?;
    suite.paths()?;
    let machine = suite.steering.make_machine("conformance-short-lived").await?;
    let route = suite.route(0, &machine)?;
    suite.routes()?.create(&suite.change(), &route).await?;
    suite.steering.terminate(&machine).await?;
    match suite.route_to(&route).await? {
        // Some clouds take the route with the machine.
        None => Ok(()),
        Some(left) => {
            check!(left.blackhole, "the route to a machine that is gone is said to lead to {:?}", left.node);
            Ok(())
        }
    }
}

pub async fn r6_replace(suite: &Suite) -> Outcome {
    let (one, other) = (suite.route(0, suite.running(0)?)?, suite.route(0, suite.running(1)?)?);
    let routes = suite.routes()?;
    if suite.paths()?.in_two_steps {
        return Err(Stop::NotApplicable("the fixture says that the cloud replaces a route in two steps".to_owned()));
    }
    routes.create(&suite.change(), &one).await?;
    let replacing = async {
        for turn in 0..6 {
            let (old, new) = if turn % 2 == 0 { (&one, &other) } else { (&other, &one) };
            routes.replace(&suite.change(), old, new).await?;
        }
        routes.replace(&suite.change(), &one, &other).await?;
        Ok::<_, CloudError>(())
    };
    let watching = async {
        loop {
            // For a moment both may lead there: that is no gap.
            let (all, _) = suite.routes_of(&suite.known.cluster).await?;
            if all.iter().all(|route| route.destination != one.destination) {
                return Err::<(), _>(Stop::Failed(format!("for a moment nothing led to {}", one.destination)));
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        gap = watching => gap?,
        done = replacing => done?,
    }
    let after = suite.route_to(&one).await?.ok_or_else(|| Stop::Failed("it is gone".to_owned()))?;
    check!(after.node == other.node, "it leads to {:?} instead of {}", after.node, other.node);
    Ok(())
}

pub async fn r7_two_networks(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    let (one, other) = (suite.route(0, machine)?, suite.route(1, machine)?);
    for route in [&one, &other] {
        suite.routes()?.create(&suite.change(), route).await?;
    }
    for route in [&one, &other] {
        check!(suite.route_to(route).await?.is_some(), "the route to {} is not listed", route.destination);
    }
    suite.routes()?.delete(&suite.change(), &one).await?;
    check!(suite.route_to(&one).await?.is_none(), "the first is still there");
    check!(suite.route_to(&other).await?.is_some(), "the other went with it");
    Ok(())
}

pub async fn r8_paged(suite: &Suite) -> Outcome {
    suite.running(0)?;
    let machines = &suite.known.running;
    let many = match suite.paths()?.many {
        0 => 201,
        many => many,
    };
    let wanted: Vec<_> =
        (0..many).map(|network| suite.route(network, &machines[network % machines.len()])).collect::<Outcome<_>>()?;
    let routes = suite.routes()?;
    for some in wanted.chunks(8) {
        let calls: Vec<_> = some.iter().map(|_| suite.change()).collect();
        let making = some.iter().zip(&calls).map(|(route, call)| routes.create(call, route));
        for made in join_all(making).await {
            made?;
        }
    }
    let (listed, pages) = suite.routes_of(&suite.known.cluster).await?;
    let destinations: BTreeSet<_> = wanted.iter().map(|route| route.destination).collect();
    let found: Vec<_> = listed.iter().map(|route| route.destination).filter(|one| destinations.contains(one)).collect();
    let once: BTreeSet<_> = found.iter().collect();
    check!(once.len() == many, "{} of {many} are listed", once.len());
    check!(found.len() == once.len(), "{} are listed twice", found.len() - once.len());
    if pages < 2 && many <= 200 {
        return Err(Stop::NotApplicable(format!("{many} routes came in one page; the fixture says how many are made")));
    }
    Ok(())
}
