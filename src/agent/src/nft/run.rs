//! The program `nft`, and the kernel's count of changes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Observed, TABLE, UnreadableTable, removal};

/// nft is given up after this time; a transaction of the largest tables takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why our table could not be read or changed. A transaction that failed has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program, or it could not be talked to.
    #[error("{program}: {source}")]
    Program {
        /// The program.
        program: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It did not end in time.
    #[error("{0} did not end within a minute")]
    Stuck(String),
    /// It ended in an error.
    #[error("nft: {0}")]
    Refused(String),
    /// It listed something that is not known.
    #[error(transparent)]
    Unreadable(#[from] UnreadableTable),
}

/// The program `nft`.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
}

impl Nft {
    /// A program by its path, or by its name on the PATH.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Runs one transaction: all of it, or nothing.
    ///
    /// # Errors
    /// When it was refused; nothing is changed then.
    pub async fn load(&self, transaction: &str) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        self.run(&["-f", "-"], transaction).await?;
        Ok(())
    }

    /// What our table holds; `None` if there is no such table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn observe(&self) -> Result<Option<Observed>, NftError> {
        let (family, name) = TABLE.split_once(' ').expect("family and name");
        // A table that is not there is an error in words; this asks first.
        let tables = self.run(&["-j", "list", "tables", family], "").await?;
        let tables: serde_json::Value =
            serde_json::from_slice(&tables).map_err(|error| UnreadableTable(error.to_string()))?;
        let mut listed = tables.get("nftables").and_then(serde_json::Value::as_array).into_iter().flatten();
        if !listed.any(|entry| entry.pointer("/table/name").is_some_and(|found| found == name)) {
            return Ok(None);
        }
        match self.run(&["-j", "list", "table", family, name], "").await {
            Ok(listing) => Ok(Some(Observed::parse(&listing)?)),
            // Gone between the two.
            Err(NftError::Refused(message)) if message.contains("No such file or directory") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes our table, if it is there.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn remove(&self) -> Result<(), NftError> {
        self.load(&removal()).await
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<Vec<u8>, NftError> {
        let program = || self.program.display().to_string();
        let failed = |source| NftError::Program { program: program(), source };
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let all = async {
            // One that ends early closes its input: its own words say why.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(PATIENCE, all).await.map_err(|_| NftError::Stuck(program()))?;
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let mut words: String = words.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if words.len() > 1000 {
            let end = (0..=1000).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
            words.truncate(end);
        }
        Err(NftError::Refused(words))
    }
}

/// How often any table of this network namespace has changed: while it stays, ours is as it was.
///
/// # Errors
/// When the kernel does not answer.
pub fn generation() -> std::io::Result<u32> {
    const LENGTH: u32 = 20;
    // Subsystem nftables, message NFT_MSG_GETGEN.
    const GET_GENERATION: u16 = (10 << 8) | 16;
    const REQUEST: u16 = 1;
    // NFTA_GEN_ID
    const ID: u16 = 1;
    let socket = Socket::new(NETLINK_NETFILTER)?;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 12]);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let unreadable = || std::io::Error::other("the answer about nftables' generation is of an unknown form");
    // Header of netlink (16), header of netfilter (4), then attributes.
    let mut rest = answer.get(20..).ok_or_else(unreadable)?;
    while let [l0, l1, k0, k1, body @ ..] = rest {
        let (length, kind) = (u16::from_ne_bytes([*l0, *l1]) as usize, u16::from_ne_bytes([*k0, *k1]));
        if kind & 0x3fff == ID {
            let id = body.first_chunk::<4>().ok_or_else(unreadable)?;
            return Ok(u32::from_be_bytes(*id));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..).ok_or_else(unreadable)?;
    }
    Err(unreadable())
}
