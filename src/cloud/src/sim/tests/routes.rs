use super::super::{Fault, Power, Rule};
use super::*;
use crate::provider::Routes as _;

fn route(node: &str, destination: &str) -> Route {
    Route {
        name: format!("route-{destination}"),
        destination: destination.parse().unwrap(),
        node: node.to_owned(),
        provider_id: String::new(),
        next_hops: Vec::new(),
        blackhole: false,
    }
}

fn with_nodes() -> Sim {
    let sim = Sim::default();
    for name in ["n", "m"] {
        sim.command(Command::AddInstance(NewInstance::named(name))).unwrap();
    }
    sim
}

async fn listed(sim: &Sim, cluster: &str) -> Vec<Route> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = sim.list(&call(cluster, 0), after.as_deref()).await.unwrap();
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn routes_are_made_replaced_and_removed_once_each() {
    let sim = with_nodes();
    let (to_n, to_m) = (route("n", "10.1.0.0/24"), route("m", "10.1.0.0/24"));
    for _ in 0..2 {
        sim.create(&call("a", 1), &to_n).await.unwrap();
    }
    assert_eq!(sim.create(&call("a", 1), &to_m).await.unwrap_err().outcome(), "conflict");
    sim.replace(&call("a", 1), &to_n, &to_m).await.unwrap();
    let all = listed(&sim, "a").await;
    assert_eq!((all.len(), all[0].node.as_str(), all[0].blackhole), (1, "m", false));
    sim.create(&call("b", 1), &to_n).await.unwrap();
    for _ in 0..2 {
        sim.delete(&call("a", 1), &to_m).await.unwrap();
    }
    assert!(listed(&sim, "a").await.is_empty());
    assert_eq!(listed(&sim, "b").await.len(), 1, "another cluster's network");
}

#[tokio::test]
async fn a_route_to_a_machine_that_is_gone_leads_nowhere() {
    let sim = with_nodes();
    sim.create(&call("a", 1), &route("n", "10.1.0.0/24")).await.unwrap();
    sim.command(Command::SetPower { name: "n".to_owned(), power: Power::Terminated }).unwrap();
    let all = listed(&sim, "a").await;
    assert!(all[0].blackhole && all[0].node.is_empty(), "{all:?}");
    assert_eq!(sim.create(&call("a", 1), &route("n", "10.2.0.0/24")).await.unwrap_err().outcome(), "not_found");
}

#[tokio::test]
async fn others_routes_are_neither_listed_nor_changed() {
    let sim = with_nodes();
    let (cluster, destination) = (ClusterId("a".into()), "10.9.0.0/24".parse().unwrap());
    sim.command(Command::AddForeignRoute { cluster, destination }).unwrap();
    assert!(listed(&sim, "a").await.is_empty());
    let ours = route("n", "10.9.0.0/24");
    assert_eq!(sim.create(&call("a", 1), &ours).await.unwrap_err().outcome(), "conflict");
    assert_eq!(sim.replace(&call("a", 1), &ours, &ours).await.unwrap_err().outcome(), "not_found");
    sim.delete(&call("a", 1), &ours).await.unwrap();
    assert_eq!(sim.state().routes.len(), 1);
    sim.command(Command::LoseRoutes { destination }).unwrap();
    assert!(sim.state().routes.is_empty());
}

#[tokio::test]
async fn lists_come_in_pages_that_hold_everything_once() {
    let sim = with_nodes();
    set(&sim, Settings { page: 7, ..Settings::default() });
    for third in 0..30 {
        sim.create(&call("a", 1), &route("n", &format!("10.1.{third}.0/24"))).await.unwrap();
    }
    let mut found: Vec<_> = listed(&sim, "a").await.into_iter().map(|route| route.destination).collect();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 30);
    sim.add_fault(Rule::new("routes.list", Fault::Partial { keep: 3 }));
    assert_eq!(listed(&sim, "a").await.len(), 3);
}
