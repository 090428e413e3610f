//! The keep-alive: who the agent is, and which shared files it has.
//!
//! ```text
//! #!-<uname>[ / <md5 of agent.conf>]\n
//! [#][!]"key":value\n                        labels, any number; Wazuh only
//! <md5 of merged.mg, or x> merged.mg\n
//! #"_agent_ip":<ip>\n                        Wazuh; an OSSEC agent has an empty line and random filler here
//! ```

use super::{CONTROL_PREFIX, ControlError};
use crate::digest::HexDigest;
use std::fmt;

const MERGED: &[u8] = b" merged.mg";
const AGENT_IP: &[u8] = b"#\"_agent_ip\":";

/// What a keep-alive says. All of it is the agent's word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive<'a> {
    /// System, host name, version: the first line, less the digest.
    pub uname: &'a [u8],
    /// The md5 of the agent's agent.conf, if it has one.
    pub agent_conf_digest: Option<HexDigest>,
    /// The labels, one a line.
    pub labels: Labels<'a>,
    /// The md5 of the agent's merged.mg; `None` if it has none (`x`) or says nothing of it.
    pub merged_digest: Option<HexDigest>,
    /// The agent's own address as it sees it; Wazuh only.
    pub agent_ip: Option<&'a [u8]>,
}

impl<'a> KeepAlive<'a> {
    /// The keep-alive that a control message is, without its `#!-`.
    pub(super) fn parse(said: &'a [u8]) -> Result<KeepAlive<'a>, ControlError> {
        let end = said.iter().position(|byte| *byte == b'\n').ok_or(ControlError::NoNewline)?;
        let (uname, agent_conf_digest) = uname(&said[..end]);
        let after = &said[end + 1..];
        let mut labels = &after[..after.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
        let mut merged_digest = None;
        let mut agent_ip = None;
        let mut lines = Lines(after);
        while let Some((start, line)) = lines.next_of(after) {
            if let Some(digest) = line.strip_suffix(MERGED) {
                labels = &after[..start];
                merged_digest = HexDigest::parse(digest);
                agent_ip = lines.next_of(after).and_then(|(_, line)| line.strip_prefix(AGENT_IP));
                break;
            }
        }
        Ok(KeepAlive { uname, agent_conf_digest, labels: Labels(labels), merged_digest, agent_ip })
    }
}

/// A keep-alive's text less the filler behind its last newline, which OSSEC's agents write anew each time.
///
/// Source: wazuh v4.14.7 `remoted/manager.c`, `validate_control_msg`.
pub fn keep_alive_without_filler(text: &[u8]) -> &[u8] {
    let text = crate::text::until_nul(text);
    let end = memchr::memrchr(b'\n', text).map_or(text.len(), |newline| newline + 1);
    &text[..end]
}

/// The lines that are left of a text.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The next line without its newline, and where in `whole` it starts. What has no newline is no line.
    fn next_of(&mut self, whole: &[u8]) -> Option<(usize, &'a [u8])> {
        let start = whole.len() - self.0.len();
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some((start, line))
    }
}

fn uname(line: &[u8]) -> (&[u8], Option<HexDigest>) {
    const SEPARATOR: &[u8] = b" / ";
    let Some((front, digits)) = line.split_last_chunk::<32>() else { return (line, None) };
    match (front.strip_suffix(SEPARATOR), HexDigest::parse(digits)) {
        (Some(uname), Some(digest)) => (uname, Some(digest)),
        (Some(_), None) | (None, _) => (line, None),
    }
}

impl fmt::Debug for KeepAlive<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeepAlive")
            .field("uname", &crate::text::Escaped(self.uname))
            .field("agent_conf_digest", &self.agent_conf_digest)
            .field("labels", &self.labels)
            .field("merged_digest", &self.merged_digest)
            .field("agent_ip", &self.agent_ip.map(crate::text::Escaped))
            .finish()
    }
}

/// The label lines of a keep-alive.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Labels<'a>(pub &'a [u8]);

/// One label: a word about the agent that its events are marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    /// Written by the agent itself, not by its operator: `#` in front.
    pub internal: bool,
    /// Not to be shown in alerts: `!` in front.
    pub hidden: bool,
    /// The key, without its quotation marks.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Labels<'a> {
    /// The labels, in the agent's order. Lines that are none are left out.
    pub fn iter(&self) -> impl Iterator<Item = Label<'a>> + use<'a> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let (internal, line) = flag(line, b'#');
            let (hidden, line) = flag(line, b'!');
            let quoted = line.strip_prefix(b"\"")?;
            let end = quoted.windows(2).position(|pair| pair == b"\":")?;
            Some(Label { internal, hidden, key: &quoted[..end], value: &quoted[end + 2..] })
        })
    }
}

impl fmt::Debug for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", crate::text::Escaped(self.0))
    }
}

fn flag(line: &[u8], mark: u8) -> (bool, &[u8]) {
    match line {
        [first, rest @ ..] if *first == mark => (true, rest),
        _ => (false, line),
    }
}

