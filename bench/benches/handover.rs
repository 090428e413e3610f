//! The hand-over: an event into the form of each sink. Names are `crate/operation/variant/size`.
//!
//! 20,000 agents in random order unless the variant says otherwise: an event's name and address are then not in the
//! cache, as they are not in a large fleet. The lines are distinct, 2,048 at the least.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;

use bench::{MESSAGES_IN_ROTATION, bench_with, fleet_entries, fleet_size, log_line};
use codec::{Event, KeyEntry, LocalTime, Origin, Product, archive_json, archive_line, queue_datagram};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

criterion_group!(name = benches; config = bench::criterion(); targets = parse, queue, archive, json);
criterion_main!(benches);

const AGENTS: usize = 20_000;
const SEED: u64 = 1;

/// Events of one iteration: what a turn takes under load.
const BATCH: usize = 64;

/// A sink's block is closed at this size.
const BLOCK_BYTES: usize = 64 * 1024;

const TIME: LocalTime = LocalTime {
    year: 2026,
    month: 11,
    day: 22,
    hour: 4,
    minute: 41,
    second: 1,
    millisecond: 7,
    utc_offset_minutes: 60,
};

/// `codec/event/parse/<bytes>`: a text is an event, and where it ends.
fn parse(criterion: &mut Criterion) {
    for text_bytes in [200, 600] {
        let name = format!("codec/event/parse/{text_bytes}");
        bench_events(criterion, &name, 1, text_bytes, |text, _, out| {
            let event = black_box(Event::parse(text)).expect("the rotation's lines are events");
            out.push(event.queue);
        });
    }
}

/// `codec/format/queue.../<bytes>`: the datagram for analysisd.
fn queue(criterion: &mut Criterion) {
    let write = |product| {
        move |text: &[u8], entry: &KeyEntry, out: &mut Vec<u8>| {
            queue_datagram(product, &event(text), &origin(entry), out);
        }
    };
    bench_events(criterion, "codec/format/queue/200", AGENTS, 200, write(Product::Ossec));
    bench_events(criterion, "codec/format/queue/600", AGENTS, 600, write(Product::Ossec));
    bench_events(criterion, "codec/format/queue-1-agent/200", 1, 200, write(Product::Ossec));
    bench_events(criterion, "codec/format/queue-wazuh/200", AGENTS, 200, write(Product::Wazuh));
    bench_events(criterion, "codec/format/queue-wazuh-1-agent/200", 1, 200, write(Product::Wazuh));
    // As the C routines do it: the location formatted for each message, then all of it formatted into a second buffer.
    let (mut location, mut datagram) = (String::new(), String::new());
    bench_events(criterion, "codec/format/c-equivalent-queue/200", AGENTS, 200, |text, entry, out| {
        let event = event(text);
        location.clear();
        let _ = write!(location, "({}) {}", entry.name, entry.address.location_text());
        datagram.clear();
        let rest = str::from_utf8(event.rest).expect("the rotation's lines are ASCII");
        let _ = write!(datagram, "{}:{location}->{rest}\0", char::from(event.queue));
        out.extend_from_slice(datagram.as_bytes());
    });
}

/// `codec/format/archive.../<bytes>`: the line of archives.log.
fn archive(criterion: &mut Criterion) {
    let write = |text: &[u8], entry: &KeyEntry, out: &mut Vec<u8>| {
        archive_line(black_box(&TIME), &event(text), &origin(entry), out)
            .expect("the rotation's lines are archived");
    };
    bench_events(criterion, "codec/format/archive/200", AGENTS, 200, write);
    bench_events(criterion, "codec/format/archive/600", AGENTS, 600, write);
    bench_events(criterion, "codec/format/archive-1-agent/200", 1, 200, write);
    // The C routine's way: one format call for the whole line, and a loop over the line's characters before it.
    let mut clean = Vec::new();
    bench_events(criterion, "codec/format/c-equivalent-archive/200", AGENTS, 200, |text, entry, out| {
        let (location, log) = event(text).location_and_log().expect("the rotation's lines have a location");
        clean.clear();
        clean.extend(log.iter().filter(|byte| !byte.is_ascii_control()));
        let LocalTime { year, day, hour, minute, second, .. } = black_box(TIME);
        let address = entry.address.location_text();
        let (location, log) = (str::from_utf8(location), str::from_utf8(&clean));
        let (location, log) =
            location.and_then(|location| Ok((location, log?))).expect("the lines are ASCII");
        let month = black_box("Nov");
        let _ = writeln!(
            out,
            "{year} {month} {day:02} {hour:02}:{minute:02}:{second:02} ({}) {address}->{location} {log}",
            entry.name
        );
    });
}

/// `codec/format/json.../<bytes>`: the line of archives.json.
fn json(criterion: &mut Criterion) {
    let write = |text: &[u8], entry: &KeyEntry, out: &mut Vec<u8>| {
        archive_json(black_box(&TIME), &event(text), &origin(entry), out)
            .expect("the rotation's lines are archived");
    };
    bench_events(criterion, "codec/format/json/200", AGENTS, 200, write);
    bench_events(criterion, "codec/format/json/600", AGENTS, 600, write);
    bench_events(criterion, "codec/format/json-1-agent/200", 1, 200, write);
}

/// Benches `write` over batches of events; `name` ends with the size.
fn bench_events(
    criterion: &mut Criterion,
    name: &str,
    agents: usize,
    text_bytes: usize,
    mut write: impl FnMut(&[u8], &KeyEntry, &mut Vec<u8>),
) {
    let (name, size) = name.rsplit_once('/').expect("a bench's name ends with its size");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH as u64));
    let make = || {
        let fleet = fleet_entries(fleet_size(agents));
        let mut random = Pcg64Mcg::seed_from_u64(SEED);
        let texts: Vec<_> =
            (0..MESSAGES_IN_ROTATION).map(|sequence| log_line(&mut random, sequence, text_bytes)).collect();
        let messages = MESSAGES_IN_ROTATION.max(agents);
        let order: Vec<_> = (0..messages).map(|_| random.random_range(0..fleet.len())).collect();
        (fleet, texts, order)
    };
    bench_with(&mut group, size, make, |bencher, (fleet, texts, order)| {
        let mut out = Vec::with_capacity(BLOCK_BYTES + 4_096);
        let mut next = 0;
        bencher.iter(|| {
            for _ in 0..BATCH {
                let agent = order[next];
                write(&texts[next % MESSAGES_IN_ROTATION], &fleet[agent], &mut out);
                next = if next + 1 == order.len() { 0 } else { next + 1 };
            }
            if black_box(&out).len() >= BLOCK_BYTES {
                out.clear();
            }
        });
    });
    group.finish();
}

fn event(text: &[u8]) -> Event<'_> {
    Event { queue: text[0], rest: &text[2..] }
}

fn origin(entry: &KeyEntry) -> Origin<'_> {
    Origin { id: entry.id, name: &entry.name, address: entry.address.location_text() }
}
