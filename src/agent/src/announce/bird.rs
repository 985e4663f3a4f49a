//! Announcing by BGP: BIRD does it, and is told which addresses by a file that its configuration includes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(10);

/// Why BIRD could not be told.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `birdc` cannot be run.
    #[error("{program}: {source}")]
    Program {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// BIRD did not take the configuration.
    #[error("bird: {0}")]
    Refused(String),
}

/// BIRD on this host.
#[derive(Clone, Debug)]
pub struct Bird {
    /// The file that its configuration includes.
    pub include: PathBuf,
    /// The program `birdc`.
    pub program: PathBuf,
    /// BIRD's control socket; `None` where it is by default.
    pub socket: Option<PathBuf>,
}

impl Bird {
    /// Has BIRD announce these addresses and no others. Does nothing if the file says so already and `again` is false.
    ///
    /// # Errors
    /// When the file could not be written or BIRD did not take it.
    pub async fn announce(&self, addresses: &BTreeSet<IpAddr>, again: bool) -> Result<(), BirdError> {
        let text = render(addresses);
        let failed = |source| BirdError::File { path: self.include.clone(), source };
        if !again && tokio::fs::read_to_string(&self.include).await.is_ok_and(|there| there == text) {
            return Ok(());
        }
        let temporary = self.include.with_extension("new");
        tokio::fs::write(&temporary, &text).await.map_err(failed)?;
        tokio::fs::rename(&temporary, &self.include).await.map_err(failed)?;
        self.configure().await
    }

    async fn configure(&self) -> Result<(), BirdError> {
        let mut command = Command::new(&self.program);
        if let Some(socket) = &self.socket {
            command.arg("-s").arg(socket);
        }
        command.arg("configure").kill_on_drop(true);
        let failed = |source| BirdError::Program { program: self.program.display().to_string(), source };
        let output = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = output.map_err(|_| BirdError::Refused("no answer within 10 s".to_owned()))?.map_err(failed)?;
        let words = String::from_utf8_lossy(&output.stdout);
        // birdc ends well whatever BIRD answers.
        if output.status.success() && words.contains("Reconfigur") {
            return Ok(());
        }
        let said = words.lines().chain(std::str::from_utf8(&output.stderr).unwrap_or_default().lines());
        Err(BirdError::Refused(said.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")))
    }
}

/// Two protocols that hold the addresses; the operator's configuration exports them to its peers.
fn render(addresses: &BTreeSet<IpAddr>) -> String {
    let mut text = String::from("# Written by quarterdeck-agent; changes are lost.\n");
    for (ipv6, name) in [(false, "ipv4"), (true, "ipv6")] {
        let _ = writeln!(text, "protocol static quarterdeck_{name} {{\n  {name};");
        for address in addresses.iter().filter(|address| address.is_ipv6() == ipv6) {
            let length = if ipv6 { 128 } else { 32 };
            let _ = writeln!(text, "  route {address}/{length} unreachable;");
        }
        text.push_str("}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_both_families() {
        let addresses = ["192.0.2.10", "2001:db8::10"].map(|text| text.parse().unwrap());
        let expected = "# Written by quarterdeck-agent; changes are lost.\n\
            protocol static quarterdeck_ipv4 {\n  ipv4;\n  route 192.0.2.10/32 unreachable;\n}\n\
            protocol static quarterdeck_ipv6 {\n  ipv6;\n  route 2001:db8::10/128 unreachable;\n}\n";
        assert_eq!(render(&addresses.into()), expected);
    }
}
