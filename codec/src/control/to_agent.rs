//! What a manager says to an agent.

use super::{CONTROL_PREFIX, ControlError, delivery};
use crate::digest::HexDigest;
use crate::text::{Escaped, decimal_u64, until_nul};
use std::fmt;

const ACK: &[u8] = b"agent ack ";
const EXECD: &[u8] = b"execd ";
const SYSCHECK_RESTART: &[u8] = b"syscheck restart";
const FORCE_RECONNECT: &[u8] = b"force_reconnect";
const REQUEST: &[u8] = b"req ";
const ERROR: &[u8] = b"err ";
const FILE_BEGIN: &[u8] = b"up file ";
const FILE_END: &[u8] = b"close file ";
const DELIVERY_AGREED: &[u8] = b"ringmaster delivery ";
const DELIVERY_TAKEN: &[u8] = b"ringmaster taken ";

/// A message from a manager to an agent. All but [`ToAgent::FileChunk`] begin with `#!-`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ToAgent<'a> {
    /// "I know you": exactly `#!-agent ack `, which agents compare as a whole. It must be the first that they receive.
    Ack,
    /// For the agent's execd, as it stands.
    ActiveResponse(&'a [u8]),
    /// Acknowledged delivery: the manager takes the agent's offer. It comes before the acknowledgement of the start-up.
    DeliveryAgreed {
        /// The offer's.
        session: u64,
    },
    /// Acknowledged delivery: every sink has everything before this number. The first one says where to begin.
    DeliveryTaken {
        /// One more than the number of the last event that every sink has.
        before: u64,
    },
    /// Why the manager won't have the agent, in JSON; Wazuh only.
    Error(&'a [u8]),
    /// A shared file follows.
    FileBegin {
        /// Its md5.
        digest: HexDigest,
        /// Its name.
        name: SharedName<'a>,
    },
    /// A piece of the shared file: everything that is no control message.
    FileChunk(&'a [u8]),
    /// The shared file is complete.
    FileEnd,
    /// Connect anew; Wazuh only.
    ForceReconnect,
    /// Any other control message: what follows `#!-`.
    Raw(&'a [u8]),
    /// A command for a program of the agent; Wazuh only.
    Request {
        /// What the answer will carry; no blanks.
        counter: &'a [u8],
        /// Target and command.
        payload: &'a [u8],
    },
    /// Check the files' integrity now.
    SyscheckRestart,
}

impl<'a> ToAgent<'a> {
    /// Appends the message's text.
    ///
    /// # Panics
    /// If a request's counter is empty or holds a blank, if a chunk of a file is empty, or if it begins like a control
    /// message: the caller's mistakes. Cut the file elsewhere then ([`ToAgent::chunk_is_safe`]).
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut parts = |parts: &[&[u8]]| {
            out.extend_from_slice(CONTROL_PREFIX);
            parts.iter().for_each(|part| out.extend_from_slice(part));
        };
        match self {
            ToAgent::Ack => parts(&[ACK]),
            ToAgent::ActiveResponse(response) => parts(&[EXECD, response]),
            ToAgent::DeliveryAgreed { session } => {
                parts(&[DELIVERY_AGREED, format!("{session:016x}").as_bytes()]);
            }
            ToAgent::DeliveryTaken { before } => parts(&[DELIVERY_TAKEN, before.to_string().as_bytes()]),
            ToAgent::Error(json) => parts(&[ERROR, json]),
            ToAgent::FileBegin { digest, name } => {
                parts(&[FILE_BEGIN, digest.as_bytes(), b" ", name.0, b"\n"]);
            }
            ToAgent::FileChunk(chunk) => {
                assert!(
                    ToAgent::chunk_is_safe(chunk),
                    "an agent would take this piece of a file for a control message"
                );
                out.extend_from_slice(chunk);
            }
            ToAgent::FileEnd => parts(&[FILE_END]),
            ToAgent::ForceReconnect => parts(&[FORCE_RECONNECT]),
            ToAgent::Raw(said) => parts(&[said]),
            ToAgent::Request { counter, payload } => {
                assert!(!counter.is_empty() && !counter.contains(&b' '), "a request's counter is one word");
                parts(&[REQUEST, counter, b" ", payload]);
            }
            ToAgent::SyscheckRestart => parts(&[SYSCHECK_RESTART]),
        }
    }

    /// Whether an agent takes these bytes for what they are: a piece of a file.
    pub fn chunk_is_safe(chunk: &[u8]) -> bool {
        !chunk.is_empty() && !chunk.starts_with(CONTROL_PREFIX)
    }

    /// The message that a manager's text is.
    ///
    /// # Errors
    /// If a file is announced with a name or digest that are none, a request has no counter, or a word on acknowledged
    /// delivery has no number.
    ///
    /// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `client-agent/receiver.c`, `receive_msg`.
    pub fn parse(text: &'a [u8]) -> Result<ToAgent<'a>, ControlError> {
        let Some(said) = text.strip_prefix(CONTROL_PREFIX) else {
            return Ok(ToAgent::FileChunk(text));
        };
        let said = until_nul(said);
        if said == ACK {
            Ok(ToAgent::Ack)
        } else if let Some(response) = said.strip_prefix(EXECD) {
            Ok(ToAgent::ActiveResponse(response))
        } else if let Some(announced) = said.strip_prefix(FILE_BEGIN) {
            file_begin(announced)
        } else if said.starts_with(FILE_END) {
            Ok(ToAgent::FileEnd)
        } else if let Some(request) = said.strip_prefix(REQUEST) {
            let (counter, payload) = split_at_space(request);
            if counter.is_empty() {
                Err(ControlError::RequestCounter)
            } else {
                Ok(ToAgent::Request { counter, payload })
            }
        } else if let Some(json) = said.strip_prefix(ERROR) {
            Ok(ToAgent::Error(json))
        } else if let Some(digits) = said.strip_prefix(DELIVERY_TAKEN) {
            let before = decimal_u64(digits).ok_or(ControlError::Delivery);
            before.map(|before| ToAgent::DeliveryTaken { before })
        } else if let Some(digits) = said.strip_prefix(DELIVERY_AGREED) {
            let session = delivery::session(digits).ok_or(ControlError::Delivery);
            session.map(|session| ToAgent::DeliveryAgreed { session })
        } else if said == SYSCHECK_RESTART {
            Ok(ToAgent::SyscheckRestart)
        } else if said == FORCE_RECONNECT {
            Ok(ToAgent::ForceReconnect)
        } else {
            Ok(ToAgent::Raw(said))
        }
    }
}

fn file_begin(announced: &[u8]) -> Result<ToAgent<'_>, ControlError> {
    let (digits, name) = split_at_space(announced);
    let digest = HexDigest::parse(digits).ok_or(ControlError::Digest)?;
    let name = SharedName::new(name.strip_suffix(b"\n").unwrap_or(name))?;
    Ok(ToAgent::FileBegin { digest, name })
}

/// What stands before the first blank, and what after it.
pub(super) fn split_at_space(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == b' ') {
        Some(space) => (&bytes[..space], &bytes[space + 1..]),
        None => (bytes, &[]),
    }
}

impl fmt::Debug for ToAgent<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        match self {
            ToAgent::FileChunk(chunk) => return write!(formatter, "FileChunk({:?})", Escaped(chunk)),
            ToAgent::Ack
            | ToAgent::ActiveResponse(_)
            | ToAgent::DeliveryAgreed { .. }
            | ToAgent::DeliveryTaken { .. }
            | ToAgent::Error(_)
            | ToAgent::FileBegin { .. }
            | ToAgent::FileEnd
            | ToAgent::ForceReconnect
            | ToAgent::Raw(_)
            | ToAgent::Request { .. }
            | ToAgent::SyscheckRestart => self.write(&mut text),
        }
        write!(formatter, "ToAgent({:?})", Escaped(&text))
    }
}

