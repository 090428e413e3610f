//! `codec/open/<variant>/<bytes>`: a batch of received messages becomes texts: decrypt, inflate, compare digests.
//!
//! The next messages of a rotation each time, of agents in random order. Beside ours, what the C managers do.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;

use bench::c_equivalent::{OssecReader, WazuhReader};
use bench::{Batches, Message, bench_with, fleet_size, label, rotation, shared_keys};
use codec::limits::TEXT_BYTES_MAX;
use codec::{CipherKey, Method, OpenSettings, Opener};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// What a shard opens together under load.
const BATCH: usize = 64;
const SEED: u64 = 1;
const METHODS: [Method; 3] = [Method::Blowfish, Method::AesOssec, Method::AesWazuh];

criterion_group!(name = benches; config = bench::criterion(); targets = fleets, batches, c_equivalents);
criterion_main!(benches);

/// `<method>-<agents>-agents/<bytes>`, in batches of 64.
fn fleets(criterion: &mut Criterion) {
    for method in METHODS {
        for agents in [1, 1_000, 20_000, 100_000] {
            open(criterion, &format!("{}-{agents}-agents", label(method)), method, agents, 200, BATCH);
        }
        for agents in [1, 20_000] {
            open(criterion, &format!("{}-{agents}-agents", label(method)), method, agents, 600, BATCH);
        }
        let variant = format!("{}-20000-agents", label(method));
        open(criterion, &variant, method, 20_000, TEXT_BYTES_MAX, BATCH);
    }
}

/// `<method>-20000-agents-batch-<messages>/200`.
fn batches(criterion: &mut Criterion) {
    for method in [Method::Blowfish, Method::AesOssec] {
        for batch in [1, 4, 16, 64, 256] {
            let variant = format!("{}-20000-agents-batch-{batch}", label(method));
            open(criterion, &variant, method, 20_000, 200, batch);
        }
    }
}

/// `c-equivalent-<product>-<method>-<agents>-agents/<bytes>`: one message at a time, since they know no batch.
fn c_equivalents(criterion: &mut Criterion) {
    for method in [Method::Blowfish, Method::AesOssec] {
        for (agents, text_bytes) in [(1, 200), (20_000, 200), (20_000, 600)] {
            let variant = format!("c-equivalent-ossec-{}-{agents}-agents", label(method));
            let mut reader = OssecReader::default();
            let open = move |key: &CipherKey, message: &[u8]| reader.open(key, method, message).is_some();
            c_equivalent(criterion, &variant, method, agents, text_bytes, open);
        }
    }
    for method in [Method::Blowfish, Method::AesWazuh] {
        for (agents, text_bytes) in [(1, 200), (20_000, 200)] {
            let variant = format!("c-equivalent-wazuh-{}-{agents}-agents", label(method));
            let mut reader = WazuhReader::default();
            let open = move |key: &CipherKey, message: &[u8]| reader.open(key, method, message).is_some();
            c_equivalent(criterion, &variant, method, agents, text_bytes, open);
        }
    }
}

fn open(
    criterion: &mut Criterion,
    variant: &str,
    method: Method,
    agents: usize,
    text_bytes: usize,
    batch: usize,
) {
    let mut group = criterion.benchmark_group(format!("codec/open/{variant}"));
    group.throughput(Throughput::Elements(batch as u64));
    let make = || (Fixture::new(agents, method, text_bytes), Opener::new(OpenSettings::default()));
    bench_with(&mut group, text_bytes.to_string(), make, |bencher, (fixture, opener)| {
        let mut batches = Batches::new(&fixture.keys, &fixture.messages, method, batch, fixture.next);
        bencher.iter(|| {
            let opened = opener.open(batches.next_batch());
            for index in 0..batch {
                black_box(opened.get(index).expect("the rotation's messages are sound").text);
            }
        });
        fixture.next = batches.position();
    });
    group.finish();
}

fn c_equivalent(
    criterion: &mut Criterion,
    variant: &str,
    method: Method,
    agents: usize,
    text_bytes: usize,
    mut open: impl FnMut(&CipherKey, &[u8]) -> bool,
) {
    let mut group = criterion.benchmark_group(format!("codec/open/{variant}"));
    group.throughput(Throughput::Elements(1));
    let make = || Fixture::new(agents, method, text_bytes);
    bench_with(&mut group, text_bytes.to_string(), make, |bencher, fixture| {
        let Fixture { keys, messages, next } = fixture;
        bencher.iter(|| {
            let message = &messages[*next];
            *next = if *next + 1 == messages.len() { 0 } else { *next + 1 };
            assert!(open(&keys[message.agent], &message.bytes), "the rotation's messages are sound");
        });
    });
    group.finish();
}

struct Fixture {
    keys: std::sync::Arc<Vec<CipherKey>>,
    messages: Vec<Message>,
    /// Where the next sample goes on in the rotation.
    next: usize,
}

impl Fixture {
    fn new(agents: usize, method: Method, text_bytes: usize) -> Fixture {
        let keys = shared_keys(fleet_size(agents), method);
        let messages = rotation(&keys, method, text_bytes, SEED);
        Fixture { keys, messages, next: 0 }
    }
}
