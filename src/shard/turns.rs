//! A queue in which apps take turns: an app delays the items of another app by one item for each of theirs.

use std::collections::{BTreeMap, VecDeque};

use crate::app::AppSerial;

/// Items that wait, in order within their app.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// Apps with items, each once, in the order of their turns.
    apps: VecDeque<AppSerial>,
    items: BTreeMap<AppSerial, VecDeque<T>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { apps: VecDeque::new(), items: BTreeMap::new() }
    }
}

impl<T> Turns<T> {
    /// Adds an item behind those of its app.
    pub(super) fn push(&mut self, app: AppSerial, item: T) {
        let items = self.items.entry(app).or_default();
        if items.is_empty() {
            self.apps.push_back(app);
        }
        items.push_back(item);
    }

    /// Takes the first item of the app whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let app = self.apps.pop_front()?;
        let items = self.items.get_mut(&app).expect("an app that waits has items");
        let item = items.pop_front();
        if items.is_empty() {
            self.items.remove(&app);
        } else {
            self.apps.push_back(app);
        }
        item
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.values().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: order within an app, turns between apps, and no items left over.
    #[test]
    fn apps_take_turns() {
        let mut turns = Turns::default();
        for item in 0..5 {
            turns.push(AppSerial(1), item);
        }
        turns.push(AppSerial(2), 10);
        turns.push(AppSerial(2), 11);
        let order: Vec<u32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3, 4]);
        assert!(turns.is_empty() && turns.items.is_empty());
    }
}
