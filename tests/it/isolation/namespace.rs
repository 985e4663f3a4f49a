//! A namespace that is made anew while its deletion is on the way.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use quarterdeck_it::audit::Event;
use quarterdeck_it::deck::{busy_since, group, lease_connection, read_connection};
use quarterdeck_it::proxy::{Faults, Flow};
use quarterdeck_it::{ControlPlane, Deck, Proxy, eventually};

use super::LONG;

const ARGS: [&str; 5] = [
    "--controllers=namespace-controller",
    // Collections are deleted only where the fence is known to stand.
    "--fence=required",
    "--leader-elect-lease-duration=4s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=500ms",
];

async fn fill(control_plane: &ControlPlane, name: &str) -> Result<()> {
    control_plane.namespace(name).await?;
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin().await?, name);
    for number in 0..3 {
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(format!("map-{number}")), ..Default::default() },
            data: Some(BTreeMap::from([("kept".to_owned(), "yes".to_owned())])),
            ..Default::default()
        };
        maps.create(&PostParams::default(), &map).await?;
    }
    Ok(())
}

async fn delete(control_plane: &ControlPlane, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(control_plane.admin().await?);
    namespaces.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn gone(control_plane: &ControlPlane, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(control_plane.admin().await?);
    eventually(&format!("namespace {name} is gone"), LONG, async || match namespaces.get_opt(name).await? {
        None => Ok(()),
        Some(namespace) => bail!("{:?}", namespace.status),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_deletecollection_spares_a_namespace_that_was_made_anew() {
    let control_plane = ControlPlane::builder().start().await.unwrap();
    let mut proxies = Vec::new();
    for _ in 0..2 {
        proxies.push(Proxy::start(control_plane.apiserver(0).address()).await.unwrap());
    }
    let deck = Deck::builder(&control_plane).replicas(2).servers(proxies.iter().map(Proxy::url)).args(ARGS);
    let deck = deck.start().await.unwrap();
    deck.ready(LONG).await.unwrap();
    let old = deck.leader(LONG).await.unwrap();
    let (process, proxy) = (deck.replica(old).process(), &proxies[old]);

    // Once for practice: the connections for writes are open then.
    fill(&control_plane, "practice").await.unwrap();
    delete(&control_plane, "practice").await.unwrap();
    gone(&control_plane, "practice").await.unwrap();
    let lease = lease_connection(&control_plane, proxy, old).await.unwrap();
    let reader = read_connection(proxy, lease, fill(&control_plane, "phoenix")).await.unwrap();

    let held = Faults { to_server: Flow::Hold, ..Faults::none() };
    proxy.set_new(held);
    let before = proxy.connections();
    for connection in before.iter().filter(|connection| ![lease, reader].contains(&connection.id)) {
        proxy.set_one(connection.id, held);
    }
    delete(&control_plane, "phoenix").await.unwrap();
    eventually("a write is on its way", LONG, async || {
        let writes = busy_since(proxy, &before).into_iter().filter(|id| ![lease, reader].contains(id)).count();
        ensure!(writes > 0, "none");
        Ok(())
    })
    .await
    .unwrap();
    process.pause().await.unwrap();
    gone(&control_plane, "phoenix").await.unwrap();
    fill(&control_plane, "phoenix").await.unwrap();

    let mut audit = control_plane.audit_from_now().unwrap();
    proxy.set(Faults::none());
    let late = |event: &Event| {
        event.verb == "deletecollection" && event.namespace() == "phoenix" && event.user.groups.contains(&group(old))
    };
    let late = audit.wait_for("the late deletecollection", LONG, late).await;
    process.resume().unwrap();
    let late = late.unwrap();
    assert_eq!(late.code(), 403, "{late:?}");
    let message = late.response_status.map(|status| status.message).unwrap_or_default();
    assert!(message.contains("quarterdeck fence"), "{message}");

    // It notices that it sleeps no more, and what it had in mind comes to nothing.
    eventually("it stands by", LONG, async || {
        let status = deck.replica(old).status().await?;
        ensure!(!status.leads(), "it leads");
        Ok(())
    })
    .await
    .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin().await.unwrap(), "phoenix");
    for number in 0..3 {
        let map = maps.get(&format!("map-{number}")).await.map_err(|error| anyhow!(error)).unwrap();
        assert!(map.metadata.deletion_timestamp.is_none());
    }
}
