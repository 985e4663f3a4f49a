//! A small site: clients on one bridge, nodes on another, and gateways that have a leg in each.

use anyhow::Result;

use super::{Machine, switch};

/// The client's address.
pub const CLIENT: &str = "192.0.2.200";
/// Another address of the client.
pub const OTHER_CLIENT: &str = "192.0.2.201";

/// What a site consists of.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// Names of the gateways: 192.0.2.1 and 10.0.0.1, and so on.
    pub gateways: &'a [&'a str],
    /// Names of the nodes: 10.0.0.11, and so on.
    pub nodes: &'a [&'a str],
    /// What the pods' networks begin with: with `10.1` those of the first node are 10.1.1.0/24.
    pub pods: &'a str,
    /// Whether the machines outlive this process.
    pub detached: bool,
}

/// A client, gateways and nodes.
pub struct Site {
    /// Holds the bridges.
    pub switch: Machine,
    /// Where callers are; in the network 192.0.2.0/24.
    pub client: Machine,
    /// They forward packets.
    pub gateways: Vec<Machine>,
    /// They answer through the first gateway, unless somebody tells them better.
    pub nodes: Vec<Machine>,
}

impl Site {
    /// Builds one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn build(layout: Layout<'_>) -> Result<Self> {
        let start = async |name: &str| match layout.detached {
            true => Machine::start_detached(name).await,
            false => Machine::start(name).await,
        };
        let switch = switch(start("switch").await?, &["outside", "inside"])?;
        let client = start("client").await?;
        client.plug("eth0", &switch, "outside")?;
        for address in [CLIENT, OTHER_CLIENT] {
            client.run(&format!("ip addr add {address}/24 dev eth0"))?;
        }
        client.run("ip -6 addr add 2001:db8::200/64 dev eth0 nodad")?;
        let mut gateways = Vec::new();
        for (number, name) in (1..).zip(layout.gateways) {
            let gateway = start(name).await?;
            gateway.plug("out", &switch, "outside")?;
            gateway.plug("in", &switch, "inside")?;
            gateway.run(&format!("ip addr add 192.0.2.{number}/24 dev out"))?;
            gateway.run(&format!("ip addr add 10.0.0.{number}/24 dev in"))?;
            gateway.run(&format!("ip -6 addr add 2001:db8::{number}/64 dev out nodad"))?;
            gateway.run(&format!("ip -6 addr add fd00::{number}/64 dev in nodad"))?;
            gateway.set("net/ipv4/ip_forward", "1")?;
            gateway.set("net/ipv6/conf/all/forwarding", "1")?;
            gateways.push(gateway);
        }
        let mut nodes = Vec::new();
        for (number, name) in (1..).zip(layout.nodes) {
            let node = start(name).await?;
            node.plug("eth0", &switch, "inside")?;
            node.run(&format!("ip addr add 10.0.0.1{number}/24 dev eth0"))?;
            node.run(&format!("ip -6 addr add fd00::1{number}/64 dev eth0 nodad"))?;
            // All replies would leave through the first gateway.
            node.run("ip route add default via 10.0.0.1")?;
            node.run("ip -6 route add default via fd00::1")?;
            node.run(&format!("ip addr add {}.{number}.1/24 dev lo", layout.pods))?;
            nodes.push(node);
        }
        Ok(Self { switch, client, gateways, nodes })
    }

    /// The machines that an agent runs on.
    pub fn hosts(&self) -> impl Iterator<Item = &Machine> {
        self.gateways.iter().chain(&self.nodes)
    }

    /// All machines.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        [&self.switch, &self.client].into_iter().chain(self.hosts())
    }
}