/// The name of a shared file: 1 to 255 bytes, one component of a path, nothing that leaves its folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SharedName<'a>(&'a [u8]);

impl<'a> SharedName<'a> {
    /// The name that these bytes are.
    ///
    /// # Errors
    /// If they are none or more than 255, if they hold `/`, `\`, `..` or control characters, or if they are `.`.
    pub fn new(name: &'a [u8]) -> Result<SharedName<'a>, ControlError> {
        let length = (1..=255).contains(&name.len());
        let characters = !name.iter().any(|byte| matches!(byte, b'/' | b'\\') || byte.is_ascii_control());
        let parent = name.windows(2).any(|pair| pair == b"..");
        if length && characters && !parent && name != b"." {
            Ok(SharedName(name))
        } else {
            Err(ControlError::FileName)
        }
    }

    /// The name.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for SharedName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0).fmt(formatter)
    }
}

impl fmt::Debug for SharedName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_managers_say() {
        let digest = HexDigest::parse(b"0123456789abcdef0123456789abcdef").unwrap();
        let merged = SharedName::new(b"merged.mg").unwrap();
        let table: [(&[u8], ToAgent<'_>); 10] = [
            (b"#!-agent ack ", ToAgent::Ack),
            (
                b"#!-execd restart-ossec0 - null (from_the_server) (no_rule_id)",
                ToAgent::ActiveResponse(b"restart-ossec0 - null (from_the_server) (no_rule_id)"),
            ),
            (b"#!-syscheck restart", ToAgent::SyscheckRestart),
            (b"#!-force_reconnect", ToAgent::ForceReconnect),
            (
                b"#!-req 1073741823 agent getconfig agent",
                ToAgent::Request { counter: b"1073741823", payload: b"agent getconfig agent" },
            ),
            (b"#!-err {\"message\":\"no\"}", ToAgent::Error(b"{\"message\":\"no\"}")),
            (
                b"#!-up file 0123456789abcdef0123456789abcdef merged.mg\n",
                ToAgent::FileBegin { digest, name: merged },
            ),
            (b"!139 agent.conf\n<agent_config>\n", ToAgent::FileChunk(b"!139 agent.conf\n<agent_config>\n")),
            (b"#!-close file ", ToAgent::FileEnd),
            (b"#!-syscheck dbsync", ToAgent::Raw(b"syscheck dbsync")),
        ];
        for (text, message) in table {
            assert_eq!(ToAgent::parse(text), Ok(message));
            let mut written = Vec::new();
            message.write(&mut written);
            assert_eq!(written, text);
        }
    }

