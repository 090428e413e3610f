//! Agent tables that were replaced. A shard goes on with the one that it has until it reads its mail.

use std::sync::Arc;

use manager::AgentTable;

/// Tables that shards may still have. They are kept here so that no shard is the last to have one: it would have to free
/// it, which takes milliseconds with a large fleet, and tens of them where many agents are gone with their key schedules.
#[derive(Debug, Default)]
pub struct RetiredTables(Vec<Arc<AgentTable>>);

impl RetiredTables {
    /// Keeps a table that no shard will take any more.
    pub fn add(&mut self, table: Arc<AgentTable>) {
        self.0.push(table);
    }

    /// Those that no shard has any more, for the caller to free.
    #[must_use]
    pub fn unused(&mut self) -> Vec<Arc<AgentTable>> {
        // Nobody can take one again: who has none left here can't get any elsewhere.
        self.0.extract_if(.., |table| Arc::strong_count(table) == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_kept_while_a_shard_has_it() {
        let mut retired = RetiredTables::default();
        let tables: Vec<Arc<AgentTable>> = (0..3).map(|_| Arc::default()).collect();
        tables.iter().for_each(|table| retired.add(Arc::clone(table)));
        assert!(retired.unused().is_empty());
        let [first, second, third] = tables.try_into().unwrap();
        let address = Arc::as_ptr(&second);
        drop(second);
        let unused = retired.unused();
        assert_eq!(unused.iter().map(Arc::as_ptr).collect::<Vec<_>>(), [address]);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&third)), (2, 2));
        drop((first, third));
        assert_eq!(retired.unused().len(), 2);
        assert!(retired.unused().is_empty());
    }
}
