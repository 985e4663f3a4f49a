//! A list that only grows, and whose items are lent for as long as the list lives.

use std::sync::{Arc, OnceLock};

/// A list that only grows. What was lent stays as it was; whoever asks again gets the longer list.
pub(crate) struct Growing<T> {
    items: Box<[Arc<T>]>,
    /// The same and more.
    longer: OnceLock<Box<Self>>,
}

impl<T> Growing<T> {
    pub(crate) fn new(items: Vec<Arc<T>>) -> Self {
        Self { items: items.into(), longer: OnceLock::new() }
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(longer) = last.longer.get() {
            last = longer;
        }
        last
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Arc<T>] {
        &self.last().items
    }

    /// Adds one, and returns its place.
    pub(crate) fn push(&self, item: &Arc<T>) -> usize {
        loop {
            let last = self.last();
            let longer = last.items.iter().cloned().chain([Arc::clone(item)]).collect();
            // Refused if somebody else was faster.
            if last.longer.set(Box::new(Self::new(longer))).is_ok() {
                return last.items.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_stays() {
        let list = Growing::new(vec![Arc::new(1)]);
        let before = list.all();
        assert_eq!((list.push(&Arc::new(2)), list.push(&Arc::new(3))), (1, 2));
        assert_eq!(before, [Arc::new(1)]);
        assert_eq!(list.all(), [1, 2, 3].map(Arc::new));
    }
}
