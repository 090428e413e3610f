//! The codec: opening a batch, sealing, cutting frames. Names are `crate/operation/variant/size`.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use bench::{Message, fleet_keys, log_line, rotation, seal_one};
use codec::{CipherKey, FrameCutter, Method, OpenSettings, Opener, Sealed, Sealer, frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::hint::black_box;

const BATCH: usize = 64;
const SEED: u64 = 1;

criterion_group!(benches, open, seal, cut_frames);
criterion_main!(benches);

/// `codec/open/<method>-<agents>-agents/<bytes>`: one batch of 64, the next 64 messages of the rotation each time.
fn open(criterion: &mut Criterion) {
    for agents in [1, 20_000] {
        let keys = fleet_keys(agents);
        for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
            for text_bytes in [200, 600] {
                let messages = rotation(&keys, method, text_bytes, SEED);
                let mut group = criterion.benchmark_group(format!("codec/open/{method:?}-{agents}-agents"));
                group.throughput(Throughput::Elements(BATCH as u64));
                group.bench_function(text_bytes.to_string(), |bencher| {
                    let mut opener = Opener::new(OpenSettings::default());
                    let mut batches = Batches::new(&keys, &messages, method);
                    bencher.iter(|| {
                        let opened = opener.open(batches.next_batch());
                        for index in 0..BATCH {
                            black_box(opened.get(index).expect("the rotation's messages are sound").text);
                        }
                    });
                });
                group.finish();
            }
        }
    }
}

/// `codec/seal/<method>/<bytes>`: what an agent does for each event, and a manager for each answer.
fn seal(criterion: &mut Criterion) {
    let keys = fleet_keys(1);
    for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
        let mut group = criterion.benchmark_group(format!("codec/seal/{method:?}"));
        group.throughput(Throughput::Elements(1));
        for text_bytes in [200, 600] {
            let mut random = Pcg64Mcg::seed_from_u64(SEED);
            let lines: Vec<_> = (0..bench::MESSAGES_IN_ROTATION)
                .map(|sequence| log_line(&mut random, sequence, text_bytes))
                .collect();
            group.bench_function(text_bytes.to_string(), |bencher| {
                let mut sealer = Sealer::new();
                let mut out = Vec::new();
                let mut lines = lines.iter().cycle();
                bencher.iter(|| {
                    out.clear();
                    let line = lines.next().expect("a cycle has no end");
                    seal_one(&mut sealer, &keys[0], method, line, &mut out);
                    black_box(&out);
                });
            });
        }
        group.finish();
    }
}

/// `codec/cut/<frames>-a-buffer/200`: frames cut in place from one received buffer.
fn cut_frames(criterion: &mut Criterion) {
    let keys = fleet_keys(1);
    let messages = rotation(&keys, Method::AesWazuh, 200, SEED);
    for frames_a_buffer in [1, 4, 16, 64] {
        let mut received = Vec::new();
        for message in &messages[..frames_a_buffer] {
            frame(&message.bytes, &mut received);
        }
        let mut group = criterion.benchmark_group(format!("codec/cut/{frames_a_buffer}-a-buffer"));
        group.throughput(Throughput::Elements(frames_a_buffer as u64));
        group.bench_function("200", |bencher| {
            let mut cutter = FrameCutter::new(codec::limits::MESSAGE_BYTES_MAX);
            let mut frames = Vec::new();
            bencher.iter(|| {
                frames.clear();
                cutter.cut(black_box(&received), &mut frames).expect("the buffer holds whole frames");
                assert_eq!(frames.len(), frames_a_buffer);
            });
        });
        group.finish();
    }
}

/// The rotation, handed out in batches without an allocation.
struct Batches<'a> {
    sealed: Vec<Sealed<'a>>,
    next: usize,
}

impl<'a> Batches<'a> {
    fn new(keys: &'a [CipherKey], messages: &'a [Message], method: Method) -> Batches<'a> {
        let sealed = messages
            .iter()
            .map(|message| Sealed {
                key: &keys[message.agent],
                bytes: &message.bytes,
                method_hint: Some(method),
            })
            .collect();
        Batches { sealed, next: 0 }
    }

    fn next_batch(&mut self) -> &[Sealed<'a>] {
        if self.next + BATCH > self.sealed.len() {
            self.next = 0;
        }
        let batch = &self.sealed[self.next..self.next + BATCH];
        self.next += BATCH;
        batch
    }
}
