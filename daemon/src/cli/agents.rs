//! `ringmaster agents` and `ringmaster status`: what the running manager says.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use codec::Counter;
use serde::Deserialize;
use serde_json::Value;

use super::{Arguments, Refusal};
use crate::{
    command::{self, CommandError, Request},
    counters_store::CounterStore,
    home::Home,
    keys_command::{self, KeysError},
    registry::{AgentReport, heading, table_line},
};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AgentsArguments {
    #[command(subcommand)]
    command: Option<AgentsCommand>,
    /// Print one JSON object a line in place of a table.
    #[arg(long)]
    json: bool,
    /// Their ids; by default all agents.
    ids: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum AgentsCommand {
    /// Forget the counters that an agent used up: the cure for "duplicated counter" after it was restored or installed
    /// anew. Works on a running manager, and on the files of one that does not run.
    ResetCounter {
        /// Its id.
        id: String,
    },
}

pub(super) fn agents(arguments: &Arguments, command: &AgentsArguments) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    match &command.command {
        Some(AgentsCommand::ResetCounter { id }) => reset_counter(&home, id),
        None => list(&home, &command.ids, command.json),
    }
}

pub(super) fn status(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    let told = command::ask(&home, &Request::Status, drop)?;
    println!("{}", serde_json::to_string_pretty(&told).expect("what came as JSON is JSON"));
    Ok(ExitCode::SUCCESS)
}

fn list(home: &Home, ids: &[String], as_json: bool) -> Result<ExitCode, Refusal> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut written = if as_json { Ok(()) } else { writeln!(out, "{}", heading()) };
    let outcome = command::ask(home, &Request::Agents { ids: ids.to_vec() }, |item: Value| {
        if written.is_ok() {
            written = write_agent(&mut out, &item, as_json);
        }
    });
    // What was told before a refusal is told all the same.
    written.and_then(|()| out.flush())?;
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn write_agent(out: &mut impl Write, item: &Value, as_json: bool) -> io::Result<()> {
    if as_json {
        return writeln!(out, "{item}");
    }
    let report = AgentReport::deserialize(item).map_err(io::Error::other)?;
    writeln!(out, "{}", table_line(&report))
}

fn reset_counter(home: &Home, id: &str) -> Result<ExitCode, Refusal> {
    let request = Request::ResetCounter { id: id.to_owned() };
    let (id, was) = match command::ask(home, &request, drop) {
        Ok(told) => {
            let word = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
            (word("id"), word("was"))
        }
        Err(CommandError::NotRunning { .. }) => reset_on_files(home, id)?,
        Err(error @ (CommandError::Broken { .. } | CommandError::Refused(_))) => return Err(error.into()),
    };
    println!("counter of agent {id} reset; it was {was}");
    Ok(ExitCode::SUCCESS)
}

fn reset_on_files(home: &Home, id: &str) -> Result<(String, String), Refusal> {
    let _lock = home.lock()?;
    let present = keys_command::read(&home.keys_path())?;
    let entry = keys_command::find(&present, id)?.clone();
    // What is sent goes on from where it was: no margin is used up, as nothing was sent.
    let (mut store, _) = CounterStore::open(home, &present.entries, 0)?;
    let was = store.seed(std::slice::from_ref(&entry)).get(&entry.id).copied().unwrap_or(Counter::ZERO);
    let failed = |error: io::Error| KeysError::Io { path: store_path(home), kind: error.kind() };
    store.forget(entry.id).map_err(failed)?;
    store.rewrite().map_err(failed)?;
    Ok((entry.id.to_string(), format!("{}:{}", was.global, was.local)))
}

fn store_path(home: &Home) -> std::path::PathBuf {
    home.path().join("queue/ringmaster/counters")
}
