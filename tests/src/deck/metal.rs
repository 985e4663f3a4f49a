//! A demonstration of the provider metal: an inventory that may be edited, and its machines where they can be made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

use super::Demo;
use super::metal_yard::{MetalYard, NODE_PORT, NODES};
use crate::ControlPlane;

/// Namespace of the agents' Leases.
const AGENTS_NAMESPACE: &str = "quarterdeck-agents";

const INVENTORY: &str = "\
# The machines. Edit it: what is broken harms nothing, and is told by an event in kube-system.
cluster: demonstration
instances:
  - name: gw-1
    addresses: [{InternalIP: 10.0.0.1}]
    role: gateway
  - name: gw-2
    addresses: [{InternalIP: 10.0.0.2}]
    role: gateway
  - name: metal-1
    addresses: [{InternalIP: 10.0.0.11}]
    zone: row-a
    type: r640
  - name: metal-2
    addresses: [{InternalIP: 10.0.0.12}]
    zone: row-b
    type: r640
  - name: metal-3
    addresses: [{InternalIP: 10.0.0.13}]
    zone: row-b
    type: r640
";

/// The demonstration's inventory.
pub struct MetalDemo {
    inventory: PathBuf,
    yard: Option<MetalYard>,
    /// Why there are no machines.
    missing: Option<String>,
}

impl MetalDemo {
    /// Writes the inventory into a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(folder: &Path) -> Result<Self> {
        let inventory = folder.join("inventory.yaml");
        std::fs::write(&inventory, INVENTORY).with_context(|| inventory.display().to_string())?;
        Ok(Self { inventory, yard: None, missing: None })
    }

    /// Flags of replicas, and of their installation.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        vec![
            "--cloud-provider=metal".to_owned(),
            format!("--cloud-config={}", self.inventory.display()),
            "--configure-cloud-routes=true".to_owned(),
            "--cluster-cidr=10.244.0.0/16".to_owned(),
        ]
    }

    /// Makes Nodes as kubelets register them, a pool, and a Service.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn furnish(&self, control_plane: &ControlPlane) -> Result<()> {
        let client = control_plane.admin().await?;
        let params = PatchParams::apply("demo").force();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": AGENTS_NAMESPACE } });
        namespaces.patch(AGENTS_NAMESPACE, &params, &Patch::Apply(namespace)).await?;
        let demo = Demo::new(client.clone(), "default");
        for (number, name) in (1..).zip(NODES) {
            demo.cloud_node(name, &format!("10.244.{number}.0/24")).await?;
        }
        let pool = json!({
            "apiVersion": "cloud.quarterdeck.dev/v1alpha1", "kind": "AddressPool",
            "metadata": { "name": "public" }, "spec": { "addresses": ["192.0.2.10-192.0.2.20"] },
        });
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cloud.quarterdeck.dev", "v1alpha1", "AddressPool"));
        let pools: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        pools.patch("public", &params, &Patch::Apply(pool)).await?;
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "berth" },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "berth" },
                "ports": [{ "port": 80, "nodePort": NODE_PORT }],
            },
        });
        services.patch("berth", &params, &Patch::Apply(service)).await?;
        Ok(())
    }

    /// The machines, where they can be made; says what is missing for that.
    ///
    /// # Errors
    /// When they can, and are not.
    pub async fn build(&mut self, folder: &Path, control_plane: &ControlPlane) -> Result<()> {
        self.missing = MetalYard::missing();
        if self.missing.is_none() {
            self.yard = Some(MetalYard::build(folder, control_plane).await?);
        }
        Ok(())
    }

    /// What to try.
    pub fn describe(&self) {
        println!("\nThe inventory: {}", self.inventory.display());
        println!("  kubectl get nodes -L topology.kubernetes.io/zone           # initialised from the inventory");
        println!(
            "  kubectl get metalroutes,addressreservations                # pods' routes, and an address for berth"
        );
        if let Some(yard) = &self.yard {
            return yard.describe();
        }
        println!(
            "Its machines are not there. To have them, this is missing: {}",
            self.missing.as_deref().unwrap_or("-")
        );
        println!(
            "  kubectl get metalloadbalancers -o yaml                     # waits for a gateway's agent: it says so"
        );
        println!("  docs/cloud/metal-agent.md runs agents that put it into a kernel");
    }
}
