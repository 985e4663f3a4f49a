//! The agent's flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::plan::{ClusterCheck, MarkMask, Settings};

/// How neighbours learn where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Announce {
    /// By ARP and NDP: the address is put on an interface, and neighbours are told.
    Arp,
    /// By BGP: BIRD announces it.
    Bgp,
}

/// Programs this host's kernel with the addresses, load balancers and routes that quarterdeck's metal provider decided.
///
/// Needs CAP_NET_ADMIN and CAP_NET_RAW, and the program nft. Everything of its own in the kernel is known by a mark: the
/// table `inet quarterdeck` of nftables, and protocol number 99 on addresses, routes and routing rules. Nothing else is
/// changed. When it stops, everything stays as it is.
#[derive(Clone, Debug, Parser)]
#[command(name = "quarterdeck-agent", version)]
pub struct Options {
    /// Name of this host: that of its Node, or as the inventory has it. Default: what the variable NODE_NAME says, else
    /// the host's name.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Kubeconfig of the agent. Without it and without --state-file, the pod's service account is used.
    #[arg(long, value_name = "FILE", conflicts_with = "state_file")]
    pub kubeconfig: Option<PathBuf>,

    /// A file in place of a cluster: a list of MetalLoadBalancer and MetalRoute in YAML or JSON, followed as it changes.
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,

    /// Folder in which the last state is kept.
    #[arg(long, default_value = "/var/lib/quarterdeck-agent", value_name = "FOLDER")]
    pub state_dir: PathBuf,

    /// Where /healthz, /metrics and /status are served.
    #[arg(long, default_value = "127.0.0.1:10290", value_name = "ADDRESS:PORT")]
    pub bind_address: SocketAddr,

    /// How addresses are announced.
    #[arg(long, value_enum, default_value = "arp")]
    pub announce: Announce,

    /// Interface to announce on; may be repeated. Default: the one whose network holds the address, else that of the
    /// default route.
    #[arg(long, value_name = "NAME")]
    pub interface: Vec<String>,

    /// With --announce=bgp: the file that BIRD's configuration includes.
    #[arg(long, default_value = "/etc/bird/quarterdeck.conf", value_name = "FILE")]
    pub bird_include: PathBuf,

    /// With --announce=bgp: the program that talks to BIRD.
    #[arg(long, default_value = "birdc", value_name = "PROGRAM")]
    pub birdc: PathBuf,

    /// With --announce=bgp: BIRD's control socket, if it is not where birdc looks for it.
    #[arg(long, value_name = "FILE")]
    pub bird_socket: Option<PathBuf>,

    /// The program nft.
    #[arg(long, default_value = "nft", value_name = "PROGRAM")]
    pub nft: PathBuf,

    /// How nodes of load balancers with externalTrafficPolicy Cluster are checked: `http:PORT/PATH`, `tcp:PORT` (a port
    /// of the node), `node-port` (a connection to the Service's own first TCP port) or `none`. Those with Local are
    /// always asked at the Service's health check node port.
    #[arg(long, default_value = "http:10256/healthz", value_parser = cluster_check, value_name = "CHECK")]
    pub cluster_check: ClusterCheck,

    /// Time between two checks of a backend.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    pub check_interval: Duration,

    /// How long a check may take.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub check_timeout: Duration,

    /// So many failed checks in a row take a backend out.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub check_failures: u32,

    /// So many good checks in a row bring a backend back.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub check_successes: u32,

    /// Bits of packet and connection marks that are the agent's, in hexadecimal: one run of bits that nothing else on
    /// this host uses. Each gateway takes one value of them.
    #[arg(long, default_value = "0x0ff00000", value_name = "MASK")]
    pub mark_mask: MarkMask,

    /// First routing table of the agent's own, one a gateway from the next on; also the priority of its routing rules.
    #[arg(long, default_value_t = 9900, value_parser = clap::value_parser!(u32).range(256..32000), value_name = "TABLE")]
    pub first_table: u32,

    /// Whether routes to the pods of other nodes are programmed.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub routes: bool,

    /// Routing table for routes to pods; 254 is `main`.
    #[arg(long, default_value_t = 254, value_name = "TABLE")]
    pub route_table: u32,

    /// Duration of the Lease of a host that takes in traffic, in whole seconds: after it, its addresses move.
    #[arg(long, default_value = "8s", value_parser = duration, value_name = "DURATION")]
    pub gateway_lease: Duration,

    /// Duration of the Lease of other hosts, in whole seconds.
    #[arg(long, default_value = "40s", value_parser = duration, value_name = "DURATION")]
    pub node_lease: Duration,

    /// At least this often everything is compared with the kernel, whether a change was noticed or not.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub repair_interval: Duration,

    /// Removes everything of the agent's from the kernel and from --state-dir, and ends.
    #[arg(long)]
    pub cleanup: bool,

    /// Forgets which epochs were in force, and in which cluster, once, at start. For after a restore of the cluster's etcd,
    /// when the manager's epochs begin at a smaller number, or when the cluster was made anew.
    #[arg(long)]
    pub forget_epoch: bool,

    /// Removes, once, what is in force and what the first list of the cluster lacks, however much that is.
    #[arg(long)]
    pub accept_deletions: bool,

    /// Whether objects stay in force of which too many vanish from the cluster at once.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub hold_vanished: bool,

    /// Form of the log.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Forms of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Options {
    /// What does not change while the agent runs.
    #[must_use]
    pub fn settings(&self, name: &str) -> Settings {
        Settings {
            name: name.to_owned(),
            links: self.interface.clone(),
            bgp: self.announce == Announce::Bgp,
            cluster_check: self.cluster_check.clone(),
            mask: self.mark_mask,
            tables: self.first_table,
            routes: self.routes,
            route_table: self.route_table,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = quarterdeck_api::duration::parse(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("a time of zero is none".to_owned()) } else { Ok(duration) }
}

fn cluster_check(text: &str) -> Result<ClusterCheck, String> {
    let port = |port: &str| {
        port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| format!("{port:?} is not a port"))
    };
    match text.split_once(':') {
        None if text == "none" => Ok(ClusterCheck::None),
        None if text == "node-port" => Ok(ClusterCheck::NodePort),
        Some(("tcp", rest)) => Ok(ClusterCheck::Tcp(port(rest)?)),
        Some(("http", rest)) => {
            let (number, path) = rest.split_once('/').unwrap_or((rest, ""));
            Ok(ClusterCheck::Http(port(number)?, format!("/{path}")))
        }
        _ => Err("http:PORT/PATH, tcp:PORT, node-port or none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from(["quarterdeck-agent", "--cluster-check=tcp:80", "--check-interval=500ms"]);
        assert_eq!(options.cluster_check, ClusterCheck::Tcp(80));
        assert_eq!(options.check_interval, Duration::from_millis(500));
    }

    #[test]
    fn checks_are_read() {
        assert_eq!(cluster_check("http:10256/healthz"), Ok(ClusterCheck::Http(10256, "/healthz".to_owned())));
        assert_eq!(cluster_check("http:80"), Ok(ClusterCheck::Http(80, "/".to_owned())));
        assert_eq!(cluster_check("node-port"), Ok(ClusterCheck::NodePort));
        for bad in ["tcp", "tcp:0", "udp:7", "http:", ""] {
            assert!(cluster_check(bad).is_err(), "{bad}");
        }
    }
}
