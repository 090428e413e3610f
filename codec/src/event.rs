//! Events: what an agent says that is no control message, and the datagram that analysisd gets for it.
//!
//! ```text
//! text      <queue> ":" <location> ":" <log>                       queue: one character; location and log are one `rest` here
//! OSSEC     <queue> ":(" name ") " address "->" rest NUL
//! Wazuh     <queue> ":[" id "] (" name ") " address "->" rest NUL   with "|" as "||" and ":" as "|:" before the "->"
//! ```

use crate::id::AgentId;
use crate::limits::{QUEUE_DATAGRAM_BYTES_MAX, QUEUE_DATAGRAM_BYTES_MAX_OSSEC};
use crate::text::{Escaped, until_nul};
use memchr::memchr;
use std::fmt;

/// The queues of analysisd that are for events. Anything else that an agent names is refused: its word must never reach
/// another program's socket (CVE-2026-74034: Wazuh's `u` goes on to the upgrade module's), nor pass for what another
/// agent said (queue `4` would).
///
/// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `headers/mq_op.h`.
const EVENT_QUEUES: &[u8] = b"123589abcdefp";

/// A program that events go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// OSSEC's analysisd.
    Ossec,
    /// Wazuh's analysisd.
    Wazuh,
}

/// An event of an agent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Which of analysisd's queues it is for: `1` log file, `8` syscheck, `9` rootcheck and so on.
    pub queue: u8,
    /// Location, `:` and log. It holds no NUL.
    pub rest: &'a [u8],
}

/// Which agent an event is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its id; only Wazuh's form has it.
    pub id: AgentId,
    /// Its name.
    pub name: &'a str,
    /// Its address as client.keys has it, [`crate::AddressRule::location_text`]: `any` stays `any` in both products.
    pub address: &'a str,
}

impl<'a> Event<'a> {
    /// The event that a text is. It ends at the first NUL, as it does for the C programs.
    ///
    /// # Errors
    /// If it is none: each is dropped by the C managers too, or would reach what is no event queue.
    ///
    /// Source: ossec-hids 4.3.0 `shared/mq_op.c`, `SendMSG`.
    pub fn parse(text: &'a [u8]) -> Result<Event<'a>, EventError> {
        match until_nul(text) {
            [] => Err(EventError::Empty),
            [queue, b':', rest @ ..] if rest.starts_with(b"keepalive") && is_event_queue(*queue) => {
                Err(EventError::KeepAliveFiller)
            }
            [queue, b':', rest @ ..] if is_event_queue(*queue) => Ok(Event { queue: *queue, rest }),
            [_, b':', ..] => Err(EventError::QueueNotForEvents),
            _ => Err(EventError::NoQueue),
        }
    }

    /// Where on the agent the event is from, and what was logged there; `None` if it has no `:` between them.
    pub fn location_and_log(&self) -> Option<(&'a [u8], &'a [u8])> {
        let colon = memchr(b':', self.rest)?;
        Some((&self.rest[..colon], &self.rest[colon + 1..]))
    }
}

fn is_event_queue(queue: u8) -> bool {
    EVENT_QUEUES.contains(&queue)
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Event({}:{})", Escaped(&[self.queue]), Escaped(self.rest))
    }
}

/// Appends the datagram for analysisd's queue socket: with its NUL, cut to what the product's reader takes.
///
/// Source: ossec-hids 4.3.0 `remoted/secure.c`, `HandleSecure`, and `shared/mq_op.c`, `SendMSG`; wazuh v4.14.7 the same
/// files, `HandleSecureMessage` and `SendMSGAction`, and `shared/string_op.c`, `wstr_escape`; `shared/validate_op.c`, `OS_IsValidIP`.
pub fn queue_datagram(product: Product, event: &Event<'_>, origin: &Origin<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[event.queue, b':']);
    let bytes_max = match product {
        Product::Ossec => {
            out.push(b'(');
            out.extend_from_slice(origin.name.as_bytes());
            out.extend_from_slice(b") ");
            out.extend_from_slice(origin.address.as_bytes());
            QUEUE_DATAGRAM_BYTES_MAX_OSSEC
        }
        Product::Wazuh => {
            out.push(b'[');
            out.extend_from_slice(origin.id.as_bytes());
            out.extend_from_slice(b"] (");
            push_escaped(origin.name.as_bytes(), out);
            out.extend_from_slice(b") ");
            // Wazuh forgets a negation when it reads client.keys.
            push_escaped(origin.address.trim_start_matches('!').as_bytes(), out);
            QUEUE_DATAGRAM_BYTES_MAX
        }
    };
    out.extend_from_slice(b"->");
    out.extend_from_slice(event.rest);
    out.truncate(start + bytes_max - 1);
    out.push(0);
}

pub(crate) fn push_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        if matches!(byte, b'|' | b':') {
            out.push(b'|');
        }
        out.push(*byte);
    }
}

/// Why a text is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventError {
    /// There is no text.
    Empty,
    /// It only keeps the connection alive; every manager drops it.
    KeepAliveFiller,
    /// Its second byte is no `:`.
    NoQueue,
    /// The queue that it names is none for events.
    QueueNotForEvents,
}

