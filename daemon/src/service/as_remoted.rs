//! Called as `ossec-remoted` or `wazuh-remoted`: what takes the C program's place in `bin/` behaves as that did, so that
//! ossec-control and wazuh-control go on unaware.
//!
//! Source: ossec-hids `remoted/main.c` main (options), `init/ossec-server.sh` start (which waits for the program to come back
//! from going into the background, and asks for its exit status).

use std::{
    ffi::{OsStr, OsString},
    fmt, fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::{ArgAction, Parser};

use super::pid_file::REMOTEDS;
use crate::{
    home::Home,
    logging::log_path,
    settings::{Account, Settings},
};

/// The C program's command line.
#[derive(Clone, Debug, Parser)]
#[command(name = "ossec-remoted", version, disable_version_flag = true)]
#[command(about = "ringmaster in ossec-remoted's place: its options, and its way into the background")]
struct Options {
    /// Print the version.
    #[arg(short = 'V', action = ArgAction::Version)]
    version: (),
    /// Log more; for ossec-control's "enable debug".
    #[arg(short = 'd', action = ArgAction::Count)]
    debug: u8,
    /// Test the configuration, and do nothing else.
    #[arg(short = 't')]
    test: bool,
    /// Stay in the foreground.
    #[arg(short = 'f')]
    foreground: bool,
    /// The user to become, once everything is bound.
    #[arg(short = 'u', value_name = "USER")]
    user: Option<Account>,
    /// The group to become.
    #[arg(short = 'g', value_name = "GROUP")]
    group: Option<Account>,
    /// The configuration; only the installation's own etc/ossec.conf is taken.
    #[arg(short = 'c', value_name = "FILE")]
    config: Option<PathBuf>,
    /// The installation; by default the folder above the one that this program was called in.
    #[arg(short = 'D', value_name = "DIR")]
    home: Option<PathBuf>,
    /// Said to the process in the background by the one that starts it.
    #[arg(long, hide = true)]
    away: bool,
}

/// A call by the C program's name.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// As which: `ossec-remoted`.
    pub program: String,
    /// The installation.
    pub home: PathBuf,
    called_as: OsString,
    options: Options,
}

/// What is wanted of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// Run in another process, and come back when that listens.
    Background,
    /// Run in this process.
    Foreground,
    /// Read the configuration and say whether it is good.
    Test,
}

impl Invocation {
    /// The call that this command line is, if it is one by a C program's name. Ends the process for `-h`, `-V` and for
    /// options that can't be read, as clap does.
    ///
    /// # Errors
    /// When it can't be told which installation is meant, or another configuration than the installation's is named.
    pub fn of(words: Vec<OsString>) -> Option<Result<Invocation, InvocationError>> {
        let called_as = words.first()?.clone();
        let program = Path::new(&called_as).file_name()?.to_str()?.to_owned();
        REMOTEDS.contains(&program.as_str()).then(|| {
            let options = Options::parse_from(words);
            let above = || Path::new(&called_as).parent()?.parent().map(Path::to_owned);
            let home = options.home.clone().or_else(above).map(|home| match home.as_os_str() {
                empty if empty.is_empty() => PathBuf::from("."),
                _ => home,
            });
            let home = home.ok_or(InvocationError::NoHome)?;
            if let Some(config) = &options.config {
                let same = |path: &Path| path.canonicalize().ok();
                if same(config).is_none() || same(config) != same(&home.join("etc/ossec.conf")) {
                    return Err(InvocationError::Config { config: config.clone() });
                }
            }
            Ok(Invocation { program, home, called_as, options })
        })
    }

    /// What is to be done.
    pub fn wanted(&self) -> Wanted {
        match (self.options.test, self.options.foreground || self.options.away) {
            (true, _) => Wanted::Test,
            (false, true) => Wanted::Foreground,
            (false, false) => Wanted::Background,
        }
    }

    /// Whether more than usual is to be logged.
    pub fn debug(&self) -> bool {
        self.options.debug > 0
    }

    /// Puts what the command line says in the place of the settings.
    pub fn take_the_place(&self, settings: &mut Settings) {
        if let Some(user) = &self.options.user {
            settings.run.user = user.clone();
        }
        if let Some(group) = &self.options.group {
            settings.run.group = group.clone();
        }
    }

    /// In the process that was started for the background: leaves the terminal and the folder that it was started in.
    ///
    /// # Errors
    /// The kernel's.
    pub fn leave_terminal(&self, home: &Home) -> io::Result<()> {
        if self.options.away {
            rustix::process::setsid()?;
            std::env::set_current_dir(home.path())?;
        }
        Ok(())
    }

