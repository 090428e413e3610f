//! Syslog lines from devices that have no agent.
//!
//! ```text
//! datagram   [ "<" digits ">" ] line [ "\n" ]
//! stream     the same, each ended by "\n", or counted (RFC 6587): digits " " [ "<" digits ">" ] line
//! analysisd  "2:" address ":" line NUL
//! ```

use crate::limits::QUEUE_DATAGRAM_BYTES_MAX_OSSEC;
use crate::text::{all_digits, until_nul};
use std::io::Write;
use std::net::IpAddr;

/// Digits of an octet count. No line that is taken needs more.
const COUNT_DIGITS_MAX: usize = 6;

/// The line that a datagram holds: without its priority, its closing newline, and whatever follows a NUL. `None` if
/// nothing is left.
///
/// Source: ossec-hids 4.3.0 `remoted/syslog.c`, `HandleSyslog`; a `<` that no digits and `>` follow is left in place.
pub fn syslog_line(received: &[u8]) -> Option<&[u8]> {
    let said = until_nul(received);
    let said = said.strip_suffix(b"\n").unwrap_or(said);
    let said = said.strip_suffix(b"\r").unwrap_or(said);
    let line = without_priority(said);
    (!line.is_empty()).then_some(line)
}

fn without_priority(said: &[u8]) -> &[u8] {
    let Some(after) = said.strip_prefix(b"<") else { return said };
    match after.iter().position(|byte| *byte == b'>') {
        Some(end) if all_digits(&after[..end]) => &after[end + 1..],
        Some(_) | None => said,
    }
}

/// Appends the datagram for analysisd's queue socket, with its NUL, cut to what OSSEC's reader takes.
///
/// Source: ossec-hids 4.3.0 `remoted/syslog.c`, `HandleSyslog`, and `shared/mq_op.c`, `SendMSG`.
pub fn syslog_datagram(source: IpAddr, line: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    write!(out, "2:{}:", source.to_canonical()).expect("writing to a Vec can't fail");
    out.extend_from_slice(until_nul(line));
    out.truncate(start + QUEUE_DATAGRAM_BYTES_MAX_OSSEC - 1);
    out.push(0);
}

/// Cuts a stream into lines, however it was split: ended by newlines or counted, line by line as the sender likes.
///
/// A line longer than the limit gives its first part; the rest of it is thrown away and counted.
#[derive(Debug)]
pub struct SyslogCutter {
    line_bytes_max: usize,
    held: Vec<u8>,
    state: State,
    cut_off: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a line; `held` has what can be the digits of a count.
    Start,
    /// Within a line that a newline ends.
    Line,
    /// Within a line that this many more bytes end.
    Counted { missing: usize },
}

impl SyslogCutter {
    /// A cutter for a new stream that takes lines of at most `line_bytes_max` bytes.
    pub fn new(line_bytes_max: usize) -> SyslogCutter {
        SyslogCutter { line_bytes_max, held: Vec::new(), state: State::Start, cut_off: 0 }
    }

    /// Takes the next bytes of the stream, and gives each line that they end to `each`: as [`syslog_line`] leaves it.
    pub fn cut(&mut self, mut received: &[u8], mut each: impl FnMut(&[u8])) {
        while !received.is_empty() {
            received = match self.state {
                State::Start => self.start(received),
                State::Line => self.line(received, &mut each),
                State::Counted { missing } => self.counted(missing, received, &mut each),
            };
        }
    }

    /// At the stream's end: what was begun is a line too, since many senders leave out the last newline.
    pub fn finish(&mut self, each: impl FnMut(&[u8])) {
        self.end_line(each);
    }

