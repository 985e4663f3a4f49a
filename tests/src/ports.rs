//! Ports of this machine that no other test takes meanwhile.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};

/// Below the range from which the kernel takes the source ports of outgoing
/// connections (32768 and up), so that no connection sits on the port of a
/// server that is being restarted.
const FIRST: u16 = 20_000;
/// Number of ports to choose from.
const COUNT: u16 = 12_000;

/// A port that is ours as long as this value lives, whether or not a server
/// listens on it: a lock on a file named after the port keeps other harness
/// processes away. Programs that do not ask can still take it; whoever starts
/// a server must be ready to try another port.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _lock: File,
}

impl ReservedPort {
    /// Takes a free port of the loopback address.
    ///
    /// # Errors
    /// When the lock folder cannot be written, or no free port was found in
    /// 200 tries.
    pub fn take() -> Result<Self> {
        // A folder for each user: the files of another could not be opened.
        let user = std::fs::metadata("/proc/self").context("asking for the user's id")?.uid();
        let folder = std::env::temp_dir().join(format!("quarterdeck-ports-{user}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        for attempt in 0..200_u32 {
            // RandomState is seeded by the system: random enough, no dependency.
            let random = RandomState::new().hash_one(attempt);
            let offset = u16::try_from(random % u64::from(COUNT)).expect("less than COUNT");
            let port = FIRST + offset;
            let path = folder.join(port.to_string());
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("opening {}", path.display()))?;
            if lock.try_lock().is_ok() && is_free(port) {
                return Ok(Self { port, _lock: lock });
            }
        }
        bail!("no free port found from {FIRST} to {}", FIRST + COUNT - 1);
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Can the port be listened on, on the loopback and on all addresses?
fn is_free(port: u16) -> bool {
    [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
        .into_iter()
        .all(|address| TcpListener::bind((IpAddr::V4(address), port)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_never_share_a_port() {
        let ports: Vec<_> = (0..50).map(|_| ReservedPort::take().unwrap()).collect();
        let mut numbers: Vec<_> = ports.iter().map(ReservedPort::port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }

    #[test]
    fn a_port_with_a_listener_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
