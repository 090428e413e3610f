//! What asks something of the processor that Rust can't promise is there. The only unsafe code of this crate.

#![allow(unsafe_code, reason = "calling what was compiled for a processor that was just asked")]

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
