//! Archives: one line for each event, as text in analysisd's form and as JSON.
//!
//! ```text
//! 2026 Nov 21 22:41:01 (web01) any->/var/log/auth.log Nov 21 22:41:01 host01 sshd[25700]: Failed password
//! ```

use crate::event::{Event, Origin};
use memchr::{memchr_iter, memchr2_iter};
use std::fmt;
use std::io::Write;

/// What the location of a keep-alive begins with.
const KEEP_ALIVE: &[u8] = b"ossec-keepalive";

/// So many bytes are looked at in one go.
const CHUNK_BYTES: usize = 32;

/// Room for any moment: JSON's has 14 bytes before the year, a year of up to 11, and at most 32 for what follows.
const TIME_BYTES_MAX: usize = 72;

/// A moment as a calendar and a clock at one place show it. The codec has no clock: the caller breaks its own down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// The year, such as 2026.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
    /// 0 to 999.
    pub millisecond: u16,
    /// How far the place is ahead of UTC, in minutes; negative to the west.
    pub utc_offset_minutes: i16,
}

/// Why analysisd would not archive an event; then nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotArchived {
    /// Its location says that it is a keep-alive.
    KeepAlive,
    /// There is no `:` between location and log.
    NoLocation,
    /// Its location goes through a parent folder.
    ParentFolder,
}

/// Appends the line that OSSEC's analysisd writes to archives.log for an agent's event, newline included.
///
/// Control characters are taken out of the log as analysisd does, and out of the location too, where it leaves them: one
/// event is one line, whatever an agent says.
///
/// # Errors
/// If analysisd would not write it.
///
/// # Panics
/// If the month is not 1 to 12.
///
/// Source: ossec-hids 4.3.0 `analysisd/cleanevent.c`, `OS_CleanMSG_ex`; `analysisd/alerts/log.c`, `OS_Store`;
/// `shared/file_op.c`, `remove_control_characters` and `w_ref_parent_folder`.
pub fn archive_line(
    time: &LocalTime,
    event: &Event<'_>,
    origin: &Origin<'_>,
    out: &mut Vec<u8>,
) -> Result<(), NotArchived> {
    let (location, log) = archivable(event)?;
    out.extend_from_slice(Digits::of_line(time).as_bytes());
    out.push(b'(');
    out.extend_from_slice(origin.name.as_bytes());
    out.extend_from_slice(b") ");
    out.extend_from_slice(origin.address.as_bytes());
    out.extend_from_slice(b"->");
    push_printable(location, out);
    out.push(b' ');
    push_printable(log, out);
    out.push(b'\n');
    Ok(())
}

/// Appends the event as a line of JSON, newline included, with the names that Wazuh's archives.json has:
/// `timestamp`, `agent` (`id`, `name`, `ip`), `location`, `full_log`; and `queue`, which that has not.
///
/// Nothing is taken out of the log: what is not printable is escaped, what is no UTF-8 becomes U+FFFD.
///
/// # Errors
/// If analysisd would not archive it.
pub fn archive_json(
    time: &LocalTime,
    event: &Event<'_>,
    origin: &Origin<'_>,
    out: &mut Vec<u8>,
) -> Result<(), NotArchived> {
    let (location, log) = archivable(event)?;
    out.extend_from_slice(Digits::of_json(time).as_bytes());
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        push_json_string(value, out);
    };
    field("\",\"agent\":{\"id\":", origin.id.as_bytes());
    field(",\"name\":", origin.name.as_bytes());
    field(",\"ip\":", origin.address.as_bytes());
    field("},\"queue\":", &[event.queue]);
    field(",\"location\":", location);
    field(",\"full_log\":", log);
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn archivable<'a>(event: &Event<'a>) -> Result<(&'a [u8], &'a [u8]), NotArchived> {
    let (location, log) = event.location_and_log().ok_or(NotArchived::NoLocation)?;
    if has_parent(location) {
        return Err(NotArchived::ParentFolder);
    }
    // The text that is searched begins with "->", so the location itself may begin with the name.
    let nested = memchr_iter(b'>', location)
        .any(|arrow| location[..arrow].ends_with(b"-") && location[arrow + 1..].starts_with(KEEP_ALIVE));
    if nested || location.starts_with(KEEP_ALIVE) {
        return Err(NotArchived::KeepAlive);
    }
    Ok((location, log))
}

/// Whether a location goes through `/..`, as analysisd looks for it: `..` at its very beginning follows the `->` there, and so
/// is none.
fn has_parent(location: &[u8]) -> bool {
    memchr_iter(b'/', location).any(|slash| match &location[slash + 1..] {
        [b'.', b'.', rest @ ..] => matches!(rest, [] | [b'/', ..]),
        _ => false,
    })
}

