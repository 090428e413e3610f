//! What asks something of the processor that Rust can't promise is there. The only unsafe code of this crate.

#![allow(
    unsafe_code,
    reason = "prefetching, and calling what was compiled for a processor that was just asked"
)]

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Asks for all cache lines of `value`, without waiting for them. Does nothing where that can't be asked.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        prefetch_line(start.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch is a hint. It reads no memory that the program could see, and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_address: *const i8) {}

/// Whether the processor has AVX2.
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The md5 of sixteen messages.
///
/// # Panics
/// If the processor has no AVX2.
#[cfg(target_arch = "x86_64")]
pub(crate) fn md5_lanes(messages: &[&[u8]; 16]) -> [[u8; 16]; 16] {
    assert!(has_avx2(), "the caller asked before it chose this path");
    // SAFETY: the processor has AVX2, as the line above has just made sure of.
    unsafe { super::md5::lanes::digest(messages) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn md5_lanes(_messages: &[&[u8]; 16]) -> [[u8; 16]; 16] {
    unreachable!("this processor has no AVX2, so nobody chose this path")
}
