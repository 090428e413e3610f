//! `ringmaster counters`: OSSEC's files of message counters, out and in.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

use super::{Arguments, Refusal, effective};
use crate::{counters_store::CounterStore, home::Home, keys_command};

#[derive(Debug, Subcommand)]
pub(super) enum CountersCommand {
    /// Bring OSSEC's files up to date, as a clean stop does: after a kill, before ossec-remoted takes over.
    Export {
        /// Another folder than queue/rids of this home; it must be there.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Take what OSSEC's files say, whatever was counted here: after they came from a backup or from another host.
    Import {
        /// Another folder than queue/rids of this home.
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
}

pub(super) fn counters(arguments: &Arguments, command: &CountersCommand) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    let (settings, _) = effective(arguments, &home)?;
    // A manager that runs would count on, and write over it.
    let _lock = home.lock()?;
    let present = keys_command::read(&home.keys_path())?;
    let (mut store, problems) =
        CounterStore::open(&home, &present.entries, settings.counters.unclean_margin)?;
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    let rids = home.path().join("queue/rids");
    let failed = |folder: &Path| {
        let folder = folder.display().to_string();
        move |error: io::Error| Refusal(format!("{folder}: {error}"))
    };
    let done = match command {
        CountersCommand::Export { to: Some(folder) } => {
            format!(
                "{} written to {}",
                agents(store.export(folder).map_err(failed(folder))?),
                folder.display()
            )
        }
        CountersCommand::Export { to: None } => {
            let agents = agents(store.export(&rids).map_err(failed(&rids))?);
            store.close().map_err(failed(&rids))?;
            format!("{agents} written to {}", rids.display())
        }
        CountersCommand::Import { from } => {
            let folder = from.as_ref().unwrap_or(&rids);
            if !folder.is_dir() {
                return Err(Refusal(format!(
                    "{}: no such folder: name another with --from",
                    folder.display()
                )));
            }
            let agents = agents(store.import(folder).map_err(failed(folder))?);
            store.close().map_err(failed(&rids))?;
            format!("{agents} taken from {}", folder.display())
        }
    };
    println!("counters of {done}");
    Ok(ExitCode::SUCCESS)
}

fn agents(count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} agent{plural}")
}
