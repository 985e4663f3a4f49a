//! A limit of 64 MiB, with three thousand pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use quarterdeck_it::eventually;
use quarterdeck_it::masters::Masters;
use serde_json::{Value, json};

use super::super::LONG;
use super::super::world::World;

/// Pods, and services that share them.
const PODS: usize = 3000;
const SERVICES: usize = 30;
/// Requests under way at a time.
const AT_ONCE: usize = 16;
/// Time that three thousand pods get.
const MANY: Duration = Duration::from_secs(900);
const SLICES: &str =
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcrew-";

/// The program is the debug build: what it holds in memory is what the release holds, its code is larger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_pods_fit_into_sixty_four_mebibytes() {
    if Masters::is_left_out() {
        return;
    }
    run().await.unwrap();
}

pub(super) async fn run() -> Result<()> {
    let (world, _) = World::manned(|manifest| manifest.memory("64Mi")).await?;
    crowded(&world).await?;
    world.end().await
}

async fn crowded(world: &World) -> Result<()> {
    let (masters, asked) = (&world.masters, 1);
    for service in 0..SERVICES {
        world.service(asked, &format!("crew-{service}"), &format!("crew-{service}")).await?;
    }
    let client = masters.client(asked).await?;
    let made = stream::iter(0..PODS).map(|number| sailor(client.clone(), number)).buffer_unordered(AT_ONCE);
    made.try_collect::<Vec<()>>().await?;
    all_are_listed(world, asked).await?;
    figures(world, "with 3,000 pods")?;

    // The next leader has them, too, and works.
    let leader = world.leader(asked, None).await?;
    masters.deploy(leader.master, None)?;
    let next = world.leader(asked, Some(&leader)).await?;
    masters.deploy(leader.master, Some(&world.manifest))?;
    masters.until_mirror_ready(leader.master, asked, LONG).await?;
    world.service(asked, "crew-again", "crew-0").await?;
    listed(world, asked, "again", PODS / SERVICES).await?;
    figures(world, "after a hand-over")?;
    for number in 1..=3 {
        let restarts = masters.until_mirror_ready(number, asked, LONG).await?;
        ensure!(restarts == 0, "master {number} was started again {restarts} times\n{}", masters.master(number).logs());
    }
    ensure!(world.leader(asked, None).await? == next, "the deck changed hands meanwhile");
    Ok(())
}

/// A pod that only the server knows: nobody schedules it, and it says that it is ready.
async fn sailor(client: kube::Client, number: usize) -> Result<()> {
    let name = format!("sailor-{number}");
    let address = format!("10.99.{}.{}", number / 250, number % 250 + 1);
    let pod = json!({
        "metadata": { "name": name, "labels": { "app": format!("crew-{}", number % SERVICES) } },
        "spec": {
            "schedulerName": "nobody", "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": "nowhere.example/none:1" }],
        },
    });
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    let pods = "/api/v1/namespaces/default/pods";
    let json = "application/json";
    send(&client, Method::POST, pods, json, &pod).await?;
    send(&client, Method::PATCH, &format!("{pods}/{name}/status"), "application/merge-patch+json", &status).await
}

async fn send(client: &kube::Client, method: Method, path: &str, form: &str, body: &Value) -> Result<()> {
    eventually(path, LONG, || async {
        let request = Request::builder().method(method.clone()).uri(path).header("content-type", form);
        match client.request::<Value>(request.body(body.to_string().into_bytes())?).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn all_are_listed(world: &World, asked: usize) -> Result<()> {
    for service in 0..SERVICES {
        listed(world, asked, &service.to_string(), PODS / SERVICES).await?;
    }
    Ok(())
}

async fn listed(world: &World, asked: usize, service: &str, count: usize) -> Result<()> {
    eventually(&format!("crew-{service} has {count} endpoints"), MANY, || async {
        let slices = world.get(asked, &format!("{SLICES}{service}")).await?.context("no slices")?;
        let slices = slices["items"].as_array().cloned().unwrap_or_default();
        let found: usize = slices.iter().map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum();
        ensure!(found == count, "{found}");
        Ok(())
    })
    .await
}

/// What each replica holds.
fn figures(world: &World, when: &str) -> Result<()> {
    for master in world.masters.all() {
        for pid in master.quarterdeck_pids()? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            let fields = ["VmRSS:", "VmHWM:", "RssAnon:"].map(field);
            eprintln!(
                "{when}: master {}: rss {}, highest {}, without files {}",
                master.number(),
                fields[0],
                fields[1],
                fields[2]
            );
        }
    }
    Ok(())
}
