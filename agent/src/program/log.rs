//! logs/ossec.log, in OSSEC's form: `2026/11/22 09:00:00 ringmaster-agent: INFO: text`. What peers can cause says one line a
//! minute.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// Between two lines of one condition.
const INTERVAL: Duration = Duration::from_secs(60);

/// Where the program speaks.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// As what the program was called.
    name: String,
    to_stderr: bool,
    conditions: BTreeMap<Condition, Silence>,
}

/// What may come up any number of times.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Condition {
    /// An event of a collector can't be sent.
    Event,
    /// An active response was not taken.
    Execd,
    /// A message of the manager was not understood.
    Message,
    /// The manager can't be reached.
    Reach,
    /// A datagram was not sent.
    Send,
    /// The spool got a new session.
    Session,
    /// A shared file was refused.
    SharedFile,
    /// The disk does not take what it is given.
    Spool,
    /// A record was lost of the spool.
    SpoolLoss,
    /// A file of counters can't be written.
    Rids,
}

#[derive(Debug)]
struct Silence {
    spoke_at: Duration,
    unsaid: u64,
}

impl Log {
    pub(crate) fn new(path: PathBuf, name: String, to_stderr: bool) -> Log {
        Log { path, name, to_stderr, conditions: BTreeMap::new() }
    }

    /// From now on nothing goes to standard error.
    pub(crate) fn leave_stderr(&mut self) {
        self.to_stderr = false;
    }

    /// As [`Log::warn`] and [`Log::error`]: a text may begin with the number that OSSEC has for it, as `(4102): `.
    pub(crate) fn info(&self, text: &str) {
        self.line("INFO", text);
    }

    pub(crate) fn warn(&self, text: &str) {
        self.line("WARN", text);
    }

    pub(crate) fn error(&self, text: &str) {
        self.line("ERROR", text);
    }

    /// Says it unless the condition has spoken within the last minute; the next line tells how often it came up meanwhile.
    pub(crate) fn condition(&mut self, now: Duration, condition: Condition, text: &str) {
        let unsaid = match self.conditions.get_mut(&condition) {
            Some(silence) if now < silence.spoke_at + INTERVAL => {
                silence.unsaid += 1;
                return;
            }
            Some(silence) => {
                silence.spoke_at = now;
                std::mem::take(&mut silence.unsaid)
            }
            None => {
                self.conditions.insert(condition, Silence { spoke_at: now, unsaid: 0 });
                0
            }
        };
        match unsaid {
            0 => self.warn(text),
            count => self.warn(&format!("{text} ({count} more of the kind since the last line)")),
        }
    }

    /// OSSEC puts its number behind the name.
    fn line(&self, level: &str, text: &str) {
        let numbered = text.strip_prefix('(').and_then(|text| text.split_once("): "));
        let is_number = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
        match numbered {
            Some((number, text)) if is_number(number) => {
                self.write(&format!("{}({number}): {level}: {text}", self.name));
            }
            Some(_) | None => self.write(&format!("{}: {level}: {text}", self.name)),
        }
    }

    /// Opens the file for each line, as the C programs do: whoever rotates it need not tell us.
    fn write(&self, line: &str) {
        let time = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
        let line = format!("{time} {line}\n");
        if self.to_stderr {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o660).open(&self.path);
        // Where there is no log there is nobody to be told of it.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_speaks_once_a_minute_and_tells_how_often() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ossec.log");
        let mut log = Log::new(path.clone(), "ringmaster-agent".to_owned(), false);
        for second in [0, 1, 59, 60] {
            log.condition(Duration::from_secs(second), Condition::Event, "bad");
        }
        log.condition(Duration::from_secs(61), Condition::Execd, "other");
        log.info("(4102): Connected.");
        log.info("(x): y");
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| &line["2026/11/22 09:00:00 ".len()..]).collect();
        assert_eq!(
            lines,
            [
                "ringmaster-agent: WARN: bad",
                "ringmaster-agent: WARN: bad (2 more of the kind since the last line)",
                "ringmaster-agent: WARN: other",
                "ringmaster-agent(4102): INFO: Connected.",
                "ringmaster-agent: INFO: (x): y",
            ]
        );
    }
}
