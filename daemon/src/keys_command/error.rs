//! Why client.keys stays as it is, or can't be used.

use std::{fmt, io, path::PathBuf};

use codec::AgentId;

use super::NAME_CHARACTERS;

/// Why client.keys stays as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeysError {
    /// The address is none.
    Address {
        /// As given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another agent has this one address: without an id in a message, the address is how an agent is known.
    AddressTaken {
        /// The address.
        address: String,
        /// Who has it.
        id: AgentId,
    },
    /// The file was replaced again and again by somebody else while it was changed.
    Contended(PathBuf),
    /// The id is none.
    Id(String),
    /// Another line begins with this id, be it of a removed agent.
    IdTaken(AgentId),
    /// No agent has this id.
    IdUnknown(String),
    /// What should be imported is no line of client.keys in base64. Which one, counted from 1, and why.
    Import {
        /// Which.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The file can't be read or written.
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// The name is none.
    Name(String),
    /// Another agent has this name.
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: AgentId,
    },
    /// The greatest id in use is the greatest there can be.
    NoIdLeft,
    /// The operating system gives no random numbers.
    NoRandomness,
}

impl std::error::Error for KeysError {}

impl fmt::Display for KeysError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeysError::Address { text, problem } => {
                write!(formatter, "--ip {text:?}: {problem}")
            }
            KeysError::AddressTaken { address, id } => {
                write!(
                    formatter,
                    "the address {address} is taken by agent {id}: choose another, or a network"
                )
            }
            KeysError::Contended(path) => {
                write!(formatter, "{}: another program keeps replacing it: try again", path.display())
            }
            KeysError::Id(text) => {
                write!(
                    formatter,
                    "--id {text:?} is no id: use 1 to 8 digits that are not all 0, or leave it out"
                )
            }
            KeysError::IdTaken(id) => {
                write!(formatter, "the id {id} is taken: choose another, or leave --id out")
            }
            KeysError::IdUnknown(text) => {
                write!(formatter, "no agent has the id {text:?}: `ringmaster keys list` shows them")
            }
            KeysError::Import { number, problem } => write!(
                formatter,
                "key {number} is no agent's key ({problem}): take what `keys export` or manage_agents -e print"
            ),
            KeysError::Io { path, kind } => write!(formatter, "{}: {kind}", path.display()),
            KeysError::Name(name) => write!(
                formatter,
                "{name:?} is no agent name: use {} to {} letters, digits, '-', '_' or '.'",
                NAME_CHARACTERS.start(),
                NAME_CHARACTERS.end()
            ),
            KeysError::NameTaken { name, id } => {
                write!(formatter, "the name {name} is taken by agent {id}: choose another")
            }
            KeysError::NoIdLeft => {
                write!(formatter, "no id is left above the greatest in use: name a free one with --id")
            }
            KeysError::NoRandomness => {
                write!(formatter, "the operating system gives no random numbers (getrandom)")
            }
        }
    }
}
