//! How the manager is: a pure function over what was read of it.

use std::fmt;
use std::time::Duration;

/// A datagram that the manager's host refused makes it unwell for so long.
pub const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Datagrams that wait so long for a manager that reads none make it unwell.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A manager that answers nobody is tried again after so long.
pub const SILENT_FOR: Duration = Duration::from_secs(30);

/// One socket at the manager's port, as the kernel shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketReading {
    /// What no other socket of the host has.
    pub inode: u64,
    /// Memory of what it has not read yet, in bytes; 0 exactly if that is nothing.
    pub unread_bytes: u64,
    /// Datagrams that it had no room for, since it was opened.
    pub drops: u64,
}

/// What is known of the manager at a moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Signs {
    /// Whether a socket is bound to its port.
    pub is_bound: bool,
    /// Whether its process lives; `None` if nobody said which it is.
    pub is_alive: Option<bool>,
    /// When a datagram was refused last.
    pub refused_at: Option<Duration>,
    /// Since when there is something that it does not read.
    pub unread_since: Option<Duration>,
    /// Since when datagrams are given to it and none comes back.
    pub unanswered_since: Option<Duration>,
    /// When it was found silent last.
    pub silent_at: Option<Duration>,
}

/// Why nothing is given to the manager.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Unwell {
    /// Its port is not bound.
    PortClosed,
    /// Its process does not live.
    ProcessGone,
    /// A datagram to it was refused.
    Refused,
    /// It reads nothing.
    Stuck,
    /// It answers nobody.
    Silent,
    /// It was started anew, and what it had not read is gone.
    Restarted,
}

const ALL: [Unwell; 6] = [
    Unwell::PortClosed,
    Unwell::ProcessGone,
    Unwell::Refused,
    Unwell::Stuck,
    Unwell::Silent,
    Unwell::Restarted,
];

/// Whether datagrams may be given to the manager now. `answers_within`: how long it may answer nobody, if that is to count.
///
/// # Errors
/// Why not.
pub fn judge(now: Duration, signs: &Signs, answers_within: Option<Duration>) -> Result<(), Unwell> {
    let within = |since: Option<Duration>, time: Duration| since.is_some_and(|since| now < since + time);
    let longer = |since: Option<Duration>, time: Duration| since.is_some_and(|since| now >= since + time);
    if signs.is_alive == Some(false) {
        Err(Unwell::ProcessGone)
    } else if !signs.is_bound {
        Err(Unwell::PortClosed)
    } else if within(signs.refused_at, REFUSED_FOR) {
        Err(Unwell::Refused)
    } else if longer(signs.unread_since, STUCK_AFTER) {
        Err(Unwell::Stuck)
    } else if within(signs.silent_at, SILENT_FOR)
        || answers_within.is_some_and(|time| longer(signs.unanswered_since, time))
    {
        Err(Unwell::Silent)
    } else {
        Ok(())
    }
}

impl Unwell {
    /// Its number on the wire; never 0.
    pub fn code(self) -> u8 {
        match self {
            Unwell::PortClosed => 1,
            Unwell::ProcessGone => 2,
            Unwell::Refused => 3,
            Unwell::Stuck => 4,
            Unwell::Silent => 5,
            Unwell::Restarted => 6,
        }
    }

    /// What has this number.
    pub fn from_code(code: u8) -> Option<Unwell> {
        ALL.into_iter().find(|unwell| unwell.code() == code)
    }
}

impl fmt::Display for Unwell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unwell::PortClosed => "the manager's port is not bound",
            Unwell::ProcessGone => "the manager's process is gone",
            Unwell::Refused => "the manager's host refuses datagrams",
            Unwell::Stuck => "the manager reads nothing",
            Unwell::Silent => "the manager answers nobody",
            Unwell::Restarted => "the manager was started anew",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Signs = Signs {
        is_bound: true,
        is_alive: None,
        refused_at: None,
        unread_since: None,
        unanswered_since: None,
        silent_at: None,
    };

    #[test]
    fn signs() {
        let at = |seconds| Some(Duration::from_secs(seconds));
        let check = |signs: Signs, expected: Result<(), Unwell>| {
            assert_eq!(judge(Duration::from_secs(100), &signs, at(60)), expected, "{signs:?}");
        };
        check(WELL, Ok(()));
        check(Signs { is_alive: Some(true), ..WELL }, Ok(()));
        check(Signs { is_alive: Some(false), ..WELL }, Err(Unwell::ProcessGone));
        check(Signs { is_bound: false, ..WELL }, Err(Unwell::PortClosed));
        check(Signs { is_bound: false, is_alive: Some(true), ..WELL }, Err(Unwell::PortClosed));
        check(Signs { refused_at: at(100), ..WELL }, Err(Unwell::Refused));
        check(Signs { refused_at: at(99), ..WELL }, Ok(()));
        check(Signs { unread_since: at(91), ..WELL }, Ok(()));
        check(Signs { unread_since: at(90), ..WELL }, Err(Unwell::Stuck));
        check(Signs { unanswered_since: at(41), ..WELL }, Ok(()));
        check(Signs { unanswered_since: at(40), ..WELL }, Err(Unwell::Silent));
        check(Signs { silent_at: at(71), ..WELL }, Err(Unwell::Silent));
        check(Signs { silent_at: at(70), ..WELL }, Ok(()));
        let quiet = Signs { unanswered_since: at(1), ..WELL };
        assert_eq!(judge(Duration::from_secs(100), &quiet, None), Ok(()), "nobody asked for answers");
    }
}
