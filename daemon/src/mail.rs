//! Mail to a shard: from the control plane, and from shard to shard. Bounded, and nobody ever waits for it.
//!
//! What may not be lost and says the same when said twice (new keys, stop) is a flag; the rest is a bounded queue. A
//! shard looks into its box when it is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, bounded};
use manager::ConnectionId;
use uring::{Op, Waker, Wakeup};

use crate::outward::SendOrder;
use crate::settings::Settings;

/// How many orders to send something wait in one box: a shard carries out some dozens in a turn.
const ORDERS_MAX: usize = 1_024;

/// How many letters wait in one box. Each one names a connection that was overtaken: a thundering herd of agents that
/// reconnect, of which a shard sees at most some hundreds in a turn.
const CAPACITY: usize = 4_096;

/// What can be said to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mail {
    /// The agent of this connection has a newer one, on another shard.
    CloseConnection(ConnectionId),
    /// There is a new agent table.
    Keys,
    /// Stop receiving, hand over what is held, end.
    Stop,
}

/// The box is full: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailFull;

/// The end of a box that any thread may hold.
#[derive(Clone, Debug)]
pub struct MailSender {
    closes: Sender<ConnectionId>,
    orders: Sender<SendOrder>,
    flags: Arc<Flags>,
    waker: Waker,
}

/// The shard's end of its box.
#[derive(Debug)]
pub struct MailReceiver {
    closes: Receiver<ConnectionId>,
    orders: Receiver<SendOrder>,
    flags: Arc<Flags>,
    wakeup: Wakeup,
}

#[derive(Debug, Default)]
struct Flags {
    keys: AtomicBool,
    stop: AtomicBool,
    /// The newest that the shard has not taken.
    settings: ArcSwapOption<Settings>,
}

/// A box for each of `count` shards.
///
/// # Errors
///
/// When the process or the host has no descriptor left.
pub fn mailboxes(count: usize) -> std::io::Result<Vec<(MailSender, MailReceiver)>> {
    (0..count).map(|_| mailbox()).collect()
}

fn mailbox() -> std::io::Result<(MailSender, MailReceiver)> {
    let wakeup = Wakeup::new()?;
    let (sender, receiver) = bounded(CAPACITY);
    let (order_sender, orders) = bounded(ORDERS_MAX);
    let flags = Arc::new(Flags::default());
    let waker = wakeup.waker();
    let sending = MailSender { closes: sender, orders: order_sender, flags: Arc::clone(&flags), waker };
    Ok((sending, MailReceiver { closes: receiver, orders, flags, wakeup }))
}

impl MailSender {
    /// Leaves a letter and wakes the shard. Never waits.
    ///
    /// # Errors
    ///
    /// [`MailFull`], and only for [`Mail::CloseConnection`]. A shard that is gone takes everything in silence: it has
    /// no connection left to close.
    pub fn send(&self, mail: Mail) -> Result<(), MailFull> {
        match mail {
            Mail::CloseConnection(connection) => {
                if let Err(crossbeam_channel::TrySendError::Full(_)) = self.closes.try_send(connection) {
                    return Err(MailFull);
                }
            }
            Mail::Keys => self.flags.keys.store(true, Ordering::Release),
            Mail::Stop => self.flags.stop.store(true, Ordering::Release),
        }
        self.waker.wake();
        Ok(())
    }

    /// Leaves an order to send something, and wakes the shard. Never waits. What became of it comes back with the shard's
    /// notices.
    ///
    /// # Errors
    ///
    /// [`MailFull`]: try again later. A shard that is gone takes orders in silence, and no outcome follows.
    pub fn send_order(&self, order: SendOrder) -> Result<(), MailFull> {
        if let Err(crossbeam_channel::TrySendError::Full(_)) = self.orders.try_send(order) {
            return Err(MailFull);
        }
        self.waker.wake();
        Ok(())
    }
}

impl MailSender {
    /// Leaves settings that the shard takes in its next turn, and wakes it. Ones that it has not taken are forgotten.
    pub fn send_settings(&self, settings: Arc<Settings>) {
        self.flags.settings.store(Some(settings));
        self.waker.wake();
    }
}

impl MailReceiver {
    /// Settings that came since the last call.
    pub(crate) fn settings(&self) -> Option<Arc<Settings>> {
        self.flags.settings.swap(None)
    }

    /// The poll that completes when mail has come. To be pushed once, and again whenever it ended.
    pub(crate) fn poll(&self) -> Op {
        self.wakeup.poll()
    }

    /// To be called when the poll completed, before looking into the box.
    pub(crate) fn clear(&self) {
        self.wakeup.clear();
    }

    /// The next letter; what is a flag comes first.
    pub(crate) fn next(&self) -> Option<Mail> {
        if self.flags.keys.swap(false, Ordering::AcqRel) {
            return Some(Mail::Keys);
        }
        if self.flags.stop.swap(false, Ordering::AcqRel) {
            return Some(Mail::Stop);
        }
        self.closes.try_recv().ok().map(Mail::CloseConnection)
    }

    /// The next order to send something.
    pub(crate) fn next_order(&self) -> Option<SendOrder> {
        self.orders.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 1 }
    }

    #[test]
    fn letters_come_in_order_and_flags_once() {
        let (sender, receiver) = mailbox().unwrap();
        for mail in [Mail::CloseConnection(connection(1)), Mail::Keys, Mail::Keys, Mail::Stop] {
            sender.send(mail).unwrap();
        }
        sender.clone().send(Mail::CloseConnection(connection(2))).unwrap();
        let letters: Vec<Mail> = std::iter::from_fn(|| receiver.next()).collect();
        let closes = [1, 2].map(|slot| Mail::CloseConnection(connection(slot)));
        assert_eq!(letters, [Mail::Keys, Mail::Stop, closes[0], closes[1]]);
    }

    #[test]
    fn settings_come_once_and_only_the_newest() {
        let (sender, receiver) = mailbox().unwrap();
        assert!(receiver.settings().is_none());
        for home in ["/a", "/b"] {
            sender.send_settings(Arc::new(Settings::with_home(home)));
        }
        assert_eq!(receiver.settings().map(|settings| settings.home.clone()), Some("/b".into()));
        assert!(receiver.settings().is_none());
    }

    #[test]
    fn a_full_box_says_so_and_still_takes_flags() {
        let (sender, receiver) = mailbox().unwrap();
        for slot in 0..CAPACITY as u32 {
            sender.send(Mail::CloseConnection(connection(slot))).unwrap();
        }
        assert_eq!(sender.send(Mail::CloseConnection(connection(0))), Err(MailFull));
        sender.send(Mail::Stop).unwrap();
        assert_eq!(receiver.next(), Some(Mail::Stop));
    }

    #[test]
    fn a_shard_that_is_gone_takes_everything() {
        let (sender, receiver) = mailbox().unwrap();
        drop(receiver);
        assert_eq!(sender.send(Mail::CloseConnection(connection(0))), Ok(()));
    }
}
