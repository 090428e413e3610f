//! Inflating: our own kernel beside the libraries, on the streams of the rotation's messages.
//!
//! `codec/inflate/<variant>/<bytes of text>`: 64 messages, the next of the rotation each time. `ours` takes them one by one,
//! `ours-pair` two at a time, as the opener does. `largest` is what a message holds; ours declines it, and its figure is
//! that of zlib-rs after ours has looked at the stream: what the opener pays.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use bench::{MESSAGES_IN_ROTATION, bench_with, is_test, log_line};
use codec::HexDigest;
use codec::fast::inflate::{Inflater, Streams};
use codec::limits::TEXT_BYTES_MAX;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::cell::LazyCell;
use std::hint::black_box;

const BATCH: usize = 64;
const SEED: u64 = 1;
/// The largest texts are many blocks each: fewer fill the caches and the predictors as well.
const LARGEST_IN_ROTATION: usize = 128;

criterion_group!(name = benches; config = bench::criterion(); targets = inflate);
criterion_main!(benches);

fn inflate(criterion: &mut Criterion) {
    for (size, text_bytes, messages) in [
        ("200", 200, MESSAGES_IN_ROTATION),
        ("600", 600, MESSAGES_IN_ROTATION),
        ("largest", TEXT_BYTES_MAX, LARGEST_IN_ROTATION),
    ] {
        let messages = if is_test() { BATCH } else { messages };
        let streams = LazyCell::new(|| streams(text_bytes, messages));
        let mut text = vec![0; TEXT_BYTES_MAX + 1_024];
        let mut group = |variant: &str, inflate: &mut dyn FnMut(&[Vec<u8>])| {
            let mut group = criterion.benchmark_group(format!("codec/inflate/{variant}"));
            group.throughput(Throughput::Elements(BATCH as u64));
            bench_with(
                &mut group,
                size,
                || streams.chunks_exact(BATCH).cycle(),
                |bencher, batches| {
                    bencher.iter(|| inflate(batches.next().expect("a cycle has no end")));
                },
            );
            group.finish();
        };

        let mut zlib = Decompress::new(true);
        let mut inflater = Inflater::new();
        group("ours", &mut |batch| {
            for stream in batch {
                match inflater.inflate(stream) {
                    Some(inflated) => text[..inflated.len()].copy_from_slice(inflated),
                    None => zlib_rs(&mut zlib, stream, &mut text),
                }
                black_box(&mut text);
            }
        });
        group("ours-pair", &mut |batch| {
            inflater.inflate_batch(&mut Batch { streams: batch, zlib: &mut zlib, text: &mut text });
        });
        group("zlib-rs", &mut |batch| {
            for stream in batch {
                zlib_rs(&mut zlib, stream, &mut text);
                black_box(&mut text);
            }
        });
        let mut libdeflate = libdeflater::Decompressor::new();
        group("libdeflate", &mut |batch| {
            for stream in batch {
                libdeflate.zlib_decompress(stream, &mut text).expect("the stream is sound");
                black_box(&mut text);
            }
        });
    }
}

struct Batch<'a> {
    streams: &'a [Vec<u8>],
    zlib: &'a mut Decompress,
    text: &'a mut [u8],
}

impl Streams for Batch<'_> {
    fn count(&self) -> usize {
        self.streams.len()
    }

    fn stream(&self, index: usize) -> Option<&[u8]> {
        Some(&self.streams[index])
    }

    fn done(&mut self, index: usize, text: Option<&[u8]>) {
        match text {
            Some(inflated) => self.text[..inflated.len()].copy_from_slice(inflated),
            None => zlib_rs(self.zlib, &self.streams[index], self.text),
        }
        black_box(&mut self.text);
    }
}

fn zlib_rs(zlib: &mut Decompress, stream: &[u8], text: &mut [u8]) {
    zlib.reset(true);
    zlib.decompress(stream, text, FlushDecompress::Finish).expect("the stream is sound");
}

/// Bodies as agents seal them, each with its own digest: those are hardest to compress.
fn streams(text_bytes: usize, count: usize) -> Vec<Vec<u8>> {
    let mut random = Pcg64Mcg::seed_from_u64(SEED);
    let mut deflate = Compress::new(Compression::best(), true);
    (0..count)
        .map(|sequence| {
            let mut rest = b"123450000000001:0001:".to_vec();
            rest.extend(log_line(&mut random, sequence, text_bytes));
            let body = [HexDigest::of(&rest).as_bytes(), &rest[..]].concat();
            let mut stream = Vec::with_capacity(body.len() + body.len() / 8 + 64);
            deflate.reset();
            deflate
                .compress_vec(&body, &mut stream, FlushCompress::Finish)
                .expect("the output holds any stream of the body");
            stream
        })
        .collect()
}
