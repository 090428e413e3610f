//! Control messages: texts that begin with `#!-`, and what they wrap.
//!
//! ```text
//! agent to manager   #!-agent startup [JSON]        #!-<uname>[ / <md5>]\n<labels><md5> merged.mg\n...   (keep-alive)
//!                    #!-agent shutdown              #!-req <counter> <payload>
//! manager to agent   #!-agent ack                   #!-execd <active response>       #!-syscheck restart
//!                    #!-force_reconnect             #!-req <counter> <target> <command>       #!-err <JSON>
//!                    #!-up file <md5> <name>\n      then raw chunks, then       #!-close file
//! unencrypted        #ping                          #pong
//!
//! between ringmaster and its own agent only:
//! agent to manager   #!-agent startup delivery 1 <session> <first>     #!-ringmaster next <number>
//! manager to agent   #!-ringmaster delivery <session>                  #!-ringmaster taken <number>
//! ```

use std::fmt;

mod delivery;
mod from_agent;
mod keep_alive;
mod merged;
mod to_agent;

pub use delivery::{DELIVERY_NUMBER_MAX, DeliveryOffer, delivery_next};
pub use from_agent::{FromAgent, startup, startup_with_delivery};
pub use keep_alive::{KeepAlive, Label, Labels, keep_alive, keep_alive_without_filler};
pub use merged::{Merged, MergedError, SharedFile};
pub use to_agent::{SharedName, ToAgent};

/// What every control message begins with. Source: ossec-hids 4.3.0 `headers/rc.h`, `CONTROL_HEADER`.
pub const CONTROL_PREFIX: &[u8] = b"#!-";

/// The probe that anyone may send, unencrypted. Source: wazuh v4.14.7 `remoted/secure.c`, `HandleSecureMessage`.
pub const PING: &[u8] = b"#ping";

/// The answer to [`PING`], unencrypted, on the same transport.
pub const PONG: &[u8] = b"#pong";

/// Whether a text is a control message.
pub fn is_control(text: &[u8]) -> bool {
    text.starts_with(CONTROL_PREFIX)
}

/// A control message that says what it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// A word on acknowledged delivery without the number, or the session, that belongs to it.
    Delivery,
    /// A file is announced with a digest that is none.
    Digest,
    /// A file is announced with a name that would leave its folder, or is none.
    FileName,
    /// A keep-alive without newline.
    NoNewline,
    /// A request without counter.
    RequestCounter,
}

impl fmt::Display for ControlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ControlError::Delivery => "a word on acknowledged delivery has no number that an event can have",
            ControlError::Digest => "a shared file is announced without an md5 of 32 hexadecimal digits",
            ControlError::FileName => "a shared file's name is empty, too long, or could leave its folder",
            ControlError::NoNewline => {
                "the control message is unknown, and no keep-alive since it has no newline"
            }
            ControlError::RequestCounter => "the request or its answer has no counter",
        })
    }
}

impl std::error::Error for ControlError {}
