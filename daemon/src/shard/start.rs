//! From what a shard is made of to a shard that listens.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use codec::limits;
use manager::{Manager, ManagerParts, ReplayPolicy, Time};
use uring::sockets;

use super::accept::{accepts_max, connections_max};
use super::batch::Batch;
use super::connections::Connections;
use super::devices::{Devices, Limits};
use super::drain_sinks::SinkPoll;
use super::holds::Holds;
use super::lines::Lines;
use super::patience::Patience;
use super::pressure::Pressure;
use super::receipts::Looks;
use super::report::Tally;
use super::rings::ShardRing;
use super::send::Outgoing;
use super::{Due, ListenerState, Shard, ShardError, ShardSpec};
use crate::listen::Listener;
use crate::settings::{self, CryptoAccept, ListenerKind, Product, Replay, Settings};
use crate::sink::Sinks;

/// Slots of a ring's table, if the limit of descriptors allows them.
pub(crate) const TABLE_SLOTS_MAX: u32 = 32_768;

impl Shard {
    /// Makes a shard on the thread that will run it, and arms its receives.
    pub(super) fn start(spec: ShardSpec) -> Result<Shard, ShardError> {
        let ShardSpec {
            id,
            core,
            listeners,
            settings,
            clock,
            table,
            senders,
            delivery,
            metrics,
            mail,
            mailers,
            notices,
        } = spec;
        if let Some(core) = core {
            sockets::pin_thread(core).map_err(|errno| ShardError::Core { core, errno })?;
        }
        let mut seed = [0; 32];
        getrandom(&mut seed)?;
        let manager = Manager::new(ManagerParts {
            settings: manager_settings(&settings),
            shard: id,
            table: table.load_full(),
            senders,
            seed,
        });
        // A shard that may hold few connections gets a small table.
        let wanted = connections_max(&settings).saturating_add(accepts_max(listeners.len()));
        let table_slots = sockets::nofile().min(TABLE_SLOTS_MAX).min(wanted);
        let rings = vec![ShardRing::primary(&settings, table_slots).map_err(ShardError::Ring)?];
        let noting = delivery.as_ref().map(|delivery| delivery.of_shard(id)).transpose();
        let noting = noting.map_err(ShardError::Delivery)?;
        let sinks = Sinks::new(&settings, noting).map_err(ShardError::Ring)?;
        let mut shard = Shard {
            clock,
            table,
            metrics,
            mail,
            mailers,
            notices,
            unsent: Vec::new(),
            rings,
            table_slots,
            listeners: listeners.into_iter().map(listener_state).collect(),
            connections: Connections::default(),
            devices: Devices::new(Limits::of(&settings)),
            lines: Lines::new(codec::syslog_line_bytes_max(product(&settings))),
            holds: Holds::default(),
            manager,
            delivery,
            sink_polls: (0..sinks.count()).map(|_| SinkPoll::default()).collect(),
            sinks,
            pressure: Pressure::default(),
            outgoing: Outgoing::default(),
            outcomes: Vec::new(),
            looks: Looks::default(),
            patience: Patience::new(Duration::from_micros(settings.shards.gather_microseconds.into())),
            batch: Batch::default(),
            incoming: Vec::new(),
            due: Due { tick: Time::ZERO, sinks: None, again: true, mail: true, accepts: true },
            tally: Tally::default(),
            stopping: None,
            settings,
        };
        shard.agree(&Arc::clone(&shard.settings));
        shard.arm_mail();
        for listener in 0..shard.listeners.len() {
            shard.arm_datagrams(listener);
        }
        shard.arm_accepts()?;
        Ok(shard)
    }
}

fn listener_state(listener: Listener) -> ListenerState {
    let Listener { settings, address, udp, tcp } = listener;
    let mut state = ListenerState {
        is_ipv4: address.is_ipv4(),
        is_plain: false,
        crypto_accept: manager::CryptoAccept::Both,
        settings,
        udp: udp.map(|udp| Arc::new(OwnedFd::from(udp))),
        tcp: tcp.map(|tcp| Arc::new(OwnedFd::from(tcp))),
        drops_counted: 0,
        receiving: false,
        starved: false,
    };
    state.settle();
    state
}

impl ListenerState {
    /// After its settings changed.
    pub(super) fn settle(&mut self) {
        let settings = &self.settings;
        let ruled = [&settings.allowed, &settings.denied, &settings.proxy_protocol_from];
        self.is_plain = self.is_secure() && ruled.iter().all(|rules| rules.is_empty());
        self.crypto_accept = crypto_accept(settings.crypto_accept);
    }

    /// Takes the rules that its listener has among these; which listeners there are does not change.
    pub(super) fn take_settings(&mut self, listeners: &[settings::Listener]) {
        let same = |listener: &&settings::Listener| {
            let wanted = &self.settings;
            (listener.address, listener.kind, listener.transports)
                == (wanted.address, wanted.kind, wanted.transports)
        };
        if let Some(listener) = listeners.iter().find(same) {
            self.settings = listener.clone();
            self.settle();
        }
    }

    /// Whether agents speak there.
    pub(super) fn is_secure(&self) -> bool {
        self.settings.kind == ListenerKind::Secure
    }
}

/// Whose analysisd gets the lines, and so how long they may be.
fn product(settings: &Settings) -> codec::Product {
    match settings.sink.queue.product {
        settings::Product::Ossec => codec::Product::Ossec,
        settings::Product::Wazuh => codec::Product::Wazuh,
    }
}

fn crypto_accept(setting: CryptoAccept) -> manager::CryptoAccept {
    match setting {
        CryptoAccept::Aes => manager::CryptoAccept::Aes,
        CryptoAccept::Blowfish => manager::CryptoAccept::Blowfish,
        CryptoAccept::Both => manager::CryptoAccept::Both,
    }
}

/// What of the settings is the manager's.
pub(super) fn manager_settings(settings: &Settings) -> manager::Settings {
    let agents = &settings.agents;
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    manager::Settings {
        // Each listener's own takes its place.
        crypto_accept: crypto_accept(agents.crypto_accept),
        replay: match agents.replay {
            Replay::Off => ReplayPolicy::Off,
            Replay::Strict => ReplayPolicy::Strict,
            Replay::Window => ReplayPolicy::Window,
        },
        message_bytes_max: (agents.message_bytes_max as usize).min(limits::MESSAGE_BYTES_MAX),
        old_format: agents.old_format,
        unauthenticated_deadline: seconds(agents.authentication_deadline_seconds),
        unauthenticated_per_address_max: agents.unauthenticated_per_address_max,
        unauthenticated_max: agents.unauthenticated_max,
        connections_max: settings.shards.connections_max,
        silent_deadline: seconds(agents.silence_deadline_seconds),
        paused_acknowledgement_interval: seconds(agents.paused_acknowledgement_seconds),
        announces_stops: match settings.sink.queue.product {
            Product::Ossec => false,
            Product::Wazuh => true,
        },
        events_per_second_max: agents.events_per_second_max,
    }
}

/// Fills `bytes` with random numbers of the operating system's.
fn getrandom(bytes: &mut [u8; 32]) -> Result<(), ShardError> {
    // Up to 256 bytes come whole, once the kernel has gathered enough at boot.
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(32) => Ok(()),
        Ok(_) => Err(ShardError::Random(uring::Errno::AGAIN)),
        Err(errno) => Err(ShardError::Random(errno)),
    }
}
