//! What a server tells of itself.

use serde::{Deserialize, Serialize};

use super::Server;

/// What a server has counted since its start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServerCounters {
    /// Connections that came.
    pub connections: u64,
    /// Connections that it ended.
    pub turned_away: u64,
    /// Packets that came.
    pub packets: u64,
    /// Of them, not taken: the manager was not well, or one before it was not taken.
    pub ignored: u64,
    /// Of them, taken before.
    pub repeated: u64,
    /// Given to the manager.
    pub given: u64,
    /// Of no use to any manager: the kernel refuses to send them.
    pub never_sent: u64,
    /// Seen to be read by the manager.
    pub confirmed: u64,
    /// Datagrams of the manager, handed to clients.
    pub replies: u64,
    /// Datagrams of the manager whose client was not there, or did not read.
    pub replies_dropped: u64,
    /// Datagrams, of the broker's or of others, for which the manager's sockets had no room.
    pub drops: u64,
}

/// A server at a moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerStatus {
    /// Whether the manager is well.
    pub is_well: bool,
    /// Why it is not.
    pub why_not: Option<String>,
    /// What it has counted.
    pub counters: ServerCounters,
    /// The clients that are there.
    pub clients: Vec<PeerStatus>,
    /// Lines of all clients, of those that are not there too.
    pub lines: usize,
    /// Packets that wait for the manager.
    pub waiting: usize,
    /// Datagrams that the manager was given and is not known to have read.
    pub unread: usize,
}

/// A client as its server sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub peer: String,
    /// `relay` or `gate`.
    pub mode: crate::wire::Mode,
    /// Its agents.
    pub agents: Vec<String>,
}

impl Server {
    /// The server now.
    pub fn status(&self) -> ServerStatus {
        let clients = self.connections.values().filter_map(|connection| {
            let client = connection.client.as_ref()?;
            let agents = connection.numbers.values().filter_map(|line| self.lines.get(line));
            Some(PeerStatus {
                name: client.name.clone(),
                peer: connection.peer.to_string(),
                mode: client.mode,
                agents: agents.map(|line| line.name.key.to_string()).collect(),
            })
        });
        ServerStatus {
            is_well: self.health.is_ok(),
            why_not: self.health.err().map(|why| why.to_string()),
            counters: self.counters,
            clients: clients.collect(),
            lines: self.lines.len(),
            waiting: self.pending.len(),
            unread: self.backlog.count(),
        }
    }

    /// What it has counted since its start.
    pub fn counters(&self) -> ServerCounters {
        self.counters
    }
}