/// Appends what is not a control character: all at once where there is none, as nearly always.
pub(crate) fn push_printable(bytes: &[u8], out: &mut Vec<u8>) {
    let printable = |byte: u8| !byte.is_ascii_control();
    if all(bytes, printable) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.chunks(CHUNK_BYTES) {
        if all(chunk, printable) {
            out.extend_from_slice(chunk);
        } else {
            out.extend(chunk.iter().filter(|byte| printable(**byte)));
        }
    }
}

pub(crate) fn push_json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = bytes;
    loop {
        let (plain, other) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some(&first) = other.first() else { break };
        if first.is_ascii() {
            push_escape(first, out);
            rest = &other[1..];
        } else {
            // No character has bytes on both sides of an ASCII one.
            let count = other.iter().position(u8::is_ascii).unwrap_or(other.len());
            push_beyond_ascii(&other[..count], out);
            rest = &other[count..];
        }
    }
    out.push(b'"');
}

/// How many of the first bytes stand in a string of JSON as they are.
fn plain_length(bytes: &[u8]) -> usize {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    let chunks = bytes.as_chunks::<CHUNK_BYTES>().0;
    let whole = chunks.iter().position(|chunk| !all(chunk, plain)).unwrap_or(chunks.len()) * CHUNK_BYTES;
    let rest = &bytes[whole..];
    whole + rest.iter().position(|byte| !plain(*byte)).unwrap_or(rest.len())
}

/// Tells it of all bytes, without a branch for each of them.
fn all(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & is(*byte))
}

