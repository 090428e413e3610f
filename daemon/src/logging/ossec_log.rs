//! `logs/ossec.log`, as all programs of an installation write it together.
//!
//! Source: ossec-hids `shared/debug_op.c` _log (time, opened for appending), `error_messages/error_messages.h` (the number
//! in brackets behind the program's name).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::{Timestamp, tz::TimeZone};
use rustix::fs::OFlags;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

/// The file of a home.
pub fn log_path(home: &Path) -> PathBuf {
    home.join("logs/ossec.log")
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct OssecLog {
    program: String,
    path: PathBuf,
    zone: TimeZone,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode: what the path may no longer lead to after a rotation.
    identity: (u64, u64),
}

impl OssecLog {
    pub(super) fn open(home: &Path, program: &str) -> io::Result<OssecLog> {
        let path = log_path(home);
        let open = Mutex::new(Open::at(&path)?);
        Ok(OssecLog { program: program.to_owned(), path, zone: zone(home), open })
    }

    /// Appends a line, to another file if the path leads to another one by now: logrotate renames, and makes a new one or
    /// leaves that to us.
    fn write(&self, line: &str) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let there = fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if there != Some(open.identity) {
            *open = Open::at(&self.path)?;
        }
        open.file.write_all(line.as_bytes())
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(MODE);
        if rustix::process::geteuid().is_root() {
            // Whoever may write logs/ would choose where root writes.
            options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        }
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        Ok(Open { file, identity: (metadata.dev(), metadata.ino()) })
    }
}

/// All programs of the group append to it.
const MODE: u32 = 0o660;

impl<S: Subscriber> Layer<S> for OssecLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = Timestamp::now();
        let line = line(&self.program, &self.zone, now, *event.metadata().level(), &super::text(event));
        // A full disk can't be said on it; standard error has the line too.
        let _ = self.write(&line);
    }
}

/// The time zone of the installation: `TZ`, or the one that it was given for its chroot, or the host's.
fn zone(home: &Path) -> TimeZone {
    if std::env::var_os("TZ").is_some() {
        return TimeZone::system();
    }
    let own = fs::read(home.join("etc/localtime")).ok();
    own.and_then(|bytes| TimeZone::tzif("etc/localtime", &bytes).ok()).unwrap_or_else(TimeZone::system)
}

/// `2026/11/21 22:41:01 ringmaster(1408): WARN: text`: a number that the text begins with goes where the C programs have it.
fn line(program: &str, zone: &TimeZone, now: Timestamp, level: Level, text: &str) -> String {
    let at = now.to_zoned(zone.clone());
    let (number, text) = match text.split_once(": ") {
        Some((number, rest)) if number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (format!("({number})"), rest)
        }
        Some(_) | None => (String::new(), text),
    };
    format!(
        "{}/{:02}/{:02} {:02}:{:02}:{:02} {program}{number}: {}: {text}\n",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        super::word(level)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_form_of_the_c_programs() {
        let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(3_600).unwrap());
        let now = Timestamp::from_second(1_795_297_261).unwrap();
        let check = |level, text: &str, expected: &str| {
            assert_eq!(
                line("ringmaster", &zone, now, level, text),
                format!("2026/11/21 22:41:01 {expected}\n")
            );
        };
        check(Level::INFO, "Started (pid: 7).", "ringmaster: INFO: Started (pid: 7).");
        check(
            Level::WARN,
            "1408: 3 messages dropped: unknown id",
            "ringmaster(1408): WARN: 3 messages dropped: unknown id",
        );
        check(Level::ERROR, "12345: no number", "ringmaster: ERROR: 12345: no number");
        check(Level::DEBUG, "14x8: no number", "ringmaster: DEBUG: 14x8: no number");
    }

    #[test]
    fn a_rotated_file_is_left_alone_and_a_new_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        let path = log_path(folder.path());
        fs::write(&path, "of another program\n").unwrap();
        let log = OssecLog::open(folder.path(), "ringmaster").unwrap();
        log.write("one\n").unwrap();
        fs::rename(&path, folder.path().join("logs/ossec.log.1")).unwrap();
        log.write("two\n").unwrap();
        fs::remove_file(&path).unwrap();
        log.write("three\n").unwrap();
        log.write("four\n").unwrap();
        let old = fs::read_to_string(folder.path().join("logs/ossec.log.1")).unwrap();
        assert_eq!(old, "of another program\none\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\nfour\n");
    }

    #[test]
    fn the_zone_of_the_installation_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join("etc/localtime"), "no zone").unwrap();
        // Broken or missing: the host's, and no reason not to log.
        assert_eq!(zone(folder.path()), TimeZone::system());
    }
}
