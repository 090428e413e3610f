//! The batch to the manager, events to the sinks, and what the manager asks for to the kernel.

use manager::{
    Action, ConnectionId, Incoming, Peer, Publish, Published, SinkFull, Ticket, Time, Transport, Verdict,
};

use super::Shard;
use super::batch::{Ending, emptied};
use crate::mail::Mail;
use crate::sink::{Level, Sinks};

impl Shard {
    /// Decides on everything that the turn brought, in order, and carries out what follows from it.
    pub(super) fn decide(&mut self, now: Time) {
        self.tally.turn_messages = self.batch.messages.len();
        self.tally.received_bytes += self.batch.bytes;
        self.count_lines();
        if self.batch.is_empty() {
            self.pause_over(now);
            return;
        }
        self.sinks.read_clock();
        // By listener, so that an answer to a datagram leaves from the socket that it came to.
        for listener in 0..self.listeners.len() {
            self.decide_listener(listener, now);
            self.act(Some(listener));
        }
        for ending in std::mem::take(&mut self.batch.endings) {
            let id = match ending {
                Ending::BadFrame(id, error) => {
                    self.manager.on_bad_frame(id, error);
                    id
                }
                Ending::Closed(id) => {
                    self.manager.on_closed(id);
                    id
                }
            };
            self.act(None);
            self.begin_close(id);
        }
        self.pause_over(now);
    }

    fn decide_listener(&mut self, listener: usize, now: Time) {
        let mut incoming = emptied(std::mem::take(&mut self.incoming));
        self.manager.set_crypto_accept(self.listeners[listener].crypto_accept);
        let rings = &self.rings;
        self.batch.incoming(listener, |ring, lease| rings[ring].ring.bytes(lease), &mut incoming);
        if !incoming.is_empty() {
            let mut publisher =
                Publisher { sinks: &mut self.sinks, batch: &incoming, over: &mut self.pressure.over };
            self.manager.set_listener(listener as u16);
            self.manager.receive(now, &incoming, &mut publisher);
        }
        self.incoming = emptied(incoming);
    }

    /// Carries out what the manager asks for. Answers to datagrams leave from the socket of `listener`.
    pub(super) fn act(&mut self, listener: Option<usize>) {
        while let Some(action) = self.manager.next_action() {
            match action {
                Action::Close { connection, reason: _ } => self.begin_close(connection),
                Action::Hold { connection, until } => self.hold(connection, until),
                Action::Mail { shard, connection } => {
                    self.send_mail(shard, Mail::CloseConnection(connection));
                }
                Action::Notice { agent, notice } => self.tell_notice(agent, notice),
                Action::SendDatagram { to, bytes } => self.send_reply(listener, to, bytes),
                Action::SendFrame { connection, bytes } => self.send_frame(connection, bytes),
            }
        }
        self.close_slow_readers();
    }
}

/// Takes events over, and notes which connections brought one while a sink was over its soft bound.
struct Publisher<'a> {
    sinks: &'a mut Sinks,
    batch: &'a [Incoming<'a>],
    over: &'a mut Vec<ConnectionId>,
}

impl Publish for Publisher<'_> {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        if event.transport == Transport::Udp && self.sinks.level() >= Level::Soft {
            return Err(SinkFull);
        }
        self.sinks.take(event);
        Ok(())
    }

    fn pass(&mut self, ticket: Ticket) {
        self.sinks.pass(ticket);
    }

    fn verdict(&mut self, index: usize, verdict: Verdict) {
        match (verdict, self.batch[index].peer) {
            (Verdict::Event, Peer::Connection(id)) if self.sinks.level() >= Level::Soft => self.over.push(id),
            (
                Verdict::Event | Verdict::Control(_) | Verdict::Dropped(_),
                Peer::Connection(_) | Peer::Datagram(_),
            ) => {}
        }
    }
}
