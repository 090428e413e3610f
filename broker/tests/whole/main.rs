//! Both programs in the real world.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod kills;
mod programs;
