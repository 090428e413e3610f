//! `ringmaster reload`: the running manager reads its settings again.

use std::process::ExitCode;

use serde::Deserialize;

use super::{Arguments, Refusal};
use crate::{
    command::{self, Request},
    home::Home,
    settings::Changes,
};

pub(super) fn reload(arguments: &Arguments) -> Result<ExitCode, Refusal> {
    let home = Home::existing(&arguments.home)?;
    let told = command::ask(&home, &Request::Reload, drop)?;
    let changes = Changes::deserialize(told)?;
    changes.lines().for_each(|(_, line)| println!("{line}"));
    Ok(ExitCode::SUCCESS)
}
