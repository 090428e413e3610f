//! The asking end, for the program's own subcommands.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{Line, Request};
use crate::home::Home;

/// How long a manager may take for its next line. It answers within milliseconds, or says that it waits for agents.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks the manager that runs on this home. Hands each item to `each` and returns what is said of the whole.
///
/// # Errors
/// When none runs, it refuses, or it does not answer.
///
/// # Panics
/// Never: a request is JSON.
pub fn ask(home: &Home, request: &Request, each: impl FnMut(Value)) -> Result<Value, CommandError> {
    ask_at(&home.command_path(), request, each)
}

pub(super) fn ask_at(
    path: &Path,
    request: &Request,
    mut each: impl FnMut(Value),
) -> Result<Value, CommandError> {
    let broken = |error: io::Error| CommandError::Broken { path: path.to_owned(), kind: error.kind() };
    let mut stream = UnixStream::connect(path).map_err(|error| {
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind());
        if nobody { CommandError::NotRunning { path: path.to_owned() } } else { broken(error) }
    })?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(broken)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(broken)?;
    let mut line = serde_json::to_vec(request).expect("a request is JSON");
    line.push(b'\n');
    stream.write_all(&line).map_err(broken)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(broken)?;
        match serde_json::from_str(&line).map_err(|error| broken(error.into()))? {
            Line::Item(item) => each(item),
            Line::Ok(value) => return Ok(value),
            Line::Refused(why) => return Err(CommandError::Refused(why)),
        }
    }
    Err(broken(io::ErrorKind::UnexpectedEof.into()))
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandError {
    /// The manager is there, and does not answer as it should.
    Broken {
        /// Its socket.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// No manager runs on this home.
    NotRunning {
        /// Its socket, if it ran.
        path: PathBuf,
    },
    /// The manager says why not.
    Refused(String),
}

impl std::error::Error for CommandError {}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Broken { path, kind } => write!(
                formatter,
                "{}: {kind}; run the command as the user or group of the manager, and see its log",
                path.display()
            ),
            CommandError::NotRunning { path } => write!(
                formatter,
                "no ringmaster runs on this home (nobody listens on {}): start it, or name its home with --home",
                path.display()
            ),
            CommandError::Refused(why) => formatter.write_str(why),
        }
    }
}
