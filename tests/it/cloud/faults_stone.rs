//! quarterdeck with one provider more, `stone`: a plug-in's client that blocks its thread in every call as long as a
//! file is there, as a client without async and without timeouts does. The program is this test's own binary.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use quarterdeck_cloud::error::Result as CloudResult;
use quarterdeck_cloud::facility::{MakeProvider, ProviderKind, ProviderKinds};
use quarterdeck_cloud::grpc::Plugin;
use quarterdeck_cloud::model::{
    Answers, Deletion, Handle, LbOutcome, LoadBalancerSpec, NodeRef, OwnedLoadBalancer, Owner, Page, Route,
};
use quarterdeck_cloud::provider::{ProviderInfo, SharedProvider};
use quarterdeck_cloud::{CallCtx, Instances, LoadBalancers, Provider, Routes};
use quarterdeck_manager::Manager;
use quarterdeck_runtime::controller::SetupError;

/// Arguments of the program, a line each, for the test that is one.
const ARGS: &str = "QUARTERDECK_STONE_ARGS";
/// How often a blocked thread looks whether it still is.
const LOOK: Duration = Duration::from_millis(20);

/// Is a program when it is told to be one, and nothing else.
#[test]
fn program() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let manager = Manager::builder("quarterdeck").upstream();
    let kind = ProviderKind { name: "stone", make, load_balancer_grants: Vec::new, route_grants: Vec::new };
    let ended =
        quarterdeck_controllers::all(manager).given(ProviderKinds(vec![kind])).run(args.lines().map(Into::into));
    // No further word: the harness of tests has nothing to wait for here.
    std::process::exit(i32::from(ended != std::process::ExitCode::SUCCESS));
}

/// A script in `folder` that starts the program with the arguments of the script.
pub(super) fn script(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let (path, own) = (folder.join("quarterdeck"), std::env::current_exe()?);
    let name = format!("{}::program", module_path!().split_once("::").context("a module")?.1);
    let text = format!(
        "#!/bin/sh\nexport {ARGS}=\"$(printf '%s\\n' \"$@\")\"\nexec '{}' --exact {name} --nocapture\n",
        own.display()
    );
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The file that has every call block.
pub(super) fn switch(socket: &Path) -> PathBuf {
    socket.with_extension("blocked")
}

fn make(making: &MakeProvider<'_>) -> Result<SharedProvider, SetupError> {
    let refuse = |reason: String| SetupError { flag: "cloud-provider", reason };
    let socket = making.uri.ok_or_else(|| refuse("stone needs a socket".to_owned()))?;
    let place = format!("unix://{socket}").parse().map_err(|error| refuse(format!("{error}")))?;
    Ok(Arc::new(Stone { plugin: Plugin::new(place, None), switch: switch(Path::new(socket)) }))
}

struct Stone {
    plugin: Plugin,
    switch: PathBuf,
}

impl Stone {
    /// The plug-in, once nothing blocks any more.
    fn plugin(&self) -> &Plugin {
        while self.switch.exists() {
            std::thread::sleep(LOOK);
        }
        &self.plugin
    }
}

#[async_trait]
impl Provider for Stone {
    async fn info(&self, call: &CallCtx) -> CloudResult<ProviderInfo> {
        self.plugin().info(call).await
    }

    async fn probe(&self, call: &CallCtx) -> CloudResult<()> {
        self.plugin().probe(call).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Stone {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> CloudResult<Answers> {
        self.plugin().get_many(call, nodes).await
    }
}

#[async_trait]
impl LoadBalancers for Stone {
    async fn get(&self, call: &CallCtx, owner: &Owner) -> CloudResult<Vec<OwnedLoadBalancer>> {
        self.plugin().get(call, owner).await
    }

    async fn ensure(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: Option<&Handle>) -> CloudResult<LbOutcome> {
        self.plugin().ensure(call, spec, known).await
    }

    async fn update_backends(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: &Handle) -> CloudResult<LbOutcome> {
        self.plugin().update_backends(call, spec, known).await
    }

    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, known: Option<&Handle>) -> CloudResult<Deletion> {
        self.plugin().ensure_deleted(call, owner, known).await
    }

    async fn list_owned(&self, call: &CallCtx, page: Option<&str>) -> CloudResult<Page<OwnedLoadBalancer>> {
        self.plugin().list_owned(call, page).await
    }
}

#[async_trait]
impl Routes for Stone {
    async fn list(&self, call: &CallCtx, page: Option<&str>) -> CloudResult<Page<Route>> {
        self.plugin().list(call, page).await
    }

    async fn create(&self, call: &CallCtx, route: &Route) -> CloudResult<()> {
        self.plugin().create(call, route).await
    }

    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> CloudResult<()> {
        self.plugin().replace(call, old, new).await
    }

    async fn delete(&self, call: &CallCtx, route: &Route) -> CloudResult<()> {
        self.plugin().delete(call, route).await
    }
}
