//! Which threads run on which cores.

use std::io;

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use crate::cli::{Cores, Job, ManagerChoice};

/// How the machine is shared between loadgen and an embedded manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Cores of the embedded manager; empty with any other manager.
    pub manager: Vec<usize>,
    /// Cores of loadgen's threads.
    pub loadgen: Vec<usize>,
}

impl Layout {
    /// What the operator asked for, and for the rest: the first core to the manager, all others to loadgen.
    ///
    /// # Errors
    /// If a core is named that this process may not use.
    pub fn choose(job: &Job) -> Result<Layout, String> {
        let usable =
            usable_cores().map_err(|error| format!("cannot read the cores of this process: {error}"))?;
        let embedded = matches!(job.manager, ManagerChoice::Embedded { .. });
        Layout::of(&usable, embedded, job.manager_cores.as_ref(), job.cores.as_ref())
    }

    fn of(
        usable: &[usize],
        embedded: bool,
        manager: Option<&Cores>,
        own: Option<&Cores>,
    ) -> Result<Layout, String> {
        for core in manager.iter().chain(own.iter()).flat_map(|cores| &cores.0) {
            if !usable.contains(core) {
                return Err(format!("core {core} is not among those this process may use: {usable:?}"));
            }
        }
        let manager = match (embedded, manager) {
            (false, _) => Vec::new(),
            (true, Some(cores)) => cores.0.clone(),
            (true, None) => usable
                .iter()
                .copied()
                .filter(|core| !own.is_some_and(|own| own.0.contains(core)))
                .take(1)
                .collect(),
        };
        let rest = || usable.iter().copied().filter(|core| !manager.contains(core)).collect::<Vec<_>>();
        let loadgen = own.map_or_else(rest, |cores| cores.0.clone());
        let or_all = |cores: Vec<usize>, wanted: bool| {
            if cores.is_empty() && wanted { usable.to_vec() } else { cores }
        };
        Ok(Layout { manager: or_all(manager, embedded), loadgen: or_all(loadgen, true) })
    }

    /// Threads that generate: all cores of loadgen but one, which reads.
    pub fn generators(&self) -> u32 {
        self.loadgen.len().saturating_sub(1).clamp(1, 16) as u32
    }
}

/// Cores that this process may use, ascending.
///
/// # Errors
/// What the kernel says.
pub fn usable_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Binds the calling thread, and those it will start, to some cores; to any if there are none.
///
/// # Errors
/// What the kernel says, with the cores.
pub fn pin_this_thread(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("cannot use cores {cores:?}: {error}"))
    })
}

/// Asks for the calling thread to be run before others: the queue socket holds few datagrams, so a reader that waits for
/// its turn holds the manager up. Only root may; for anybody else nothing changes.
pub fn prefer_this_thread() {
    const NICE: i32 = -15;
    // Without the right to it the reader is as any other thread, which is slower and still right.
    let _ = setpriority_process(Some(gettid()), NICE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_shared_as_asked_or_first_core_to_the_manager() {
        let cores = |cores: &[usize]| Some(Cores(cores.to_vec()));
        let check =
            |usable: &[usize], manager: Option<Cores>, own: Option<Cores>, expected: (&[usize], &[usize])| {
                let layout = Layout::of(usable, true, manager.as_ref(), own.as_ref()).unwrap();
                assert_eq!((layout.manager.as_slice(), layout.loadgen.as_slice()), expected);
            };
        check(&[0, 1], None, None, (&[0], &[1]));
        check(&[0], None, None, (&[0], &[0]));
        check(&[0, 1, 2, 3], None, None, (&[0], &[1, 2, 3]));
        check(&[0, 1, 2, 3], cores(&[1, 2]), None, (&[1, 2], &[0, 3]));
        check(&[0, 1], None, cores(&[0]), (&[1], &[0]));
        check(&[0, 1], cores(&[0, 1]), None, (&[0, 1], &[0, 1]));
        let foreign = Layout::of(&[0, 1], false, None, None).unwrap();
        assert_eq!(
            (foreign.manager.len(), foreign.loadgen.as_slice(), foreign.generators()),
            (0, &[0, 1][..], 1)
        );
        assert!(Layout::of(&[0, 1], true, cores(&[5]).as_ref(), None).unwrap_err().contains("core 5"));
    }

    #[test]
    fn a_thread_can_be_bound_to_a_core_that_it_has() {
        let core = usable_cores().unwrap()[0];
        std::thread::spawn(move || {
            pin_this_thread(&[core]).unwrap();
            assert_eq!(usable_cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }
}
