//! quarterdeck on the masters: brought, started, asked.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::{Manifest, Masters};
use crate::binaries::repository;
use crate::deck::{install, program};
use crate::wait::eventually;

/// Namespace of the Lease and the pods.
const NAMESPACE: &str = "kube-system";
/// Name of the Lease, and of the static pods.
const NAME: &str = "quarterdeck";

/// A network for pods, and names.
pub const ADDONS: [&str; 2] = ["network.yaml", "coredns.yaml"];

/// The text of an addon that `hack/masters up` puts on masters.
///
/// # Errors
/// When there is none of this name.
pub fn addon(name: &str) -> Result<String> {
    let file = repository().join("hack/masters.d/addons").join(name);
    std::fs::read_to_string(&file).with_context(|| file.display().to_string())
}

/// Who has the deck, as the Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Number of the master.
    pub master: usize,
    /// Its name in the Lease.
    pub identity: String,
    /// Its epoch: `<lease uid>/<leaseTransitions>`.
    pub token: String,
}

impl Masters {
    /// Runs `quarterdeck install` on a master, as its administrator would: what the server needs, and the folders of this
    /// master.
    ///
    /// # Errors
    /// With what it printed, when it fails.
    pub async fn install(&self, number: usize, args: &[&str]) -> Result<String> {
        let master = self.master(number);
        let pki = self.folder().join("pki");
        let mut all = vec![
            format!("--config-dir={}", master.config_dir().display()),
            format!("--state-dir={}", master.state_dir().display()),
            "--config-server=https://127.0.0.1:6443".to_owned(),
            format!("--cluster-signing-cert-file={}", pki.join("ca.crt").display()),
            format!("--cluster-signing-key-file={}", pki.join("ca.key").display()),
        ];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        install(&program()?, &master.kubeconfig(), &all).await
    }

    /// Starts quarterdeck on all masters by this manifest, with the addons that give pods a network and names; returns when
    /// each mirror pod is ready and somebody has the deck.
    ///
    /// # Errors
    /// When something does not come about within `timeout`.
    pub async fn man(&self, manifest: &Manifest, timeout: Duration) -> Result<Holder> {
        for master in self.all() {
            self.install(master.number(), &[]).await?;
        }
        for name in ADDONS {
            self.addon(name, Some(&addon(name)?))?;
        }
        for master in self.all() {
            self.deploy(master.number(), Some(manifest))?;
        }
        for master in self.all() {
            self.until_serving(master.number(), timeout).await?;
            self.until_mirror_ready(master.number(), master.number(), timeout).await?;
        }
        self.until_held(1, None, timeout).await
    }

    /// Puts an addon on all masters, or takes it from them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn addon(&self, name: &str, text: Option<&str>) -> Result<()> {
        self.all().iter().try_for_each(|master| master.addon(name, text))
    }

    /// Writes quarterdeck's manifest on a master, or removes it.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn deploy(&self, number: usize, manifest: Option<&Manifest>) -> Result<()> {
        self.master(number).static_pod(NAME, manifest.map(Manifest::text))
    }

    /// Name of the mirror pod of a master's quarterdeck.
    pub fn mirror(&self, number: usize) -> String {
        format!("{NAME}-{}", self.master(number).name())
    }

    /// The mirror pod of a master's quarterdeck, if there is one, as another master's server tells it.
    ///
    /// # Errors
    /// When that server does not answer.
    pub async fn mirror_pod(&self, number: usize, asked: usize) -> Result<Option<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client(asked).await?, NAMESPACE);
        Ok(pods.get_opt(&self.mirror(number)).await?)
    }

    /// Waits until a master's mirror pod is Ready, which its probes decide, and tells how often its container was started
    /// again.
    ///
    /// # Errors
    /// When it is not within `timeout`; with what it says of itself, and the ends of the master's logs.
    pub async fn until_mirror_ready(&self, number: usize, asked: usize, timeout: Duration) -> Result<i32> {
        eventually(&format!("the mirror pod of master {number} is ready"), timeout, || async {
            let pod = self.mirror_pod(number, asked).await?.context("there is none")?;
            let status = pod.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            let containers = status.container_statuses.unwrap_or_default();
            match (ready, containers.first()) {
                (true, Some(container)) => Ok(container.restart_count),
                _ => bail!("{conditions:?} {containers:?}"),
            }
        })
        .await
        .with_context(|| self.master(number).logs())
    }

    /// Waits until a master's quarterdeck answers its probes itself.
    ///
    /// # Errors
    /// When it does not within `timeout`.
    pub async fn until_serving(&self, number: usize, timeout: Duration) -> Result<()> {
        let master = self.master(number);
        eventually(&format!("quarterdeck of master {number} answers"), timeout, || async {
            master.get("/livez").await?;
            master.get("/readyz").await.map(drop)
        })
        .await
        .with_context(|| master.logs())
    }

    /// Waits until a master's mirror pod is gone.
    ///
    /// # Errors
    /// When it is not within `timeout`.
    pub async fn until_no_mirror(&self, number: usize, asked: usize, timeout: Duration) -> Result<()> {
        eventually(&format!("the mirror pod of master {number} is gone"), timeout, || async {
            match self.mirror_pod(number, asked).await? {
                None => Ok(()),
                Some(pod) => bail!("{:?}", pod.status.and_then(|status| status.phase)),
            }
        })
        .await
    }

    /// Who holds the Lease, as one master's server says; none if nobody does.
    ///
    /// # Errors
    /// When that server does not answer.
    pub async fn holder(&self, asked: usize) -> Result<Option<Holder>> {
        let leases: Api<Lease> = Api::namespaced(self.client(asked).await?, NAMESPACE);
        let Some(lease) = leases.get_opt(NAME).await? else { return Ok(None) };
        let spec = lease.spec.unwrap_or_default();
        let identity = spec.holder_identity.unwrap_or_default();
        let token =
            format!("{}/{}", lease.metadata.uid.unwrap_or_default(), spec.lease_transitions.unwrap_or_default());
        let holds = |name: &str| identity.strip_prefix(name).is_some_and(|rest| !rest.starts_with(char::is_numeric));
        let master = self.all().iter().find(|master| holds(&master.name()));
        if identity.is_empty() {
            return Ok(None);
        }
        let master = master.with_context(|| format!("{identity} is on no master"))?.number();
        Ok(Some(Holder { master, identity, token }))
    }

    /// Waits for a holder of another epoch than this one (any, without one), by one master's server.
    ///
    /// # Errors
    /// When there is none within `timeout`.
    pub async fn until_held(&self, asked: usize, after: Option<&Holder>, timeout: Duration) -> Result<Holder> {
        eventually("somebody has the deck", timeout, || async {
            let holder = self.holder(asked).await?.context("nobody holds the Lease")?;
            if after.is_some_and(|before| before.token == holder.token) {
                bail!("still {holder:?}");
            }
            Ok(holder)
        })
        .await
    }
}
