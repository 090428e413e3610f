//! `codec/seal/<method>/<bytes>`: what an agent does for each event, and a manager for each answer.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;

use bench::{MESSAGES_IN_ROTATION, bench_with, label, log_line, seal_one, shared_keys};
use codec::limits::TEXT_BYTES_MAX;
use codec::{Method, Sealer};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

criterion_group!(name = benches; config = bench::criterion(); targets = seal);
criterion_main!(benches);

fn seal(criterion: &mut Criterion) {
    for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
        let mut group = criterion.benchmark_group(format!("codec/seal/{}", label(method)));
        group.throughput(Throughput::Elements(1));
        for text_bytes in [200, 600, TEXT_BYTES_MAX] {
            let make = || {
                let mut random = Pcg64Mcg::seed_from_u64(1);
                let lines = (0..MESSAGES_IN_ROTATION.min((16 << 20) / text_bytes))
                    .map(|sequence| log_line(&mut random, sequence, text_bytes));
                (lines.collect::<Vec<_>>(), 0)
            };
            bench_with(&mut group, text_bytes.to_string(), make, |bencher, (lines, next)| {
                let keys = shared_keys(1, method);
                let (mut sealer, mut out) = (Sealer::new(), Vec::new());
                bencher.iter(|| {
                    out.clear();
                    *next = if *next + 1 == lines.len() { 0 } else { *next + 1 };
                    seal_one(&mut sealer, &keys[0], method, &lines[*next], &mut out);
                    black_box(&out);
                });
            });
        }
        group.finish();
    }
}
