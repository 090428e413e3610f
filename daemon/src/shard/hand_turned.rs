//! Shards that their owner turns, so that a bench measures a turn by itself: over the kernel's rings
//! ([`HandTurnedShard`]), or over a script in the kernel's place ([`ScriptedShard`]).

use std::net::SocketAddr;

use manager::ConnectionId;
use uring::{Armed, DirectSlot, Tag};

use super::op_kind::OpKind;
use super::{Shard, ShardError, ShardSpec};

/// A shard of the calling thread, which turns it.
pub struct HandTurnedShard(Shard);

/// A shard whose ring enters no kernel: what it receives is what was loaded. Its writes succeed and are dropped.
///
/// The queue socket is a sink that makes system calls of its own: leave it off.
pub struct ScriptedShard(Shard);

impl HandTurnedShard {
    /// A shard that listens. Its `core`, if it has one, becomes the calling thread's.
    ///
    /// # Errors
    ///
    /// What keeps it from running.
    pub fn start(spec: ShardSpec) -> Result<HandTurnedShard, ShardError> {
        Shard::start(spec).map(HandTurnedShard)
    }

    /// One turn, which waits until something comes, as under load for some more, or until something is due.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn turn(&mut self) -> Result<(), ShardError> {
        self.0.turn()
    }

    /// Ends it: what its sinks hold is given up.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn finish(self) -> Result<(), ShardError> {
        self.0.finish()
    }
}

impl ScriptedShard {
    /// A shard that hears only what is loaded. `spec` needs one listener at least.
    ///
    /// # Errors
    ///
    /// What keeps it from running: it has a ring of the kernel's, though it never enters it.
    pub fn start(spec: ShardSpec) -> Result<ScriptedShard, ShardError> {
        let mut shard = Shard::start(spec)?;
        shard.rings[0].ring.begin_script();
        Ok(ScriptedShard(shard))
    }

    /// Loads a datagram to the first listener. Says no if no buffer is left: turn first.
    ///
    /// # Panics
    ///
    /// Never: a shard's first ring has buffers for datagrams.
    #[must_use]
    pub fn load_datagram(&mut self, from: SocketAddr, bytes: &[u8]) -> bool {
        let ring = &mut self.0.rings[0];
        let group = ring.datagrams.expect("the primary ring has buffers for datagrams");
        let Some(lease) = ring.ring.fill_datagram(group, from, bytes) else { return false };
        ring.ring.script(Tag::new(OpKind::ReceiveDatagrams as u8, 0, 0), Armed::Still, Some(lease), None);
        true
    }

    /// Brings a connection. `None` if no accept is armed: turn first. It must authenticate within its deadline.
    pub fn connect(&mut self, from: SocketAddr) -> Option<ConnectionId> {
        let shard = &mut self.0;
        let slot = shard.connections.iter_accepting().next()?;
        let ring = &mut shard.rings[0];
        let tag = ring.slots.tag(OpKind::Accept as u8, DirectSlot::new(slot));
        ring.ring.script(tag, Armed::No, None, Some(from));
        shard.take_loaded();
        Some(ConnectionId { slot, generation: tag.generation() })
    }

    /// Loads what one receive of a connection brings. Says no if no buffer is left, or the bytes do not fit into one.
    #[must_use]
    pub fn load_segment(&mut self, connection: ConnectionId, bytes: &[u8]) -> bool {
        let ring = &mut self.0.rings[0];
        let Some(lease) = ring.ring.fill_stream(ring.streams, bytes) else { return false };
        let tag = ring.slots.tag(OpKind::ReceiveStream as u8, DirectSlot::new(connection.slot));
        ring.ring.script(tag, Armed::Still, Some(lease), None);
        true
    }

    /// One turn: takes what was loaded, up to a turn's bound.
    ///
    /// # Errors
    ///
    /// What the kernel refuses: nothing is known, since it is not asked.
    pub fn turn(&mut self) -> Result<(), ShardError> {
        self.0.turn()
    }
}

impl Shard {
    /// Takes what is loaded outside a turn.
    fn take_loaded(&mut self) {
        let now = self.now();
        while let Some(completion) = self.rings[0].ring.pop() {
            self.complete(0, completion, now);
        }
    }
}
