//! Plug-ins in other languages, against the client that the manager has.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quarterdeck_cloud::grpc::{Plugin, PluginUri};
use quarterdeck_cloud::model::{
    Backend, ClusterId, Deletion, ExternalTraffic, Handle, IngressPoint, LbOutcome, LoadBalancerSpec, Lookup, NodeRef,
    Owner, Port, Protocol, Route,
};
use quarterdeck_cloud::{CallCtx, CloudError, Instances as _, LoadBalancers as _, Provider as _, Routes as _};
use quarterdeck_it::{Launch, Process, eventually};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);

/// The process of a plug-in, and the client of it.
pub(super) struct Running {
    pub(super) plugin: Plugin,
    pub(super) process: Process,
    socket: PathBuf,
    /// Sockets need short paths: they are not in the folder of the build.
    pub(super) folder: TempDir,
}

impl Running {
    /// Starts a plug-in that takes its socket after `--socket`, and waits until it answers.
    pub(super) async fn start(make: impl FnOnce(&TempDir) -> Launch) -> Result<Self> {
        let folder = TempDir::with_prefix("quarterdeck-plugin-")?;
        let socket = folder.path().join("x.sock");
        let launch = make(&folder).arg("--socket").arg(socket.display().to_string()).log(folder.path().join("log"));
        let plugin = Plugin::new(PluginUri::Unix(socket.clone()), None);
        let running = Self { plugin, process: launch.spawn()?, socket, folder };
        running.answers().await?;
        Ok(running)
    }

    pub(super) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    async fn answers(&self) -> Result<()> {
        eventually("the plug-in answers", LONG, async || {
            ensure!(self.process.is_running(), "it has ended");
            Ok(self.plugin.info(&call(0)).await?)
        })
        .await
        .map(|_| ())
        .with_context(|| format!("its log says:\n{}", self.process.log_text()))
    }

    /// Kills it and starts it again.
    pub(super) async fn is_killed_and_back(&mut self) -> Result<()> {
        let launch = self.process.launch().clone();
        self.process.kill().await?;
        // What was killed leaves its socket behind.
        std::fs::remove_file(&self.socket)?;
        self.process = launch.spawn()?;
        self.answers().await
    }

    /// Kills it: while it is away nothing is absent; it is found again when it is back.
    pub(super) async fn dies_and_comes_back(&mut self, node: &NodeRef) -> Result<()> {
        let launch = self.process.launch().clone();
        self.process.kill().await?;
        let error = self.plugin.get_many(&call(0), std::slice::from_ref(node)).await.expect_err("nobody is there");
        ensure!(matches!(error, CloudError::Unavailable(_)), "{error:?}");
        // What was killed leaves its socket behind.
        std::fs::remove_file(&self.socket)?;
        self.process = launch.spawn()?;
        self.answers().await
    }
}

/// A call in a tenure, with all the time that a loaded machine may need.
pub(super) fn call(lease_epoch: u64) -> CallCtx {
    CallCtx {
        deadline: Instant::now() + LONG,
        cancel: CancellationToken::new(),
        lease_epoch,
        op_id: "4dbd3a3e-6d5f-4f2e-9b36-0d9bfb1d3f50".parse().expect("a UUID"),
        cluster: ClusterId("cluster-1".into()),
    }
}

pub(super) fn node(name: &str, id: Option<&str>) -> NodeRef {
    NodeRef { name: name.into(), provider_id: id.map(Into::into) }
}

pub(super) fn spec(uid: &str) -> LoadBalancerSpec {
    LoadBalancerSpec {
        owner: Owner {
            cluster: ClusterId("cluster-1".into()),
            namespace: "default".into(),
            name: "web".into(),
            uid: uid.into(),
        },
        ports: vec![Port {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 30_080,
            app_protocol: "http".into(),
        }],
        ipv6: vec![false],
        addresses: vec![],
        source_ranges: vec!["10.0.0.0/8".parse().expect("a network")],
        external_traffic: ExternalTraffic::Cluster,
        health_check_node_port: 0,
        affinity: Some(Duration::from_secs(60)),
        annotations: [("example.com/kind".to_owned(), "small".to_owned())].into(),
        backends: vec![Backend {
            name: "node-1".into(),
            provider_id: "x://1".into(),
            addresses: vec!["10.0.0.1".parse().expect("an address")],
        }],
    }
}

pub(super) fn route(destination: &str, node: &str) -> Route {
    Route {
        name: format!("uid-of-{node}"),
        destination: destination.parse().expect("a network"),
        node: node.into(),
        provider_id: String::new(),
        next_hops: vec!["10.0.0.1".parse().expect("an address")],
        blackhole: false,
    }
}

