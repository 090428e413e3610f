//! The lines of `queue/alerts/ar`: what analysisd, agent_control and the API want said to agents. Pure.
//!
//! ```text
//! (name) ip->location FLAGS id text        OSSEC's analysisd
//! (location) [ip] FLAGS id text            Wazuh's analysisd; the tools of both
//! FLAGS: A or N, then R, N or !, then S or N
//! ```

use std::fmt;

use bytes::Bytes;
use codec::{AgentId, limits};

/// What active responses begin with, after `#!-`: for the agent's execd.
const EXECD: &[u8] = b"execd ";

/// One line of the socket, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    /// Whom it is for.
    pub(crate) to: Recipient,
    /// The whole control message, `#!-` included.
    pub(crate) text: Bytes,
}

/// Whom a message is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Recipient {
    /// Every agent that is there now.
    Active,
    /// This one.
    Id(AgentId),
    /// The agent of this name: the one that raised the alert.
    Named(Box<str>),
}

/// Why a line says nothing to anybody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResponseError {
    /// It begins with no `(location) address`.
    Location,
    /// Nothing in it is a word of flags.
    Flags,
    /// The flags name nobody.
    NoRecipient,
    /// The agent's id or name is none.
    Agent,
    /// There is nothing to say.
    Empty,
    /// Longer than any agent reads.
    TooLong,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ResponseError::Location => "it begins with no `(location) address`",
            ResponseError::Flags => "it has no word of flags such as NNS",
            ResponseError::NoRecipient => "its flags are for nobody: want A, R or S",
            ResponseError::Agent => "the id or name of its agent is none",
            ResponseError::Empty => "it has no text",
            ResponseError::TooLong => "it is longer than an agent reads",
        })
    }
}

impl std::error::Error for ResponseError {}

impl Response {
    /// The order that a datagram of the socket is. It ends at the first NUL, as a C string does.
    ///
    /// A file's name may hold blanks, which ossec-remoted stumbles over: the flags are the first word after the address
    /// that can be flags. With `R`, OSSEC names the agent by its location, Wazuh (whose address stands in brackets) by its id.
    ///
    /// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `remoted/ar-forward.c`, `AR_Forward`.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub(crate) fn parse(datagram: &[u8]) -> Result<Response, ResponseError> {
        let line = until_nul(datagram);
        let inner = line.strip_prefix(b"(").ok_or(ResponseError::Location)?;
        let end = inner.iter().position(|byte| *byte == b')').ok_or(ResponseError::Location)?;
        let (location, rest) = inner.split_at(end);
        let rest = rest.strip_prefix(b") ").ok_or(ResponseError::Location)?;
        let bracketed = rest.starts_with(b"[");
        let (_, rest) = word(rest).ok_or(ResponseError::Flags)?;
        let (flags, rest) = flags(rest).ok_or(ResponseError::Flags)?;
        let (id, said) = word(rest).ok_or(ResponseError::Empty)?;
        if said.is_empty() {
            return Err(ResponseError::Empty);
        }
        if said.len() > limits::TEXT_BYTES_MAX - 16 {
            return Err(ResponseError::TooLong);
        }
        let text = if flags.raw { control(&[said]) } else { control(&[EXECD, said]) };
        Ok(Response { to: flags.recipient(location, id, bracketed)?, text })
    }
}

/// A control message for an agent: `said`, with `#!-` in front unless it has it.
pub(crate) fn control_message(said: &str) -> Bytes {
    let said = said.as_bytes();
    if codec::is_control(said) { Bytes::copy_from_slice(said) } else { control(&[said]) }
}

fn control(parts: &[&[u8]]) -> Bytes {
    let mut text = codec::CONTROL_PREFIX.to_vec();
    parts.iter().for_each(|part| text.extend_from_slice(part));
    text.into()
}

#[derive(Clone, Copy)]
struct Flags {
    all: bool,
    remote: bool,
    /// Not for execd: the text as it stands.
    raw: bool,
    specific: bool,
}

impl Flags {
    fn of(word: &[u8]) -> Option<Flags> {
        let [all @ (b'A' | b'N'), remote @ (b'R' | b'N' | b'!'), specific @ (b'S' | b'N')] = word else {
            return None;
        };
        let (remote, raw) = (*remote == b'R', *remote == b'!');
        Some(Flags { all: *all == b'A', remote, raw, specific: *specific == b'S' })
    }

    fn recipient(self, location: &[u8], id: &[u8], bracketed: bool) -> Result<Recipient, ResponseError> {
        let by_id = || AgentId::from_bytes(id).map(Recipient::Id).map_err(|_| ResponseError::Agent);
        if self.all {
            Ok(Recipient::Active)
        } else if self.remote && !bracketed {
            let name = std::str::from_utf8(location).ok().filter(|name| !name.is_empty());
            name.map(|name| Recipient::Named(name.into())).ok_or(ResponseError::Agent)
        } else if self.remote || self.specific {
            by_id()
        } else {
            Err(ResponseError::NoRecipient)
        }
    }
}

