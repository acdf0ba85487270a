//! Which table files are open, and which of all files nobody needs any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// All table files of a node, by number. A file may be removed once it is retired, which is once no manifest names it
/// any more, and no pin is left on it.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pinned: BTreeSet<u64>,
    retired: BTreeSet<u64>,
}

impl Shelf {
    /// Keeps the file until the pin is dropped.
    pub fn pin(self: &Arc<Shelf>, number: u64) -> Pin {
        let new = self.0.lock().pinned.insert(number);
        assert!(new, "table {number} is opened once");
        Pin { shelf: self.clone(), number }
    }

    /// No manifest names these files any more.
    pub fn retire(&self, numbers: impl IntoIterator<Item = u64>) {
        self.0.lock().retired.extend(numbers);
    }

    /// Takes the files that may be removed now.
    pub fn take_free(&self) -> Vec<u64> {
        let mut state = self.0.lock();
        let free: Vec<u64> = state.retired.difference(&state.pinned).copied().collect();
        free.iter().for_each(|number| _ = state.retired.remove(number));
        free
    }
}

/// Somebody has the file open.
#[derive(Debug)]
pub struct Pin {
    shelf: Arc<Shelf>,
    number: u64,
}

impl Pin {
    /// Of the file.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shelf.0.lock().pinned.remove(&self.number);
    }
}
