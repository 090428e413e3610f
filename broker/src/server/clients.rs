//! Who is connected, and which lines they have.

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::{
    Action, Connection, ConnectionId, HELLO_WITHIN, Line, LineId, LineName, Notice, PeerName, Server,
};
use crate::client::SILENCE_MAX;
use crate::key::LineKey;
use crate::wire::{Hello, LineNumber, Message, Refusal, VERSION};

impl Server {
    pub(super) fn hello(&mut self, id: ConnectionId, hello: &Hello<'_>) {
        if hello.version != VERSION {
            return self.refuse(id, Refusal::Version);
        }
        // Both sides' lengths are told by this, which the threat model allows; their bytes are not.
        if !bool::from(hello.secret.ct_eq(&self.settings.secret)) {
            return self.refuse(id, Refusal::Secret);
        }
        if let Some(older) = self.clients.get(hello.name).copied() {
            let client = self.connections.get(&older).and_then(|connection| connection.client.as_ref());
            if client.is_some_and(|client| client.incarnation >= hello.incarnation) {
                return self.refuse(id, Refusal::Stale);
            }
            self.refuse(older, Refusal::Stale);
        }
        let connection = self.connections.get_mut(&id).expect("the caller has found it");
        let (name, incarnation, mode) = (hello.name.to_owned(), hello.incarnation, hello.mode);
        let joined = format!("client {name} ({mode:?}) from {}", connection.peer);
        connection.client = Some(PeerName { name: name.clone(), incarnation, mode });
        Message::Health(self.health).write(&mut connection.out);
        self.clients.insert(name, id);
        self.say(Notice::Joined(joined));
    }

    pub(super) fn open(
        &mut self,
        now: Duration,
        id: ConnectionId,
        number: LineNumber,
        identity: u64,
        key: LineKey,
    ) {
        let connection = self.connections.get(&id).expect("the caller has found it");
        let client = connection.client.as_ref().expect("it has said who it is").name.clone();
        let name = LineName { client, key, identity };
        let known = self.keys.get(&name).copied();
        if known.is_none() && self.lines.len() >= self.settings.lines_max && !self.retire_the_oldest() {
            return self.refuse(id, Refusal::TooManyLines);
        }
        let line = known.unwrap_or_else(|| {
            let line = LineId(self.next_line);
            self.next_line += 1;
            self.keys.insert(name.clone(), line);
            let fresh = Line {
                name,
                taken: None,
                given: None,
                confirmed: None,
                chain: None,
                route: None,
                used_at: now,
            };
            self.lines.insert(line, fresh);
            line
        });
        let opened = self.lines.get_mut(&line).expect("it is there, or was just made");
        opened.used_at = now;
        opened.chain = None;
        // A number that meant another line before does so no more; nor does this line have another number.
        let old_number = opened.route.replace((id, number)).filter(|(connection, _)| *connection == id);
        let connection = self.connections.get_mut(&id).expect("the caller has found it");
        if let Some((_, old)) = old_number {
            connection.numbers.remove(&old);
        }
        if let Some(other) = connection.numbers.insert(number, line).filter(|other| *other != line) {
            self.retire(other);
        }
    }

    pub(super) fn close_the_silent(&mut self, now: Duration) {
        let is_late = |connection: &Connection| match connection.client {
            None => now >= connection.accepted_at + HELLO_WITHIN,
            Some(_) => now >= connection.heard_at + SILENCE_MAX,
        };
        let late = self.connections.iter().filter(|(_, one)| !one.is_closing && is_late(one));
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.turn_away(id, "it has said nothing for too long");
        }
    }

    /// Tells the client why, and ends its connection.
    pub(super) fn refuse(&mut self, id: ConnectionId, why: Refusal) {
        if let Some(connection) = self.connections.get_mut(&id) {
            Message::Refused(why).write(&mut connection.out);
        }
        self.turn_away(id, &why.to_string());
    }

    pub(super) fn turn_away(&mut self, id: ConnectionId, why: &str) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if std::mem::replace(&mut connection.is_closing, true) {
            return;
        }
        let (peer, client) = (connection.peer, connection.client.take());
        if let Some(client) = client
            && self.clients.get(&client.name) == Some(&id)
        {
            self.clients.remove(&client.name);
        }
        self.counters.turned_away += 1;
        self.unroute(id);
        self.actions.push_back(Action::Close(id));
        self.say(Notice::Turned(format!("{peer}: {why}")));
    }

    /// The lines of a connection have no way to their client any more, and what it sent is taken no more.
    pub(super) fn unroute(&mut self, id: ConnectionId) {
        self.pending.retain(|give| give.connection != id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.held_bytes = 0;
        }
        for line in self.lines.values_mut().filter(|line| line.route.is_some_and(|(route, _)| route == id)) {
            line.route = None;
            line.taken = line.given;
            line.chain = None;
        }
    }

    /// Makes room for a line by forgetting the one that nobody has had for longest.
    fn retire_the_oldest(&mut self) -> bool {
        let unused = self.lines.iter().filter(|(_, line)| line.route.is_none());
        let oldest = unused.min_by_key(|(_, line)| line.used_at).map(|(id, _)| *id);
        oldest.map(|id| self.retire(id)).is_some()
    }

    pub(super) fn retire(&mut self, id: LineId) {
        if let Some(line) = self.lines.remove(&id) {
            self.keys.remove(&line.name);
            let Server { pending, connections, .. } = self;
            pending.retain(|give| {
                if give.line == id
                    && let Some(connection) = connections.get_mut(&give.connection)
                {
                    connection.held_bytes = connection.held_bytes.saturating_sub(give.bytes.len());
                }
                give.line != id
            });
            self.actions.push_back(Action::Retire(id));
        }
    }
}
