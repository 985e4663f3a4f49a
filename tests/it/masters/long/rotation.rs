//! Credentials are replaced on masters that run, and nothing is started again.

use anyhow::{Context, Result, ensure};
use quarterdeck_it::audit::Event;
use quarterdeck_it::eventually;
use quarterdeck_it::masters::Masters;

use super::super::LONG;
use super::super::world::World;

/// The name in the serving certificates.
const NAME: &str = "quarterdeck.test";
/// How an audit log tells certificates of one user apart (kubernetes/staging/src/k8s.io/apiserver/pkg/authentication/request/x509/x509.go, v1.36.3).
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeconfig_and_certificate_are_replaced_without_a_restart() {
    if Masters::is_left_out() {
        return;
    }
    run().await.unwrap();
}

pub(super) async fn run() -> Result<()> {
    let mut world = World::bare().await?;
    let folder = "/etc/kubernetes/quarterdeck";
    for (flag, file) in [("tls-cert-file", "tls.crt"), ("tls-private-key-file", "tls.key")] {
        world.manifest = world.manifest.arg(&format!("--{flag}={folder}/{file}"));
    }
    for number in 1..=3 {
        world.masters.install(number, &[]).await?;
        serve_with(&world, number)?;
    }
    let (world, _) = world.man().await?;
    rotate(&world).await?;
    world.end().await
}

async fn rotate(world: &World) -> Result<()> {
    let masters = &world.masters;
    let holder = world.leader(1, None).await?;
    let leader = masters.master(holder.master);
    let (pids, old) = (leader.quarterdeck_pids()?, credential(world, holder.master).await?);

    let certificate = serve_with(world, holder.master)?;
    eventually("it serves with the new certificate", LONG, || async {
        leader.get_trusting("/readyz", &certificate, NAME).await.map(drop)
    })
    .await?;

    // Another address of its own server has install sign anew.
    let server = format!("--config-server=https://{}:6443", leader.address());
    let output = masters.install(holder.master, &[&server]).await?;
    ensure!(output.contains("quarterdeck.conf configured"), "{output}");
    eventually("it renews its Lease with the new certificate", LONG, || async {
        let now = credential(world, holder.master).await?;
        ensure!(now != old, "still {now}");
        Ok(())
    })
    .await?;
    ensure!(leader.quarterdeck_pids()? == pids, "it was started again");
    ensure!(world.leader(1, None).await? == holder, "the deck changed hands");
    world.service(1, "after", "after").await?;
    eventually("it works", LONG, || async {
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dafter";
        let slices = world.get(1, path).await?.context("none")?;
        ensure!(slices["items"].as_array().is_some_and(|items| !items.is_empty()), "no slice");
        Ok(())
    })
    .await?;
    world.judge(1)
}

/// Gives a master's quarterdeck another certificate to serve with: the key first, so that the pair is whole when the
/// certificate comes.
fn serve_with(world: &World, number: usize) -> Result<String> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let master = world.masters.master(number);
    master.config("tls.key", &key)?;
    master.config("tls.crt", &certificate)?;
    Ok(certificate)
}

/// By which certificate the newest renewal of a master's Lease came.
async fn credential(world: &World, number: usize) -> Result<String> {
    let mut audit = world.masters.audit();
    let renewed = |event: &Event| {
        event.server + 1 == number
            && event.verb == "update"
            && event.resource() == "leases.coordination.k8s.io"
            && event.name() == "quarterdeck"
            && event.succeeded()
    };
    let mut events = audit.filter(renewed)?;
    events.sort_by_key(|event| event.stage_timestamp);
    let event = events.pop().context("it has not renewed yet")?;
    let ids = event.user.extra.get(CREDENTIAL).context("the server tells no credential")?;
    ids.first().cloned().context("the server tells no credential")
}
