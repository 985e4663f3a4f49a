//! The agent of metal as `deploy/metal` has it: its unit, its pods, and what the server lets it write.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use quarterdeck_api::cloud::metal::{AGENTS_NAMESPACE, AgentStatus, MetalAgent};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::netns::{Echo, Machine, dial, get, path, switch};
use quarterdeck_it::{ControlPlane, Launch, eventually, repository};
use serde_json::{Value, json};
use tokio::process::Command;

use super::metal_net::{LONG, VIP, at};

/// One of those that systemd gives to units with a user of their own.
const USER: u32 = 64_000;

/// The directives of the unit's section `Service`.
struct Unit(Vec<(String, String)>);

impl Unit {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string(repository().join("deploy/metal/quarterdeck-agent.service"))?;
        let (_, service) = text.split_once("[Service]\n").context("a section")?;
        let (service, _) = service.split_once("\n[").context("another section")?;
        let lines = service.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pairs = lines.map(|line| line.split_once('=').with_context(|| format!("{line:?} is no directive")));
        let pairs = pairs.map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Self(pairs.collect::<Result<_>>()?))
    }

    fn get(&self, name: &str) -> Result<&str> {
        let mut found = self.0.iter().filter(|(other, _)| other == name);
        let (_, value) = found.next().with_context(|| format!("{name} is missing"))?;
        ensure!(found.next().is_none(), "{name} stands twice");
        Ok(value)
    }

    /// Capabilities by their names in manifests of pods.
    fn capabilities(&self, directive: &str) -> Result<BTreeSet<String>> {
        let all = self.get(directive)?.split_whitespace();
        all.map(|name| Ok(name.strip_prefix("CAP_").context("a capability")?.to_owned())).collect()
    }
}

async fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
    let output = Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .env("HOME", control_plane.folder())
        .current_dir(repository())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))
}

/// Whether one may write objects of a host: its Lease, its report.
async fn writes(client: &kube::Client, host: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), AGENTS_NAMESPACE);
    let agents: Api<MetalAgent> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(host.to_owned()), ..ObjectMeta::default() };
    if agents.get_opt(host).await?.is_none() {
        let agent = MetalAgent { metadata: metadata.clone(), status: None };
        agents.create(&PostParams::default(), &agent).await?;
    }
    let mut agent = agents.get(host).await?;
    agent.metadata.managed_fields = None;
    agent.status = Some(AgentStatus { version: "of a test".to_owned(), ..AgentStatus::default() });
    agents.replace_status(host, &PostParams::default(), &agent).await?;
    let lease = match leases.get_opt(host).await? {
        Some(lease) => lease,
        None => leases.create(&PostParams::default(), &Lease { metadata, spec: None }).await?,
    };
    leases.replace(host, &PostParams::default(), &lease).await?;
    Ok(())
}

