//! Lines for the journal: systemd reads the priority in front, and adds time and process itself.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

/// Writes to standard error, `<priority>text`.
#[derive(Debug)]
pub(super) struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A journal that is gone has nobody to be told.
        let _ =
            io::stderr().lock().write_all(line(*event.metadata().level(), &super::text(event)).as_bytes());
    }
}

fn line(level: Level, text: &str) -> String {
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    format!("<{priority}>{text}\n")
}

/// Whether standard error is the journal's stream, as `JOURNAL_STREAM` says: device and inode.
pub(super) fn is_stderr() -> bool {
    let Some(said) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| said == format!("{}:{}", stderr.dev(), stderr.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_syslogs() {
        let check = |level, expected: &str| assert_eq!(line(level, "text"), expected);
        check(Level::ERROR, "<3>text\n");
        check(Level::WARN, "<4>text\n");
        check(Level::INFO, "<6>text\n");
        check(Level::DEBUG, "<7>text\n");
    }
}
