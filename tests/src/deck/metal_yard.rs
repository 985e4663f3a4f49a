//! The machines of metal's demonstration: a client, gateways and nodes that are network namespaces, with real agents.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::{end_written_down, program_named, write_down};
use crate::binaries::repository;
use crate::netns::{self, Health, Layout, Machine, Page, Site, relay};
use crate::{ControlPlane, Launch};

/// Names of the gateways: 192.0.2.1 and 10.0.0.1, and so on.
pub const GATEWAYS: [&str; 2] = ["gw-1", "gw-2"];
/// Names of the nodes: 10.0.0.11, and so on.
pub const NODES: [&str; 3] = ["metal-1", "metal-2", "metal-3"];
/// Port of the nodes at which the demonstration's Service is served.
pub const NODE_PORT: u16 = 30080;
/// Port of kube-proxy's health check.
const KUBE_PROXY: u16 = 10256;

/// Machines that outlive this process.
pub struct MetalYard {
    site: Site,
    /// The agents' processes, gateways first.
    agents: Vec<(String, i32)>,
}

impl MetalYard {
    /// Why there can be none here; `None` if there can.
    #[must_use]
    pub fn missing() -> Option<String> {
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        if !root {
            return Some("root, to make network namespaces".to_owned());
        }
        if let Err(error) = program_named("quarterdeck-agent") {
            return Some(format!("{error:#}"));
        }
        netns::path().err().map(|error| format!("{error:#}"))
    }

    /// Builds the machines and starts their agents; they go on when this program ends.
    ///
    /// # Errors
    /// When the kernel or the server refuses; what was begun is ended.
    pub async fn build(folder: &Path, control_plane: &ControlPlane) -> Result<Self> {
        let mut started = Vec::new();
        match Self::start(folder, control_plane, &mut started).await {
            Ok(yard) => {
                write_down(&started, &ledger(folder))?;
                Ok(yard)
            }
            Err(error) => {
                for process in started {
                    let _ = process.kill().await;
                }
                Err(error)
            }
        }
    }

    async fn start(folder: &Path, control_plane: &ControlPlane, started: &mut Vec<crate::Process>) -> Result<Self> {
        apply(control_plane).await?;
        let layout = Layout { gateways: &GATEWAYS, nodes: &NODES, pods: "10.244", detached: true };
        let site = Site::build(layout).await?;
        started.extend(site.machines().filter_map(Machine::holder).cloned());
        let url = control_plane.apiserver(0).url();
        let server: SocketAddr =
            url.trim_start_matches("https://").trim_end_matches('/').parse().with_context(|| url.to_owned())?;
        let named = |flag: &str, machines: &[Machine]| -> Vec<String> {
            machines.iter().map(|one| format!("--{flag}={}={}", one.name(), one.pid())).collect()
        };
        let servers = Launch::new("machines", std::env::current_exe()?)
            .args(["machines".to_owned(), format!("--server={server}")])
            .args(named("gateway", &site.gateways))
            .args(named("node", &site.nodes))
            .log(folder.join("machines.log"))
            .detached(true);
        started.push(servers.spawn()?);
        let mut agents = Vec::new();
        for machine in site.hosts() {
            let name = machine.name();
            let kubeconfig =
                control_plane.kubeconfig(&format!("system:quarterdeck-agent:{name}"), &["quarterdeck:metal-agents"])?;
            let agent = machine
                .launch(&format!("agent-{name}"), &program_named("quarterdeck-agent")?)?
                .args([format!("--node-name={name}"), format!("--kubeconfig={}", kubeconfig.display())])
                .arg(format!("--state-dir={}", folder.join(format!("agent-{name}")).display()))
                .log(folder.join(format!("agent-{name}.log")))
                .detached(true)
                .spawn()?;
            agents.push((name.to_owned(), agent.pid()));
            started.push(agent);
        }
        Ok(Self { site, agents })
    }

    /// Ends the machines that were built for this folder, if there are any.
    ///
    /// # Errors
    /// When a process survives.
    pub async fn end(folder: &Path) -> Result<()> {
        end_written_down(&ledger(folder)).await
    }

    /// What to try.
    pub fn describe(&self) {
        let inside = |machine: &Machine| format!("nsenter --net=/proc/{}/ns/net", machine.pid());
        println!("\nMachines that are network namespaces of this one, each with an agent:");
        println!("  client   {}", inside(&self.site.client));
        for (machine, (_, agent)) in self.site.hosts().zip(&self.agents) {
            println!("  {:<8} {}   agent: pid {agent}", machine.name(), inside(machine));
        }
        let nft = netns::path().unwrap_or_default();
        let nft = nft.split(':').next().unwrap_or_default();
        println!("\nTry:");
        println!("  kubectl get svc berth; kubectl get metalloadbalancers      # its address, and who announces it");
        println!("  {} curl -s http://192.0.2.10/", inside(&self.site.client));
        println!(
            "                                                             # from the client: a node answers, and saw its address"
        );
        if let (Some(gateway), Some((name, agent))) = (self.site.gateways.first(), self.agents.first()) {
            println!("  {} {nft}/nft list table inet quarterdeck", inside(gateway));
            println!("  kill -9 {agent}; {} ip link set out down", inside(gateway));
            println!(
                "                                                             # {name} is dead: its addresses move within its Lease, 8 s"
            );
        }
        println!("  kill all three replicas: what is served goes on");
    }
}

/// What `deck machines` does: serves inside the machines until it is ended.
///
/// # Errors
/// When a machine is not there.
pub async fn serve_machines(server: SocketAddr, gateways: &[String], nodes: &[String]) -> Result<()> {
    let attach = |entry: &String| -> Result<Machine> {
        let (name, pid) = entry.split_once('=').with_context(|| format!("{entry:?} is not NAME=PID"))?;
        Machine::attach(name, pid.parse().with_context(|| entry.clone())?)
    };
    for entry in gateways {
        relay(&attach(entry)?, server)?;
    }
    let mut checks = Vec::new();
    for entry in nodes {
        let node = attach(entry)?;
        relay(&node, server)?;
        Page::start(&node, NODE_PORT)?;
        checks.push(Health::start(&node, KUBE_PROXY)?);
    }
    std::future::pending().await
}

/// The agents' rights.
async fn apply(control_plane: &ControlPlane) -> Result<()> {
    let output = tokio::process::Command::new(control_plane.program("kubectl"))
        .env("KUBECONFIG", control_plane.admin_kubeconfig()?)
        .env("HOME", control_plane.folder())
        .current_dir(repository())
        .args(["apply", "-k", "deploy/metal"])
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(output.status.success(), "kubectl apply -k deploy/metal: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Where the processes are written down.
fn ledger(folder: &Path) -> PathBuf {
    folder.with_extension("metal.json")
}