    #[test]
    fn an_ack_is_compared_as_a_whole() {
        assert_eq!(ToAgent::parse(b"#!-agent ack"), Ok(ToAgent::Raw(b"agent ack")));
        assert_eq!(ToAgent::parse(b"#!-agent ack x"), Ok(ToAgent::Raw(b"agent ack x")));
    }

    #[test]
    fn no_file_leaves_its_folder() {
        for name in
            ["../x", "a/b", "/etc/passwd", "..", "a..b", ".", "", "a\\b", "a\nb", "a\x1b", &"a".repeat(256)]
        {
            let text = format!("#!-up file 0123456789abcdef0123456789abcdef {name}");
            assert_eq!(ToAgent::parse(text.as_bytes()), Err(ControlError::FileName), "{name:?}");
        }
        assert_eq!(ToAgent::parse(b"#!-up file x merged.mg\n"), Err(ControlError::Digest));
        assert_eq!(ToAgent::parse(b"#!-up file "), Err(ControlError::Digest));
    }

    #[test]
    #[should_panic(expected = "control message")]
    fn a_chunk_that_is_none_is_our_mistake() {
        ToAgent::FileChunk(b"#!-agent ack ").write(&mut Vec::new());
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_written_again(text: Vec<u8>, prefixed: bool) {
            let text = if prefixed { [b"#!-", &text[..]].concat() } else { text };
            prop_assume!(!text.is_empty());
            if let Ok(message) = ToAgent::parse(&text) {
                let mut written = Vec::new();
                message.write(&mut written);
                prop_assert_eq!(ToAgent::parse(&written), Ok(message));
            }
        }
    }
}
