//! What all agents of one thread share: the big buffers, the random numbers, and the outputs of the last input.

use std::collections::VecDeque;
use std::time::Duration;

use codec::{OpenSettings, Opener, Sealer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What the caller does for an agent, in the order in which it gets them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// The manager acknowledged a start-up or a keep-alive.
    Acknowledged,
    /// Connect (over UDP: open a socket, from another port if there was one) and call [`Agent::on_connected`], or
    /// [`Agent::on_closed`] if that fails.
    ///
    /// [`Agent::on_connected`]: crate::Agent::on_connected
    /// [`Agent::on_closed`]: crate::Agent::on_closed
    Connect,
    /// The manager agrees to acknowledged delivery on the session that was offered.
    DeliveryAgreed,
    /// The manager's sinks have every event before this number.
    DeliveryTaken {
        /// As the manager says it: check it before use.
        before: u64,
    },
    /// Close the connection. The agent has forgotten it already; telling it so is harmless.
    Disconnect,
    /// The manager is gone: events must wait.
    Locked,
    /// The manager acknowledged the start-up: events may go.
    Ready,
    /// A text from the manager that is for the agent's other parts: an active response, a request, a piece of a file.
    Received(Vec<u8>),
    /// Send this message: as one datagram, or as one frame (its length is not in it).
    Transmit(Vec<u8>),
}

/// Shared by any number of agents on one thread. About 300 KiB, most of it zlib's.
///
/// One input to one agent, then drain [`Tools::next_output`], then the next.
#[derive(Debug)]
pub struct Tools {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) random: StdRng,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) text: Vec<u8>,
}

impl Tools {
    /// Tools whose random numbers come from `seed`. Initialization vectors are among them, so outside of a simulation or
    /// a load test it must come from the operating system.
    pub fn new(seed: [u8; 32]) -> Tools {
        Tools {
            sealer: Sealer::new(),
            opener: Opener::new(OpenSettings::default()),
            random: StdRng::from_seed(seed),
            outputs: VecDeque::new(),
            text: Vec::new(),
        }
    }

    /// The next thing to do for the agent that had the last input.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Any number.
    pub(crate) fn random_u64(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// A random duration below `max`.
    pub(crate) fn jitter(&mut self, max: Duration) -> Duration {
        let nanoseconds = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.random.next_u64() % nanoseconds)
    }

    /// # Panics
    /// If outputs of the last input are still there: they would be taken for another agent's.
    pub(crate) fn begin_input(&self) {
        assert!(self.outputs.is_empty(), "outputs are drained before the next input");
    }
}
