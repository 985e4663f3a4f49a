//! A control plane with the objects that the figures need.

use std::path::Path;

use anyhow::Result;
use quarterdeck_it::{AuditPolicy, ControlPlane, Peer};
use serde_json::json;

use crate::api::Http;
use crate::load::{self, NAMESPACE};

/// Path of the slices of the crowded namespace.
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices";
/// Path of the Endpoints of the crowded namespace.
pub(crate) const ENDPOINTS: &str = "/api/v1/namespaces/bench/endpoints";

/// A control plane for some figures.
pub(crate) struct Yard {
    pub(crate) control_plane: ControlPlane,
    pub(crate) http: Http,
    /// Pods that are there.
    pods: usize,
}

impl Yard {
    /// Starts an empty one; with a folder, takes the one in it, or starts it there to stay.
    pub(crate) async fn open(folder: Option<&Path>) -> Result<Self> {
        let control_plane = match folder {
            Some(folder) if ControlPlane::exists(folder) => ControlPlane::attach(folder).await?,
            folder => {
                let builder = ControlPlane::builder().audit(AuditPolicy::metadata()).with(&[Peer::Kcm]);
                folder.map_or(builder.clone(), |folder| builder.folder(folder).detached()).start().await?
            }
        };
        let http = Http::new(&control_plane).await?;
        let pods = http.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1")).await?;
        let first = pods["items"].as_array().map_or(0, Vec::len);
        let rest = pods["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
        let pods = first + usize::try_from(rest)?;
        Ok(Self { control_plane, http, pods })
    }

    /// Fills it up to this many running, ready pods behind `services` services on `nodes` nodes.
    pub(crate) async fn fill(&mut self, pods: usize, services: usize, nodes: usize) -> Result<()> {
        if self.pods == 0 {
            self.control_plane.namespace(NAMESPACE).await?;
            let each = |http: Http, index| async move { http.create("/api/v1/nodes", &load::node(index)).await };
            self.http.for_each(0..nodes, 16, each).await?;
            let path = format!("/api/v1/namespaces/{NAMESPACE}/services");
            let each = |http: Http, index| {
                let path = path.clone();
                async move { http.create(&path, &load::service(&load::service_name(index))).await }
            };
            self.http.for_each(0..services, 16, each).await?;
        }
        if self.pods < pods {
            let begun = std::time::Instant::now();
            let each = move |http: Http, index| async move {
                http.create(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), &load::pod(index, services, nodes))
                    .await?;
                http.merge(&load::pod_status_path(index), &json!({ "status": load::pod_status(index, nodes) })).await?;
                Ok(())
            };
            self.http.for_each(self.pods..pods, 32, each).await?;
            eprintln!("   {} pods made in {:.0} s", pods - self.pods, begun.elapsed().as_secs_f64());
            self.pods = pods;
        }
        Ok(())
    }

    /// Takes away what the controllers wrote.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.http.delete(SLICES).await?;
        self.http.delete(ENDPOINTS).await
    }
}
