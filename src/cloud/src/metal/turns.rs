//! One write of an object at a time: those of this process would only lose races against each other.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Held, OwnedMutexGuard};

/// Whose turn it is, by the names of objects.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<Held<()>>>>);

impl Turns {
    /// Waits until nobody else of this process writes the object of this name, in order of arrival. Whoever gives a
    /// call up gives its turn up.
    pub(super) async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        let own = {
            let mut all = self.0.lock();
            // Nobody has these, and nobody waits for them.
            all.retain(|_, held| Arc::strong_count(held) > 1);
            Arc::clone(all.entry(name.to_owned()).or_default())
        };
        own.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_taken_by_one_at_a_time_and_forgotten() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(turns.take("a").now_or_never().is_none(), "it is taken");
        let _other = turns.take("b").await;
        // Given up while waiting.
        assert!(tokio::time::timeout(Duration::from_secs(1), turns.take("a")).await.is_err());
        drop(first);
        drop(turns.take("a").await);
        let _again = turns.take("b2").await;
        assert!(!turns.0.lock().contains_key("a"), "it is forgotten");
    }
}