/// The first word that is flags, and what follows it.
fn flags(mut rest: &[u8]) -> Option<(Flags, &[u8])> {
    loop {
        let (first, after) = word(rest)?;
        match Flags::of(first) {
            Some(flags) => return Some((flags, after)),
            None => rest = after,
        }
    }
}

/// What stands before the first blank, and what after it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Recipient {
        Recipient::Id(text.parse().unwrap())
    }

    #[test]
    fn active_responses_of_both_products() {
        let check = |line: &str, to: Recipient, text: &str| {
            let expected = Response { to, text: Bytes::copy_from_slice(text.as_bytes()) };
            assert_eq!(Response::parse(line.as_bytes()), Ok(expected.clone()), "{line}");
            assert_eq!(Response::parse(format!("{line}\0and more").as_bytes()), Ok(expected), "{line}");
        };
        let named = |name: &str| Recipient::Named(name.into());
        // The lines of agent_control, of analysisd for one agent, for the one that raised it, and for all.
        check(
            "(local_source) [] NNS 001 restart-ossec0 - null (from_the_server) (no_rule_id)",
            id("001"),
            "#!-execd restart-ossec0 - null (from_the_server) (no_rule_id)",
        );
        check("(msg_to_agent) [] N!S 001 syscheck restart", id("001"), "#!-syscheck restart");
        check("(msg_to_agent) [] A!N (null) syscheck restart", Recipient::Active, "#!-syscheck restart");
        check(
            "(web01) 10.1.2.3->/var/log/auth.log NRN (null) host-deny600 - 192.0.2.7 1700000000.1 5712 (web01) 10.1.2.3->/var/log/auth.log -",
            named("web01"),
            "#!-execd host-deny600 - 192.0.2.7 1700000000.1 5712 (web01) 10.1.2.3->/var/log/auth.log -",
        );
        check("(web01) any->/var/log/my own log NRN (null) x", named("web01"), "#!-execd x");
        check("(web01) any->/var/log/a ANS 007 x", Recipient::Active, "#!-execd x");
        check("(web01) any->/var/log/a NNS 007 x", id("007"), "#!-execd x");
        check(
            r#"(local_source) [] NRN 003 {"version":1,"command":"add"}"#,
            id("003"),
            r#"#!-execd {"version":1,"command":"add"}"#,
        );
        check("(/var/log/a (b) [10.0.0.1] NNS 003 x", id("003"), "#!-execd x");
    }

    #[test]
    fn lines_that_say_nothing_to_anybody() {
        let check = |line: &str, error: ResponseError| {
            assert_eq!(Response::parse(line.as_bytes()), Err(error), "{line}");
        };
        check("", ResponseError::Location);
        check("web01 any NNS 001 x", ResponseError::Location);
        check("(web01 any NNS 001 x", ResponseError::Location);
        check("(web01)any NNS 001 x", ResponseError::Location);
        check("(web01) any", ResponseError::Flags);
        check("(web01) any QQQ 001 x", ResponseError::Flags);
        check("(web01) any NNS", ResponseError::Flags);
        check("(web01) any NNS 001", ResponseError::Empty);
        check("(web01) any NNS 001 ", ResponseError::Empty);
        check("(web01) any NNN 001 x", ResponseError::NoRecipient);
        check("(web01) any NNS (null) x", ResponseError::Agent);
        check("() any NRN (null) x", ResponseError::Agent);
        check("(w) [] NRN (null) x", ResponseError::Agent);
        let long = format!("(w) [] NNS 001 {}", "x".repeat(limits::TEXT_BYTES_MAX));
        check(&long, ResponseError::TooLong);
    }

    #[test]
    fn a_message_gets_its_prefix_once() {
        assert_eq!(&control_message("syscheck restart")[..], b"#!-syscheck restart");
        assert_eq!(&control_message("#!-syscheck restart")[..], b"#!-syscheck restart");
    }

    proptest! {
        /// Any program of the installation's group may write to the socket.
        #[test]
        fn whatever_is_written_there_is_answered(
            front in prop::sample::select(vec!["", "(", "(a) ", "(a) b ", "(a) [b] NNS ", "(a) b ARS 1 "]),
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let line = [front.as_bytes(), &noise].concat();
            if let Ok(response) = Response::parse(&line) {
                prop_assert!(codec::is_control(&response.text));
                prop_assert!(response.text.len() <= limits::TEXT_BYTES_MAX);
            }
        }
    }
}
