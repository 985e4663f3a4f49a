//! One of the two servers that are compared, with the controllers that work on it.

use anyhow::{Context, Result};
use http::Request;
use quarterdeck_it::{ControlPlane, Deck, Server};
use serde_json::{Value, json};

use super::facts::{Facts, Objects, facts, orphans};
use super::world::Step;

/// Few, so that services have several slices.
pub(super) const MAX_ENDPOINTS: usize = 3;
const CONTROLLERS: &str =
    "--controllers=endpoints-controller,endpointslice-controller,endpointslice-mirroring-controller";

/// Who keeps the slices of a server.
enum Manager {
    Go { _server: Box<Server> },
    Ours { _deck: Deck },
}

/// A server and its controllers.
pub(super) struct Side {
    // Dropped first: a manager without a server fills its log.
    _manager: Manager,
    control_plane: ControlPlane,
    client: kube::Client,
}

impl Side {
    /// A server where the Go kube-controller-manager works.
    pub(super) async fn go() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let slices = format!("--max-endpoints-per-slice={MAX_ENDPOINTS}");
        let flags =
            [CONTROLLERS, "--leader-elect=false", "--kube-api-qps=1000", "--kube-api-burst=2000", slices.as_str()];
        let server = control_plane.start_kcm(&flags).await?;
        Self::of(Manager::Go { _server: Box::new(server) }, control_plane).await
    }

    /// A server where quarterdeck works.
    pub(super) async fn ours() -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let slices = format!("--max-endpoints-per-slice={MAX_ENDPOINTS}");
        let flags = [CONTROLLERS, "--kube-api-qps=1000", "--kube-api-burst=2000", slices.as_str()];
        let deck = Deck::builder(&control_plane).replicas(1).args(flags).start().await?;
        Self::of(Manager::Ours { _deck: deck }, control_plane).await
    }

    async fn of(manager: Manager, control_plane: ControlPlane) -> Result<Self> {
        let client = control_plane.admin().await?;
        Ok(Self { _manager: manager, control_plane, client })
    }

    /// Makes a namespace.
    pub(super) async fn namespace(&self, name: &str) -> Result<()> {
        self.control_plane.namespace(name).await
    }

    /// Takes steps, one after the other.
    pub(super) async fn take(&self, steps: &[Step]) -> Result<()> {
        for step in steps {
            let kind = if step.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let request = Request::builder().method(step.method).uri(&step.path).header("content-type", kind);
            let request = request.body(step.body.to_string().into_bytes())?;
            match self.client.request::<Value>(request).await {
                Err(kube::Error::Api(status)) if status.code == 404 && step.may_be_gone => {}
                answer => drop(answer.with_context(|| step.to_string())?),
            }
        }
        Ok(())
    }

    /// Has every service looked at again. Annotations of services show nowhere.
    pub(super) async fn prod(&self, services: &[String], number: usize) -> Result<()> {
        let steps: Vec<Step> = services.iter().map(|path| Step::note(path, number)).collect();
        self.take(&steps).await
    }

    /// What its objects say.
    pub(super) async fn facts(&self, namespace: &str) -> Result<Facts> {
        Ok(facts(&self.objects(namespace).await?, MAX_ENDPOINTS))
    }

    /// Does the garbage collector's part, who does not work here: deletes the slices of services that
    /// are gone. The Go controller leaves an empty one to it even where a new service needs one.
    pub(super) async fn collect_garbage(&self, namespace: &str) -> Result<()> {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        for name in orphans(&self.objects(namespace).await?) {
            let step = Step { method: "DELETE", path: format!("{path}/{name}"), body: json!({}), may_be_gone: true };
            self.take(&[step]).await?;
        }
        Ok(())
    }

    async fn objects(&self, namespace: &str) -> Result<Objects> {
        let core = format!("/api/v1/namespaces/{namespace}");
        // Owners last: what they own was there before.
        Ok(Objects {
            slices: self.list(&format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")).await?,
            endpoints: self.list(&format!("{core}/endpoints")).await?,
            services: self.list(&format!("{core}/services")).await?,
            pods: self.list(&format!("{core}/pods")).await?,
        })
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list: Value = self.client.request(Request::get(path).body(Vec::new())?).await?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }
}

impl Step {
    fn note(path: &str, number: usize) -> Self {
        let body = json!({ "metadata": { "annotations": { "example.org/prod": number.to_string() } } });
        Self { method: "PATCH", path: path.to_owned(), body, may_be_gone: false }
    }
}