/// Whether the policy keeps one from each write of another host's objects.
async fn refused(client: &kube::Client, host: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), AGENTS_NAMESPACE);
    let agents: Api<MetalAgent> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(format!("{host}-2")), ..ObjectMeta::default() };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let (lease, mut agent) = (leases.get(host).await?, agents.get(host).await?);
    agent.metadata.managed_fields = None;
    agent.status = Some(AgentStatus::default());
    let outcomes = [
        leases.replace(host, &dry, &lease).await.map(drop),
        leases.create(&dry, &Lease { metadata: metadata.clone(), spec: None }).await.map(drop),
        agents.replace_status(host, &dry, &agent).await.map(drop),
        agents.create(&dry, &MetalAgent { metadata, status: None }).await.map(drop),
    ];
    for (place, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(kube::Error::Api(status)) if status.message.contains("writes its own object alone") => {}
            other => bail!("write {place}: {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_manifests_are_taken_and_each_agent_writes_its_own_objects_alone() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    for kind in ["metalagents", "metalloadbalancers", "metalroutes"] {
        kubectl(&control_plane, &["apply", "-f", &format!("deploy/crds/{kind}.cloud.quarterdeck.dev.yaml")]).await?;
    }
    kubectl(&control_plane, &["apply", "--server-side", "--validate=strict", "-k", "deploy/metal"]).await?;
    let dry = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-ojson", "-f"];
    let answer = kubectl(&control_plane, &[&dry[..], &["deploy/metal/daemonset.yaml"]].concat()).await?;
    let answer: Value = serde_json::from_str(&answer)?;
    let items = answer["items"].as_array().context("a list")?;
    let daemons = items.iter().find(|item| item["kind"] == "DaemonSet").context("a DaemonSet")?;
    // A pod has what the unit has.
    let container = &daemons["spec"]["template"]["spec"]["containers"][0];
    let security = &container["securityContext"];
    let unit = Unit::read()?;
    let added: BTreeSet<String> = serde_json::from_value(security["capabilities"]["add"].clone())?;
    assert_eq!(added, unit.capabilities("AmbientCapabilities")?);
    assert_eq!(added, unit.capabilities("CapabilityBoundingSet")?);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["allowPrivilegeEscalation"], unit.get("NoNewPrivileges")? != "yes");
    assert_eq!(security["readOnlyRootFilesystem"], unit.get("ProtectSystem")? == "strict");
    assert_eq!(container["volumeMounts"][0]["mountPath"], format!("/var/lib/{}", unit.get("StateDirectory")?));
    assert!(security["privileged"].is_null() && daemons["spec"]["template"]["spec"]["hostPID"].is_null());
    // A slip in the manifest would have been seen.
    let text = std::fs::read_to_string(repository().join("deploy/metal/daemonset.yaml"))?;
    let slip = control_plane.folder().join("slip.yaml");
    std::fs::write(&slip, text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))?;
    let error = kubectl(&control_plane, &[&dry[..], &[&slip.display().to_string()]].concat()).await.unwrap_err();
    assert!(error.to_string().contains("readOnlyRootFileSystem"), "{error}");

    // Two agents outside of pods, and one in a pod, whose token is bound to its node.
    let group = &["quarterdeck:metal-agents"][..];
    let first = control_plane.user("system:quarterdeck-agent:gw1", group).await?;
    let stranger = control_plane.user("gw1", group).await?;
    let nodes: Api<Node> = Api::all(control_plane.admin().await?);
    let metadata = ObjectMeta { name: Some("n1".to_owned()), ..ObjectMeta::default() };
    let node = nodes.create(&PostParams::default(), &Node { metadata, ..Node::default() }).await?;
    let uid = format!("--bound-object-uid={}", node.metadata.uid.context("a uid")?);
    let bound = ["create", "token", "quarterdeck-agent", "-n", AGENTS_NAMESPACE];
    let to_node = ["--bound-object-kind=Node", "--bound-object-name=n1", &uid];
    let in_pod = with_token(&control_plane, &kubectl(&control_plane, &[&bound[..], &to_node].concat()).await?).await?;
    let unbound = with_token(&control_plane, &kubectl(&control_plane, &bound).await?).await?;

    writes(&first, "gw1").await?;
    writes(&in_pod, "n1").await?;
    // The server learns of a policy a moment after it is made.
    for (client, host) in [(&first, "n1"), (&in_pod, "gw1"), (&stranger, "gw1"), (&unbound, "n1")] {
        eventually(&format!("{host} is another's"), LONG, || refused(client, host)).await?;
    }
    writes(&first, "gw1").await?;
    writes(&in_pod, "n1").await?;
    // Nobody else is concerned: the manager deletes Leases of hosts that are gone.
    writes(&control_plane.admin().await?, "n1").await
}

