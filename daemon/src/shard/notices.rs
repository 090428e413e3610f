//! What shards tell the control plane: notices of agents. Bounded, and no shard ever waits for it.
//!
//! The other direction is [`crate::mail`]. Events do not come through here.

use std::io;
use std::os::unix::net;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use codec::AgentId;
use crossbeam_channel::{Receiver, Sender, bounded};
use manager::Notice;
use tokio::net::UnixDatagram;

use super::Shard;
use crate::outward::SendOutcome;

/// How many notices wait: a whole large fleet that reconnects within a few of the control plane's turns.
const CAPACITY: usize = 32_768;

/// Bytes of agents' texts that wait, in all: keep-alives are short, but an agent may make its own as long as a message.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// One thing that a shard says.
#[derive(Debug)]
pub enum FromShard {
    /// News of an agent.
    Notice {
        /// Whose.
        agent: AgentId,
        /// What.
        notice: Notice,
    },
    /// What became of an order.
    Outcome(SendOutcome),
}

/// A shard's end.
#[derive(Clone, Debug)]
pub struct NoticeSender {
    queue: Sender<FromShard>,
    shared: Arc<Shared>,
    /// A datagram here wakes the control plane.
    bell: Arc<net::UnixDatagram>,
}

/// The control plane's end.
#[derive(Debug)]
pub struct NoticeReceiver {
    queue: Receiver<FromShard>,
    shared: Arc<Shared>,
    bell: Bell,
}

/// The receiving end of the bell.
#[derive(Debug)]
enum Bell {
    /// Until the runtime watches it.
    Made(net::UnixDatagram),
    Watched(UnixDatagram),
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether somebody rang since the control plane last looked: notices between two looks cost one system call together.
    rung: AtomicBool,
    text_bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// The way from all shards to the control plane. A receiver that is dropped lets every notice go.
///
/// # Errors
/// When the process or the host has no descriptor left.
pub fn notices() -> io::Result<(NoticeSender, NoticeReceiver)> {
    let (ring, bell) = net::UnixDatagram::pair()?;
    ring.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    let (sender, receiver) = bounded(CAPACITY);
    let shared = Arc::<Shared>::default();
    let sending = NoticeSender { queue: sender, shared: Arc::clone(&shared), bell: Arc::new(ring) };
    Ok((sending, NoticeReceiver { queue: receiver, shared, bell: Bell::Made(bell) }))
}

impl NoticeSender {
    /// Leaves something for the control plane and wakes it; whether there was room. Never waits.
    pub(crate) fn send(&self, said: FromShard) -> bool {
        let bytes = said.text_bytes();
        let held = self.shared.text_bytes.fetch_add(bytes, Ordering::Relaxed);
        if (bytes > 0 && held + bytes > TEXT_BYTES_MAX) || self.queue.try_send(said).is_err() {
            self.shared.text_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.ring();
        true
    }

    /// Leaves the outcome of an order, and wakes the control plane; whether there was room. If not, it has to be told later.
    fn send_outcome(&self, outcome: SendOutcome) -> bool {
        match self.queue.try_send(FromShard::Outcome(outcome)) {
            Err(crossbeam_channel::TrySendError::Full(_)) => false,
            Ok(()) | Err(crossbeam_channel::TrySendError::Disconnected(_)) => {
                self.ring();
                true
            }
        }
    }

    fn ring(&self) {
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            // One at a time is on its way, so it finds room; and a receiver that is gone needs none.
            let _ = self.bell.send(b"!");
        }
    }
}

impl NoticeReceiver {
    /// Completes when there is something to receive. Can be dropped at any time. To be called inside the runtime.
    ///
    /// # Errors
    /// When the runtime can't watch one more descriptor.
    pub async fn ready(&mut self) -> io::Result<()> {
        if let Bell::Made(bell) = &self.bell {
            self.bell = Bell::Watched(UnixDatagram::from_std(bell.try_clone()?)?);
        }
        let Bell::Watched(bell) = &self.bell else { unreachable!("it was just made so") };
        while self.queue.is_empty() {
            bell.readable().await?;
            while bell.try_recv(&mut [0; 8]).is_ok() {}
            // In this order: who leaves something after the look at the queue rings again.
            self.shared.rung.swap(false, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The next thing that a shard said.
    pub fn next(&self) -> Option<FromShard> {
        let said = self.queue.try_recv().ok()?;
        self.shared.text_bytes.fetch_sub(said.text_bytes(), Ordering::Relaxed);
        Some(said)
    }

    /// How many notices found no room, ever.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl FromShard {
    fn text_bytes(&self) -> usize {
        match self {
            FromShard::Notice { notice, .. } => notice.text_bytes(),
            FromShard::Outcome(_) => 0,
        }
    }
}

impl Shard {
    /// Tells what became of orders. What finds no room is told after a later turn: each order has one outcome, and there are no
    /// more of them than orders.
    pub(super) fn tell_outcomes(&mut self) {
        let room = self.outcomes.iter().position(|outcome| !self.notices.send_outcome(*outcome));
        self.outcomes.drain(..room.unwrap_or(self.outcomes.len()));
    }

    /// Tells the control plane. If it has no room, what the agent says next is told in full.
    pub(super) fn tell_notice(&mut self, agent: AgentId, notice: Notice) {
        if !self.notices.send(FromShard::Notice { agent, notice })
            && let Some(agent) = self.manager.table().by_id(agent)
        {
            agent.state().forget_keep_alive();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn agent() -> AgentId {
        "001".parse().unwrap()
    }

    fn said(bytes: usize) -> FromShard {
        let text = Bytes::from(vec![b'x'; bytes]);
        FromShard::Notice { agent: agent(), notice: Notice::KeepAlive { text } }
    }

    #[test]
    fn notices_come_in_order_and_wake_the_runtime() {
        let (sender, mut receiver) = notices().unwrap();
        tokio_uring::start(async {
            let shard = std::thread::spawn(move || {
                assert!(sender.send(said(1)) && sender.send(said(2)));
                sender
            });
            receiver.ready().await.unwrap();
            let sender = shard.join().unwrap();
            let lengths: Vec<usize> =
                std::iter::from_fn(|| receiver.next()).map(|said| said.text_bytes()).collect();
            assert_eq!(lengths, [1, 2]);
            let shard = std::thread::spawn(move || sender.send(said(3)));
            receiver.ready().await.unwrap();
            assert!(shard.join().unwrap() && receiver.next().is_some() && receiver.next().is_none());
        });
    }

    #[test]
    fn what_has_no_room_is_counted_and_room_comes_back() {
        let (sender, receiver) = notices().unwrap();
        assert!(sender.send(said(TEXT_BYTES_MAX)));
        assert!(!sender.send(said(1)), "texts have a bound of their own");
        let word = || FromShard::Notice { agent: agent(), notice: Notice::Stopped };
        for _ in 1..CAPACITY {
            assert!(sender.send(word()));
        }
        assert!(!sender.send(word()));
        assert_eq!(receiver.dropped(), 2);
        receiver.next().unwrap();
        assert!(sender.send(said(TEXT_BYTES_MAX)));
        drop(receiver);
        assert!(!sender.send(word()), "nobody hears it");
    }
}
