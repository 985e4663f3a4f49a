//! The kernel's network by rtnetlink: what the host is like, and our addresses, routes and routing rules.

mod addresses;
mod conntrack;
mod read;
mod routes;
mod rules;

use futures::StreamExt as _;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use addresses::OurAddress;
pub use conntrack::forget_udp;

/// Number of the protocol that marks what is ours: addresses (`IFA_PROTO`), routes (`rtm_protocol`) and routing rules
/// (`FRA_PROTOCOL`). What has another number is never changed.
pub const PROTOCOL: u8 = 99;

/// The kernel refused something, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct KernelError {
    /// What was asked of it.
    pub what: String,
    /// What it said.
    pub source: std::io::Error,
}

impl KernelError {
    fn new(what: impl Into<String>, error: &rtnetlink::Error) -> Self {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other.to_string()),
        };
        Self { what: what.into(), source }
    }

    /// Whether something of the kind is there already.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::AlreadyExists
    }

    /// Whether there is no such thing.
    #[must_use]
    pub fn absent(&self) -> bool {
        // ESRCH, ENODEV, EADDRNOTAVAIL
        matches!(self.source.raw_os_error(), Some(3 | 19 | 99)) || self.source.kind() == std::io::ErrorKind::NotFound
    }
}

type Result<T> = std::result::Result<T, KernelError>;

/// A connection to the kernel of this network namespace.
pub struct Kernel {
    handle: Handle,
    driver: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Kernel {
    /// Connects.
    ///
    /// # Errors
    /// When there is no such socket to be had.
    pub fn connect() -> std::io::Result<Self> {
        // Strict: dumps of routes are cut down to ours by the kernel, however many others there are.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }
}

/// Tells of changes of links, addresses, routes, rules and neighbours, whoever made them. The receiver holds at most
/// one notice.
///
/// # Errors
/// When there is no such socket to be had.
pub fn changes() -> std::io::Result<(mpsc::Receiver<()>, JoinHandle<()>)> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    let (tell, told) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        let connection = tokio::spawn(connection);
        let _stops = StopOnDrop(connection.abort_handle());
        let _kept = handle;
        while messages.next().await.is_some() {
            // Full: a notice waits already.
            if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                return;
            }
        }
    });
    Ok((told, task))
}

struct StopOnDrop(tokio::task::AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
