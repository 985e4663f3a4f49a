//! A demonstration of the made-up cloud: a plug-in with a few machines.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Demo;
use crate::CloudSim;

/// Machines of the made-up cloud, and the pod networks of their nodes.
const MACHINES: [(&str, &str); 3] =
    [("cloud-a", "10.244.1.0/24"), ("cloud-b", "10.244.2.0/24"), ("cloud-c", "10.244.3.0/24")];

/// A made-up cloud that runs.
pub struct SimDemo {
    cloud: CloudSim,
}

impl SimDemo {
    /// Starts the cloud; it goes on when this program ends.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
        let cloud = CloudSim::builder()
            .folder(folder.join("cloud"))
            .instances(MACHINES.map(|(name, _)| format!("{name}@zone-{name}")))
            .args(["--provision-ms=2000"])
            .detached(true)
            .start()
            .await?;
        cloud.write_down(&ledger(folder))?;
        Ok(Self { cloud })
    }

    /// Ends the cloud that was started for this folder, if there is one.
    ///
    /// # Errors
    /// When it survives.
    pub async fn end(folder: &Path) -> Result<()> {
        CloudSim::end_written_down(&ledger(folder)).await
    }

    /// Flags of replicas, and of their installation.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        vec![self.cloud.flag(), "--configure-cloud-routes=true".to_owned(), "--cluster-cidr=10.244.0.0/16".to_owned()]
    }

    /// Makes Nodes as kubelets register them.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn furnish(&self, client: &kube::Client) -> Result<()> {
        let demo = Demo::new(client.clone(), "default");
        for (name, pod_cidr) in MACHINES {
            demo.cloud_node(name, pod_cidr).await?;
        }
        Ok(())
    }

    /// What to try.
    pub fn describe(&self) {
        let (control, log) = (self.cloud.client().socket(), self.cloud.socket().with_file_name("cloud.log"));
        let ask = format!("curl -s --unix-socket {} http://sim", control.display());
        println!(
            "\nA cloud is there, and it is MADE UP: its machines and load balancers are data, and carry no packet.\n"
        );
        println!("  log          {}", log.display());
        println!("  kubectl get nodes -L topology.kubernetes.io/zone           # what the cloud knows of its machines");
        println!("  kubectl create service loadbalancer web --tcp=80           # an address within seconds");
        println!("  {ask}/state          # the cloud's own view; /calls: what it was asked");
        println!("  {ask}/command -d '{{\"set_power\": {{\"name\": \"cloud-a\", \"power\": \"stopped\"}}}}'");
        println!(
            "  {ask}/command -d '{{\"add_fault\": {{\"method\": \"*\", \"fault\": {{\"hang\": {{\"at\": \"before\"}}}}}}}}'"
        );
        println!("  {ask}/command -d '{{\"clear_faults\": {{}}}}'");
    }
}

/// Where the cloud's process is written down.
fn ledger(folder: &Path) -> PathBuf {
    folder.with_extension("cloud.json")
}
