//! The one clock of the process: every shard and the control plane count nanoseconds from the same start.

use std::time::Instant;

/// A start that all threads share. Copies of one clock agree; two clocks do not.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now, just above zero, so that zero can mean "never".
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the start, at least 1.
    ///
    /// # Panics
    /// After 584 years.
    pub fn nanoseconds(self) -> u64 {
        let elapsed =
            u64::try_from(self.0.elapsed().as_nanos()).expect("the process is younger than 584 years");
        elapsed + 1
    }
}
