//! Syslog lines from devices that have no agent.
//!
//! ```text
//! datagram   [ "<" digits ">" ] line [ "\n" ]
//! stream     the same, each ended by "\n", or counted (RFC 6587): digits " " [ "<" digits ">" ] line
//! analysisd  "2:" address ":" line NUL                               Wazuh: with "|:" in place of each ":" of the address
//! ```

use crate::event::{Product, push_escaped};
use crate::limits::{QUEUE_DATAGRAM_BYTES_MAX, QUEUE_DATAGRAM_BYTES_MAX_OSSEC};
use crate::text::{all_digits, until_nul};
use memchr::memchr;
use std::io::Write;
use std::net::IpAddr;

/// Digits of an octet count. No line that is taken needs more.
const COUNT_DIGITS_MAX: usize = 6;

/// Memory for parts of lines that a cutter keeps when it is not in use.
const KEPT_BYTES: usize = 4_096;

/// What a datagram to analysisd has around a line at the most: `2:`, an IPv6 address of 39 bytes with its seven colons
/// escaped, `:`, and NUL.
const AROUND_LINE_BYTES_MAX: usize = 2 + 39 + 7 + 1 + 1;

/// The longest line that a product's analysisd gets whole, wherever it comes from.
pub const fn syslog_line_bytes_max(product: Product) -> usize {
    let datagram = match product {
        Product::Ossec => QUEUE_DATAGRAM_BYTES_MAX_OSSEC,
        Product::Wazuh => QUEUE_DATAGRAM_BYTES_MAX,
    };
    datagram - AROUND_LINE_BYTES_MAX
}

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

/// Appends the datagram for analysisd's queue socket, with its NUL, cut to what the product's reader takes.
///
/// Source: ossec-hids 4.3.0 `remoted/syslog.c`, `HandleSyslog`, and `shared/mq_op.c`, `SendMSG`; wazuh v4.14.7 the same
/// files, `SendMSGAction`.
pub fn syslog_datagram(product: Product, source: IpAddr, line: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"2:");
    let address = out.len();
    write!(out, "{}", source.to_canonical()).expect("writing to a Vec can't fail");
    let bytes_max = match product {
        Product::Ossec => QUEUE_DATAGRAM_BYTES_MAX_OSSEC,
        Product::Wazuh => {
            if source.is_ipv6() {
                let plain = out.split_off(address);
                push_escaped(&plain, out);
            }
            QUEUE_DATAGRAM_BYTES_MAX
        }
    };
    out.push(b':');
    out.extend_from_slice(until_nul(line));
    out.truncate(start + bytes_max - 1);
    out.push(0);
}

/// Cuts a stream into lines, however it was split: ended by newlines or counted, line by line as the sender likes.
///
/// A line longer than the limit gives its first part; the rest of it is thrown away and counted. Lines of nothing are none.
#[derive(Debug)]
pub struct SyslogCutter {
    line_bytes_max: usize,
    held: Vec<u8>,
    /// The line that the last call completed, if some of it had been held.
    completed: Vec<u8>,
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

/// Where a line is that has just ended.
enum Ended<'a> {
    /// In `completed`.
    Completed,
    /// Whole in what was received.
    Received(&'a [u8]),
}

impl SyslogCutter {
    /// A cutter for a new stream that takes lines of at most `line_bytes_max` bytes.
    pub fn new(line_bytes_max: usize) -> SyslogCutter {
        SyslogCutter {
            line_bytes_max,
            held: Vec::new(),
            completed: Vec::new(),
            state: State::Start,
            cut_off: 0,
        }
    }

    /// The next line that `received` ends, as [`syslog_line`] leaves it, and `received` moved on behind it. `None` once all
    /// of `received` is used up. A line that lies whole in it is used where it is.
    pub fn next_line<'s, 'r: 's>(&'s mut self, received: &mut &'r [u8]) -> Option<&'s [u8]> {
        self.completed.clear();
        self.completed.shrink_to(KEPT_BYTES);
        let ended = loop {
            if received.is_empty() {
                return None;
            }
            let ended = match self.state {
                State::Start => self.start(received),
                State::Line => self.line(received),
                State::Counted { missing } => self.counted(missing, received),
            };
            match ended {
                Some(Ended::Received(said)) if syslog_line(said).is_some() => break Ended::Received(said),
                Some(Ended::Completed) if syslog_line(&self.completed).is_some() => break Ended::Completed,
                Some(Ended::Received(_) | Ended::Completed) | None => {}
            }
        };
        match ended {
            Ended::Received(said) => syslog_line(said),
            Ended::Completed => syslog_line(&self.completed),
        }
    }

    /// Takes the next bytes of the stream, and gives each line that they end to `each`: as [`syslog_line`] leaves it.
    pub fn cut(&mut self, mut received: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(line) = self.next_line(&mut received) {
            each(line);
        }
    }

    /// At the stream's end: what was begun is a line too, since many senders leave out the last newline.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        self.complete();
        if let Some(line) = syslog_line(&self.completed) {
            each(line);
        }
    }

