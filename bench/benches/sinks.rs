//! `daemon/hand-over/<sink>/<bytes>`: events, formatted already, out of the outbox and into their reader's hands;
//! `<sink>-numbered`: those of agents whose delivery is acknowledged, which are noted with it.
//!
//! The time is the processor time of the thread that hands over. The queue socket's reader is on the other core; how many
//! datagrams it lets wait (`net.unix.max_dgram_qlen`) decides how often the writer has to wait for it.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

mod bed;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bed::{Bed, Sink, bed};
use bench::{MESSAGES_IN_ROTATION, bench_with, cores_apart, fleet_size, fleet_table, log_line, thread_time};
use codec::{Event, Method};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daemon::HandPumpedSinks;
use daemon::delivery::Delivery;
use manager::{Agent, AgentTable, Published, SinkSet, Ticket, Transport};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// Events between two hand-overs: what a turn of a shard brings under load.
const TURN_EVENTS: usize = 64;
/// What ends a reader.
const END: &[u8] = b"end";

criterion_group!(name = benches; config = bench::criterion(); targets = hand_over);
criterion_main!(benches);

fn hand_over(criterion: &mut Criterion) {
    let sinks = [Sink::Queue, Sink::Archive];
    for (sink, numbered) in sinks.into_iter().flat_map(|sink| [(sink, false), (sink, true)]) {
        let suffix = if numbered { "-numbered" } else { "" };
        let mut group = criterion.benchmark_group(format!("daemon/hand-over/{}{suffix}", sink.name()));
        group.throughput(Throughput::Elements(TURN_EVENTS as u64));
        for text_bytes in [200, 600] {
            let make = || Outgoing::new(sink, text_bytes, numbered);
            bench_with(&mut group, text_bytes.to_string(), make, |bencher, outgoing| {
                bencher.iter_custom(|turns| (0..turns).map(|_| outgoing.timed_turn()).sum());
                outgoing.bed.empty_archive();
            });
        }
        group.finish();
    }
}

struct Outgoing {
    sinks: HandPumpedSinks,
    sink: Sink,
    bed: Bed,
    table: Arc<AgentTable>,
    lines: Vec<Vec<u8>>,
    next: usize,
    /// The sinks, and the cell of each agent, if events are numbered; the number of the next.
    numbering: Option<(SinkSet, Vec<u32>)>,
    number: u64,
    reader: Option<JoinHandle<()>>,
}

impl Outgoing {
    fn new(sink: Sink, text_bytes: usize, numbered: bool) -> Outgoing {
        let table = fleet_table(fleet_size(1_000), Method::AesOssec);
        let (bed, spec) = bed(&table, sink);
        let reader = (sink == Sink::Queue).then(|| reader(&spec.settings.queue_path()));
        if let Some((measured, _)) = cores_apart() {
            uring::sockets::pin_thread(measured).expect("the core is allowed");
        }
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let lines = (0..MESSAGES_IN_ROTATION).map(|number| log_line(&mut random, number, text_bytes));
        let lines = lines.collect();
        let delivery = numbered.then(|| {
            let delivery = Delivery::open(bed.folder.path(), &spec.settings, |_| true);
            delivery.expect("a temporary folder holds a ledger").expect("there is a sink")
        });
        let sinks = HandPumpedSinks::new(&spec.settings, delivery.as_ref());
        let numbering = delivery.map(|delivery| {
            let deliveries = delivery.deliveries();
            let ledger = deliveries.ledger();
            let cell = |agent: &Agent| ledger.open(agent.id(), 1, 0).expect("the ledger has room");
            (ledger.sinks(), table.agents().iter().map(cell).collect())
        });
        Outgoing { sinks, sink, bed, table, lines, next: 0, numbering, number: 0, reader }
    }

    fn timed_turn(&mut self) -> Duration {
        for line in &self.lines[self.next..self.next + TURN_EVENTS] {
            let event = Event::parse(line).expect("the rotation's lines are events");
            let index = self.next % self.table.agents().len();
            let agent = self.table.agent(index as u32);
            self.number += 1;
            let number = self.number;
            let ticket = self.numbering.as_ref().map(|(wanted, cells)| Ticket {
                cell: cells[index],
                number,
                wanted: *wanted,
            });
            let from = ([127, 0, 0, 1], 40_000).into();
            self.sinks.take(&Published { agent, event, from, transport: Transport::Udp, ticket });
        }
        self.next = (self.next + TURN_EVENTS) % self.lines.len();
        let start = thread_time();
        loop {
            match self.sinks.hand_over() {
                Some(pause) if self.sink == Sink::Queue => std::thread::sleep(pause),
                // An archive waits for a full block.
                Some(_) | None => break,
            }
        }
        thread_time() - start
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let ending = UnixDatagram::unbound().expect("a socket can be made");
        ending.send_to(END, self.bed.folder.path().join("queue/ossec/queue")).expect("the reader is there");
        reader.join().expect("the reader does not panic");
    }
}

/// Reads the queue socket as analysisd does, one datagram a call.
fn reader(path: &Path) -> JoinHandle<()> {
    let socket = UnixDatagram::bind(path).expect("the folder is there");
    std::thread::spawn(move || {
        if let Some((_, feeding)) = cores_apart() {
            uring::sockets::pin_thread(feeding).expect("the core is allowed");
        }
        let mut buffer = [0; 65_536];
        while let Ok(length) = socket.recv(&mut buffer) {
            if &buffer[..length] == END {
                return;
            }
        }
    })
}
