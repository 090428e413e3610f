//! Why this host can't run a ring, and what to do about it: one line. Pure; `probe` asks the kernel.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::enter::errno;

/// What the kernel was asked for when it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To register a ring of buffers.
    Buffers,
    /// To register a table of direct descriptors.
    DirectDescriptors {
        /// How many.
        count: u32,
    },
    /// To set a ring up.
    Setup,
}

/// What a host lacks for a ring of ours. Its `Display` is one line that names the cause and the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// The table of direct descriptors is larger than `RLIMIT_NOFILE`.
    DescriptorLimit {
        /// How many direct descriptors were asked for.
        count: u32,
    },
    /// `kernel.io_uring_disabled` is set.
    Disabled {
        /// Its value: 1 or 2.
        value: u8,
    },
    /// A seccomp filter, or another security module, refuses io_uring.
    Filtered,
    /// The kernel was built without io_uring, or a seccomp filter says that it was.
    Missing,
    /// A limit on memory.
    Memory,
    /// The kernel knows io_uring, but not all that a ring of ours needs.
    Old {
        /// What it does not know.
        lacks: &'static str,
        /// The kernel's release.
        release: String,
    },
    /// No descriptor is left for the ring.
    OutOfDescriptors,
    /// Any other refusal.
    Other {
        /// What was asked for.
        step: Step,
        /// The kernel's answer.
        errno: Errno,
    },
}

/// What an errno can't tell of a host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// `kernel.io_uring_disabled`, where there is such a setting.
    pub(crate) io_uring_disabled: Option<u8>,
    /// The kernel's release.
    pub(crate) release: String,
}

impl Host {
    /// This host.
    pub(crate) fn here() -> Host {
        let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Host { io_uring_disabled: setting.ok().and_then(|value| value.trim().parse().ok()), release }
    }
}

impl Unsupported {
    /// The reason behind a refusal on this host.
    #[cold]
    pub(crate) fn of(step: Step, error: &io::Error) -> Unsupported {
        Unsupported::of_errno(step, errno(error))
    }

    /// The reason behind a refusal on this host.
    #[cold]
    pub(crate) fn of_errno(step: Step, errno: Errno) -> Unsupported {
        Unsupported::explain(step, errno, &Host::here())
    }

    /// The reason behind a refusal.
    pub(crate) fn explain(step: Step, errno: Errno, host: &Host) -> Unsupported {
        let old = |lacks| Unsupported::Old { lacks, release: host.release.clone() };
        match (errno, step) {
            (Errno::NOSYS, Step::Setup) => Unsupported::Missing,
            (Errno::PERM | Errno::ACCESS, _) => match host.io_uring_disabled {
                Some(value @ 1..) => Unsupported::Disabled { value },
                Some(0) | None => Unsupported::Filtered,
            },
            (Errno::INVAL, Step::Setup) => old("rings with deferred task work (6.1)"),
            (Errno::INVAL, Step::Buffers) => old("buffer rings (5.19)"),
            (Errno::INVAL, Step::DirectDescriptors { .. }) => {
                old("sparse tables of direct descriptors (5.19)")
            }
            (Errno::NOMEM, _) => Unsupported::Memory,
            (Errno::MFILE, Step::DirectDescriptors { count }) => Unsupported::DescriptorLimit { count },
            (Errno::MFILE | Errno::NFILE, _) => Unsupported::OutOfDescriptors,
            (errno, step) => Unsupported::Other { step, errno },
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::DescriptorLimit { count } => write!(
                f,
                "{count} direct descriptors are more than RLIMIT_NOFILE allows one ring: raise LimitNOFILE=, or spread \
                 them over several rings"
            ),
            Unsupported::Disabled { value } => write!(
                f,
                "io_uring is disabled on this host: kernel.io_uring_disabled is {value}; set it to 0 with sysctl, or \
                 (if it is 1) run as a member of kernel.io_uring_group"
            ),
            Unsupported::Filtered => f.write_str(
                "io_uring is refused by a seccomp filter or security module, as container runtimes do by default: \
                 allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile or in \
                 the unit's SystemCallFilter=",
            ),
            Unsupported::Missing => f.write_str(
                "this kernel has no io_uring, or a seccomp filter hides it (gVisor and some container runtimes do): \
                 run a kernel from 6.1 with CONFIG_IO_URING=y, and allow io_uring_setup, io_uring_enter and \
                 io_uring_register",
            ),
            Unsupported::Memory => f.write_str(
                "the kernel has no memory for a ring: raise MemoryMax= of the unit or the container's memory limit, \
                 LimitMEMLOCK=, or ask for fewer buffers",
            ),
            Unsupported::Old { lacks, release } => {
                write!(f, "kernel {release} lacks {lacks}: run kernel 6.1 or later; 6.12 or later performs best")
            }
            Unsupported::OutOfDescriptors => f.write_str(
                "no file descriptor is left for a ring: raise LimitNOFILE= of the unit, or fs.file-max of the host",
            ),
            Unsupported::Other { step, errno } => {
                write!(f, "the kernel refuses to {step}: {errno}; look at its log (dmesg)")
            }
        }
    }
}

