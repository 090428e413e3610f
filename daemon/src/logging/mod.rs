//! What the program says: to standard error or the journal, and in OSSEC's form to `logs/ossec.log`.
//!
//! ```text
//! limiter      a condition that repeats is said once a minute, with its count: what callers use
//! flood        the net below it: no place in the code says more than LINES_MAX lines a minute
//! ossec_log    2026/11/21 22:41:01 ringmaster(1408): WARN: ...
//! journal      <4>..., as systemd reads priorities from standard error
//! ```

mod flood;
mod journal;
mod limiter;
mod ossec_log;

use std::{fmt, fmt::Write, io, path::Path, sync::OnceLock};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    warn,
};
use tracing_subscriber::{
    Layer, fmt as lines, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::settings::{Log, LogFormat};

pub use flood::LINES_MAX;
pub use limiter::{Due, Limiter};
pub use ossec_log::log_path;

use flood::Flood;

/// Sends the program's lines to standard error. Call once, before anything is said.
///
/// # Panics
/// When it is called twice.
pub fn start() {
    tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(FLOOD.get_or_init(Flood::default))
        .with(to_stderr(LogFormat::Auto))
        .init();
}

/// The same, as the settings say, and to `logs/ossec.log` of this home under the name of `program`; `debug`: more of them.
/// A log file that can't be written is said on standard error, and no reason not to run.
///
/// # Panics
/// When it is called twice.
pub fn start_in(home: &Path, settings: &Log, program: &str, debug: bool) {
    let file = settings.file.then(|| ossec_log::OssecLog::open(home, program)).transpose();
    let (file, problem) = match file {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    tracing_subscriber::registry()
        .with(if debug { LevelFilter::DEBUG } else { LevelFilter::INFO })
        .with(FLOOD.get_or_init(Flood::default))
        .with(to_stderr(settings.format))
        .with(file)
        .init();
    if let Some(error) = problem {
        warn!("{}: {error}; the log goes to standard error alone", log_path(home).display());
    }
}

/// Says how many lines were held back because their place in the code said too many. To be called each second.
pub fn say_held_back() {
    let Some(flood) = FLOOD.get() else { return };
    for held in flood.due() {
        warn!("{} more lines like this were not written: {}", held.count, held.example);
    }
}

/// The one net below all that the process says; the subscriber is the process's too.
static FLOOD: OnceLock<Flood> = OnceLock::new();

fn to_stderr<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let plain = || {
        lines::layer()
            .with_writer(io::stderr)
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .with_target(false)
            // It would say so with a macro that ends the process if standard error is closed.
            .log_internal_errors(false)
    };
    match format {
        LogFormat::Auto if journal::is_stderr() => Box::new(journal::Journal),
        LogFormat::Auto | LogFormat::Text => Box::new(plain()),
        LogFormat::Json => Box::new(plain().json().flatten_event(true)),
        LogFormat::Journal => Box::new(journal::Journal),
    }
}

/// The text of an event with its fields behind it, on one line: control characters, which may come from a file's name or a
/// line of client.keys, are no line breaks and no terminal commands any more.
fn text(event: &Event<'_>) -> String {
    let mut text = Text(String::new());
    event.record(&mut text);
    text.0.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let before = if self.0.is_empty() { "" } else { " " };
        match field.name() {
            // The message comes first, whatever order the fields have.
            "message" => self.0 = format!("{value:?}{before}{}", self.0),
            name => write!(self.0, "{before}{name}={value:?}").expect("a String takes all"),
        }
    }
}

/// What OSSEC and Wazuh call a level.
fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}
