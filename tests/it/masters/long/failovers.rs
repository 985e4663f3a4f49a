//! Twenty failovers, with requests through a ClusterIP all the while.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use quarterdeck_it::Signal;
use quarterdeck_it::masters::{Holder, Manifest, Masters, Requests};

use super::super::LONG;
use super::super::story::{answers, has_new_endpoints};
use super::super::world::World;

/// How many.
const FAILOVERS: usize = 20;

/// The leader is killed again and again, each time another way than it stopped before: its process by a signal, then its
/// pod by a changed manifest. Each time one of two backends is replaced by another, so that somebody has to tell
/// kube-proxy: an old one goes on answering for its grace of half a minute, as a backend that is drained does, and the
/// others last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_failovers_lose_no_request() {
    if Masters::is_left_out() {
        return;
    }
    run().await.unwrap();
}

pub(super) async fn run() -> Result<()> {
    let short = ["lease-duration=4s", "renew-deadline=3s", "retry-period=500ms"];
    let flags =
        |manifest| short.iter().fold(manifest, |all: Manifest, flag| all.arg(&format!("--leader-elect-{flag}")));
    let (world, holder) = World::manned(flags).await?;
    twenty(&world, holder).await?;
    world.judge(FAILOVERS)?;
    world.end().await
}

async fn twenty(world: &World, mut holder: Holder) -> Result<()> {
    let (masters, safe) = (&world.masters, 1);
    world.backends(safe, "web", &["web-0", "web-1"]).await?;
    let web = world.service(safe, "web", "web").await?;
    answers(world, safe, web).await?;
    let network = masters.master(safe).network()?;
    let requests = Requests::start(&network, web)?;
    for round in 0..FAILOVERS {
        let begun = Timestamp::now();
        // A manifest that differs is a new pod, which has not crashed before: no back-off keeps it away.
        let changed = world.manifest.clone().edition(round);
        if round % 2 == 0 {
            let pids = masters.master(holder.master).quarterdeck_pids()?;
            ensure!(!pids.is_empty(), "{holder:?} has no process");
            for pid in pids {
                kill(pid)?;
            }
        } else {
            masters.deploy(holder.master, Some(&changed))?;
        }
        let name = format!("web-{}", round + 2);
        world.backends(safe, "web", &[&name]).await?;
        world.leader(safe, Some(&holder)).await?;
        world.delete(safe, &format!("/api/v1/namespaces/default/pods/web-{round}")).await?;
        has_new_endpoints(world, safe, &format!("round-{round}")).await?;
        if round % 2 == 0 {
            masters.deploy(holder.master, Some(&changed))?;
        }
        masters.until_serving(holder.master, LONG).await?;
        let seconds = world.useful_write(begun, &holder).await?;
        eprintln!("failover {round}: {seconds:.2} s, {} requests answered", requests.answered());
        requests.check().with_context(|| format!("in failover {round}"))?;
        // One that was killed may have had the deck again, and lost it with its pod.
        holder = world.leader(safe, None).await?;
    }
    let answered = requests.finish()?;
    ensure!(answered > 1000, "{answered} requests are too few to say anything");
    Ok(())
}

fn kill(pid: i32) -> Result<()> {
    quarterdeck_it::masters::signal(pid, Signal::SIGKILL)
}