    /// How many lines were longer than the limit.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    fn start<'a>(&mut self, received: &'a [u8]) -> &'a [u8] {
        let (first, rest) = (received[0], &received[1..]);
        match first {
            b'0' if self.held.is_empty() => self.state = State::Line,
            b'0'..=b'9' if self.held.len() < COUNT_DIGITS_MAX => {
                self.held.push(first);
                return rest;
            }
            b' ' if !self.held.is_empty() => {
                let missing = self.held.iter().fold(0, |count, digit| count * 10 + usize::from(digit - b'0'));
                self.held.clear();
                self.state = State::Counted { missing };
                return rest;
            }
            _ => self.state = State::Line,
        }
        received
    }

    fn line<'a>(&mut self, received: &'a [u8], each: impl FnMut(&[u8])) -> &'a [u8] {
        match received.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.hold(&received[..end]);
                self.end_line(each);
                &received[end + 1..]
            }
            None => {
                self.hold(received);
                &[]
            }
        }
    }

    fn counted<'a>(&mut self, missing: usize, received: &'a [u8], each: impl FnMut(&[u8])) -> &'a [u8] {
        let (part, rest) = received.split_at(missing.min(received.len()));
        self.hold(part);
        self.state = State::Counted { missing: missing - part.len() };
        if self.state == (State::Counted { missing: 0 }) {
            self.end_line(each);
        }
        rest
    }

    /// Keeps one byte more than the limit, by which an over-long line is known.
    fn hold(&mut self, bytes: &[u8]) {
        let room = (self.line_bytes_max + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, mut each: impl FnMut(&[u8])) {
        if self.held.len() > self.line_bytes_max {
            self.held.truncate(self.line_bytes_max);
            self.cut_off += 1;
        }
        if let Some(line) = syslog_line(&self.held) {
            each(line);
        }
        self.held.clear();
        self.state = State::Start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(limit: usize, segments: &[&[u8]]) -> (Vec<String>, u64) {
        let mut cutter = SyslogCutter::new(limit);
        let mut lines = Vec::new();
        for segment in segments {
            cutter.cut(segment, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        }
        cutter.finish(|line| lines.push(String::from_utf8_lossy(line).into_owned()));
        (lines, cutter.cut_off())
    }

    #[test]
    fn lines_of_datagrams() {
        let check = |received: &'static [u8], expected: &'static [u8]| {
            assert_eq!(syslog_line(received).unwrap_or_default(), expected, "{received:?}");
        };
        check(b"<34>Oct 11 su: x", b"Oct 11 su: x");
        check(b"<34>Oct 11 su: x\n", b"Oct 11 su: x");
        check(b"<34>x\r\n", b"x");
        check(b"x\n\n", b"x\n");
        check(b"<abc>x", b"<abc>x");
        check(b"<>x", b"<>x");
        check(b"<34", b"<34");
        check(b"<34>", b"");
        check(b"\n", b"");
        check(b"a\0b", b"a");
        check(b"", b"");
    }

    #[test]
    fn datagrams_for_analysisd() {
        let mut out = Vec::new();
        syslog_datagram("::ffff:10.0.0.1".parse().unwrap(), b"x\0y", &mut out);
        assert_eq!(out, b"2:10.0.0.1:x\0");
        out.clear();
        syslog_datagram("fd00::1".parse().unwrap(), &[b'a'; 9_000], &mut out);
        assert_eq!((out.len(), out.last()), (6_144, Some(&0)));
    }

    #[test]
    fn lines_of_streams() {
        let check =
            |segments: &[&[u8]], expected: &[&str]| assert_eq!(cut(20, segments).0, expected, "{segments:?}");
        check(&[b"<34>a\n<35>b\n", b"c"], &["a", "b", "c"]);
        check(&[b"<3", b"4>a\r", b"\n"], &["a"]);
        check(&[b"5 <34>79 <35>abc8 4 <3", b"6>4 a\nbc"], &["7", "abc8 ", "a\nbc"]);
        check(&[b"7 <34>a\nb", b"6 <34>cd"], &["a\nb", "cd"]);
        check(&[b"1", b"2 <34>abcdefgh4 wxyz"], &["abcdefgh", "wxyz"]);
        check(&[b"2026-11-21 x\n"], &["2026-11-21 x"]);
        check(&[b"0 x\n", b"\n\n"], &["0 x"]);
        check(&[b"1234567 x\n"], &["1234567 x"]);
    }

    #[test]
    fn long_lines_are_cut_and_counted() {
        assert_eq!(cut(3, &[b"abcd", b"efgh\nxyz\n"]), (vec!["abc".into(), "xyz".into()], 1));
        assert_eq!(cut(3, &[b"8 abcdefgh3 xyz"]), (vec!["abc".into(), "xyz".into()], 1));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(stream in "([0-9]{0,2} ?[a-c<>\n]{0,6}){0,12}", at in prop::collection::vec(0_usize..80, 0..8)) {
            let stream = stream.as_bytes();
            let mut at: Vec<usize> = at.into_iter().filter(|at| *at < stream.len()).collect();
            at.sort_unstable();
            let mut segments = Vec::new();
            let mut start = 0;
            for end in at.into_iter().chain([stream.len()]) {
                segments.push(&stream[start..end]);
                start = end;
            }
            prop_assert_eq!(cut(10, &segments), cut(10, &[stream]));
        }
    }
}