/// A client with nothing but a token.
async fn with_token(control_plane: &ControlPlane, token: &str) -> Result<kube::Client> {
    let mut config = Kubeconfig::read_from(control_plane.admin_kubeconfig()?)?;
    for user in &mut config.auth_infos {
        user.auth_info = Some(AuthInfo { token: Some(token.trim().to_owned().into()), ..AuthInfo::default() });
    }
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// What the agent runs, where a user without rights may run it too: the tools' own place may be in root's home.
fn programs(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let own = folder.join("quarterdeck-agent");
    std::fs::copy(program_named("quarterdeck-agent")?, &own)?;
    let nft = path()?.split(':').map(|place| Path::new(place).join("nft")).find(|path| path.exists());
    let nft = nft.context("nft is not on the PATH")?;
    let Ok(script) = std::fs::read_to_string(&nft) else { return Ok((own, nft)) };
    let (_, rest) = script.split_once("LD_LIBRARY_PATH=").context("a script with its libraries")?;
    let (libraries, rest) = rest.split_once(" exec ").context("a script with its libraries")?;
    let program = rest.split_whitespace().next().context("a script with its program")?;
    std::fs::copy(program, folder.join("nft.bin"))?;
    for place in libraries.split(':') {
        for entry in std::fs::read_dir(place)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().contains(".so") && entry.path().is_file() {
                std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
    }
    let copy = folder.join("nft");
    let folder = folder.display();
    std::fs::write(&copy, format!("#!/bin/sh\nLD_LIBRARY_PATH={folder} exec {folder}/nft.bin \"$@\"\n"))?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
    Ok((own, copy))
}

/// The unit's identity and capabilities around a program.
fn as_unit(unit: &Unit, launch: Launch) -> Result<Launch> {
    ensure!(unit.get("DynamicUser")? == "yes" && unit.get("NoNewPrivileges")? == "yes");
    let set = |directive: &str| -> Result<String> {
        let names = unit.capabilities(directive)?.into_iter().map(|name| format!(",+{}", name.to_lowercase()));
        Ok(format!("-all{}", names.collect::<String>()))
    };
    let (ambient, bounding) = (set("AmbientCapabilities")?, set("CapabilityBoundingSet")?);
    Ok(launch.args([
        format!("--reuid={USER}"),
        format!("--regid={USER}"),
        "--clear-groups".to_owned(),
        format!("--bounding-set={bounding}"),
        format!("--inh-caps={ambient}"),
        format!("--ambient-caps={ambient}"),
        "--no-new-privs".to_owned(),
        // Another user's process: what ends it with the test has to be said anew.
        "--pdeathsig=KILL".to_owned(),
    ]))
}

#[tokio::test]
async fn it_works_with_the_identity_and_the_capabilities_of_its_unit() -> Result<()> {
    let unit = Unit::read()?;
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let (program, nft) = programs(folder.path())?;
    let switch = switch(Machine::start("switch").await?, &["outside", "inside"])?;
    let client = Machine::start("client").await?;
    client.plug("eth0", &switch, "outside")?;
    client.run("ip addr add 192.0.2.200/24 dev eth0")?;
    let node = Machine::start("n1").await?;
    node.plug("eth0", &switch, "inside")?;
    node.run("ip addr add 10.0.0.11/24 dev eth0")?;
    node.run("ip route add default via 10.0.0.1")?;
    Echo::start(&node, 30080)?;
    let gateway = Machine::start("gw1").await?;
    gateway.plug("out", &switch, "outside")?;
    gateway.plug("in", &switch, "inside")?;
    gateway.run("ip addr add 192.0.2.1/24 dev out")?;
    gateway.run("ip addr add 10.0.0.1/24 dev in")?;
    gateway.set("net/ipv4/ip_forward", "1")?;
    // Somebody else had the address.
    client.run(&format!("ip neigh replace {} lladdr 02:00:00:00:00:99 dev eth0 nud stale", VIP[0]))?;

    let state = json!({ "items": [
        { "kind": "MetalLoadBalancer", "metadata": { "name": "a" }, "spec": {
            "epoch": 1,
            "addresses": [{ "address": VIP[0], "gateway": "gw1" }],
            "gateways": [{ "name": "gw1", "addresses": ["10.0.0.1"] }],
            "backends": [{ "name": "n1", "addresses": ["10.0.0.11"] }],
            "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }],
        } },
        { "kind": "MetalRoute", "metadata": { "name": "n1" }, "spec": {
            "epoch": 1, "destinations": ["10.1.1.0/24"], "nextHops": ["10.0.0.11"],
        } },
    ] });
    let (file, own) = (folder.path().join("state.json"), folder.path().join("state"));
    std::fs::write(&file, state.to_string())?;
    // systemd makes it, for this user.
    std::fs::create_dir(&own)?;
    chown(&own, Some(USER), Some(USER))?;
    let launch = as_unit(&unit, gateway.launch("agent", Path::new("setpriv"))?)?;
    let agent = launch
        .arg(program.display().to_string())
        .args(["--node-name=gw1".to_owned(), "--cluster-check=none".to_owned(), format!("--nft={}", nft.display())])
        .args([format!("--state-file={}", file.display()), format!("--state-dir={}", own.display())])
        .log(folder.path().join("log"))
        .spawn()?;

    let to: SocketAddr = at(VIP[0]);
    let link = gateway.run("ip -o link show dev out")?;
    let mac = link.split_once("link/ether ").and_then(|(_, rest)| rest.split(' ').next()).context("an address")?;
    let there = || async {
        let status: Value = serde_json::from_str(&get(&gateway, 10290, "/status")?)?;
        ensure!(status["ready"] == true && status["announces"][0]["by"] == "out", "{status:#}");
        ensure!(status["routes"][0]["error"].is_null(), "{status:#}");
        ensure!(gateway.run("ip route show proto 99")?.contains("10.1.1.0/24 via 10.0.0.11"), "no route");
        ensure!(gateway.run("ip addr show dev out")?.contains(&format!(" {}/32", VIP[0])), "no address");
        ensure!(gateway.run("nft list tables")?.contains("inet quarterdeck"), "no table");
        let neighbour = client.run(&format!("ip neigh show {}", VIP[0]))?;
        ensure!(neighbour.contains(mac), "no gratuitous ARP was heard: {neighbour}");
        Ok(())
    };
    eventually("it has programmed this host", LONG, there).await.with_context(|| agent.log_text())?;
    assert_eq!(dial(&client, to)?.server, "n1");
    // What it runs as.
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let field = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().collect()
    };
    assert_eq!(field("Uid:"), [USER.to_string().as_str(); 4]);
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000003000"], "{set}: CAP_NET_ADMIN and CAP_NET_RAW");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    Ok(())
}

#[test]
fn the_unit_is_one_that_systemd_understands() -> Result<()> {
    let unit = Unit::read()?;
    assert_eq!(unit.capabilities("AmbientCapabilities")?, unit.capabilities("CapabilityBoundingSet")?);
    // Sockets of each kind that it opens: metrics and servers, netlink, ARP, BIRD.
    for family in ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_UNIX"] {
        assert!(unit.get("RestrictAddressFamilies")?.split(' ').any(|other| other == family), "{family}");
    }
    let text = std::fs::read_to_string(repository().join("deploy/metal/quarterdeck-agent.service"))?;
    let folder = tempfile::tempdir()?;
    let verify = |text: String| -> Result<Option<String>> {
        let path = folder.path().join("quarterdeck-agent.service");
        std::fs::write(&path, text)?;
        match std::process::Command::new("systemd-analyze").arg("verify").arg(&path).output() {
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).into_owned();
                let ours: Vec<&str> = words.lines().filter(|line| line.contains("quarterdeck-agent")).collect();
                Ok(Some(ours.join("\n")))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    // The program is not installed here.
    let text = text.replace("/usr/local/bin/quarterdeck-agent", "/bin/true");
    let Some(said) = verify(text.clone())? else {
        return known(&unit);
    };
    assert_eq!(said, "");
    let said = verify(text.replace("DynamicUser", "DynamicUsers"))?;
    assert!(said.is_some_and(|said| said.contains("DynamicUsers")), "a slip is seen");
    known(&unit)
}

/// Where there is no systemd: only what is known to exist stands there.
fn known(unit: &Unit) -> Result<()> {
    const KNOWN: [&str; 22] = [
        "AmbientCapabilities",
        "CapabilityBoundingSet",
        "DynamicUser",
        "ExecStart",
        "LoadCredential",
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectSystem",
        "Restart",
        "RestartSec",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "StateDirectory",
        "SystemCallArchitectures",
        "User",
    ];
    for (name, _) in &unit.0 {
        ensure!(KNOWN.contains(&name.as_str()), "{name} is not known");
    }
    Ok(())
}
