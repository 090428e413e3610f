//! io_uring for one thread: rings, buffer rings, tags, direct descriptors. The only crate with unsafe code.

