//! A line that says how far it is: rewritten in place on a terminal, one every two seconds anywhere else.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is written where it can't be rewritten.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// The progress of one phase of the run.
#[derive(Debug)]
pub struct ProgressLine {
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl ProgressLine {
    /// A line without words yet.
    ///
    /// # Panics
    /// Never: the template is a legal one.
    pub fn start() -> ProgressLine {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is a legal one");
            ProgressBar::new_spinner().with_style(style)
        });
        ProgressLine { bar, last_line: Instant::now() }
    }

    /// Says how far it is; `words` is asked for only if they will be seen.
    pub fn say(&mut self, words: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(words());
                bar.tick();
            }
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                eprintln!("{}", words());
            }
            None => {}
        }
    }

    /// Takes the line away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
