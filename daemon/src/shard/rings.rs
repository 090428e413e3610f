//! The rings of a shard: the one that it waits on, and spare ones for more connections than one table holds.

use std::time::Duration;

use manager::Time;
use uring::{
    BufferSettings, DATAGRAM_HEADER_BYTES, DirectSlot, DirectSlots, GroupId, Ring, RingSettings, RingWatch,
    Tag, Unsupported, Wait, completions_needed,
};

use super::op_kind::OpKind;
use super::{Shard, ShardError};
use crate::settings::Settings;

/// A stream's buffer. A frame that lies whole in one is used in place.
const STREAM_BUFFER_BYTES: u32 = 16 * 1024;

/// A datagram's buffer: the longest datagram there is, its header, and some, so that buffers do not all begin on the same
/// cache lines.
const DATAGRAM_BUFFER_BYTES: u32 = 65_536 + 128;
const _: () = assert!(DATAGRAM_BUFFER_BYTES >= 65_535 + DATAGRAM_HEADER_BYTES);

/// Operations pushed between two waits before a push submits on its own.
const SUBMISSIONS: u32 = 1_024;

/// The kernel makes no larger completion queue.
const COMPLETIONS_MAX: u32 = 65_536;

/// How many completions end the gathering of a batch before its time does. Each datagram is one only once the kernel has
/// been entered, so with datagrams alone the time decides.
const GATHER_COMPLETIONS_MAX: u32 = 256;

/// While a sink waits for its reader, the shard gathers no longer than this: it must see that there is room.
const GATHER_BESIDE_SINK: Duration = Duration::from_micros(50);

/// One ring of a shard.
pub(super) struct ShardRing {
    pub(super) ring: Ring,
    pub(super) slots: DirectSlots,
    pub(super) streams: GroupId,
    /// Only the primary ring receives datagrams.
    pub(super) datagrams: Option<GroupId>,
    /// For each listener, how many accepts wait for a connection.
    pub(super) accepting: Vec<u32>,
    /// Tells the primary ring when this spare one has something to do.
    watch: Option<RingWatch>,
    /// The primary ring reads the watch now.
    watched: bool,
    /// The watch has told: there may be completions.
    pub(super) ready: bool,
}

impl ShardRing {
    /// The ring that the shard waits on.
    pub(super) fn primary(settings: &Settings, table_slots: u32) -> Result<ShardRing, Unsupported> {
        let mut ring = ShardRing::spare(settings, table_slots)?;
        let count = settings.shards.datagram_buffers;
        let buffers = BufferSettings { count, bytes_each: DATAGRAM_BUFFER_BYTES };
        ring.datagrams = Some(ring.ring.add_buffers(buffers)?);
        Ok(ring)
    }

    fn spare(settings: &Settings, table_slots: u32) -> Result<ShardRing, Unsupported> {
        let count = settings.shards.stream_buffers;
        let buffers = u32::from(count) + u32::from(settings.shards.datagram_buffers);
        let mut ring = Ring::new(&RingSettings {
            submissions: SUBMISSIONS,
            completions: completions_needed(buffers, table_slots).min(COMPLETIONS_MAX),
            direct_descriptors: table_slots,
        })?;
        let streams = ring.add_buffers(BufferSettings { count, bytes_each: STREAM_BUFFER_BYTES })?;
        Ok(ShardRing {
            ring,
            slots: DirectSlots::new(table_slots),
            streams,
            datagrams: None,
            accepting: Vec::new(),
            watch: None,
            watched: false,
            ready: false,
        })
    }
}

impl Shard {
    /// Submits what was pushed and waits for something to do: one `io_uring_enter`, and one more for each spare ring.
    /// Returns when it was over.
    pub(super) fn wait(&mut self) -> Result<Time, ShardError> {
        for index in 1..self.rings.len() {
            self.enter_spare(index)?;
            self.watch_spare(index);
        }
        let wait = if self.due.again { Wait::default() } else { self.next_wait() };
        self.rings[0].ring.wait(wait).map_err(ShardError::Wait)?;
        Ok(self.now())
    }

    /// Opens one more ring.
    pub(super) fn open_spare(&mut self) -> Result<(), ShardError> {
        let mut spare = ShardRing::spare(&self.settings, self.table_slots).map_err(ShardError::Ring)?;
        spare.watch = Some(spare.ring.watch().map_err(ShardError::Wait)?);
        self.rings.push(spare);
        Ok(())
    }

    /// Submits what was pushed into a spare ring, and lets it post its completions.
    pub(super) fn enter_spare(&mut self, index: usize) -> Result<(), ShardError> {
        self.rings[index].ring.wait(Wait::default()).map_err(ShardError::Wait)
    }

    /// The ring of a connection's slot, and its slot there.
    pub(super) fn place(&self, slot: u32) -> (usize, DirectSlot) {
        ((slot / self.table_slots) as usize, DirectSlot::new(slot % self.table_slots))
    }

    fn watch_spare(&mut self, index: usize) {
        if self.rings[index].watched {
            return;
        }
        self.rings[index].watched = true;
        let read = self.rings[index].watch.as_ref().expect("a spare ring is made with its watch").read();
        self.rings[0].ring.push(read, Tag::new(OpKind::SpareRing as u8, 0, index as u32));
    }

    /// The primary says that a spare ring has something.
    pub(super) fn on_spare_ready(&mut self, index: usize) {
        self.rings[index].watched = false;
        self.rings[index].ready = true;
    }

    /// How to wait: until something comes or is due. Under load for a batch.
    fn next_wait(&self) -> Wait {
        let now = self.now();
        let stop = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let dues = [
            Some(self.due.tick),
            self.due.sinks,
            self.manager.next_timeout(),
            self.devices.next_timeout(),
            self.holds.next(),
            self.looks.next(),
            stop,
        ];
        let due = dues.into_iter().flatten().min().expect("the tick is always due").since(now);
        let gather_max = match self.sink_polls.iter().any(|poll| poll.armed) {
            true => GATHER_BESIDE_SINK,
            false => Duration::MAX,
        };
        let min_wait = self.patience.gather(now).map(|gather| gather.min(gather_max).min(due));
        Wait {
            completions_min: min_wait.map_or(1, |_| self.gather_completions()),
            min_wait,
            timeout: Some(due),
        }
    }

    /// No more than half of a group's buffers are to be filled while the shard gathers.
    fn gather_completions(&self) -> u32 {
        let shards = &self.settings.shards;
        let buffers = shards.datagram_buffers.min(shards.stream_buffers);
        GATHER_COMPLETIONS_MAX.min(u32::from(buffers) / 2).max(1)
    }
}