    /// How many lines were longer than the limit.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// How many bytes of an unfinished line are held.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn start<'a>(&mut self, received: &mut &'a [u8]) -> Option<Ended<'a>> {
        match received[0] {
            b'0' if self.held.is_empty() => self.state = State::Line,
            digit @ b'0'..=b'9' if self.held.len() < COUNT_DIGITS_MAX => {
                self.held.push(digit);
                *received = &received[1..];
            }
            b' ' if !self.held.is_empty() => {
                let missing = self.held.iter().fold(0, |count, digit| count * 10 + usize::from(digit - b'0'));
                self.held.clear();
                self.state = State::Counted { missing };
                *received = &received[1..];
            }
            _ => self.state = State::Line,
        }
        None
    }

    fn line<'a>(&mut self, received: &mut &'a [u8]) -> Option<Ended<'a>> {
        match memchr(b'\n', received) {
            Some(end) => {
                let said = &received[..end];
                *received = &received[end + 1..];
                Some(self.end(said))
            }
            None => {
                self.hold(received);
                *received = &[];
                None
            }
        }
    }

    fn counted<'a>(&mut self, missing: usize, received: &mut &'a [u8]) -> Option<Ended<'a>> {
        let (part, rest) = received.split_at(missing.min(received.len()));
        *received = rest;
        if part.len() == missing {
            return Some(self.end(part));
        }
        self.hold(part);
        self.state = State::Counted { missing: missing - part.len() };
        None
    }

    /// `last` ends a line.
    fn end<'a>(&mut self, last: &'a [u8]) -> Ended<'a> {
        if !self.held.is_empty() {
            self.hold(last);
            self.complete();
            return Ended::Completed;
        }
        self.state = State::Start;
        if last.len() > self.line_bytes_max {
            self.cut_off += 1;
        }
        Ended::Received(&last[..last.len().min(self.line_bytes_max)])
    }

    /// Keeps one byte more than the limit, by which an over-long line is known.
    fn hold(&mut self, bytes: &[u8]) {
        let room = (self.line_bytes_max + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What is held is a line.
    fn complete(&mut self) {
        if self.held.len() > self.line_bytes_max {
            self.held.truncate(self.line_bytes_max);
            self.cut_off += 1;
        }
        std::mem::swap(&mut self.held, &mut self.completed);
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
        let mut check = |product: Product, source: &str, line: &[u8], expected: &[u8]| {
            out.clear();
            syslog_datagram(product, source.parse().unwrap(), line, &mut out);
            assert_eq!(out, expected, "{product:?} {source}");
        };
        check(Product::Ossec, "::ffff:10.0.0.1", b"x\0y", b"2:10.0.0.1:x\0");
        check(Product::Ossec, "fd00::1", b"x", b"2:fd00::1:x\0");
        check(Product::Wazuh, "fd00::1", b"x", b"2:fd00|:|:1:x\0");
        check(Product::Wazuh, "::ffff:10.0.0.1", b"x", b"2:10.0.0.1:x\0");
        out.clear();
        syslog_datagram(Product::Ossec, "fd00::1".parse().unwrap(), &[b'a'; 9_000], &mut out);
        assert_eq!((out.len(), out.last()), (6_144, Some(&0)));
    }

    #[test]
    fn the_longest_line_fits_wherever_it_comes_from() {
        let source = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        for (product, bytes_max) in
            [(Product::Ossec, QUEUE_DATAGRAM_BYTES_MAX_OSSEC), (Product::Wazuh, QUEUE_DATAGRAM_BYTES_MAX)]
        {
            let mut out = Vec::new();
            let line = vec![b'a'; syslog_line_bytes_max(product)];
            syslog_datagram(product, source, &line, &mut out);
            assert!(out.len() <= bytes_max, "{product:?}: {}", out.len());
            assert_eq!(out.iter().filter(|byte| **byte == b'a').count(), line.len());
        }
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

    #[test]
    fn a_line_that_came_whole_is_not_copied() {
        let mut cutter = SyslogCutter::new(100);
        let received = b"<1>one\n5 <2>XY".to_vec();
        let mut rest = &received[..];
        let place = cutter.next_line(&mut rest).unwrap().as_ptr();
        assert!(received.as_ptr_range().contains(&place));
        assert_eq!(rest, b"5 <2>XY");
        assert_eq!(cutter.next_line(&mut rest), Some(&b"XY"[..]));
        assert_eq!(cutter.next_line(&mut rest), None);
        assert_eq!(cutter.held_bytes(), 0);
        let mut rest = &b"<3>beg"[..];
        assert_eq!(cutter.next_line(&mut rest), None);
        assert_eq!(cutter.held_bytes(), 6);
        let mut rest = &b"in\nx"[..];
        assert_eq!(cutter.next_line(&mut rest), Some(&b"begin"[..]));
        assert_eq!(rest, b"x", "one line at a time");
    }

    #[test]
    fn little_is_held_of_an_endless_line() {
        let mut cutter = SyslogCutter::new(100);
        for _ in 0..1_000 {
            cutter.cut(&[b'x'; 1_000], |_| panic!("no line has ended"));
        }
        assert_eq!(cutter.held_bytes(), 101);
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
