//! Reading audit logs while they are written.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use super::event::Event;
use crate::wait::eventually;

/// Reads the audit logs of one or more kube-apiservers, line by line, from
/// where it was made or told to start. It keeps what it has read.
#[derive(Debug)]
pub struct AuditReader {
    logs: Vec<Log>,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    /// Bytes read: always the start of a line.
    offset: u64,
}

impl AuditReader {
    /// A reader from the start of these files, which need not exist yet.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let logs = files.into_iter().map(|path| Log { path, offset: 0 }).collect();
        Self { logs, events: Vec::new() }
    }

    /// Forgets what was read and goes on with what is written from now on.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn skip_to_end(&mut self) -> Result<()> {
        self.read()?;
        self.events.clear();
        Ok(())
    }

    /// Reads what is there and returns everything since the start, in the order
    /// of each server's log (server by server in each reading).
    ///
    /// # Errors
    /// When a file cannot be read, or a line is no audit event.
    pub fn read(&mut self) -> Result<&[Event]> {
        for (server, log) in self.logs.iter_mut().enumerate() {
            let text = log.read().with_context(|| format!("reading {}", log.path.display()))?;
            for line in text.lines() {
                let event = serde_json::from_str(line);
                let mut event: Event = event.with_context(|| format!("in {}: {line}", log.path.display()))?;
                event.server = server;
                self.events.push(event);
            }
        }
        Ok(&self.events)
    }

    /// Reads what is there and returns the events that fit.
    ///
    /// # Errors
    /// As [`AuditReader::read`].
    pub fn filter(&mut self, fits: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
        Ok(self.read()?.iter().filter(|event| fits(event)).cloned().collect())
    }

    /// Returns the first event that fits, waiting for it if need be.
    ///
    /// # Errors
    /// When there is none within `timeout`.
    pub async fn wait_for(&mut self, what: &str, timeout: Duration, fits: impl Fn(&Event) -> bool) -> Result<Event> {
        let mut found = self.wait_for_count(what, 1, timeout, fits).await?;
        Ok(found.swap_remove(0))
    }

    /// Returns the events that fit once there are at least `count` of them.
    ///
    /// # Errors
    /// When there are fewer at `timeout`.
    pub async fn wait_for_count(
        &mut self,
        what: &str,
        count: usize,
        timeout: Duration,
        fits: impl Fn(&Event) -> bool,
    ) -> Result<Vec<Event>> {
        let start = Instant::now();
        // Judged once each: a long log is not gone through at every look.
        let state = Mutex::new((self, 0_usize, Vec::new()));
        eventually(what, timeout, || async {
            let (reader, judged, found) = &mut *state.lock();
            let events = reader.read()?;
            found.extend(events[*judged..].iter().filter(|event| fits(event)).cloned());
            *judged = events.len();
            if found.len() >= count {
                return Ok(std::mem::take(found));
            }
            let waited = start.elapsed();
            bail!("{} of {count} among {judged} audit events after {waited:?}", found.len())
        })
        .await
    }
}

impl Log {
    /// The whole lines that were not read yet.
    fn read(&mut self) -> std::io::Result<String> {
        let mut file = match File::open(&self.path) {
            // A server that has not started has written nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        bytes.truncate(whole);
        self.offset += whole as u64;
        String::from_utf8(bytes).map_err(std::io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(id: &str) -> String {
        format!(
            r#"{{"auditID":"{id}","stage":"ResponseComplete","requestURI":"/","verb":"get",
            "user":{{}},"requestReceivedTimestamp":"2026-01-02T03:04:05Z",
            "stageTimestamp":"2026-01-02T03:04:05Z"}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn a_line_counts_when_it_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut reader = AuditReader::new(vec![file.path().to_owned()]);
        let text = line("b");
        let (first, rest) = text.split_at(20);
        writeln!(file, "{}", line("a")).unwrap();
        write!(file, "{first}").unwrap();
        assert_eq!(reader.read().unwrap().len(), 1);
        writeln!(file, "{rest}").unwrap();
        assert_eq!(reader.read().unwrap().len(), 2);
        reader.skip_to_end().unwrap();
        assert!(reader.read().unwrap().is_empty());
    }
}
