//! `[run]` and `[log]`: how the program lives on its host.

use std::{convert::Infallible, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `[run]`: whose rights the program has.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// The user that root becomes once everything is bound.
    pub user: Account,
    /// The group.
    pub group: Account,
    /// Whether the kernel holds the program to its home (Landlock).
    pub landlock: bool,
}

/// A user or group. In the file: a name, a number, or one of the words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Account {
    /// `auto`: the installation's own, if root starts the program.
    #[default]
    Auto,
    /// `as-started`: whoever starts the program.
    AsStarted,
    /// This one.
    Named(String),
}

/// `[log]`: where the program's own lines go.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Whether they are appended to `logs/ossec.log` in OSSEC's form.
    pub file: bool,
    /// Their form on standard error.
    pub format: LogFormat,
}

/// The form of lines on standard error.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// The journal's if that is where standard error goes, else text.
    #[default]
    Auto,
    /// With priorities in front, as systemd reads them.
    Journal,
    /// One JSON object a line.
    Json,
    /// Time, level and text.
    Text,
}

impl Default for Run {
    fn default() -> Run {
        Run { user: Account::Auto, group: Account::Auto, landlock: true }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { file: true, format: LogFormat::Auto }
    }
}

impl FromStr for Account {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Account, Infallible> {
        Ok(match text {
            "auto" => Account::Auto,
            "as-started" => Account::AsStarted,
            name => Account::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Account::Auto => "auto",
            Account::AsStarted => "as-started",
            Account::Named(name) => name,
        })
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Account, D::Error> {
        Ok(String::deserialize(deserializer)?.parse().unwrap_or_else(|never: Infallible| match never {}))
    }
}
