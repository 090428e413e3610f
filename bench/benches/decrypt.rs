//! The decrypt and digest stages of opening: our kernels beside the crates, on one rotation, in one run.
//!
//! Names are `codec/decrypt/<kernel>-<agents>-agents/<bytes of the text>`, `codec/digest/<kernel>/<bytes of the text>` and
//! `codec/schedule/<kernel>/47`. What the bytes say costs nothing here, so they are noise, as long as a real agent's.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use aes::cipher::array::Array;
use aes::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit, KeyIvInit};
use bench::{MESSAGES_IN_ROTATION, fleet_keys, fleet_size, rotation};
use blowfish::Blowfish;
use codec::Method;
use codec::fast::blowfish::Schedule;
use codec::fast::md5::Digester;
use codec::limits::{BODY_BYTES_MIN, DIGEST_BYTES, TEXT_BYTES_MAX};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use md5::{Digest, Md5};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::hint::black_box;
use std::time::Duration;

const BATCH: usize = 64;
const SEED: u64 = 1;
const VECTOR: [u8; 8] = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];
const AES_VECTOR: [u8; 16] = *b"FEDCBA0987654321";
const KEY_BYTES: usize = 47;
const AES_KEY_BYTES: usize = 32;
/// The largest text, and the ciphertext of a text that can't be compressed, which the largest message is.
const LARGEST: (usize, usize) = (TEXT_BYTES_MAX, 65_520);

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = schedules, decrypt_blowfish, decrypt_aes, digests
}
criterion_main!(benches);

/// What the first message of an agent costs, and each one in the C managers.
fn schedules(criterion: &mut Criterion) {
    let keys = agent_keys(1_000);
    let mut next = keys.iter().cycle();
    let mut key = move || next.next().expect("a cycle has no end");
    for kernel in ["ours", "crate"] {
        let mut group = criterion.benchmark_group(format!("codec/schedule/{kernel}-blowfish"));
        group.throughput(Throughput::Elements(1));
        group.bench_function(KEY_BYTES.to_string(), |bencher| match kernel {
            "ours" => bencher.iter(|| Schedule::new(key())),
            _ => bencher.iter(|| <Blowfish>::new_from_slice(key()).expect("the key is of a fit length")),
        });
    }
}

fn decrypt_blowfish(criterion: &mut Criterion) {
    for agents in [1, 1_000, 20_000] {
        let fleet = fleet_size(agents);
        let keys = agent_keys(fleet);
        let messages = Messages::of_sizes(fleet, Method::Blowfish);
        let ours: Vec<_> = keys.iter().map(|key| Box::new(Schedule::new(key))).collect();
        for messages in &messages {
            messages.bench(criterion, &format!("ours-blowfish-{agents}-agents"), |batch, plain| {
                for message in batch {
                    ours[message.agent].decrypt_cbc(VECTOR, message.ciphertext, plain);
                    black_box(&plain);
                }
            });
        }
        drop(ours);
        let crates: Vec<Box<Blowfish>> = keys
            .iter()
            .map(|key| Box::new(Blowfish::new_from_slice(key).expect("the key is of a fit length")))
            .collect();
        for messages in &messages {
            messages.bench(criterion, &format!("crate-blowfish-{agents}-agents"), |batch, plain| {
                for message in batch {
                    plain.copy_from_slice(message.ciphertext);
                    let schedule: &Blowfish = &crates[message.agent];
                    cbc::Decryptor::inner_iv_init(schedule, &VECTOR.into())
                        .decrypt_blocks(Array::slice_as_chunks_mut(plain).0);
                    black_box(&plain);
                }
            });
        }
        for messages in messages.iter().filter(|_| agents == 1) {
            messages.bench(criterion, "c-equivalent-blowfish-1-agents", |batch, plain| {
                for message in batch {
                    plain.copy_from_slice(message.ciphertext);
                    cbc::Decryptor::<Blowfish>::new_from_slices(&keys[message.agent], &VECTOR)
                        .expect("the key is of a fit length")
                        .decrypt_blocks(Array::slice_as_chunks_mut(plain).0);
                    black_box(&plain);
                }
            });
        }
    }
}

/// AES with the key expanded for each message, which is what opening does; in place as the crate's users mostly do it.
fn decrypt_aes(criterion: &mut Criterion) {
    for agents in [1, 1_000, 20_000] {
        let fleet = fleet_size(agents);
        let keys = agent_keys(fleet);
        for messages in &Messages::of_sizes(fleet, Method::AesWazuh) {
            let decryptor = |agent: usize| {
                cbc::Decryptor::<aes::Aes256Dec>::new_from_slices(&keys[agent][..AES_KEY_BYTES], &AES_VECTOR)
                    .expect("the key has 32 bytes")
            };
            messages.bench(criterion, &format!("crate-aes-{agents}-agents"), |batch, plain| {
                for message in batch {
                    decryptor(message.agent)
                        .decrypt_blocks_b2b(
                            Array::slice_as_chunks(message.ciphertext).0,
                            Array::slice_as_chunks_mut(plain).0,
                        )
                        .expect("the two are of one length");
                    black_box(&plain);
                }
            });
            messages.bench(criterion, &format!("crate-aes-in-place-{agents}-agents"), |batch, plain| {
                for message in batch {
                    plain.copy_from_slice(message.ciphertext);
                    decryptor(message.agent).decrypt_blocks(Array::slice_as_chunks_mut(plain).0);
                    black_box(&plain);
                }
            });
        }
    }
}

