//! `ringmaster keys`.

use std::{io::Read, process::ExitCode};

use clap::Subcommand;

use super::{Arguments, Refusal};
use crate::{
    home::Home,
    keys_command::{self, NewAgent},
};

/// What is read of a list of keys at the most: hundreds of thousands of them.
const IMPORT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Add an agent, and print its line for the agent's own client.keys. A running manager takes it up at once.
    Add {
        /// The agent's name.
        name: String,
        /// From where it may come: "any", an address, or a network as 192.0.2.0/24.
        #[arg(long, value_name = "ADDRESS", default_value = "any")]
        ip: String,
        /// Its id, 1 to 8 digits; by default the one after the greatest in use.
        #[arg(long)]
        id: Option<String>,
    },
    /// List id, name and address of each agent.
    List,
    /// Remove agents as manage_agents does: a running manager cuts them off, and their ids are not given again.
    Remove {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Print agents' keys in base64, one a line, for `keys import` on another manager.
    Export {
        /// Their ids; by default all agents.
        ids: Vec<String>,
    },
    /// Add agents whose keys were exported, all or none. Those that are there already are left alone.
    Import {
        /// Keys in base64, as `keys export` and manage_agents -e print them; without any they are read from standard
        /// input, one a line.
        keys: Vec<String>,
    },
    /// Print an agent's key as manage_agents -e does, to be pasted into manage_agents -i on the agent's host.
    Extract {
        /// Its id.
        id: String,
    },
}

pub(super) fn keys(arguments: &Arguments, command: &KeysCommand) -> Result<ExitCode, Refusal> {
    match command {
        KeysCommand::Add { name, ip, id } => {
            let home = Home::prepare(&arguments.home)?;
            let agent = NewAgent { name: name.clone(), address: ip.clone(), id: id.clone() };
            println!("{}", keys_command::add(&home.keys_path(), &agent)?);
        }
        KeysCommand::List => {
            let home = Home::existing(&arguments.home)?;
            let (agents, problems) = keys_command::list(&home.keys_path())?;
            print!("{agents}");
            problems.iter().for_each(|problem| eprintln!("{problem}"));
        }
        KeysCommand::Remove { ids } => {
            let home = Home::existing(&arguments.home)?;
            for id in keys_command::remove(&home, ids)? {
                println!("Agent '{id}' removed.");
            }
        }
        KeysCommand::Export { ids } => {
            let home = Home::existing(&arguments.home)?;
            print!("{}", keys_command::export(&home.keys_path(), ids)?);
        }
        KeysCommand::Import { keys } => {
            let home = Home::existing(&arguments.home)?;
            let input;
            let keys: Vec<&str> = if keys.is_empty() {
                input = standard_input()?;
                input.lines().collect()
            } else {
                keys.iter().map(String::as_str).collect()
            };
            for entry in keys_command::import(&home.keys_path(), keys)? {
                println!("{} {} {}", entry.id, entry.name, entry.address);
            }
        }
        KeysCommand::Extract { id } => {
            let home = Home::existing(&arguments.home)?;
            print!("{}", keys_command::extract(&home.keys_path(), id)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn standard_input() -> Result<String, Refusal> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(IMPORT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > IMPORT_BYTES_MAX {
        return Err(Refusal(format!(
            "standard input has more than {IMPORT_BYTES_MAX} bytes: import in parts"
        )));
    }
    Ok(text)
}
