//! `codec/cut/<variant>/<bytes>`: a received buffer becomes frames, where they lie; one that a buffer's edge broke is
//! copied together.
#![allow(missing_docs, reason = "criterion's macros make the public items of this file")]

use std::hint::black_box;

use bench::{bench_with, rotation, shared_keys};
use codec::limits::MESSAGE_BYTES_MAX;
use codec::{FrameAt, FrameCutter, Method, frame};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(name = benches; config = bench::criterion(); targets = whole, broken);
criterion_main!(benches);

/// `<frames>-a-buffer/<bytes>`: every frame lies whole in the buffer.
fn whole(criterion: &mut Criterion) {
    for frames_a_buffer in [1, 4, 16, 64] {
        for text_bytes in [200, 600] {
            let mut group = criterion.benchmark_group(format!("codec/cut/{frames_a_buffer}-a-buffer"));
            group.throughput(Throughput::Elements(frames_a_buffer as u64));
            let make = || (stream(frames_a_buffer, text_bytes), FrameCutter::new(MESSAGE_BYTES_MAX));
            bench_with(&mut group, text_bytes.to_string(), make, |bencher, (received, cutter)| {
                let mut frames = Vec::new();
                bencher.iter(|| {
                    frames.clear();
                    cutter.cut(black_box(received), &mut frames).expect("the buffer holds whole frames");
                    assert_eq!(frames.len(), frames_a_buffer);
                });
            });
            group.finish();
        }
    }
}

/// `16-a-buffer-and-one-broken/200`: the seventeenth frame's second half comes with the next buffer.
fn broken(criterion: &mut Criterion) {
    const FRAMES: usize = 17;
    let mut group = criterion.benchmark_group("codec/cut/16-a-buffer-and-one-broken");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let make = || (stream(FRAMES, 200), FrameCutter::new(MESSAGE_BYTES_MAX));
    bench_with(&mut group, "200", make, |bencher, (received, cutter)| {
        let (mut frames, mut carried) = (Vec::new(), 0);
        let (first, second) = received.split_at(received.len() - 100);
        bencher.iter(|| {
            for buffer in [first, second] {
                frames.clear();
                cutter.cut(black_box(buffer), &mut frames).expect("the buffers hold frames");
                if frames.first() == Some(&FrameAt::Carried) {
                    carried += black_box(cutter.carried()).len();
                }
            }
        });
        assert!(carried > 0, "the last frame was broken");
    });
    group.finish();
}

fn stream(frames: usize, text_bytes: usize) -> Vec<u8> {
    let method = Method::AesWazuh;
    let messages = rotation(&shared_keys(1, method), method, text_bytes, 1);
    let mut received = Vec::new();
    messages[..frames].iter().for_each(|message| frame(&message.bytes, &mut received));
    received
}
