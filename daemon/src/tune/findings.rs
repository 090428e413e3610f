//! From the table, the fleet and what was read to what is to be said. Pure.

use std::io;

use super::Fleet;
use super::knobs::{
    Absence, BUFFER_LOCKED_BYTES, Knob, PAGE_BYTES, QUEUED_DATAGRAM_BYTES, RING_LOCKED_BYTES,
    STALL_MILLISECONDS, Scale, Want,
};

/// One knob, looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// [`Knob::name`].
    pub name: &'static str,
    /// What it is.
    pub have: Reading,
    /// What it should be for this fleet.
    pub want: Want,
    /// How the two compare.
    pub state: State,
    /// [`Knob::why`].
    pub why: &'static str,
}

/// What was read of a knob.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reading {
    /// This kernel, or this part of it, has no such thing.
    Absent,
    /// A number.
    Number(u64),
    /// It may not be read, or is not what it should be.
    Unreadable(io::ErrorKind),
    /// Anything else.
    Word(String),
}

/// How a reading compares with what is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// More than wanted.
    High,
    /// Less than wanted.
    Low,
    /// As wanted.
    Ok,
    /// Nothing is known.
    Unreadable,
    /// Another word than wanted.
    Wrong,
}

/// One finding for each knob, in the table's order.
pub fn findings(knobs: &[Knob], fleet: &Fleet, mut read: impl FnMut(&Knob) -> Reading) -> Vec<Finding> {
    let finding = |knob: &Knob| {
        let (have, want) = (read(knob), wanted(knob, fleet));
        let state = state(&have, want, knob.absence);
        Finding { name: knob.name, have, want, state, why: knob.why }
    };
    knobs.iter().map(finding).collect()
}