impl fmt::Display for EventError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            EventError::Empty => "the event is empty",
            EventError::KeepAliveFiller => "the event only keeps the connection alive",
            EventError::NoQueue => "the event names no queue",
            EventError::QueueNotForEvents => "the event names a queue that is none for events",
        })
    }
}

impl std::error::Error for EventError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &[u8] = b"001";

    fn datagram(product: Product, text: &[u8], name: &str, address: &str) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let origin = Origin { id: AgentId::from_bytes(ID).unwrap(), name, address };
        queue_datagram(product, &Event::parse(text).unwrap(), &origin, &mut out);
        out.split_off(6)
    }

    #[test]
    fn what_is_an_event() {
        let check = |text: &'static [u8], expected: Result<(u8, &'static [u8]), EventError>| {
            assert_eq!(Event::parse(text), expected.map(|(queue, rest)| Event { queue, rest }), "{text:?}");
        };
        check(b"1:/var/log/a:b", Ok((b'1', b"/var/log/a:b")));
        check(b"1:", Ok((b'1', b"")));
        check(b"1:a\0b", Ok((b'1', b"a")));
        check(b"", Err(EventError::Empty));
        check(b"\0:a", Err(EventError::Empty));
        check(b"1", Err(EventError::NoQueue));
        check(b"1\0:", Err(EventError::NoQueue));
        check(b"Z", Err(EventError::NoQueue));
        check(b"12:", Err(EventError::NoQueue));
        check(b"1:keepalive--MARK--:x", Err(EventError::KeepAliveFiller));
        check(b"4:a", Err(EventError::QueueNotForEvents));
        check(b"4:keepalive", Err(EventError::QueueNotForEvents));
        check(b"/:a", Err(EventError::QueueNotForEvents));
        check(b"\xff:a", Err(EventError::QueueNotForEvents));
    }

    #[test]
    fn datagrams_of_both_products() {
        assert_eq!(datagram(Product::Ossec, b"1:/a:b->c", "web01", "any"), b"1:(web01) any->/a:b->c\0");
        assert_eq!(datagram(Product::Wazuh, b"1:/a|b:c", "web01", "any"), b"1:[001] (web01) any->/a|b:c\0");
        assert_eq!(datagram(Product::Ossec, b"1:a:b", "web01", "!10.1.2.0"), b"1:(web01) !10.1.2.0->a:b\0");
        assert_eq!(
            datagram(Product::Wazuh, b"1:a:b", "web01", "!10.1.2.0"),
            b"1:[001] (web01) 10.1.2.0->a:b\0"
        );
        assert_eq!(datagram(Product::Wazuh, b"8:x", "a|b:c", "fd00::1"), b"8:[001] (a||b|:c) fd00|:|:1->x\0");
        assert_eq!(datagram(Product::Ossec, b"8:x", "six", "::1"), b"8:(six) ::1->x\0");
    }

    #[test]
    fn cut_to_what_the_reader_takes() {
        let text = [b"1:", &[b'a'; 65_534][..]].concat();
        let ossec = datagram(Product::Ossec, &text, "web01", "any");
        assert_eq!((ossec.len(), &ossec[6_141..]), (6_144, &b"aa\0"[..]));
        let wazuh = datagram(Product::Wazuh, &text, "web01", "any");
        assert_eq!((wazuh.len(), wazuh.last()), (65_536, Some(&0)));
    }

    #[test]
    fn location_and_log_are_split_at_the_first_colon() {
        let split = |text: &'static [u8]| Event::parse(text).unwrap().location_and_log();
        assert_eq!(split(b"1:/var/log/x:a: b"), Some((&b"/var/log/x"[..], &b"a: b"[..])));
        assert_eq!(split(b"1:none"), None);
        assert_eq!(split(b"1::"), Some((&b""[..], &b""[..])));
    }

    proptest! {
        #[test]
        fn wazuh_escapes_each_bar_and_colon(name in "[a|:]{0,40}", address in "!?[a|:]{0,8}") {
            let escaped = |text: &str| text.replace('|', "||").replace(':', "|:");
            let address_said = escaped(address.trim_start_matches('!'));
            let expected = format!("1:[001] ({}) {address_said}->x\0", escaped(&name));
            prop_assert_eq!(datagram(Product::Wazuh, b"1:x", &name, &address), expected.into_bytes());
        }

        #[test]
        fn a_datagram_has_one_nul_and_its_event(text: Vec<u8>, queue in prop::sample::select(EVENT_QUEUES)) {
            let text = [&[queue, b':'], &text[..]].concat();
            if let Ok(event) = Event::parse(&text) {
                for product in [Product::Ossec, Product::Wazuh] {
                    let made = datagram(product, &text, "web01", "any");
                    prop_assert_eq!(made.iter().position(|byte| *byte == 0), Some(made.len() - 1));
                    let expected = [b"->", event.rest, b"\0"].concat();
                    prop_assert!(made.ends_with(&expected));
                }
            }
        }
    }
}
