//! The command line of `ringmaster-broker`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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

fn said(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmaster-broker: {error}");
            ExitCode::FAILURE
        }
    }
}
