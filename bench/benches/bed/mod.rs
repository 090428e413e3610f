//! A shard of the bench's own thread, with a home and sockets of its own on loopback.
#![allow(dead_code, reason = "each bench uses its own part of it")]

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use codec::Counter;
use daemon::clock::Clock;
use daemon::listen::Listener;
use daemon::mail::{MailSender, mailboxes};
use daemon::metrics::ShardMetrics;
use daemon::settings::{Replay, Settings};
use daemon::shard::{ShardSpec, notices};
use manager::{AgentTable, SenderCounter, ShardId};
use uring::sockets::{TcpSettings, UdpSettings, tcp_listener, udp_socket};

/// Where a shard's events go.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sink {
    Archive,
    Queue,
}

/// What a shard needs beside itself, and what it tells.
pub(crate) struct Bed {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) metrics: Arc<ShardMetrics>,
    _mailer: MailSender,
}

impl Sink {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sink::Archive => "archive",
            Sink::Queue => "queue-socket",
        }
    }
}

/// A bed, and what the shard in it is made of.
pub(crate) fn bed(table: &Arc<AgentTable>, sink: Sink) -> (Bed, ShardSpec) {
    uring::sockets::set_nofile_to_hard();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let settings = Arc::new(settings(folder.path(), sink));
    let (mailer, mail) = mailboxes(1).expect("a mail box can be made").remove(0);
    let metrics = Arc::<ShardMetrics>::default();
    let spec = ShardSpec {
        id: ShardId(0),
        core: None,
        listeners: vec![listener()],
        settings,
        clock: Clock::start(),
        table: Arc::new(ArcSwap::from(Arc::clone(table))),
        senders: Arc::new(SenderCounter::new(Counter::ZERO)),
        delivery: None,
        metrics: Arc::clone(&metrics),
        mail,
        mailers: vec![mailer.clone()],
        // Nobody hears them: a bench sends events.
        notices: notices().expect("a descriptor is left").0,
    };
    (Bed { folder, metrics, _mailer: mailer }, spec)
}

impl Bed {
    /// Events that wait in the sinks.
    pub(crate) fn held(&self) -> u64 {
        self.metrics.sinks.iter().map(|sink| sink.held.read()).sum()
    }

    /// Empties the archive: what is measured needs no disk full of it.
    pub(crate) fn empty_archive(&self) {
        let path = archives(self.folder.path()).join("archives.log");
        if let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) {
            file.set_len(0).expect("the archive is a file");
        }
    }
}

fn settings(home: &Path, sink: Sink) -> Settings {
    let mut settings = Settings::with_home(home);
    for folder in [archives(home), home.join("queue/ossec")] {
        std::fs::create_dir_all(folder).expect("the home can be written");
    }
    settings.sink.queue.enabled = sink == Sink::Queue;
    settings.sink.archives.text = sink == Sink::Archive;
    // The rotation repeats its counters. The check of one has a bench of its own.
    settings.agents.replay = Replay::Off;
    settings.agents.unauthenticated_per_address_max = settings.agents.unauthenticated_max;
    settings.shards.connections_max = 16_384;
    settings
}

fn archives(home: &Path) -> std::path::PathBuf {
    home.join("logs/archives")
}

fn listener() -> Listener {
    // A port that is free for both: UDP first, then TCP on the same one.
    for _ in 0..100 {
        let loopback = ([127, 0, 0, 1], 0).into();
        let udp = UdpSettings { address: loopback, shared: false, receive_buffer_bytes: 16 << 20 };
        let udp = udp_socket(&udp).expect("loopback has a free port");
        let address = udp.local_addr().expect("the socket is bound");
        let tcp = TcpSettings { address, shared: false, backlog: 4_096, receive_buffer_bytes: None };
        if let Ok(tcp) = tcp_listener(&tcp) {
            return Listener::secure(address, udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP")
}