/// Batches of 64 messages; last of lengths as mixed as a fleet's, which share their lanes' time less well.
fn digests(criterion: &mut Criterion) {
    let mut random = Pcg64Mcg::seed_from_u64(SEED);
    let mut noise = vec![0; 16 << 20];
    random.fill_bytes(&mut noise);
    for (name, lengths) in [
        ("200", 200..=200),
        ("600", 600..=600),
        ("100-to-600", 100..=600),
        ("largest", TEXT_BYTES_MAX..=TEXT_BYTES_MAX),
    ] {
        let mut rest = noise.as_slice();
        let messages: Vec<&[u8]> = (0..MESSAGES_IN_ROTATION)
            .map(|_| {
                let length = random.random_range(lengths.clone()) + BODY_BYTES_MIN - DIGEST_BYTES;
                rest = if rest.len() < length { &noise } else { rest };
                let (message, others) = rest.split_at(length);
                rest = others;
                message
            })
            .collect();
        for kernel in ["ours", "crate"] {
            let mut group = criterion.benchmark_group(format!("codec/digest/{kernel}-md5"));
            group.throughput(Throughput::Elements(BATCH as u64));
            let mut batches = messages.chunks_exact(BATCH).cycle();
            let mut batch = move || batches.next().expect("a cycle has no end");
            group.bench_function(name, |bencher| match kernel {
                "ours" => {
                    let mut digester = Digester::new();
                    bencher.iter(|| {
                        let batch = batch();
                        digester.digest(
                            BATCH,
                            |index| batch[index],
                            |_, digest| {
                                black_box(digest);
                            },
                        );
                    });
                }
                _ => bencher.iter(|| {
                    for message in batch() {
                        black_box(Md5::digest(message));
                    }
                }),
            });
        }
    }
}

fn agent_keys(agents: usize) -> Vec<[u8; KEY_BYTES]> {
    let mut random = Pcg64Mcg::seed_from_u64(SEED);
    (0..agents).map(|_| [(); KEY_BYTES].map(|()| b"0123456789abcdef"[random.random_range(0..16)])).collect()
}

/// A rotation of ciphertexts of one size, each of another agent, in random order.
struct Messages {
    text_bytes: usize,
    ciphertext_bytes: usize,
    agents: Vec<usize>,
    noise: Vec<u8>,
}

struct Message<'a> {
    agent: usize,
    ciphertext: &'a [u8],
}

impl Messages {
    fn of_sizes(agents: usize, method: Method) -> Vec<Messages> {
        let sealed_bytes = |text_bytes| {
            let message = &rotation(&fleet_keys(1), method, text_bytes, SEED)[0];
            (text_bytes, message.bytes.len() - method.token().len())
        };
        [sealed_bytes(200), sealed_bytes(600), LARGEST]
            .into_iter()
            .map(|(text_bytes, ciphertext_bytes)| Messages::new(agents, text_bytes, ciphertext_bytes))
            .collect()
    }

    fn new(agents: usize, text_bytes: usize, ciphertext_bytes: usize) -> Messages {
        let mut random = Pcg64Mcg::seed_from_u64(SEED);
        let count = MESSAGES_IN_ROTATION.max(agents);
        // Of the largest there is one more than once: 1.3 GB of noise would show nothing but its own cache misses.
        let mut noise = vec![0; (count * ciphertext_bytes).min(16 << 20)];
        random.fill_bytes(&mut noise);
        let agents = (0..count).map(|_| random.random_range(0..agents)).collect();
        Messages { text_bytes, ciphertext_bytes, agents, noise }
    }

    fn bench(
        &self,
        criterion: &mut Criterion,
        name: &str,
        mut decrypt: impl FnMut(&[Message<'_>], &mut [u8]),
    ) {
        let ciphertexts = self.noise.chunks_exact(self.ciphertext_bytes).cycle();
        let messages: Vec<_> = self
            .agents
            .iter()
            .zip(ciphertexts)
            .map(|(agent, ciphertext)| Message { agent: *agent, ciphertext })
            .collect();
        let mut group: BenchmarkGroup<'_, WallTime> =
            criterion.benchmark_group(format!("codec/decrypt/{name}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut plain = vec![0; self.ciphertext_bytes];
        let mut batches = messages.chunks_exact(BATCH).cycle();
        group.bench_function(self.text_bytes.to_string(), |bencher| {
            bencher.iter(|| decrypt(batches.next().expect("a cycle has no end"), &mut plain));
        });
    }
}
