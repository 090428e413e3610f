//! The rules of a server, for the tests and the fuzz target.

use super::{HELD_BYTES_MAX, OUT_BYTES_MAX, Server};

impl Server {
    /// What must hold between any two inputs.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn check_rules(&self) {
        for (id, connection) in &self.connections {
            let pending = self.pending.iter().filter(|give| give.connection == *id);
            assert_eq!(connection.held_bytes, pending.map(|give| give.bytes.len()).sum::<usize>());
            assert!(connection.held_bytes <= HELD_BYTES_MAX);
            assert!(connection.out.len() <= OUT_BYTES_MAX + 1_024);
            // On one that is closing nothing is read any more.
            for (number, line) in connection.numbers.iter().filter(|_| !connection.is_closing) {
                assert_eq!(
                    self.lines[line].route,
                    Some((*id, *number)),
                    "a number means one line, and the line knows it"
                );
            }
        }
        for give in &self.pending {
            assert!(self.lines.contains_key(&give.line) && self.connections.contains_key(&give.connection));
        }
        for line in self.lines.values() {
            assert!(line.confirmed <= line.given && line.given <= line.taken, "{line:?}");
        }
        assert!(self.lines.len() <= self.settings.lines_max && self.keys.len() == self.lines.len());
        assert!(self.clients.values().all(|id| self.connections[id].client.is_some()));
    }
}