fn push_escape(ascii: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match ascii {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', ascii]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            let digits = [HEX[usize::from(ascii >> 4)], HEX[usize::from(ascii & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
}

/// Appends bytes of which none is ASCII.
fn push_beyond_ascii(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        let mut from = 0;
        // U+0080 to U+009F begin with the one of these bytes, U+2028 and U+2029 with the other.
        for at in memchr2_iter(0xc2, 0xe2, valid.as_bytes()) {
            let character = valid[at..].chars().next().expect("it begins here");
            // The two separators end a line for JavaScript; the controls above U+007F for some terminals.
            if matches!(character, '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}') {
                out.extend_from_slice(&valid.as_bytes()[from..at]);
                write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a Vec can't fail");
                from = at + character.len_utf8();
            }
        }
        out.extend_from_slice(&valid.as_bytes()[from..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// A moment as the archives write it, made without the formatting machinery.
pub(crate) struct Digits {
    bytes: [u8; TIME_BYTES_MAX],
    length: usize,
}

impl Digits {
    /// `2026 Nov 21 22:41:01 `
    pub(crate) fn of_line(time: &LocalTime) -> Digits {
        const MONTHS: [&[u8; 5]; 12] = [
            b" Jan ", b" Feb ", b" Mar ", b" Apr ", b" May ", b" Jun ", b" Jul ", b" Aug ", b" Sep ",
            b" Oct ", b" Nov ", b" Dec ",
        ];
        let LocalTime { year, month, day, hour, minute, second, .. } = *time;
        let mut digits = Digits { bytes: [0; TIME_BYTES_MAX], length: 0 };
        digits.push_year(year, 1);
        digits.push(MONTHS[usize::from(month) - 1]);
        digits.push_number(u32::from(day), 2);
        digits.push(b" ");
        digits.push_clock(hour, minute, second);
        digits.push(b" ");
        digits
    }

    /// `{"timestamp":"2026-11-21T22:41:01.007+0100`
    pub(crate) fn of_json(time: &LocalTime) -> Digits {
        let LocalTime { year, month, day, hour, minute, second, millisecond, utc_offset_minutes } = *time;
        let mut digits = Digits { bytes: [0; TIME_BYTES_MAX], length: 0 };
        digits.push(b"{\"timestamp\":\"");
        digits.push_year(year, 4);
        digits.push(b"-");
        digits.push_number(u32::from(month), 2);
        digits.push(b"-");
        digits.push_number(u32::from(day), 2);
        digits.push(b"T");
        digits.push_clock(hour, minute, second);
        digits.push(b".");
        digits.push_number(u32::from(millisecond), 3);
        digits.push(if utc_offset_minutes < 0 { b"-" } else { b"+" });
        let minutes = u32::from(utc_offset_minutes.unsigned_abs());
        digits.push_number(minutes / 60, 2);
        digits.push_number(minutes % 60, 2);
        digits
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn push_clock(&mut self, hour: u8, minute: u8, second: u8) {
        self.push_number(u32::from(hour), 2);
        self.push(b":");
        self.push_number(u32::from(minute), 2);
        self.push(b":");
        self.push_number(u32::from(second), 2);
    }

    /// At least `width` characters, a sign included.
    fn push_year(&mut self, year: i32, width: usize) {
        if year < 0 {
            self.push(b"-");
        }
        self.push_number(year.unsigned_abs(), width - usize::from(year < 0));
    }

    /// At least `width` digits, of 1 to 4. The usual numbers are pushed with a length that is known beforehand.
    fn push_number(&mut self, number: u32, width: usize) {
        let digit = |power: u32| b'0' + (number / power % 10) as u8;
        match (width, number) {
            (2, 0..=99) => self.push(&[digit(10), digit(1)]),
            (3, 0..=999) => self.push(&[digit(100), digit(10), digit(1)]),
            (_, 1_000..=9_999) => self.push(&[digit(1_000), digit(100), digit(10), digit(1)]),
            _ => {
                let digits = number.checked_ilog10().map_or(1, |last| last + 1).max(width as u32);
                (0..digits).rev().for_each(|place| self.push(&[digit(10_u32.pow(place))]));
            }
        }
    }
}

impl fmt::Display for NotArchived {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            NotArchived::KeepAlive => "the event's location says that it is a keep-alive",
            NotArchived::NoLocation => "the event has no ':' between location and log",
            NotArchived::ParentFolder => "the event's location goes through a parent folder",
        })
    }
}

impl std::error::Error for NotArchived {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AgentId;
    use proptest::prelude::*;

    const TIME: LocalTime = LocalTime {
        year: 2026,
        month: 11,
        day: 1,
        hour: 2,
        minute: 41,
        second: 1,
        millisecond: 7,
        utc_offset_minutes: -210,
    };

    fn origin() -> Origin<'static> {
        Origin { id: AgentId::from_bytes(b"001").unwrap(), name: "web01", address: "any" }
    }

    fn line(text: &[u8]) -> Result<String, NotArchived> {
        let mut out = Vec::new();
        archive_line(&TIME, &Event::parse(text).unwrap(), &origin(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn json(text: &[u8]) -> String {
        let mut out = Vec::new();
        archive_json(&TIME, &Event::parse(text).unwrap(), &origin(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_analysisd() {
        let check = |text: &[u8], expected: &str| assert_eq!(line(text).unwrap(), expected);
        check(b"1:/var/log/a:one: two", "2026 Nov 01 02:41:01 (web01) any->/var/log/a one: two\n");
        check(b"8:syscheck:168:x /etc/a", "2026 Nov 01 02:41:01 (web01) any->syscheck 168:x /etc/a\n");
        check(b"1:a:", "2026 Nov 01 02:41:01 (web01) any->a \n");
        check("1:/vär/log:Mär\t日".as_bytes(), "2026 Nov 01 02:41:01 (web01) any->/vär/log Mär日\n");
        check(
            b"1:a\nb:c\n2026 Nov 01 02:41:01 (x) y\x7f",
            "2026 Nov 01 02:41:01 (web01) any->ab c2026 Nov 01 02:41:01 (x) y\n",
        );
        check(b"1:/var/..log:x", "2026 Nov 01 02:41:01 (web01) any->/var/..log x\n");
    }

    #[test]
    fn what_analysisd_does_not_archive() {
        assert_eq!(line(b"1:no colon"), Err(NotArchived::NoLocation));
        assert_eq!(line(b"1:/var/../etc:x"), Err(NotArchived::ParentFolder));
        assert_eq!(line(b"1:/..:x"), Err(NotArchived::ParentFolder));
        assert_eq!(line(b"1:a/../:x"), Err(NotArchived::ParentFolder));
        assert!(line(b"1:../x:y").is_ok() && line(b"1:..\\x:y").is_ok() && line(b"1:/...:y").is_ok());
        assert_eq!(line(b"1:ossec-keepalive:x"), Err(NotArchived::KeepAlive));
        assert_eq!(line(b"1:a->ossec-keepalive:x"), Err(NotArchived::KeepAlive));
    }

    #[test]
    fn lines_of_json() {
        assert_eq!(
            json(b"1:/var/log/a:say \"hi\"\t\\ \x1b \xff"),
            "{\"timestamp\":\"2026-11-01T02:41:01.007-0330\",\"agent\":{\"id\":\"001\",\"name\":\"web01\",\"ip\":\"any\"},\
             \"queue\":\"1\",\"location\":\"/var/log/a\",\"full_log\":\"say \\\"hi\\\"\\t\\\\ \\u001b \u{fffd}\"}\n"
        );
    }

    /// What the fast paths must equal, said with the standard library alone.
    mod plain {
        use super::*;

        pub(super) fn line(time: &LocalTime, location: &[u8], log: &[u8], out: &mut Vec<u8>) {
            let LocalTime { year, month, day, hour, minute, second, .. } = *time;
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = &months[usize::from(month) * 3 - 3..][..3];
            write!(out, "{year} {month} {day:02} {hour:02}:{minute:02}:{second:02} (web01) any->").unwrap();
            out.extend(location.iter().filter(|byte| !byte.is_ascii_control()));
            out.push(b' ');
            out.extend(log.iter().filter(|byte| !byte.is_ascii_control()));
            out.push(b'\n');
        }

        pub(super) fn json_time(time: &LocalTime) -> String {
            let LocalTime { year, month, day, hour, minute, second, millisecond, utc_offset_minutes } = *time;
            let sign = if utc_offset_minutes < 0 { '-' } else { '+' };
            let (hours, minutes) =
                (utc_offset_minutes.unsigned_abs() / 60, utc_offset_minutes.unsigned_abs() % 60);
            format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}{sign}{hours:02}{minutes:02}"
            )
        }

        pub(super) fn json_string(bytes: &[u8]) -> String {
            let mut out = String::from("\"");
            for character in String::from_utf8_lossy(bytes).chars() {
                match character {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                        out.push_str(&format!("\\u{:04x}", u32::from(character)));
                    }
                    _ => out.push(character),
                }
            }
            out + "\""
        }

        pub(super) fn refusal(location: &[u8]) -> Option<NotArchived> {
            let parent = location.split(|byte| *byte == b'/').skip(1).any(|component| component == b"..");
            let nested = location.windows(17).any(|part| part == b"->ossec-keepalive");
            if parent {
                Some(NotArchived::ParentFolder)
            } else if nested || location.starts_with(b"ossec-keepalive") {
                Some(NotArchived::KeepAlive)
            } else {
                None
            }
        }
    }

    /// What decides whether a location is archived.
    const LOCATION_PARTS: &[&[u8]] =
        &[b"/", b"..", b".", b"->", b"-", b">", b"ossec-keepalive", b"ossec-", b"keepalive", b"\x01", b"var"];

    /// Long runs of what is copied as it is, between what is not: both sides of every fast path.
    fn log() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            "[ -~]{0,80}".prop_map(String::into_bytes),
            "[\\x00-\\x1f\"\\\\\\x7f]{1,3}".prop_map(String::into_bytes),
            "[\u{80}-\u{a0}\u{2020}-\u{2030}é日]{1,8}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    fn time() -> impl Strategy<Value = LocalTime> {
        let date = (-9_999..=9_999_i32, 1..=12_u8, 1..=31_u8);
        let clock = (0..=23_u8, 0..=59_u8, 0..=60_u8, 0..=999_u16);
        (date, clock, -1_560..=1_560_i16).prop_map(|(date, clock, utc_offset_minutes)| {
            let ((year, month, day), (hour, minute, second, millisecond)) = (date, clock);
            LocalTime { year, month, day, hour, minute, second, millisecond, utc_offset_minutes }
        })
    }

    proptest! {
        #[test]
        fn the_fast_paths_write_what_the_plain_ones_do(
            time in time(),
            location in prop::collection::vec(prop::sample::select(LOCATION_PARTS), 0..8),
            log in log(),
        ) {
            let location = location.concat();
            let rest = [&location[..], b":", &log[..]].concat();
            let event = Event { queue: b'1', rest: &rest };
            let (mut said_line, mut said_json) = (Vec::new(), Vec::new());
            let outcome = archive_line(&time, &event, &origin(), &mut said_line);
            prop_assert_eq!(outcome, archive_json(&time, &event, &origin(), &mut said_json));
            prop_assert_eq!(outcome.err(), plain::refusal(&location));
            if outcome.is_ok() {
                let mut line = Vec::new();
                plain::line(&time, &location, &log, &mut line);
                prop_assert_eq!(said_line, line);
                let json = format!(
                    "{{\"timestamp\":\"{}\",\"agent\":{{\"id\":\"001\",\"name\":\"web01\",\"ip\":\"any\"}},\"queue\":\"1\",\"location\":{},\"full_log\":{}}}\n",
                    plain::json_time(&time), plain::json_string(&location), plain::json_string(&log),
                );
                prop_assert_eq!(String::from_utf8(said_json).unwrap(), json);
            }
        }

        #[test]
        fn one_event_is_one_line(log: Vec<u8>) {
            let text = [b"1:a:", &log[..]].concat();
            let mut out = Vec::new();
            archive_line(&TIME, &Event::parse(&text).unwrap(), &origin(), &mut out).unwrap();
            prop_assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1));
            let said = json(&text);
            prop_assert_eq!(said.lines().count(), 1);
            let parsed: serde_json::Value = serde_json::from_str(&said).unwrap();
            let expected = Event::parse(&text).unwrap().rest[2..].to_vec();
            prop_assert_eq!(parsed["full_log"].as_str().unwrap(), String::from_utf8_lossy(&expected));
        }
    }
}