/// What each plug-in has to know of a node that it has, of one that is gone, and of a stranger's.
pub(super) async fn knows_nodes(plugin: &Plugin, scheme: &str, here: &str, gone: &str) -> Result<()> {
    let id = format!("{scheme}://{here}");
    let [by_id, by_name, foreign] = [node(here, Some(&id)), node(here, None), node("stranger", Some("elsewhere:///1"))];
    let asked = [by_id.clone(), by_name.clone(), foreign.clone()];
    let told = plugin.get_many(&call(0), &asked).await?;
    ensure!(!told.account.is_empty() && told.nodes.len() == 3, "{told:?}");
    for known in [by_id, by_name] {
        let Ok(Lookup::Found(found)) = &told.nodes[&known] else { anyhow::bail!("{known:?}: {told:?}") };
        ensure!(found.provider_id == id && found.zone == "zone-1" && !found.addresses.is_empty(), "{found:?}");
    }
    ensure!(told.nodes[&foreign] == Ok(Lookup::NotMine), "{told:?}");
    if !gone.is_empty() {
        let absent = node(gone, Some(&format!("{scheme}://{gone}")));
        let told = plugin.get_many(&call(0), std::slice::from_ref(&absent)).await?;
        ensure!(matches!(&told.nodes[&absent], Ok(Lookup::Absent(_))), "{told:?}");
    }
    Ok(())
}

/// Makes a load balancer twice, which makes one, and returns what it is called.
pub(super) async fn makes_one_load_balancer(plugin: &Plugin, spec: &LoadBalancerSpec) -> Result<Handle> {
    let first = plugin.ensure(&call(5), spec, None).await?;
    let second = plugin.ensure(&call(5), spec, None).await?;
    ensure!(first == second, "{first:?} became {second:?}");
    let LbOutcome::Ready { ingress, handle, .. } = first else { anyhow::bail!("{first:?}") };
    ensure!(ingress.len() == 1 && matches!(ingress[0].at, IngressPoint::Ip(_)), "{ingress:?}");
    Ok(handle)
}

/// Removes it twice; the second time there is nothing to do.
pub(super) async fn removes_a_load_balancer(plugin: &Plugin, owner: &Owner, handle: &Handle) -> Result<()> {
    ensure!(plugin.ensure_deleted(&call(5), owner, Some(handle)).await? == Deletion::Gone);
    ensure!(plugin.ensure_deleted(&call(5), owner, None).await? == Deletion::Gone);
    Ok(())
}

/// Routes come, move and go, each step twice.
pub(super) async fn keeps_routes(plugin: &Plugin) -> Result<()> {
    let listed = async || -> Result<Vec<(String, String)>> {
        let page = plugin.list(&call(0), None).await?;
        ensure!(page.next.is_none(), "{page:?}");
        Ok(page.items.into_iter().map(|route| (route.destination.to_string(), route.node)).collect())
    };
    let pair = |destination: &str, node: &str| (destination.to_owned(), node.to_owned());
    let [one, other] = [route("10.1.0.0/24", "node-1"), route("2001:db8:1::/64", "node-1")];
    for _ in 0..2 {
        plugin.create(&call(5), &one).await?;
        plugin.create(&call(5), &other).await?;
    }
    ensure!(listed().await? == [pair("10.1.0.0/24", "node-1"), pair("2001:db8:1::/64", "node-1")]);
    let moved = route("10.1.0.0/24", "node-2");
    plugin.replace(&call(5), &one, &moved).await?;
    ensure!(listed().await? == [pair("10.1.0.0/24", "node-2"), pair("2001:db8:1::/64", "node-1")]);
    for _ in 0..2 {
        plugin.delete(&call(5), &moved).await?;
        plugin.delete(&call(5), &other).await?;
    }
    ensure!(listed().await? == []);
    Ok(())
}

/// A replica that leads no more changes nothing, also after the plug-in was killed and started again.
pub(super) async fn remembers_tenures(running: &mut Running) -> Result<()> {
    let wanted = route("10.9.0.0/24", "node-1");
    running.plugin.create(&call(90), &wanted).await?;
    running.is_killed_and_back().await?;
    let refused = running.plugin.create(&call(89), &wanted).await;
    ensure!(matches!(refused, Err(CloudError::Superseded(_))), "{refused:?}");
    running.plugin.create(&call(90), &wanted).await?;
    running.plugin.delete(&call(90), &wanted).await?;
    Ok(())
}

/// A replica that leads no more changes nothing.
pub(super) async fn refuses_past_tenures(plugin: &Plugin) -> Result<()> {
    let wanted = route("10.9.0.0/24", "node-1");
    plugin.create(&call(7), &wanted).await?;
    let refused = plugin.delete(&call(6), &wanted).await;
    ensure!(matches!(refused, Err(CloudError::Superseded(_))), "{refused:?}");
    ensure!(plugin.list(&call(0), None).await?.items.len() == 1);
    plugin.delete(&call(8), &wanted).await?;
    Ok(())
}
