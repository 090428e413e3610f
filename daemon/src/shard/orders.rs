//! Orders to send something to an agent: from the mail box to its connection or return path, some in each turn.

use manager::Way;

use super::Shard;
use super::send::REPLIES_MAX;
use crate::outward::{SendFailure, SendHow, SendOrder, SendOutcome};

/// How many orders a turn carries out. Sealing one of 900 bytes takes about 40 microseconds, most of it compressing: all of
/// them together delay the next turn's messages and acknowledgements by less than a millisecond.
const ORDERS_A_TURN_MAX: usize = 16;

impl Shard {
    /// Carries out orders; what is left is for the next turn, which must not wait.
    pub(super) fn take_orders(&mut self) {
        for _ in 0..ORDERS_A_TURN_MAX {
            // The next turn finds room again, since the kernel takes datagrams at once.
            if self.outgoing.replies >= REPLIES_MAX {
                break;
            }
            let Some(order) = self.mail.next_order() else { return };
            self.carry_out(&order);
        }
        self.due.mail = true;
        self.due.again = true;
    }

    fn carry_out(&mut self, order: &SendOrder) {
        let now = self.now();
        let ticket = order.ticket;
        match self.manager.send_text(now, order.agent, &order.text) {
            Ok(Way::Connection(id)) => {
                self.act(None);
                match self.connections.find(id) {
                    Some(connection) => connection.receipts.open(ticket, order.receipt),
                    // It had no room: its agent does not read, so it was closed.
                    None => {
                        self.outcomes
                            .push(SendOutcome { ticket, outcome: Err(SendFailure::ConnectionEnded) });
                    }
                }
            }
            Ok(Way::Datagram { listener }) => {
                self.act(Some(usize::from(listener)));
                let how = SendHow { over: manager::Transport::Udp };
                self.outcomes.push(SendOutcome { ticket, outcome: Ok(how) });
            }
            Err(refused) => {
                self.outcomes.push(SendOutcome { ticket, outcome: Err(SendFailure::Refused(refused)) });
            }
        }
    }
}
