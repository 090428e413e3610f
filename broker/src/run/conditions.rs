//! Lines of the log that others can cause: few of each kind a minute, and how many there were.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

/// Lines of one kind in a minute.
const LINES_MAX: u32 = 5;

const MINUTE: Duration = Duration::from_secs(60);

/// Kinds of lines, each with what it has said of late.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    kinds: BTreeMap<&'static str, Window>,
}

#[derive(Debug)]
struct Window {
    began_at: Duration,
    said: u32,
    unsaid: u64,
}

impl Conditions {
    /// Says that something is as it should be.
    pub(super) fn inform(&mut self, now: Duration, kind: &'static str, text: &str) {
        if let Some(more) = self.may_say(now, kind) {
            info!("{text}{more}");
        }
    }

    /// Says that something is not.
    pub(super) fn warn(&mut self, now: Duration, kind: &'static str, text: &str) {
        if let Some(more) = self.may_say(now, kind) {
            warn!("{text}{more}");
        }
    }

    /// What is to be said with the line, if that may be said at all.
    fn may_say(&mut self, now: Duration, kind: &'static str) -> Option<String> {
        let window = self.kinds.entry(kind).or_insert(Window { began_at: now, said: 0, unsaid: 0 });
        let mut more = String::new();
        if now >= window.began_at + MINUTE {
            if window.unsaid > 0 {
                more = format!(" ({} more of the kind since the last line)", window.unsaid);
            }
            *window = Window { began_at: now, said: 0, unsaid: 0 };
        }
        if window.said >= LINES_MAX {
            window.unsaid += 1;
            return None;
        }
        window.said += 1;
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lines_a_minute() {
        let mut conditions = Conditions::default();
        let mut at = |seconds| conditions.may_say(Duration::from_secs(seconds), "kind");
        for second in 0..5 {
            assert_eq!(at(second).as_deref(), Some(""));
        }
        assert_eq!(at(5), None);
        assert_eq!(at(59), None);
        assert_eq!(at(60).as_deref(), Some(" (2 more of the kind since the last line)"));
        assert_eq!(at(61).as_deref(), Some(""));
    }
}
