//! What a host without io_uring is told: one line, with the cure.

use std::collections::BTreeMap;
use std::thread;

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use uring::{Unsupported, probe};

#[test]
fn this_host_has_what_a_ring_needs() {
    assert_eq!(probe(), Ok(()));
}

#[test]
fn a_seccomp_filter_that_refuses_io_uring_is_named() {
    for (errno, expected) in [(Errno::PERM, Unsupported::Filtered), (Errno::NOSYS, Unsupported::Missing)] {
        // A filter is of the thread that applies it, and ends with it.
        let probed = thread::spawn(move || {
            apply_filter(&refusing_setup(errno)).unwrap();
            probe()
        });
        let reason = probed.join().unwrap().unwrap_err();
        assert_eq!(reason, expected, "{errno}");
        assert!(reason.to_string().contains("seccomp"), "{reason}");
    }
}

/// A filter that answers `io_uring_setup` with `errno`, as container runtimes do, and allows all else.
fn refusing_setup(errno: Errno) -> BpfProgram {
    let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let refuse = SeccompAction::Errno(errno.raw_os_error().cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).unwrap().try_into().unwrap()
}
