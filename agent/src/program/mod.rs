//! The program: what it is told, what it keeps, and how it talks.

mod connection;
mod local;
mod log;
mod process;
mod rids;
mod run;
mod servers;
mod settings;
mod shared;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use log::Log;
use process::{Identity, PidFile};
use settings::Settings;

/// An agent in the place of ossec-agentd: over TCP or UDP, with a spool on disk for the time while its manager is away.
///
/// To ringmaster, over TCP, each event that it took arrives exactly once; at any other manager some may arrive twice after a break.
///
/// Without a command it runs. It reads <client> of etc/ossec.conf, and etc/ringmaster-agent.toml for what OSSEC has no word for.
/// SIGUSR1 logs what became of events. Called as ossec-agentd (a link), it goes to the background unless -f is given.
#[derive(Debug, Parser)]
#[command(name = "ringmaster-agent", version)]
struct Arguments {
    /// The folder of the OSSEC agent.
    #[arg(short = 'D', long, global = true, value_name = "DIR", default_value = "/var/ossec")]
    home: PathBuf,
    /// Print the settings, or what is wrong with them, and end.
    #[arg(short = 't', long)]
    test_config: bool,
    /// Stay in the foreground.
    #[arg(short = 'f', long, conflicts_with = "background")]
    foreground: bool,
    /// Go to the background.
    #[arg(short = 'b', long)]
    background: bool,
    /// The user to become, when started by root [default: the owner of queue/ossec]
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// The group to become, when started by root [default: the user's]
    #[arg(short = 'g', long, value_name = "GROUP")]
    group: Option<String>,
    /// Print the man page, and end.
    #[arg(long)]
    man: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what the running agent has and does. Exit status: 0 connected to a manager, 1 not, 2 nobody answers.
    Status {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Print the numbers as Prometheus reads them, for the text collector of its node exporter.
        #[arg(long, conflicts_with = "json")]
        metrics: bool,
    },
    /// Print the completions of a shell: bash, zsh, fish, elvish or powershell.
    Completions {
        /// Which.
        shell: Shell,
    },
    /// Write the man pages of the program and its commands into a folder, which is made if it is missing.
    Man {
        /// Where they go.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// The name of the C program whose place this one takes.
const OSSEC_NAME: &str = "ossec-agentd";

pub(crate) fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let called_as_ossec = Path::new(&called).file_name().is_some_and(|name| name == OSSEC_NAME);
    let name = if called_as_ossec { OSSEC_NAME } else { "ringmaster-agent" };
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Status { json, metrics }) => return tell(&arguments.home, name, json, metrics),
        Some(Command::Completions { shell }) => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "ringmaster-agent", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Some(Command::Man { to }) => {
            let written = std::fs::create_dir_all(&to)
                .and_then(|()| clap_mangen::generate_to(Arguments::command(), &to));
            return match written {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{name}: {}: {error}", to.display());
                    ExitCode::FAILURE
                }
            };
        }
        None => {}
    }
    let is_background = arguments.background || (called_as_ossec && !arguments.foreground);
    match start(&arguments, name, is_background) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{name}: ERROR: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn tell(home: &Path, name: &str, json: bool, metrics: bool) -> ExitCode {
    let status = match status::ask(home) {
        Ok(status) => status,
        Err(problem) => {
            eprintln!("{name}: {problem}");
            return ExitCode::from(2);
        }
    };
    match (json, metrics) {
        (true, _) => print!("{}", status.json()),
        (false, true) => print!("{}", status.metrics()),
        (false, false) => print!("{status}"),
    }
    if status.is_connected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything that needs root or a terminal comes first; then the program is who it will be, and runs.
fn start(arguments: &Arguments, name: &str, is_background: bool) -> Result<(), String> {
    if arguments.man {
        let page = clap_mangen::Man::new(Arguments::command());
        return page.render(&mut std::io::stdout()).map_err(|error| format!("the man page: {error}"));
    }
    let home = &arguments.home;
    let home = home.canonicalize().map_err(|error| {
        format!("{}: {error}; name the folder of an OSSEC agent with --home", home.display())
    })?;
    let settings = Settings::read(&home)?;
    if arguments.test_config {
        print!("{settings}");
        return Ok(());
    }
    let identity = Identity::of(&home, arguments.user.as_deref(), arguments.group.as_deref())?;
    process::prepare(&home, identity)?;
    if let Some(identity) = identity {
        identity.drop_to().map_err(|error| format!("can't give up the rights of root: {error}"))?;
    }
    let mut log = Log::new(home.join("logs/ossec.log"), name.to_owned(), true);
    if is_background {
        process::to_background().map_err(|error| format!("can't go to the background: {error}"))?;
        log.leave_stderr();
    }
    let failed = |log: &Log, problem: String| {
        log.error(&problem);
        // It has been said.
        Err(problem)
    };
    let parts = match run::Parts::prepare(&home, settings) {
        Ok(parts) => parts,
        Err(problem) => return failed(&log, problem),
    };
    let runtime = match tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES)) {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(
                &log,
                format!("no io_uring: {error}; allow it (kernel.io_uring_disabled, seccomp)"),
            );
        }
    };
    let pid_file = PidFile::create(&home, name).map_err(|error| format!("var/run: {error}"));
    let pid_file = match pid_file {
        Ok(pid_file) => pid_file,
        Err(problem) => return failed(&log, problem),
    };
    let ended = runtime.block_on(run::run(parts, &mut log));
    drop(pid_file);
    ended.or_else(|problem| failed(&log, problem))
}

/// At most a read, a write, and what closes them.
const RING_ENTRIES: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// A variable in it is one word, as systemd reads it.
    #[test]
    fn the_unit_starts_what_there_is() {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/systemd/ringmaster-agent.service");
        let unit = std::fs::read_to_string(unit).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert!(arguments.command.is_none() && !arguments.background, "it stays in the foreground");
        let home = arguments.home.to_str().unwrap().trim_matches(['$', '{', '}']).to_owned();
        assert!(unit.contains(&format!("\nEnvironment={home}=/var/ossec\n")));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/debian/agent/default");
        assert!(std::fs::read_to_string(file).unwrap().contains(&format!("\n{home}=")));
    }

    #[test]
    fn ossec_agentds_options_are_understood() {
        let words = ["ossec-agentd", "-D", "/home/ossec", "-f", "-u", "ossec", "-g", "ossec", "-t"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert_eq!(arguments.home, Path::new("/home/ossec"));
        assert!(arguments.foreground && arguments.test_config);
        let version = Arguments::try_parse_from(["ossec-agentd", "-V"]).unwrap_err();
        assert_eq!(version.kind(), clap::error::ErrorKind::DisplayVersion);
    }
}
