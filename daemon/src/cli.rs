//! The command line of `ringmaster`.

use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

mod agents;
mod counters;
mod keys;
mod reload;
mod send;

use crate::{
    home::Home,
    keys_command, logging, run,
    service::{
        as_remoted::{Invocation, Wanted, program_name},
        pages,
    },
    settings::{self, Cores, Loaded, Origin, Settings, Sources, listen_address},
    tune::{self, Fleet, KNOBS},
};

/// A manager for OSSEC and Wazuh agents, over UDP and TCP on one port, one thread and one io_uring a core.
///
/// Without a command it runs; a home that is missing is made first.
#[derive(Debug, Parser)]
#[command(name = "ringmaster", version)]
struct Arguments {
    /// The folder with settings, keys and logs; made if it is missing.
    #[arg(long, global = true, value_name = "DIR", default_value = "./ringmaster-home")]
    home: PathBuf,
    /// The cores that carry a shard: "all", or a list as 0,2-3. Takes the place of shards.cores.
    #[arg(long, global = true, value_name = "LIST")]
    cores: Option<Cores>,
    /// An address to listen on for agents, as [::]:1514; may be repeated. Takes the place of all listeners of all files.
    #[arg(long, global = true, value_name = "ADDR", value_parser = listen_address)]
    listen: Vec<SocketAddr>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the manager (what happens without a command).
    Run,
    /// Print the effective settings and where each came from, or what is wrong with them.
    Check,
    /// Add agents to client.keys, list, remove, export and import them.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Show what the running manager knows of its agents.
    Agents(agents::AgentsArguments),
    /// Exchange message counters with OSSEC's files, while no manager runs.
    #[command(subcommand)]
    Counters(counters::CountersCommand),
    /// Send a control message to agents, and print what became of it for each.
    Send(send::SendArguments),
    /// Ask a Wazuh agent something, and print its answer.
    Request(send::RequestArguments),
    /// Print what the running manager is and has counted, as JSON.
    Status,
    /// Let the running manager read its settings and client.keys again, and print what changed and what waits for a start.
    ///
    /// The same as SIGHUP. Settings that can't be are refused, and change nothing.
    Reload,
    /// Look at what of the host decides about speed and loss.
    #[command(subcommand)]
    Tune(TuneCommand),
    /// Print the completions of a shell: bash, zsh, fish, elvish or powershell.
    Completions {
        /// Which.
        shell: Shell,
    },
    /// Print this program's man page (`ringmaster man | man -l -`), or write one for each command.
    Man {
        /// The folder to write them to; made if it is missing.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum TuneCommand {
    /// Print for each knob what it is, what it should be for this home's settings and agents, and why. Changes nothing.
    ///
    /// Run it as the user that runs the manager. Exit status: 0 all as wanted, 1 something is not, 2 something can't be
    /// read, or the command line or the settings are wrong.
    Check {
        /// Print a list of objects instead of a table.
        #[arg(long)]
        json: bool,
        /// Events a second of the whole fleet; by default as many as there are agents in client.keys.
        #[arg(long, value_name = "EVENTS/S")]
        rate: Option<u64>,
    },
}

/// The whole program: reads the command line, does what it says.
pub fn main() -> ExitCode {
    if let Some(invocation) = Invocation::of(std::env::args_os().collect()) {
        return invocation
            .map_err(Refusal::from)
            .and_then(|invocation| as_remoted(&invocation))
            .unwrap_or_else(|refusal| {
                eprintln!("{}: {refusal}", program_name());
                ExitCode::FAILURE
            });
    }
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        None | Some(Command::Run) => start(&arguments),
        Some(Command::Completions { shell }) => completions(*shell),
        Some(Command::Man { to }) => man(to.as_deref()),
        Some(Command::Check) => check(&arguments),
        Some(Command::Keys(command)) => keys::keys(&arguments, command),
        Some(Command::Agents(command)) => agents::agents(&arguments, command),
        Some(Command::Counters(command)) => counters::counters(&arguments, command),
        Some(Command::Reload) => reload::reload(&arguments),
        Some(Command::Send(command)) => send::send(&arguments, command),
        Some(Command::Request(command)) => send::request(&arguments, command),
        Some(Command::Status) => agents::status(&arguments),
        Some(Command::Tune(command)) => tune(&arguments, command),
    };
    outcome.unwrap_or_else(|refusal| {
        eprintln!("ringmaster: {refusal}");
        match arguments.command {
            // Its status 1 says that it has looked.
            Some(Command::Tune(_)) => ExitCode::from(2),
            None
            | Some(
                Command::Run
                | Command::Check
                | Command::Completions { .. }
                | Command::Man { .. }
                | Command::Keys(_)
                | Command::Agents(_)
                | Command::Counters(_)
                | Command::Reload
                | Command::Send(_)
                | Command::Request(_)
                | Command::Status,
            ) => ExitCode::FAILURE,
        }
    })
}

impl Arguments {
    /// No more than a home.
    fn of_home(home: &Path) -> Arguments {
        Arguments { home: home.to_owned(), cores: None, listen: Vec::new(), command: None }
    }
}

