//! What connections and managers say, and what follows from it.

use std::time::Duration;

use codec::{ControlError, Escaped, ToAgent};
use rand::Rng;

use super::super::shared::{Installed, Refused};
use super::{Condition, Deed, News, Running, STARTUPS_MAX, State, Transport, What, local};

impl Running<'_> {
    /// What a task tells.
    pub(super) fn on_news(&mut self, news: News) {
        if !self.connection.is_current(&news) {
            return;
        }
        let now = self.now();
        match news.what {
            What::Reached(Ok(reached)) => {
                let server = &self.way.servers[reached.server];
                self.log.info(&format!("Trying to connect to server {server} ({}).", reached.address));
                self.connection.opened(reached);
                self.engine.set_files(self.digests.look());
                self.engine.on_connected(now);
            }
            What::Reached(Err(reasons)) => {
                let text = format!("Unable to connect to any server: {reasons}");
                self.log.condition(now, Condition::Reach, &text);
                self.engine.on_closed(now);
            }
            What::Received(bytes) => self.on_received(now, bytes),
            What::Written => {
                self.connection.written();
                self.engine.on_sent();
            }
            What::NotSent(error) => {
                let text = format!("Unable to send message to 'server': {error}; trying again");
                self.log.condition(now, Condition::Send, &text);
            }
            What::Closed(why) => self.on_lost(now, &why),
        }
    }

    fn on_received(&mut self, now: Duration, bytes: Vec<u8>) {
        match self.connection.cut(bytes) {
            Ok(messages) => {
                for message in messages {
                    self.engine.on_message(now, &message);
                    // A message may end the connection, and the rest of them with it.
                    self.follow(now);
                }
            }
            Err(error) => self.on_lost(now, &error.to_string()),
        }
        let (_, taken) = self.engine.agent().counters();
        if let Err(error) = self.rids.note_taken(now, taken) {
            self.log.condition(now, Condition::Rids, &format!("queue/rids: {error}"));
        }
    }

    fn on_lost(&mut self, now: Duration, why: &str) {
        self.log.condition(now, Condition::Reach, &format!("Lost connection with manager: {why}."));
        self.connection.close();
        self.engine.on_closed(now);
    }

    /// Does what the engine wants, and gives its messages to the connection.
    pub(super) fn follow(&mut self, now: Duration) {
        while let Some(deed) = self.engine.next_deed() {
            match deed {
                Deed::Connect => self.connect(now),
                Deed::Disconnect => {
                    if !self.connection.was_answered {
                        self.unanswered(now);
                    }
                    self.connection.close();
                    self.incoming.abandon();
                }
                Deed::Locked => {
                    self.was_connected = true;
                    self.log.warn("Server unavailable. Events wait in the spool.");
                }
                Deed::Ready => self.ready(),
                Deed::Received(text) => self.understand(now, &text),
                Deed::SessionRenewed => self.log.condition(now, Condition::Session, "The manager knows events that this spool never gave out: is it a restored copy? It has a new session now; what the manager had and did not confirm arrives twice."),
            }
        }
        self.flush(now);
        self.complain(now);
    }

    /// Soon, but not at once: where one agent lost its manager, all have.
    fn connect(&mut self, now: Duration) {
        self.connection.close();
        self.incoming.abandon();
        if !std::mem::take(&mut self.was_connected) {
            // The server that was tried did not answer, or there was none.
            self.server = if self.connection.has_tried { self.connection.server + 1 } else { self.server };
            self.server %= self.way.servers.len();
        }
        self.connect_at = Some(now + self.back_off.next(self.random.next_u64()));
    }

    fn unanswered(&mut self, now: Duration) {
        let server = &self.way.servers[self.connection.server];
        let text = format!("(4101): Waiting for server reply (not started). Tried: '{server}'.");
        self.log.condition(now, Condition::Reach, &text);
    }

    fn ready(&mut self) {
        self.connection.was_answered = true;
        self.back_off.reset();
        self.standing.connections += 1;
        self.server = self.connection.server;
        let server = &self.way.servers[self.server];
        self.log.info(&format!("(4102): Connected to server {server}."));
        match (self.settings.client.transport, self.engine.is_acknowledged()) {
            (Transport::Tcp, true) => self.log.info("Delivery is acknowledged by the manager."),
            (Transport::Tcp, false) => {
                self.log.info("Delivery is confirmed by keep-alives: events may arrive twice after a break.");
            }
            // Its own lines say nothing of delivery, as ever.
            (Transport::Udp, true | false) => {}
        }
        let waiting = self.engine.spool().records();
        if waiting > 0 {
            self.log.info(&format!("Server responded. {waiting} events have waited."));
        }
    }

    /// Gives the connection what there is to send, once it has sent what it was given before.
    fn flush(&mut self, now: Duration) {
        if !self.connection.can_write() || !self.engine.has_outbox() {
            return;
        }
        if self.settings.client.transport == Transport::Udp && self.engine.agent().state() != State::Ready {
            self.connection.startups += 1;
            if self.connection.startups > STARTUPS_MAX {
                self.unanswered(now);
                self.connection.close();
                return self.engine.on_closed(now);
            }
        }
        let (sent, _) = self.engine.agent().counters();
        if let Err(error) = self.rids.reserve(sent) {
            self.log.condition(now, Condition::Rids, &format!("queue/rids/sender_counter: {error}"));
        }
        self.connection.write(self.engine.take_outbox());
    }

    fn understand(&mut self, now: Duration, text: &[u8]) {
        match ToAgent::parse(text) {
            Ok(ToAgent::ActiveResponse(response)) => {
                if self.settings.client.active_response
                    && let Err(lost) = self.execd.send(now, response)
                {
                    self.log.condition(now, Condition::Execd, &lost.to_string());
                }
            }
            Ok(ToAgent::SyscheckRestart) => {
                if let Err(error) = local::restart_syscheck(&self.home) {
                    self.log.condition(now, Condition::Message, &format!("var/run/.syscheck_run: {error}"));
                }
            }
            Ok(ToAgent::FileBegin { digest, name }) => {
                let begun = self.incoming.begin(digest, name);
                self.shared_file(now, begun.map(|()| None));
            }
            Ok(ToAgent::FileChunk(chunk)) => {
                let taken = self.incoming.chunk(chunk);
                self.shared_file(now, taken.map(|()| None));
            }
            Ok(ToAgent::FileEnd) => {
                let ended = self.incoming.end();
                self.shared_file(now, ended);
            }
            Ok(ToAgent::Ack | ToAgent::ForceReconnect) => {}
            // Words on delivery come here where none was agreed.
            Ok(
                ToAgent::DeliveryAgreed { .. }
                | ToAgent::DeliveryTaken { .. }
                | ToAgent::Error(_)
                | ToAgent::Raw(_)
                | ToAgent::Request { .. },
            ) => {
                self.incoming.abandon();
                let text = format!(
                    "Unknown message received from server: {}",
                    Escaped(&text[..text.len().min(200)])
                );
                self.log.condition(now, Condition::Message, &text);
            }
            Err(ControlError::Digest | ControlError::FileName) => {
                self.incoming.refuse();
                self.shared_file(now, Err(Refused::Name));
            }
            Err(
                error @ (ControlError::Delivery | ControlError::NoNewline | ControlError::RequestCounter),
            ) => {
                self.log.condition(now, Condition::Message, &error.to_string());
            }
        }
    }

    fn shared_file(&mut self, now: Duration, result: Result<Option<Installed>, Refused>) {
        match result {
            Ok(None) => {}
            Ok(Some(Installed { name, files })) => {
                self.log.info(&format!(
                    "{} received from the manager: {files} files in it.",
                    Escaped(name.as_bytes())
                ));
            }
            Err(refused) => {
                self.log.condition(
                    now,
                    Condition::SharedFile,
                    &format!("A shared file is refused: {refused}."),
                );
            }
        }
    }

    /// Says what went wrong where nobody could say it.
    fn complain(&mut self, now: Duration) {
        if let Some(error) = self.engine.take_trouble() {
            let text = format!("{}: {error}; events wait until the disk takes them", super::SPOOL);
            self.log.condition(now, Condition::Spool, &text);
        }
        let spooled = self.engine.spool().counters();
        let lost = spooled.dropped + spooled.damaged;
        if lost != self.lost {
            self.lost = lost;
            let text = format!(
                "The spool has lost {lost} events since the start: {} had no room, {} were damaged.",
                spooled.dropped, spooled.damaged
            );
            self.log.condition(now, Condition::SpoolLoss, &text);
        }
        let ignored = self.engine.agent().ignored();
        if ignored.stale != self.ignored.stale {
            self.log.condition(now, Condition::Message, "(1407): Duplicated counter for a message of the manager: ignored. If its counters began anew, stop this agent and delete its files in queue/rids.");
        } else if ignored.unopened != self.ignored.unopened {
            self.log.condition(
                now,
                Condition::Message,
                "(1214): Problem receiving message: it does not open with this agent's key.",
            );
        }
        self.ignored = ignored;
    }
}
