//! Which agents have a line, and who gives way when there are as many as there may be.

use std::time::Duration;

use spool::Spool;

use super::{Action, Client, IDLE_AFTER, Notice};
use crate::key::LineKey;
use crate::line::Line;
use crate::wire::{LineNumber, Message};

impl Client {
    /// Makes a line for a stranger, if there is room for one.
    pub(super) fn admit(&mut self, key: LineKey, now: Duration) -> bool {
        if self.lines.len() >= self.settings.lines_max && !self.give_one_up(now) {
            self.counters.too_many_lines += 1;
            self.say(Notice::TooManyLines);
            return false;
        }
        match self.open_line(key, now) {
            Ok(()) => true,
            Err(error) => {
                self.counters.not_written += 1;
                self.say(Notice::Disk(error));
                false
            }
        }
    }

    /// Gives up the line that is empty and was silent for longest.
    fn give_one_up(&mut self, now: Duration) -> bool {
        if now < self.no_room_until {
            return false;
        }
        let idle = |line: &&Line| line.is_empty() && !line.is_dirty() && now >= line.heard_at + IDLE_AFTER;
        let Some(line) = self.lines.values().filter(idle).min_by_key(|line| line.heard_at) else {
            // Strangers may not have all lines looked through with every datagram.
            self.no_room_until = now + Duration::from_secs(1);
            return false;
        };
        let (key, number) = (line.key, line.number);
        if line.is_open
            && let Some(link) = &mut self.link
        {
            Message::Shut { line: number }.write(&mut link.out);
        }
        self.lines.remove(&key);
        self.numbers.remove(&number);
        self.queue.retain(|queued| *queued != key);
        self.dirty.remove(&key);
        self.actions.push_back(Action::Retire(number));
        self.counters.lines_given_up += 1;
        if let Err(error) = self.folder.remove(key) {
            self.say(Notice::Disk(format!("the folder of agent {key} can't be deleted: {error}")));
        }
        true
    }

    pub(super) fn open_line(&mut self, key: LineKey, now: Duration) -> Result<(), String> {
        let fresh = self.fresh_identity();
        let identity = self.folder.identity(key, fresh).map_err(|error| format!("agent {key}: {error}"))?;
        let (spool, recovery) =
            Spool::open(&self.folder.spool(key), self.settings.spool).map_err(|error| error.to_string())?;
        self.counters.cut_bytes += recovery.cut_bytes;
        self.counters.lost_records += recovery.lost_records;
        let number = LineNumber(self.next_number);
        self.next_number =
            self.next_number.checked_add(1).expect("a run makes no four thousand million lines");
        self.lines.insert(key, Line::new(key, number, identity, spool, now));
        self.numbers.insert(number, key);
        Ok(())
    }

    /// A number that no other line has: splitmix64, which repeats none before it has given all.
    fn fresh_identity(&mut self) -> u64 {
        self.identities = self.identities.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.identities;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
