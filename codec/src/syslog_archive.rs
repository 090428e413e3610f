//! Archives of syslog lines: as analysisd writes those of devices that have no agent.
//!
//! ```text
//! 2026 Nov 21 22:41:01 router7->192.0.2.7 Nov 21 22:41:01 router7 sshd[25700]: Failed password
//!                      host of the line, or the manager's, as analysisd finds it
//! ```

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

use crate::archive::{Digits, LocalTime, push_json_string, push_printable};

/// Appends the line that OSSEC's analysisd writes to archives.log for a syslog line, newline included. `manager` is what the
/// host is called that the line came to, without its domain.
///
/// An IPv6 source is written whole, where analysisd writes what stands before its first colon.
///
/// # Panics
/// If the month is not 1 to 12.
///
/// Source: ossec-hids 4.3.0 `analysisd/cleanevent.c`, `OS_CleanMSG_ex`; `analysisd/alerts/log.c`, `OS_Store`.
pub fn syslog_archive_line(time: &LocalTime, manager: &str, source: IpAddr, line: &[u8], out: &mut Vec<u8>) {
    let log = printable(line);
    out.extend_from_slice(Digits::of_line(time).as_bytes());
    out.extend_from_slice(host(&log).unwrap_or(manager.as_bytes()));
    write!(out, "->{} ", source.to_canonical()).expect("writing to a Vec can't fail");
    out.extend_from_slice(&log);
    out.push(b'\n');
}

/// Appends the line as an object of JSON, newline included: as [`crate::archive_json`] does for an agent's event, with the
/// manager itself (`000`, as Wazuh has it) in an agent's place.
pub fn syslog_archive_json(time: &LocalTime, manager: &str, source: IpAddr, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(Digits::of_json(time).as_bytes());
    out.extend_from_slice(b"\",\"agent\":{\"id\":\"000\",\"name\":");
    push_json_string(manager.as_bytes(), out);
    write!(out, "}},\"queue\":\"2\",\"location\":\"{}\",\"full_log\":", source.to_canonical())
        .expect("writing to a Vec can't fail");
    push_json_string(line, out);
    out.extend_from_slice(b"}\n");
}

/// The line without its control characters, as analysisd looks at it.
fn printable(line: &[u8]) -> Cow<'_, [u8]> {
    if !line.iter().any(u8::is_ascii_control) {
        return Cow::Borrowed(line);
    }
    let mut printable = Vec::with_capacity(line.len());
    push_printable(line, &mut printable);
    Cow::Owned(printable)
}

/// A time that analysisd knows at the beginning of a line: `?` is any character, `#` a digit, `.` a dot or a comma. The host
/// follows it. The second number: the shortest line that it is looked for in.
const TIMES: [(&[u8], usize); 11] = [
    (b"??? ?? ??:??:?? ", 17),
    (b"????-??-?? ??:??:??,???", 24),
    (b"????-??-??T??:??:?????:?? ", 33),
    (b"????-??-??T??:??:??.????:??", 33),
    (b"????-??-??T??:??:??.?????:??", 33),
    (b"????-??-??T??:??:??.??????:??", 33),
    (b"????-??-??T??:??:??.???????:??", 33),
    (b"????-??-??T??:??:??.????????:??", 33),
    (b"????-??-??T??:??:??.?????????:??", 33),
    (b"#??? ??? ?? ??:??:?? ", 21),
    (b"#???:??:??-??:??:???", 20),
];

/// The host that a line names behind its time.
fn host(log: &[u8]) -> Option<&[u8]> {
    // "Mär" has one byte more than "Mar", and analysisd takes it for that.
    let text = if log.get(1..3) == Some("ä".as_bytes()) { &log[1..] } else { log };
    let begins = |(form, bytes_min): &&(&[u8], usize)| {
        log.len() >= *bytes_min
            && text.len() >= form.len()
            && form.iter().zip(text).all(|(form, byte)| is(*form, *byte))
    };
    let (form, _) = TIMES.iter().find(begins)?;
    let rest = &text[form.len()..];
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (host, rest) = rest.split_at(rest.iter().position(|byte| !is_of_host(*byte))?);
    rest.starts_with(b" ").then_some(host)
}

fn is(form: u8, byte: u8) -> bool {
    match form {
        b'?' => true,
        b'#' => byte.is_ascii_digit(),
        b'.' => matches!(byte, b'.' | b','),
        plain => plain == byte,
    }
}

/// Source: ossec-hids 4.3.0 `os_regex/os_regex_maps.c`, `hostname_map`.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'(' | b')' | b'-' | b'.' | b'/' | b'@' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn archived(source: &str, line: &[u8]) -> String {
        let mut out = Vec::new();
        syslog_archive_line(&TIME, "manager1", source.parse().unwrap(), line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn syslog_lines_of_analysisd() {
        let check = |line: &str, expected: &str| {
            let expected = format!("2026 Nov 01 02:41:01 {expected}->192.0.2.7 {line}\n");
            assert_eq!(archived("::ffff:192.0.2.7", line.as_bytes()), expected);
        };
        check("Nov 21 22:41:01 router7 sshd[1]: x", "router7");
        check("Nov 21 22:41:01 fe80::1 sshd[1]: x", "manager1");
        check("Nov 21 22:41:01 sshd: no host", "manager1");
        check("Nov 21 22:41:01  spaced two blanks", "spaced");
        check("Mär 21 22:41:01 router7 sshd[1]: x", "router7");
        check("2026-11-21 22:41:01,805 proftpd1 one two", "proftpd1");
        check("2026-11-21T22:41:01-04:00 ng1 su: one two", "ng1");
        check("2026-11-21T22:41:01.3-04:00 ng2 su: one two", "ng2");
        check("2026-11-21T22:41:01.214994-07:00 rsys1 su: one two", "rsys1");
        check("2026 Nov 21 22:41:01 cisco1 su: one", "cisco1");
        check("2026:11:21-22:41:01 utm1 su: one", "utm1");
        check("something else", "manager1");
        check("Nov 21 22:41:01 ", "manager1");
    }

    #[test]
    fn control_characters_forge_no_line() {
        assert_eq!(
            archived("fd00::1", b"Nov 21 22:41:01 h\x01ost x\n2026 y"),
            "2026 Nov 01 02:41:01 host->fd00::1 Nov 21 22:41:01 host x2026 y\n"
        );
    }

    #[test]
    fn syslog_lines_of_json() {
        let mut out = Vec::new();
        syslog_archive_json(&TIME, "manager1", "192.0.2.7".parse().unwrap(), b"say \"hi\"", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"timestamp\":\"2026-11-01T02:41:01.007-0330\",\"agent\":{\"id\":\"000\",\"name\":\"manager1\"},\
             \"queue\":\"2\",\"location\":\"192.0.2.7\",\"full_log\":\"say \\\"hi\\\"\"}\n"
        );
    }

    proptest! {
        #[test]
        fn one_line_is_one_line(line: Vec<u8>) {
            let mut out = Vec::new();
            syslog_archive_line(&TIME, "manager1", IpAddr::from([10, 0, 0, 1]), &line, &mut out);
            prop_assert_eq!(out.iter().position(|byte| *byte == b'\n'), Some(out.len() - 1));
            out.clear();
            syslog_archive_json(&TIME, "manager1", IpAddr::from([10, 0, 0, 1]), &line, &mut out);
            let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(parsed["full_log"].as_str().unwrap(), String::from_utf8_lossy(&line));
        }
    }
}