/// Appends a keep-alive as the agents write it. `filler` is what follows the line of merged.mg: for OSSEC an empty line's
/// newline and random characters, for Wazuh nothing (its `agent_ip` line stands there).
///
/// # Panics
/// If the name of the system or the address holds a newline: the caller's mistake.
///
/// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `client-agent/notify.c`, `run_notify`.
pub fn keep_alive(content: &KeepAlive<'_>, filler: &[u8], out: &mut Vec<u8>) {
    assert!(!content.uname.contains(&b'\n'), "the uname is one line");
    out.extend_from_slice(CONTROL_PREFIX);
    out.extend_from_slice(content.uname);
    if let Some(digest) = content.agent_conf_digest {
        out.extend_from_slice(b" / ");
        out.extend_from_slice(digest.as_bytes());
    }
    out.push(b'\n');
    out.extend_from_slice(content.labels.0);
    match &content.merged_digest {
        Some(digest) => out.extend_from_slice(digest.as_bytes()),
        None => out.push(b'x'),
    }
    out.extend_from_slice(MERGED);
    out.push(b'\n');
    if let Some(ip) = content.agent_ip {
        assert!(!ip.contains(&b'\n'), "the address is one line");
        out.extend_from_slice(AGENT_IP);
        out.extend_from_slice(ip);
        out.push(b'\n');
    }
    out.extend_from_slice(filler);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::FromAgent;
    use proptest::prelude::*;

    fn parsed(text: &[u8]) -> KeepAlive<'_> {
        match FromAgent::parse(text) {
            Some(Ok(FromAgent::KeepAlive(keep_alive))) => keep_alive,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ossec() {
        let text =
            b"#!-Linux web01 6.1.0 #1 SMP x86_64 - OSSEC HIDS v4.3.0 / fe4b506a62a00f73fb6a6e04602282e8\n\
            0123456789abcdef0123456789abcdef merged.mg\n\nfiller / that merged.mg may hold";
        let keep_alive = parsed(text);
        assert_eq!(keep_alive.uname, b"Linux web01 6.1.0 #1 SMP x86_64 - OSSEC HIDS v4.3.0");
        assert_eq!(keep_alive.agent_conf_digest.unwrap().as_str(), "fe4b506a62a00f73fb6a6e04602282e8");
        assert_eq!(keep_alive.merged_digest.unwrap().as_str(), "0123456789abcdef0123456789abcdef");
        assert_eq!((keep_alive.labels.iter().count(), keep_alive.agent_ip), (0, None));
    }

    #[test]
    fn wazuh() {
        let text = b"#!-Linux |web01 |6.1.0 / x\n\"a\":b\n!\"c d\":\"e\":f\n#\"g\":\nnonsense\nx merged.mg\n#\"_agent_ip\":10.1.2.3\n";
        let keep_alive = parsed(text);
        assert_eq!(keep_alive.uname, b"Linux |web01 |6.1.0 / x");
        assert_eq!((keep_alive.agent_conf_digest, keep_alive.merged_digest), (None, None));
        assert_eq!(keep_alive.agent_ip, Some(&b"10.1.2.3"[..]));
        let label = |internal, hidden, key, value| Label { internal, hidden, key, value };
        let labels: Vec<Label<'_>> = keep_alive.labels.iter().collect();
        assert_eq!(
            labels,
            [
                label(false, false, b"a", b"b"),
                label(false, true, b"c d", b"\"e\":f"),
                label(true, false, b"g", b"")
            ]
        );
    }

    #[test]
    fn without_the_line_of_merged() {
        assert_eq!(parsed(b"#!-uname\n").uname, b"uname");
        assert_eq!(parsed(b"#!-\n").uname, b"");
        assert_eq!(parsed(b"#!-u\n\"a\":b\nunfinished").labels, Labels(b"\"a\":b\n"));
        assert_eq!(parsed(b"#!-u\n\"a\":b\nx merged.mg").labels.iter().count(), 1);
    }

    proptest! {
        #[test]
        fn keep_alives_come_back(
            uname in "[ -~]{0,80}", conf in prop::option::of("[0-9a-f]{32}"), merged in prop::option::of("[0-9a-f]{32}"),
            labels in "([#!]?\"[a-z]{1,5}\":[a-z]{0,5}\n){0,4}", ip in prop::option::of("[0-9.]{7,15}"),
        ) {
            let digest = |text: Option<String>| text.and_then(|text| HexDigest::parse(text.as_bytes()));
            let said = KeepAlive {
                uname: uname.as_bytes(),
                agent_conf_digest: digest(conf),
                labels: Labels(labels.as_bytes()),
                merged_digest: digest(merged),
                agent_ip: ip.as_deref().map(str::as_bytes),
            };
            // A uname that itself ends like one with a digest can't be told from it; no system has such a name.
            prop_assume!(said.agent_conf_digest.is_some() || super::uname(said.uname).1.is_none());
            let mut text = Vec::new();
            keep_alive(&said, if ip.is_some() { b"" } else { b"\nfiller" }, &mut text);
            prop_assert_eq!(parsed(&text), said);
        }
    }
}