impl std::error::Error for Unsupported {}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Buffers => f.write_str("register a ring of buffers"),
            Step::DirectDescriptors { count } => write!(f, "register a table of {count} direct descriptors"),
            Step::Setup => f.write_str("set a ring up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Step = Step::DirectDescriptors { count: 30_000 };

    fn explain(step: Step, errno: Errno, io_uring_disabled: Option<u8>) -> Unsupported {
        Unsupported::explain(step, errno, &Host { io_uring_disabled, release: "5.15.0-91-generic".into() })
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let old = |lacks| Unsupported::Old { lacks, release: "5.15.0-91-generic".into() };
        for (step, errno, setting, expected) in [
            (Step::Setup, Errno::NOSYS, None, Unsupported::Missing),
            (Step::Setup, Errno::PERM, None, Unsupported::Filtered),
            (Step::Setup, Errno::PERM, Some(0), Unsupported::Filtered),
            (Step::Setup, Errno::PERM, Some(1), Unsupported::Disabled { value: 1 }),
            (Step::Setup, Errno::PERM, Some(2), Unsupported::Disabled { value: 2 }),
            (TABLE, Errno::ACCESS, Some(0), Unsupported::Filtered),
            (Step::Setup, Errno::INVAL, Some(0), old("rings with deferred task work (6.1)")),
            (Step::Buffers, Errno::INVAL, Some(0), old("buffer rings (5.19)")),
            (TABLE, Errno::INVAL, Some(0), old("sparse tables of direct descriptors (5.19)")),
            (Step::Setup, Errno::NOMEM, Some(0), Unsupported::Memory),
            (Step::Buffers, Errno::NOMEM, Some(0), Unsupported::Memory),
            (TABLE, Errno::MFILE, Some(0), Unsupported::DescriptorLimit { count: 30_000 }),
            (Step::Setup, Errno::MFILE, Some(0), Unsupported::OutOfDescriptors),
            (Step::Setup, Errno::NFILE, Some(0), Unsupported::OutOfDescriptors),
            (Step::Setup, Errno::IO, Some(0), Unsupported::Other { step: Step::Setup, errno: Errno::IO }),
        ] {
            assert_eq!(explain(step, errno, setting), expected, "{step}: {errno}, setting {setting:?}");
        }
    }

    #[test]
    fn each_reason_is_one_line_with_its_cure() {
        for (reason, cure) in [
            (Unsupported::DescriptorLimit { count: 30_000 }, "raise LimitNOFILE="),
            (Unsupported::Disabled { value: 2 }, "kernel.io_uring_disabled is 2; set it to 0"),
            (Unsupported::Filtered, "allow io_uring_setup"),
            (Unsupported::Missing, "CONFIG_IO_URING=y"),
            (Unsupported::Memory, "raise MemoryMax="),
            (
                Unsupported::Old { lacks: "x", release: "5.4".into() },
                "kernel 5.4 lacks x: run kernel 6.1 or later",
            ),
            (Unsupported::OutOfDescriptors, "raise LimitNOFILE="),
            (Unsupported::Other { step: TABLE, errno: Errno::IO }, "look at its log"),
        ] {
            let line = reason.to_string();
            assert!(line.contains(cure), "{line}");
            assert!(!line.contains('\n') && !line.contains("  "), "{line}");
        }
    }
}
