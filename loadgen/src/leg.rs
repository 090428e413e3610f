//! A leg: events with one plan, one start, and their messages. A run is one leg; a comparison plays many, one after the
//! other, with the same fleet.

use std::sync::Arc;

use bytes::Bytes;
use codec::Counter;

use crate::members::CounterBase;
use crate::plan::Plan;
use crate::reader::RunClock;
use crate::seal_ahead::SealedAhead;
use crate::stock::Stock;

/// What a fleet sends from one start on.
#[derive(Debug)]
pub struct Leg {
    /// Who and when.
    pub plan: Plan,
    /// What.
    pub messages: Messages,
    /// Since when.
    pub clock: RunClock,
}

/// Where the messages of a leg come from.
#[derive(Debug)]
pub enum Messages {
    /// Sealed for this plan, in its order.
    Planned(SealedAhead),
    /// Sealed for any plan of the fleet.
    Stocked(Arc<Stock>),
}

impl Leg {
    /// All events of a write in one piece, as they go over a stream.
    pub fn write(&self, number: u64) -> Bytes {
        match &self.messages {
            Messages::Planned(sealed) => sealed.write(number),
            Messages::Stocked(stock) => {
                let write = self.plan.write(number);
                stock.frames(write.agent, write.sequence, self.plan.burst())
            }
        }
    }

    /// One event of a write, as it goes into a datagram.
    pub fn event(&self, number: u64, index: u32) -> Bytes {
        match &self.messages {
            Messages::Planned(sealed) => sealed.event(number, index),
            Messages::Stocked(stock) => {
                let write = self.plan.write(number);
                stock.message(write.agent, write.sequence + u64::from(index))
            }
        }
    }

    /// The counter of the last event of a write.
    pub fn last_counter(&self, counters: CounterBase, number: u64) -> Counter {
        let last = self.plan.write(number).sequence + u64::from(self.plan.burst()) - 1;
        counters.of_event(last)
    }
}
