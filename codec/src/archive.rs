//! Archives: one line for each event, as text in analysisd's form and as JSON.
//!
//! ```text
//! 2026 Nov 21 22:41:01 (web01) any->/var/log/auth.log Nov 21 22:41:01 host01 sshd[25700]: Failed password
//! ```

use crate::event::{Event, Origin};
use std::fmt;
use std::io::Write;

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
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (location, log) = archivable(event)?;
    let LocalTime { year, month, day, hour, minute, second, .. } = *time;
    let month = MONTHS[usize::from(month) - 1];
    let Origin { id: _, name, address } = origin;
    write!(out, "{year} {month} {day:02} {hour:02}:{minute:02}:{second:02} ({name}) {address}->")
        .expect("writing to a Vec can't fail");
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
    let LocalTime { year, month, day, hour, minute, second, millisecond, utc_offset_minutes } = *time;
    let sign = if utc_offset_minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (utc_offset_minutes.unsigned_abs() / 60, utc_offset_minutes.unsigned_abs() % 60);
    write!(
        out,
        "{{\"timestamp\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}{sign}{hours:02}{minutes:02}\""
    )
    .expect("writing to a Vec can't fail");
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        push_json_string(value, out);
    };
    field(",\"agent\":{\"id\":", origin.id.as_bytes());
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
    let nested = location.windows(17).any(|part| part == b"->ossec-keepalive");
    if nested || location.starts_with(b"ossec-keepalive") {
        return Err(NotArchived::KeepAlive);
    }
    Ok((location, log))
}

/// Whether a location goes through `/..`, as analysisd looks for it: `..` at its very beginning follows the `->` there, and so
/// is none.
fn has_parent(location: &[u8]) -> bool {
    location.split(|byte| *byte == b'/').skip(1).any(|component| component == b"..")
}

fn push_printable(bytes: &[u8], out: &mut Vec<u8>) {
    for run in bytes.split(u8::is_ascii_control) {
        out.extend_from_slice(run);
    }
}

fn push_json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // The two separators end a line for JavaScript; the controls above U+007F for some terminals.
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a Vec can't fail");
                }
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
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

    proptest! {
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
