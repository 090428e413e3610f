//! For which agents a sink has noted something, until the manager is told.

/// Places in the ledger, some of them more than once.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    cells: Vec<u32>,
}

impl Moved {
    /// Something was noted for this one.
    #[inline]
    pub(super) fn add(&mut self, cell: u32) {
        // An agent's events come in runs.
        if self.cells.last() != Some(&cell) {
            self.cells.push(cell);
        }
    }

    /// Those since the last time.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = u32> {
        self.cells.drain(..)
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}
