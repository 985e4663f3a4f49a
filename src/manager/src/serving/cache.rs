//! Answers that are used again for a while; questions asked at the same time are asked once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// An answer, and until when it may be used.
type Cell<V> = Arc<OnceCell<(V, Instant)>>;

/// A bounded cache with a time to live for each answer. Errors are not kept.
pub(crate) struct Cache<K, V> {
    cells: Mutex<HashMap<K, Cell<V>>>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// A cache of at most `capacity` answers.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { cells: Mutex::new(HashMap::new()), capacity }
    }

    /// The answer kept for `key`, or the one that `ask` gives, with the time that it may be kept.
    pub(crate) async fn get<E, F>(&self, key: K, ask: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<(V, Duration), E>>,
    {
        let cell = self.cell(key);
        let answer = cell
            .get_or_try_init(|| async {
                let (answer, keep) = ask().await?;
                Ok((answer, Instant::now() + keep))
            })
            .await?;
        Ok(answer.0.clone())
    }

    fn cell(&self, key: K) -> Cell<V> {
        let now = Instant::now();
        let fresh = |cell: &Cell<V>| cell.get().is_none_or(|(_, until)| now < *until);
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.get(&key).filter(|cell| fresh(cell)) {
            return Arc::clone(cell);
        }
        if cells.len() >= self.capacity {
            // Keeps what is fresh and what is being asked; failed questions have no other holder.
            cells.retain(|_, cell| fresh(cell) && (cell.initialized() || Arc::strong_count(cell) > 1));
        }
        if cells.len() >= self.capacity
            && let Some(any) = cells.keys().next().cloned()
        {
            cells.remove(&any);
        }
        let cell = Cell::default();
        cells.insert(key, Arc::clone(&cell));
        cell
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.cells.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const KEEP: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn keeps_answers_for_their_time() {
        let cache = Cache::new(10);
        let asked = AtomicU32::new(0);
        fn asked_next(asked: &AtomicU32) -> u32 {
            asked.fetch_add(1, Ordering::Relaxed)
        }
        let ask = |keep| {
            let asked = &asked;
            cache.get("key", move || async move { Ok::<_, ()>((asked_next(asked), keep)) })
        };
        assert_eq!(ask(KEEP).await, Ok(0));
        tokio::time::advance(KEEP - Duration::from_millis(1)).await;
        assert_eq!(ask(KEEP).await, Ok(0));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ask(Duration::ZERO).await, Ok(1));
        assert_eq!(ask(KEEP).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn asks_once_for_many_at_a_time_and_keeps_no_errors() {
        let cache: Cache<u8, u32> = Cache::new(10);
        let asked = AtomicU32::new(0);
        let slow = || {
            cache.get(1, || async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, String>((asked.fetch_add(1, Ordering::Relaxed), KEEP))
            })
        };
        let (a, b, c) = tokio::join!(slow(), slow(), slow());
        assert_eq!((a, b, c), (Ok(0), Ok(0), Ok(0)));

        let failed = cache.get(2, || async { Err::<(u32, Duration), _>("no") }).await;
        assert_eq!(failed, Err("no"));
        assert_eq!(cache.get(2, || async { Ok::<_, ()>((7, KEEP)) }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn stays_within_its_bounds() {
        let cache: Cache<u32, u32> = Cache::new(100);
        for key in 0..1000 {
            let _ = cache.get(key, || async move { if key % 2 == 0 { Ok((key, KEEP)) } else { Err(()) } }).await;
        }
        assert!(cache.len() <= 100, "{}", cache.len());
    }
}
