//! Something to write, all the time.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Pause between two changes.
const PAUSE: Duration = Duration::from_millis(25);
/// The service.
const NAME: &str = "work";

/// A service whose labels change; its slice has to follow.
pub(super) struct Work {
    stop: CancellationToken,
    changing: AbortOnDropHandle<()>,
}

impl Work {
    /// Begins.
    pub(super) async fn start(client: kube::Client) -> Result<Self> {
        let services: Api<Service> = Api::namespaced(client, "default");
        if services.get_opt(NAME).await?.is_none() {
            let service = json!({
                "metadata": { "name": NAME },
                "spec": { "selector": { "app": NAME }, "ports": [{ "port": 80 }] },
            });
            services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        }
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let changing = tokio::spawn(async move {
            for number in 0_u64.. {
                let label = Patch::Merge(json!({ "metadata": { "labels": { "number": number.to_string() } } }));
                // The servers' own leader may have just gone.
                let _ = services.patch(NAME, &PatchParams::default(), &label).await;
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        });
        Ok(Self { stop, changing: AbortOnDropHandle::new(changing) })
    }

    /// Ends.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        let _ = self.changing.await;
    }
}
