//! The two managers, started in the same way: quarterdeck and its peer.

use std::time::Duration;

use anyhow::{Result, bail};
use quarterdeck_it::{ControlPlane, Deck, Process, Server, eventually};
use serde_json::Value;

use crate::api::Http;

/// Time that anything gets that should take seconds, on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// quarterdeck.
    Ours,
    /// The Go kube-controller-manager.
    Go,
}

impl Side {
    /// Both, the first one in turns, so that neither gains by its place.
    pub(crate) fn both(round: usize) -> [Self; 2] {
        if round.is_multiple_of(2) { [Self::Ours, Self::Go] } else { [Self::Go, Self::Ours] }
    }

    /// Its name.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "quarterdeck",
            Self::Go => "kube-controller-manager",
        }
    }

    /// Name of its Lease in kube-system.
    pub(crate) fn lease(self) -> &'static str {
        self.title()
    }

    /// Path of its Lease.
    pub(crate) fn lease_path(self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{}", self.lease())
    }
}

/// Replicas of one side, of which one leads.
pub(crate) struct Crew {
    side: Side,
    members: Vec<Member>,
    leader: usize,
}

enum Member {
    Ours(Deck),
    Go(Box<Server>),
}

impl Crew {
    /// Starts replicas that run only `controllers`, without limits on their requests. The first one
    /// leads when this returns, and all have warm caches (the Go manager's followers have none).
    pub(crate) async fn start(
        control_plane: &ControlPlane,
        http: &Http,
        side: Side,
        controllers: &[&str],
        replicas: usize,
        flags: &[&str],
    ) -> Result<Self> {
        let mut all = vec![format!("--controllers={}", controllers.join(","))];
        all.extend(["--kube-api-qps=5000".to_owned(), "--kube-api-burst=10000".to_owned()]);
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        if side == Side::Go {
            // An unreleased Lease of the run before would hold this one up.
            http.delete(&side.lease_path()).await?;
        }
        let mut crew = Self { side, members: Vec::new(), leader: 0 };
        for index in 0..replicas {
            let member = match side {
                Side::Ours => Member::Ours(Deck::builder(control_plane).replicas(1).args(all.clone()).start().await?),
                Side::Go => {
                    let flags: Vec<_> = all.iter().map(String::as_str).collect();
                    Member::Go(Box::new(control_plane.start_kcm(&flags).await?))
                }
            };
            crew.members.push(member);
            if index == 0 {
                crew.held(http).await?;
            }
        }
        crew.ready().await?;
        Ok(crew)
    }

    /// The process that leads.
    pub(crate) fn leader(&self) -> Process {
        self.members[self.leader].process()
    }

    /// Every process.
    pub(crate) fn processes(&self) -> Vec<Process> {
        self.members.iter().map(Member::process).collect()
    }

    /// Processor seconds of all replicas so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        self.processes().iter().map(|process| Ok(process.usage()?.cpu.as_secs_f64())).sum()
    }

    /// Resident memory of all replicas, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.processes().iter().map(|process| Ok(mebibytes(process.usage()?.resident))).sum()
    }

    /// Counts the replica after the leader as the leader, and starts the old one again: of two
    /// replicas, the other one took over.
    pub(crate) async fn handed_over(&mut self) -> Result<()> {
        let old = self.leader;
        self.leader = (old + 1) % self.members.len();
        let process = self.members[old].process();
        process.wait(LONG).await?;
        match &self.members[old] {
            Member::Ours(deck) => deck.replica(0).restart()?,
            Member::Go(server) => server.start().await?,
        }
        self.ready().await
    }

    /// Ends all replicas in an orderly way.
    pub(crate) async fn stop(self) -> Result<()> {
        for process in self.processes() {
            process.stop(Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        for member in &self.members {
            match member {
                Member::Ours(deck) => deck.ready(LONG).await?,
                Member::Go(server) => server.wait_ready(LONG).await?,
            }
        }
        Ok(())
    }

    /// Waits until somebody holds the Lease.
    async fn held(&self, http: &Http) -> Result<()> {
        eventually("the Lease is held", LONG, || async {
            let lease = http.get(&self.side.lease_path()).await?;
            if holder(&lease).is_empty() {
                bail!("nobody holds {}", self.side.lease());
            }
            Ok(())
        })
        .await
    }
}

impl Member {
    fn process(&self) -> Process {
        match self {
            Self::Ours(deck) => deck.replica(0).process(),
            Self::Go(server) => server.process(),
        }
    }
}

/// Who holds a Lease; empty for nobody.
pub(crate) fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "memory is less than 2^52 bytes")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