    /// Starts this program again, away from the terminal, and waits until it listens. If it ends instead, what it wrote to
    /// the log is shown.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn background(&self, home: &Home) -> io::Result<ExitCode> {
        let log = log_path(home.path());
        let logged_bytes = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut child = Command::new(&self.called_as)
            .args(std::env::args_os().skip(1))
            .arg("--away")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if listens(&mut child, home)? {
            return Ok(ExitCode::SUCCESS);
        }
        eprint!("{}", since(&log, logged_bytes));
        eprintln!("{}: did not start; with -f it says why on the terminal", self.program);
        Ok(ExitCode::FAILURE)
    }
}

/// Waits until the child says in `var/run/ringmaster.json` that it listens. One that takes too long is ended.
fn listens(child: &mut Child, home: &Home) -> io::Result<bool> {
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if says_that_it_listens(&home.status_path(), child.id()) {
            return Ok(true);
        }
        if started.elapsed() > START_TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
    Ok(false)
}

/// With a million keys to read it takes some seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

fn says_that_it_listens(status: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read(status) else { return false };
    serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|status| status["pid"] == pid)
}

/// What a file has from a byte on, as far as an operator wants to read it.
fn since(path: &Path, byte: u64) -> String {
    const SHOWN_BYTES_MAX: u64 = 64 * 1_024;
    let read = || {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(byte))?;
        let mut text = Vec::new();
        file.take(SHOWN_BYTES_MAX).read_to_end(&mut text)?;
        io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_default()
}

/// By which name this program was called, for its pid file and its log: `ringmaster`, unless it is in a C program's place.
pub fn program_name() -> &'static str {
    let called_as = std::env::args_os().next();
    let name = called_as.as_deref().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    REMOTEDS.into_iter().find(|remoted| Some(*remoted) == name).unwrap_or("ringmaster")
}

/// Why a call by a C program's name can't be followed. Displays as one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InvocationError {
    /// Another configuration is named.
    Config {
        /// Which.
        config: PathBuf,
    },
    /// No installation is named.
    NoHome,
}

impl std::error::Error for InvocationError {}

impl fmt::Display for InvocationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvocationError::Config { config } => write!(
                formatter,
                "-c {}: only etc/ossec.conf of the installation is read: name the installation with -D",
                config.display()
            ),
            InvocationError::NoHome => {
                write!(
                    formatter,
                    "which installation? Call the program by its path in bin/, or name it with -D"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Option<Result<Invocation, InvocationError>> {
        Invocation::of(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn only_the_names_of_the_c_programs_are_theirs() {
        assert!(call(&["ringmaster"]).is_none());
        assert!(call(&["/usr/bin/ringmaster", "-f"]).is_none());
        assert!(call(&[]).is_none());
        assert_eq!(call(&["ossec-remoted"]).unwrap().unwrap_err(), InvocationError::NoHome);
    }

    #[test]
    fn the_installation_is_above_bin_and_options_are_those_of_the_c_program() {
        let check = |words: &[&str], home: &str, wanted: Wanted| {
            let invocation = call(words).unwrap().unwrap();
            assert_eq!(
                (invocation.home.as_path(), invocation.wanted()),
                (Path::new(home), wanted),
                "{words:?}"
            );
            invocation
        };
        check(&["/var/ossec/bin/ossec-remoted"], "/var/ossec", Wanted::Background);
        check(&["/var/ossec/bin/wazuh-remoted", "-f"], "/var/ossec", Wanted::Foreground);
        check(&["bin/ossec-remoted", "-t", "-d"], ".", Wanted::Test);
        check(&["ossec-remoted", "-D", "/o", "--away"], "/o", Wanted::Foreground);
        let invocation =
            check(&["/o/bin/ossec-remoted", "-dd", "-u", "remo", "-g", "7"], "/o", Wanted::Background);
        assert!(invocation.debug());
        let mut settings = Settings::default();
        invocation.take_the_place(&mut settings);
        assert_eq!(settings.run.user, Account::Named("remo".to_owned()));
        assert_eq!(settings.run.group, Account::Named("7".to_owned()));
    }

    #[test]
    fn another_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        let own = folder.path().join("etc/ossec.conf");
        fs::write(&own, "").unwrap();
        let home = folder.path().to_str().unwrap();
        assert!(call(&["ossec-remoted", "-D", home, "-c", own.to_str().unwrap()]).unwrap().is_ok());
        let refusal = call(&["ossec-remoted", "-D", home, "-c", "/etc/passwd"]).unwrap().unwrap_err();
        assert!(refusal.to_string().starts_with("-c /etc/passwd: only etc/ossec.conf"), "{refusal}");
    }
}
