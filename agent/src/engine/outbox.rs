//! Messages on their way to the connection.

use std::collections::VecDeque;

use crate::{Output, Tools};

/// Bytes of sealed messages that wait for the connection; what is more stays in the spool.
pub(super) const OUTBOX_BYTES_MAX: usize = 128 << 10;

/// In order. A batch, so that many frames make one write.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    /// Whether events may join. The agent's own words always may: there are few of them.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < OUTBOX_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn push(&mut self, message: Vec<u8>) {
        self.bytes += message.len();
        self.messages.push_back(message);
    }

    /// What the agent has just sealed.
    pub(super) fn collect(&mut self, tools: &mut Tools) {
        while let Some(output) = tools.next_output() {
            let Output::Transmit(message) = output else {
                unreachable!("sealing makes messages, not {output:?}");
            };
            self.push(message);
        }
    }

    pub(super) fn take(&mut self) -> VecDeque<Vec<u8>> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }
}
