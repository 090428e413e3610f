//! Bytes to types and back: the secure message, its ciphers, frames, keys, control messages, events. No I/O, no clock.
//!
//! What a reader comes for:
//! * [`Opener`] opens a batch of received messages, [`Sealer`] makes one to send;
//! * [`classify`] tells from the first bytes of a message who sent it, [`FrameCutter`] cuts a TCP stream into messages;
//! * [`KeyFile`] reads client.keys, [`CipherKey`] is what an entry of it becomes;
//! * [`FromAgent`] and [`ToAgent`] are the control messages, [`Event`] is everything else that an agent says;
//! * [`SyslogCutter`] cuts the streams of devices that have no agent, [`ProxyCutter`] takes a load balancer's header off;
//! * [`markup`] reads the near-XML of ossec.conf, for whoever has a section in it.
//!
//! Everything that a peer can choose is shown through [`Escaped`], so that it can never forge a line of a log.

mod address;
mod archive;
mod cipher;
mod control;
mod digest;
mod envelope;
mod event;
pub mod fast;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod id;
mod keys;
pub mod limits;
pub mod markup;
mod message;
mod open;
mod proxy;
mod seal;
mod syslog;
mod syslog_archive;
mod text;

pub use address::{AddressError, AddressRule};
pub use archive::{LocalTime, NotArchived, archive_json, archive_line};
pub use cipher::{Cipher, CipherKey, Method};
pub use control::{
    CONTROL_PREFIX, ControlError, DELIVERY_NUMBER_MAX, DeliveryOffer, FromAgent, KeepAlive, Label, Labels,
    Merged, MergedError, PING, PONG, SharedFile, SharedName, ToAgent, delivery_next, is_control, keep_alive,
    keep_alive_without_filler, startup, startup_with_delivery,
};
pub use digest::HexDigest;
pub use envelope::{Wire, WireError, classify};
pub use event::{Event, EventError, Origin, Product, queue_datagram};
pub use frame::{FRAME_HEADER_BYTES, FrameAt, FrameCutter, FrameError, frame};
pub use id::{AgentId, AgentIdError};
pub use keys::{KeyEntry, KeyFile, KeyProblem, KeyProblemKind, RemovedKey};
pub use message::{Counter, CounterError, Envelope};
pub use open::{OpenError, OpenSettings, Opened, Opener, Sealed};
pub use proxy::{ProxyCutter, ProxyError, ProxyHeader, ProxySource, proxy_header};
pub use seal::{SealError, Sealer};
pub use syslog::{SyslogCutter, syslog_datagram, syslog_line, syslog_line_bytes_max};
pub use syslog_archive::{syslog_archive_json, syslog_archive_line};
pub use text::Escaped;
