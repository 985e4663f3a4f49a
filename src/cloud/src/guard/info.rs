//! What a provider says of itself: asked when it is first needed, when the provider may have become another one, and
//! now and then. While it does not answer, what it said before counts.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::core::Core;
use super::method;
use crate::error::Result;
use crate::provider::{ProviderInfo, SharedProvider};

/// How long after a question that failed the next one is put, if something is known.
const REST: Duration = Duration::from_secs(10);

/// A question what a provider is; it ends with the last of its callers.
type Question = WeakShared<BoxFuture<'static, Result<Arc<ProviderInfo>>>>;

/// What is known.
#[derive(Clone)]
struct Known {
    info: Arc<ProviderInfo>,
    /// Which one said it.
    incarnation: u64,
    asked: Instant,
    /// When it was last asked for in vain.
    failed: Option<Instant>,
}

/// What a provider said of itself.
#[derive(Default)]
pub(super) struct InfoBook {
    known: Mutex<Option<Known>>,
    /// The question for it, which its callers share.
    asking: Mutex<Option<Question>>,
    /// What became different, until somebody was told.
    change: Mutex<Option<String>>,
}

impl InfoBook {
    /// What it said last.
    pub(super) fn known(&self) -> Option<Arc<ProviderInfo>> {
        self.known.lock().as_ref().map(|known| Arc::clone(&known.info))
    }

    /// What became different since it was first asked, if nobody was told yet.
    pub(super) fn take_change(&self) -> Option<String> {
        self.change.lock().take()
    }

    /// Has the next caller ask anew.
    pub(super) fn doubt(&self) {
        if let Some(known) = &mut *self.known.lock() {
            known.incarnation = u64::MAX;
            known.failed = None;
        }
    }

    /// What is as good as an answer of now.
    fn fresh(&self, incarnation: u64) -> Option<Arc<ProviderInfo>> {
        let known = self.known.lock();
        let known = known.as_ref()?;
        let rests = known.failed.is_some_and(|at| at.elapsed() < REST);
        (rests || known.incarnation == incarnation).then(|| Arc::clone(&known.info))
    }

    fn is_older_than(&self, age: Duration) -> bool {
        let known = self.known.lock();
        known.as_ref().is_some_and(|known| known.asked.max(known.failed.unwrap_or(known.asked)).elapsed() >= age)
    }

    fn failed(&self) {
        if let Some(known) = &mut *self.known.lock() {
            known.failed = Some(Instant::now());
        }
    }

    /// Takes an answer; says what is different from the one before.
    fn take(&self, info: &Arc<ProviderInfo>, incarnation: u64) -> Option<String> {
        let now = Known { info: Arc::clone(info), incarnation, asked: Instant::now(), failed: None };
        let before = self.known.lock().replace(now)?;
        let change = difference(&before.info, info)?;
        *self.change.lock() = Some(change.clone());
        Some(change)
    }
}

/// What is different, in words.
fn difference(old: &ProviderInfo, new: &ProviderInfo) -> Option<String> {
    let mut words = Vec::new();
    if old.name != new.name {
        words.push(format!("name {:?} instead of {:?}", new.name, old.name));
    }
    if old.schemes != new.schemes {
        words.push(format!("schemes {} instead of {}", new.schemes.join(", "), old.schemes.join(", ")));
    }
    let abilities = [
        ("instances", old.instances, new.instances),
        ("load balancers", old.load_balancers, new.load_balancers),
        ("routes", old.routes, new.routes),
        ("a need for addresses", old.needs_addresses, new.needs_addresses),
    ];
    for (what, before, after) in abilities {
        if before != after {
            words.push(format!("{} {what}", if after { "now it has" } else { "now it lacks" }));
        }
    }
    if old.max_batch != new.max_batch {
        words.push(format!("{} nodes a question instead of {}", new.max_batch, old.max_batch));
    }
    (!words.is_empty()).then(|| words.join("; "))
}

impl Core {
    /// What the provider says of itself.
    pub(super) async fn info(self: &Arc<Self>) -> Result<Arc<ProviderInfo>> {
        if let Some(info) = self.book.fresh(self.provider.incarnation()) {
            return Ok(info);
        }
        let question = {
            let mut asking = self.book.asking.lock();
            asking.as_ref().and_then(WeakShared::upgrade).unwrap_or_else(|| {
                let question = Arc::clone(self).ask_for_info().boxed().shared();
                *asking = question.downgrade();
                question
            })
        };
        match question.await {
            Ok(info) => Ok(info),
            // One that is down is what it was.
            Err(error) => self.book.known().ok_or(error),
        }
    }

    async fn ask_for_info(self: Arc<Self>) -> Result<Arc<ProviderInfo>> {
        let before = self.provider.incarnation();
        let ask = |provider: SharedProvider, call| async move { provider.info(&call).await };
        let info = match self.call(method::INFO, None, Uuid::new_v4(), ask).await {
            Ok(info) => Arc::new(info),
            Err(error) => {
                self.book.failed();
                return Err(error);
            }
        };
        let after = self.provider.incarnation();
        // The first question is what connects. In any other case nobody knows which one has answered.
        let incarnation = if before == after || before == 0 { after } else { before };
        if let Some(change) = self.book.take(&info, incarnation) {
            tracing::warn!(provider = &*self.name, change, "the cloud provider is another one than before");
            if let Some(metrics) = self.metrics.get() {
                metrics.changed(&self.name);
            }
        }
        Ok(info)
    }

    /// Asks what the provider is if that was long ago.
    pub(super) async fn renew_info(self: &Arc<Self>) {
        if self.book.is_older_than(self.limits.info_every) {
            // What it said before counts if it does not answer; that it does not is told otherwise.
            let _ = Arc::clone(self).ask_for_info().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ProviderInfo {
        ProviderInfo {
            name: "acme".to_owned(),
            schemes: vec!["acme".to_owned()],
            max_batch: 100,
            instances: true,
            load_balancers: true,
            routes: false,
            needs_addresses: false,
        }
    }

    #[test]
    fn what_is_different_is_said_in_words() {
        assert_eq!(difference(&info(), &info()), None);
        let other = ProviderInfo {
            name: "other".to_owned(),
            schemes: vec!["a".to_owned(), "b".to_owned()],
            max_batch: 1,
            load_balancers: false,
            routes: true,
            ..info()
        };
        let expected = "name \"other\" instead of \"acme\"; schemes a, b instead of acme; now it lacks load balancers; \
                        now it has routes; 1 nodes a question instead of 100";
        assert_eq!(difference(&info(), &other).as_deref(), Some(expected));
    }

    #[test]
    fn a_change_is_told_once() {
        let book = InfoBook::default();
        assert_eq!(book.take(&Arc::new(info()), 1), None, "the first word is no change");
        assert!(book.fresh(1).is_some() && book.fresh(2).is_none(), "another one may have answered");
        let other = Arc::new(ProviderInfo { routes: true, ..info() });
        assert!(book.take(&other, 2).is_some());
        assert!(book.take_change().is_some_and(|change| change.contains("routes")));
        assert_eq!(book.take_change(), None);
        book.doubt();
        assert!(book.fresh(2).is_none() && book.known().is_some());
        book.failed();
        assert!(book.fresh(2).is_some(), "one that was just asked in vain is left alone");
    }
}