/// What a knob should be for this fleet.
fn wanted(knob: &Knob, fleet: &Fleet) -> Want {
    let granted = fleet.receive_buffer_bytes / 2 * 2;
    match knob.scale {
        Scale::Backlog => {
            let agents = fleet.agents.unwrap_or(u64::MAX).max(BACKLOG_MIN);
            Want::AtLeast(fleet.backlog.min(agents))
        }
        Scale::BufferPages => {
            let sockets = fleet.shards() * fleet.addresses;
            Want::AtLeast((sockets * granted).div_ceil(PAGE_BYTES))
        }
        Scale::Descriptors => match fleet.agents {
            // Nobody says how the kernel spreads connections over shards: one may get them all, and a quarter beyond.
            Some(agents) => Want::AtLeast((agents + agents / 4 + DESCRIPTORS_BESIDE).min(TABLE_SLOTS_MAX)),
            None => Want::AtLeast(TABLE_SLOTS_MAX),
        },
        Scale::Fixed => knob.want,
        Scale::LockedMemory => {
            // One ring a shard, and spare ones for the agents beyond a table.
            let rings = fleet.shards() + fleet.agents.unwrap_or(0) / TABLE_SLOTS_MAX;
            Want::AtLeast(rings * (RING_LOCKED_BYTES + BUFFER_LOCKED_BYTES * fleet.buffers))
        }
        Scale::QueueSink => match fleet.queue_sink {
            true => knob.want,
            false => Want::Any,
        },
        Scale::Rate => match fleet.shard_events_per_second() {
            Some(events) => {
                let events = u128::from(events) * u128::from(STALL_MILLISECONDS) / 1_000;
                let bytes = events * u128::from(QUEUED_DATAGRAM_BYTES);
                Want::AtLeast(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            None => knob.want,
        },
        Scale::ReceiveBuffer => Want::AtLeast(granted),
        Scale::ReceiveBufferAsked => Want::AtLeast(granted / 2),
    }
}

/// The kernel's own `somaxconn` of long: a small fleet needs no more.
const BACKLOG_MIN: u64 = 128;

/// Descriptors that are no agent's: rings, listeners, sinks, files, metrics, accepts in flight.
const DESCRIPTORS_BESIDE: u64 = 256;

/// One ring's table is never larger, whatever the limit.
const TABLE_SLOTS_MAX: u64 = crate::shard::TABLE_SLOTS_MAX as u64;

fn state(have: &Reading, want: Want, absence: Absence) -> State {
    match (have, want) {
        (_, Want::Any) => State::Ok,
        (Reading::Absent, Want::AtLeast(_) | Want::AtMost(_) | Want::Word(_)) => match absence {
            Absence::Fine => State::Ok,
            Absence::Hidden => State::Unreadable,
        },
        (Reading::Unreadable(_), Want::AtLeast(_) | Want::AtMost(_) | Want::Word(_)) => State::Unreadable,
        (Reading::Number(have), Want::AtLeast(want)) if *have < want => State::Low,
        (Reading::Number(have), Want::AtMost(want)) if *have > want => State::High,
        (Reading::Number(_), Want::AtLeast(_) | Want::AtMost(_)) => State::Ok,
        (Reading::Word(have), Want::Word(want)) if have == want => State::Ok,
        (Reading::Word(_), Want::Word(_) | Want::AtLeast(_) | Want::AtMost(_))
        | (Reading::Number(_), Want::Word(_)) => State::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::tune::KNOBS;

    fn fleet() -> Fleet {
        Fleet { queue_sink: true, ..Fleet::new(&Settings::default(), vec![0]) }
    }

    fn knob(name: &str) -> &'static Knob {
        KNOBS.iter().find(|knob| knob.name == name).unwrap()
    }

    #[test]
    fn the_table_is_what_the_default_settings_ask_for() {
        for knob in &KNOBS {
            let expected = match knob.name {
                // The unit's limits hold for any number of shards and leave room.
                "RLIMIT_NOFILE" => Want::AtLeast(32_768),
                "RLIMIT_MEMLOCK" => Want::AtLeast(1_261_568),
                _ => knob.want,
            };
            assert_eq!(wanted(knob, &fleet()), expected, "{}", knob.name);
        }
    }

    #[test]
    fn the_fleet_and_the_settings_change_what_is_wanted() {
        let check = |name: &str, change: fn(&mut Fleet), expected: Want| {
            let mut fleet = fleet();
            change(&mut fleet);
            assert_eq!(wanted(knob(name), &fleet), expected, "{name} for {fleet:?}");
        };
        check("net.core.somaxconn", |fleet| fleet.agents = Some(10), Want::AtLeast(128));
        check("net.core.somaxconn", |fleet| fleet.agents = Some(1_000), Want::AtLeast(1_000));
        check("net.core.somaxconn", |fleet| fleet.agents = Some(20_000), Want::AtLeast(4_096));
        check("net.core.somaxconn", |fleet| fleet.backlog = 100, Want::AtLeast(100));
        check("net.ipv4.tcp_max_syn_backlog", |fleet| fleet.agents = Some(1_000), Want::AtLeast(1_000));
        check("RLIMIT_NOFILE", |fleet| fleet.agents = Some(0), Want::AtLeast(256));
        check("RLIMIT_NOFILE", |fleet| fleet.agents = Some(20_000), Want::AtLeast(25_256));
        check("RLIMIT_NOFILE", |fleet| fleet.agents = Some(100_000), Want::AtLeast(32_768));
        check("RLIMIT_MEMLOCK", |fleet| fleet.cores = (0..8).collect(), Want::AtLeast(8 * 1_261_568));
        check("RLIMIT_MEMLOCK", |fleet| fleet.agents = Some(40_000), Want::AtLeast(2 * 1_261_568));
        check("RLIMIT_MEMLOCK", |fleet| fleet.buffers = 0, Want::AtLeast(1_228_800));
        check("net.unix.max_dgram_qlen", |fleet| fleet.queue_sink = false, Want::Any);
        check("net.core.wmem_max", |fleet| fleet.queue_sink = false, Want::Any);
        check("net.core.rmem_max", |fleet| fleet.receive_buffer_bytes = 8_001, Want::AtLeast(4_000));
        check("SO_RCVBUF", |fleet| fleet.receive_buffer_bytes = 8_001, Want::AtLeast(8_000));
        check("net.ipv4.udp_mem", |fleet| fleet.cores = vec![0, 1, 2], Want::AtLeast(24_576));
        check("net.ipv4.udp_mem", |fleet| fleet.addresses = 2, Want::AtLeast(16_384));
        let rate = "listen.receive_buffer_bytes";
        check(rate, |fleet| fleet.agents = Some(20_000), Want::AtLeast(2_580_000));
        check(rate, |fleet| fleet.events_per_second = Some(300_000), Want::AtLeast(38_700_000));
        check(rate, |fleet| fleet.events_per_second = Some(u64::MAX), Want::AtLeast(u64::MAX));
        check(
            rate,
            |fleet| (fleet.agents, fleet.events_per_second, fleet.cores) = (Some(7), Some(300), vec![0, 1]),
            Want::AtLeast(19_350),
        );
    }

    #[test]
    fn readings_compare_with_what_is_wanted() {
        let word = |text: &str| Reading::Word(text.to_owned());
        let denied = Reading::Unreadable(io::ErrorKind::PermissionDenied);
        let check = |have: &Reading, want: Want, absence: Absence, expected: State| {
            assert_eq!(state(have, want, absence), expected, "{have:?} {want:?} {absence:?}");
        };
        use Absence::{Fine, Hidden};
        check(&Reading::Number(9), Want::AtLeast(10), Hidden, State::Low);
        check(&Reading::Number(10), Want::AtLeast(10), Hidden, State::Ok);
        check(&Reading::Number(11), Want::AtLeast(10), Hidden, State::Ok);
        check(&Reading::Number(0), Want::AtMost(0), Hidden, State::Ok);
        check(&Reading::Number(1), Want::AtMost(0), Hidden, State::High);
        check(&word("performance"), Want::Word("performance"), Fine, State::Ok);
        check(&word("powersave"), Want::Word("performance"), Fine, State::Wrong);
        check(&word("many"), Want::AtLeast(1), Fine, State::Wrong);
        check(&Reading::Number(1), Want::Word("one"), Fine, State::Wrong);
        check(&Reading::Absent, Want::AtMost(0), Fine, State::Ok);
        check(&Reading::Absent, Want::AtLeast(1), Hidden, State::Unreadable);
        check(&denied, Want::AtLeast(1), Fine, State::Unreadable);
        check(&denied, Want::Any, Hidden, State::Ok);
        check(&Reading::Number(0), Want::Any, Hidden, State::Ok);
    }

    #[test]
    fn each_knob_is_read_once_and_found_in_order() {
        let mut asked = Vec::new();
        let found = findings(&KNOBS, &fleet(), |knob| {
            asked.push(knob.name);
            Reading::Absent
        });
        let names: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
        assert_eq!(asked, names);
        assert_eq!(found.iter().map(|finding| finding.name).collect::<Vec<_>>(), names);
    }
}
