//! A manager that is asked again and again: the leader, and whoever leads after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::time::Instant;

use super::error::ReachError;
use super::manager::{Answer, Manager};
use super::site::Site;

/// How long what the Leases said is good for, while the manager answers.
const FRESH: Duration = Duration::from_secs(2);
/// How long a replica that could not be reached is tried last.
const SHUNNED: Duration = Duration::from_secs(15);

/// Asks the leader, and follows the leadership. A survivor that does not lead is asked while nobody does.
pub(crate) struct Follower {
    site: Site,
    manager: Option<Manager>,
    /// When the Leases were last read.
    looked: Option<Instant>,
    /// Who was tried in vain, and when.
    shunned: BTreeMap<String, Instant>,
}

impl Follower {
    /// Nobody is asked yet.
    pub(crate) fn new(site: Site) -> Self {
        Self { site, manager: None, looked: None, shunned: BTreeMap::new() }
    }

    /// Which manager answered last, and how it was reached.
    pub(crate) fn place(&self) -> Option<&str> {
        self.manager.as_ref().map(|manager| manager.place.as_str())
    }

    /// Asks for a path as the user: the leader, or a survivor. May be dropped at any time.
    ///
    /// # Errors
    /// When nobody could be asked, at a second try either.
    pub(crate) async fn ask(&mut self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Answer, ReachError> {
        let had_one = self.manager.is_some();
        match self.once(method, path, headers).await {
            // It may have gone since it was last asked: another one is there.
            Err(error) if had_one && error.is_about_one_replica() => {
                self.looked = None;
                self.once(method, path, headers).await
            }
            answered => answered,
        }
    }

    async fn once(&mut self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Answer, ReachError> {
        // Taken out, and noted: if this is dropped half-way, the connection is too, and others are tried first.
        let mut manager = self.turn().await?;
        self.shunned.insert(manager.name.clone(), Instant::now());
        let answer = manager.ask(method.clone(), path, headers.clone()).await?;
        self.shunned.remove(&manager.name);
        self.manager = Some(manager);
        Ok(answer)
    }

    /// The manager to ask now.
    async fn turn(&mut self) -> Result<Manager, ReachError> {
        let fresh = !self.site.has_leases() || self.looked.is_some_and(|looked| looked.elapsed() < FRESH);
        let present = self.manager.take().filter(Manager::is_open);
        let present = match present {
            Some(present) if fresh => return Ok(present),
            present => present,
        };
        let (survey, present) = match (self.site.survey().await, present) {
            (Ok(survey), present) => (survey, present),
            // kube-apiserver is not there, or tired; the manager is.
            (Err(_), Some(present)) => return Ok(present),
            (Err(error), None) => return Err(error),
        };
        self.looked = Some(Instant::now());
        self.shunned.retain(|_, since| since.elapsed() < SHUNNED);
        let avoided: BTreeSet<String> = self.shunned.keys().cloned().collect();
        let first = self.site.first(&survey).map(str::to_owned);
        if let Some(present) = present {
            let better = first.as_ref().filter(|first| **first != present.name && !avoided.contains(*first));
            let Some(better) = better else { return Ok(present) };
            self.shunned.insert(better.clone(), Instant::now());
            return Ok(match self.site.reach_one(&survey, better).await {
                Ok(manager) => {
                    self.shunned.remove(better);
                    manager
                }
                Err(_) => present,
            });
        }
        let shunned = &mut self.shunned;
        // Noted before it is tried: whoever waits for this may not wait to its end.
        let reached = self.site.reach(&survey, &avoided, |name| {
            shunned.insert(name.to_owned(), Instant::now());
        });
        let manager = reached.await?.manager;
        self.shunned.remove(&manager.name);
        Ok(manager)
    }
}