/// One line for the operator.
struct Refusal(String);

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        Refusal(error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn start(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let home = Home::prepare(&arguments.home)?;
    let sources = arguments.sources(home.settings_path(), home.path());
    let loaded = sources.load()?;
    logging::start_in(home.path(), &loaded.settings.log, program_name(), false);
    Ok(run::run_from(sources, loaded))
}

/// What the C program does under its name.
fn as_remoted(invocation: &Invocation) -> Result<ExitCode, Refusal> {
    let home = match invocation.wanted() {
        Wanted::Test => Home::existing(&invocation.home)?,
        Wanted::Background | Wanted::Foreground => Home::prepare(&invocation.home)?,
    };
    let mut sources = Arguments::of_home(home.path()).sources(home.settings_path(), home.path());
    let mut loaded = sources.load()?;
    invocation.take_the_place(&mut loaded.settings);
    sources.run = Some(loaded.settings.run.clone());
    match invocation.wanted() {
        Wanted::Test => Ok(ExitCode::SUCCESS),
        Wanted::Background => Ok(invocation.background(&home)?),
        Wanted::Foreground => {
            invocation.leave_terminal(&home)?;
            logging::start_in(home.path(), &loaded.settings.log, &invocation.program, invocation.debug());
            Ok(run::run_from(sources, loaded))
        }
    }
}

fn completions(shell: Shell) -> Result<ExitCode, Refusal> {
    let mut text = Vec::new();
    pages::write_completions(Arguments::command(), shell, &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn man(to: Option<&Path>) -> Result<ExitCode, Refusal> {
    match to {
        None => pages::write_man_page(Arguments::command(), &mut std::io::stdout())?,
        Some(folder) => {
            for page in pages::write_man_pages(Arguments::command(), folder)? {
                println!("{}", page.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    let Loaded { settings, origins, remarks, unused } =
        arguments.sources(home.settings_path(), home.path()).load()?;
    print!("{}{}", settings::effective(&settings, &origins), settings::listeners(&settings));
    unused.iter().for_each(|unused| println!("# {unused}"));
    remarks.iter().for_each(|remark| eprintln!("{remark}"));
    let (_, problems) = keys_command::list(&home.keys_path())?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tune(arguments: &Arguments, command: &TuneCommand) -> Result<ExitCode, Refusal> {
    let TuneCommand::Check { json, rate } = command;
    let mut fleet = match Home::existing(&arguments.home) {
        Ok(home) => {
            let (settings, _) = effective(arguments, &home)?;
            Fleet { agents: agents(&home), ..Fleet::new(&settings, run::cores(&settings.shards.cores)?) }
        }
        Err(missing) => {
            eprintln!(
                "ringmaster: {missing}; this is for the default settings with the queue socket, and any fleet"
            );
            let mut settings = Settings::default();
            let sources = arguments.sources(PathBuf::new(), Path::new(""));
            sources.take_the_place(&mut settings, &mut BTreeMap::new());
            Fleet { queue_sink: true, ..Fleet::new(&settings, run::cores(&settings.shards.cores)?) }
        }
    };
    fleet.events_per_second = *rate;
    let findings = tune::findings(&KNOBS, &fleet, |knob| tune::read(knob, &fleet));
    print!("{}", if *json { tune::json(&findings) } else { tune::text(&findings) });
    Ok(ExitCode::from(tune::exit_status(&findings)))
}

/// How many agents a home has, if this user may know.
fn agents(home: &Home) -> Option<u64> {
    match std::fs::read(home.keys_path()) {
        Ok(bytes) => Some(codec::KeyFile::parse(&bytes).entries.len() as u64),
        Err(error) => {
            eprintln!("ringmaster: {}: {error}; this is for any fleet", home.keys_path().display());
            None
        }
    }
}

/// The file's settings with the command line's in their place.
fn effective(arguments: &Arguments, home: &Home) -> Result<(Settings, BTreeMap<String, Origin>), Refusal> {
    let Loaded { settings, origins, .. } = arguments.sources(home.settings_path(), home.path()).load()?;
    Ok((settings, origins))
}

impl Arguments {
    /// What settings come from.
    fn sources(&self, file: PathBuf, home: &Path) -> Sources {
        let (cores, listen) = (self.cores.clone(), self.listen.clone());
        Sources { home: home.to_owned(), file, cores, listen, run: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_command_line_takes_the_place_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        std::fs::write(home.settings_path(), "[shards]\ncores = [7]\n[listen]\nbacklog = 9\n").unwrap();
        let text = ["ringmaster", "--cores", "0-1", "run", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
        let (settings, origins) =
            effective(&Arguments::parse_from(text), &home).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(settings.shards.cores, Cores::List(vec![0, 1]));
        assert_eq!(settings.listen.addresses.len(), 2);
        assert_eq!(settings.listen.backlog, 9);
        assert_eq!(origins["shards.cores"], Origin::CommandLine);
        assert!(matches!(origins["listen.backlog"], Origin::File { line: 4, .. }));
    }
}
