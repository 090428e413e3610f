//! The command line of `ringmaster-broker`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::options::{ClientOptions, ServerOptions};
use crate::{certificate, run};

/// Keeps the packets of OSSEC and Wazuh agents while their manager is away, and hands them over in order.
#[derive(Debug, Parser)]
#[command(name = "ringmaster-broker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run beside agents: takes their datagrams.
    Client(Box<ClientOptions>),
    /// Run beside the manager: gives it the datagrams.
    Server(Box<ServerOptions>),
    /// Make a certificate for the server, and print the fingerprint for its clients.
    Certificate {
        /// Where the certificate goes.
        #[arg(long, value_name = "FILE", default_value = "broker-certificate.pem")]
        certificate: PathBuf,
        /// Where its key goes.
        #[arg(long, value_name = "FILE", default_value = "broker-key.pem")]
        key: PathBuf,
    },
    /// Say what a running client or server has and does. Exit status: 0 all is well, 1 the manager is not, 2 nobody answers.
    Status {
        /// The folder of the client or server.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
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

/// The whole program: reads the command line, does what it says.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Client(options) => said(options.plan().and_then(run::client::run)),
        Command::Server(options) => said(options.plan().and_then(run::server::run)),
        Command::Certificate { certificate, key } => {
            said(certificate::make(&certificate, &key).map(|fingerprint| {
                println!("{}\n{}\nfingerprint {fingerprint}", certificate.display(), key.display());
            }))
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "ringmaster-broker", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { to } => said(write_man_pages(&to)),
        Command::Status { dir, json, metrics } => match run::status::ask(&dir) {
            Ok(status) => {
                let text = match (json, metrics) {
                    (true, _) => status.json(),
                    (false, true) => status.metrics(),
                    (false, false) => status.table(),
                };
                print!("{text}");
                if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                eprintln!("ringmaster-broker: {error}");
                ExitCode::from(2)
            }
        },
    }
}

fn write_man_pages(to: &Path) -> Result<(), String> {
    std::fs::create_dir_all(to)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), to))
        .map_err(|error| format!("{}: {error}", to.display()))
}

fn said(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmaster-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    }

    /// The options of a unit's `ExecStart=`, understood.
    fn started_by(unit: &str) -> Command {
        let unit = shipped(unit);
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        Arguments::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn the_units_start_what_there_is_with_the_files_that_the_package_brings() {
        let Command::Client(client) = started_by("../tuning/systemd/ringmaster-broker-client.service") else {
            panic!("the client's unit starts a client")
        };
        let Command::Server(server) = started_by("../tuning/systemd/ringmaster-broker-server.service") else {
            panic!("the server's unit starts a server")
        };
        // As an operator uncomments them: all options are there, and what they say is taken.
        let folder = tempfile::tempdir().unwrap();
        let uncommented = |name: &str| {
            let text = shipped(&format!("../tuning/debian/broker/{name}"));
            let option =
                |line: &str| line.strip_prefix('#').filter(|line| !line.starts_with(' ')).map(str::to_owned);
            let text: Vec<String> = text.lines().filter_map(option).collect();
            let text = text.join("\n");
            let text = text.replace("/etc/ringmaster-broker", folder.path().to_str().unwrap());
            let fingerprint = "as `ringmaster-broker certificate` prints it beside the server";
            let path = folder.path().join(name);
            std::fs::write(&path, text.replace(fingerprint, &"5f".repeat(32))).unwrap();
            path
        };
        std::fs::write(folder.path().join("secret"), "ssssssssssssssss").unwrap();
        assert_eq!(client.config.as_deref(), Some(Path::new("/etc/ringmaster-broker/client.toml")));
        let client = ClientOptions { config: Some(uncommented("client.toml")), ..*client }.plan().unwrap();
        assert_eq!(client.server, "manager.example.org:1518");
        assert!(client.fingerprint.is_some());
        assert_eq!(server.config.as_deref(), Some(Path::new("/etc/ringmaster-broker/server.toml")));
        let server = ServerOptions { config: Some(uncommented("server.toml")), ..*server }.plan().unwrap();
        assert!(server.certificate.is_some());
        // As they are brought, neither starts, and both say what is missing.
        let brought = |name: &str| {
            Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/debian/broker").join(name))
        };
        let error =
            ClientOptions { config: brought("client.toml"), ..ClientOptions::default() }.plan().unwrap_err();
        assert!(error.contains("--server"), "{error}");
        let error =
            ServerOptions { config: brought("server.toml"), ..ServerOptions::default() }.plan().unwrap_err();
        assert!(error.contains("--listen"), "{error}");
    }

    #[test]
    fn each_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        write_man_pages(&folder.path().join("man")).unwrap();
        for page in ["ringmaster-broker.1", "ringmaster-broker-client.1", "ringmaster-broker-server.1"] {
            assert!(folder.path().join("man").join(page).is_file(), "{page}");
        }
    }
}
