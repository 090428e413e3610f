//! The sinks without a shard and its ring, so that a bench measures the hand-over by itself.

use std::time::Duration;

use manager::{Published, ShardId, Time};
use rustix::event::{PollFd, PollFlags, poll};

use super::{Next, Sinks};
use crate::clock::Clock;
use crate::delivery::Delivery;
use crate::settings::Settings;

/// What the settings name as sinks, handed over by the caller.
pub struct HandPumpedSinks {
    sinks: Sinks,
    clock: Clock,
}

impl HandPumpedSinks {
    /// The sinks that the settings name.
    ///
    /// # Panics
    ///
    /// If `delivery` is there, and the host has no ring or no disk for what is noted in it.
    #[must_use]
    pub fn new(settings: &Settings, delivery: Option<&Delivery>) -> HandPumpedSinks {
        let noting = delivery.map(|delivery| delivery.of_shard(ShardId(0)).expect("the disk has room"));
        let sinks = Sinks::new(settings, noting).expect("the host has rings");
        HandPumpedSinks { sinks, clock: Clock::start() }
    }

    /// Takes an event over, into every sink.
    pub fn take(&mut self, published: &Published<'_>) {
        self.sinks.read_clock();
        self.sinks.take(published);
    }

    /// Hands over what can be handed over now, and says after how long it is to be called again, if it is. Where a shard's
    /// ring would poll for a reader's room, it waits.
    ///
    /// # Panics
    ///
    /// Never: no sink waits for longer than the kernel can.
    pub fn hand_over(&mut self) -> Option<Duration> {
        let mut pause = None;
        for index in 0..self.sinks.count() {
            loop {
                let now = Time::from_nanoseconds(self.clock.nanoseconds());
                match self.sinks.pump(index, now, false) {
                    Next::Again => {}
                    Next::At(time) => {
                        pause = Some(time.since(now));
                        break;
                    }
                    Next::Idle => break,
                    Next::Poll { descriptor, patience } => {
                        let timeout = patience.since(now).try_into().expect("a sink's patience is short");
                        let mut polled = [PollFd::new(&descriptor, PollFlags::OUT)];
                        // Whatever the poll says, the sink is asked again.
                        let _ = poll(&mut polled, Some(&timeout));
                        self.sinks.on_writable(index);
                    }
                    Next::Sync { file } => {
                        let synced = rustix::fs::fdatasync(&file).map(|()| 0);
                        self.sinks.on_synced(index, now, synced);
                    }
                    Next::Write { file, bytes } => {
                        let written = rustix::io::write(&file, &bytes);
                        let written = written.map(|count| u32::try_from(count).expect("a block is small"));
                        self.sinks.on_written(index, now, written);
                    }
                }
            }
        }
        // No manager is told.
        self.sinks.moved().drain().for_each(drop);
        pause
    }

    /// Whether every sink has handed over all that it took.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }
}
