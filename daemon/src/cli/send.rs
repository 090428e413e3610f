//! `ringmaster send` and `ringmaster request`: messages to agents by hand.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{Arguments, Refusal};
use crate::{
    command::{self, Request},
    home::Home,
};

#[derive(Args, Debug)]
pub(super) struct SendArguments {
    /// An agent's id, or "all" for those that are there now.
    #[arg(value_name = "ID|all")]
    to: String,
    /// What follows `#!-` in the message, as: syscheck restart.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    text: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct RequestArguments {
    /// The agent's id.
    id: String,
    /// The program that is asked, and the command, as: agent getstate.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    text: Vec<String>,
}

/// One line for each agent, as it becomes known. Fails if a message was neither sent nor kept.
pub(super) fn send(arguments: &Arguments, command: &SendArguments) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    let request = Request::Send { to: command.to.clone(), text: command.text.join(" ") };
    let mut dropped = false;
    let word = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let told = command::ask(&home, &request, |item| {
        dropped |= word(&item, "result") == "dropped";
        println!("{}: {}", word(&item, "agent"), word(&item, "text"));
    })?;
    if told["all_told"] == false {
        println!("the others: on their way; not known yet what became of them");
    }
    Ok(if dropped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The answer as the agent's program gave it. Fails if that begins with `err`.
pub(super) fn request(arguments: &Arguments, command: &RequestArguments) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    let request = Request::AgentRequest { id: command.id.clone(), text: command.text.join(" ") };
    let told = command::ask(&home, &request, drop)?;
    let answer = told.as_str().unwrap_or_default();
    println!("{answer}");
    Ok(if answer.starts_with("err ") { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
