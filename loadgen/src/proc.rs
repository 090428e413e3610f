//! What the kernel says of a manager: CPU and memory of its process, and datagrams dropped at its port.
//!
//! Everything comes from /proc, so it is the same measure for every manager.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// CPU time that a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In its own code, nanoseconds.
    pub user_nanoseconds: u64,
    /// In the kernel, nanoseconds.
    pub system_nanoseconds: u64,
    /// Not used but wanted: its threads could have run and had no core, nanoseconds.
    pub waited_nanoseconds: u64,
}

impl CpuTime {
    /// What was used since an earlier reading.
    pub fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user_nanoseconds: self.user_nanoseconds.saturating_sub(earlier.user_nanoseconds),
            system_nanoseconds: self.system_nanoseconds.saturating_sub(earlier.system_nanoseconds),
            waited_nanoseconds: self.waited_nanoseconds.saturating_sub(earlier.waited_nanoseconds),
        }
    }

    /// Both together.
    pub fn plus(self, other: CpuTime) -> CpuTime {
        CpuTime {
            user_nanoseconds: self.user_nanoseconds + other.user_nanoseconds,
            system_nanoseconds: self.system_nanoseconds + other.system_nanoseconds,
            waited_nanoseconds: self.waited_nanoseconds + other.waited_nanoseconds,
        }
    }

    /// Of the calling thread.
    pub fn of_this_thread() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }
}

/// Memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now, bytes.
    pub resident_bytes: u64,
    /// Resident at most so far, bytes.
    pub resident_peak_bytes: u64,
}

/// Reads the CPU time of a process.
///
/// The sum is schedstat's, in nanoseconds over all living threads; `utime` and `stime`, in ticks of 10 ms, only share
/// it out.
///
/// # Errors
/// If there is no such process, or no /proc.
pub fn cpu_time(pid: i32) -> io::Result<CpuTime> {
    let folder = format!("/proc/{pid}");
    let ticks = parse_stat(&fs::read_to_string(format!("{folder}/stat"))?).ok_or_else(unreadable)?;
    let tick_nanoseconds = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let threads = threads_sum(Path::new(&folder)).unwrap_or_default();
    let ticked = CpuTime {
        user_nanoseconds: ticks.user * tick_nanoseconds,
        system_nanoseconds: ticks.system * tick_nanoseconds,
        waited_nanoseconds: threads.waited_nanoseconds,
    };
    let ticked_sum = ticked.user_nanoseconds + ticked.system_nanoseconds;
    // Below the ticks, the sum misses threads that have ended.
    Ok(if threads.run_nanoseconds > ticked_sum { share_out(threads.run_nanoseconds, ticked) } else { ticked })
}

/// Reads the memory of a process.
///
/// # Errors
/// If there is no such process, or no /proc.
pub fn memory(pid: i32) -> io::Result<Memory> {
    Ok(parse_status(&fs::read_to_string(format!("/proc/{pid}/status"))?))
}

/// Datagrams that the kernel dropped at the UDP sockets of one port, summed over the sockets seen so far.
///
/// A socket that is gone keeps the drops it had at the last reading.
#[derive(Debug, Default)]
pub struct UdpDrops {
    by_inode: HashMap<u64, u64>,
}

impl UdpDrops {
    /// Reads both tables again and returns the sum of drops at `port`.
    pub fn read(&mut self, port: u16) -> u64 {
        for table in ["/proc/net/udp", "/proc/net/udp6"] {
            if let Ok(text) = fs::read_to_string(table) {
                self.by_inode.extend(parse_udp(&text, port));
            }
        }
        self.by_inode.values().sum()
    }
}

struct Ticks {
    user: u64,
    system: u64,
}

/// Fields 14 and 15 of `stat`; the name of the program in field 2 may hold blanks and brackets.
fn parse_stat(text: &str) -> Option<Ticks> {
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some(Ticks { user: fields.next()?.parse().ok()?, system: fields.next()?.parse().ok()? })
}

fn parse_status(text: &str) -> Memory {
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Memory {
        resident_bytes: kibibytes("VmRSS").unwrap_or(0) * 1024,
        resident_peak_bytes: kibibytes("VmHWM").unwrap_or(0) * 1024,
    }
}

/// Inode and drops of each socket of a port.
fn parse_udp(text: &str, port: u16) -> Vec<(u64, u64)> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        if u16::from_str_radix(local_port, 16) != Ok(port) {
            return None;
        }
        Some((fields.get(9)?.parse().ok()?, fields.get(12)?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// What schedstat says of all living threads.
#[derive(Debug, Clone, Copy, Default)]
struct Threads {
    run_nanoseconds: u64,
    waited_nanoseconds: u64,
}

fn threads_sum(folder: &Path) -> Option<Threads> {
    let mut sum = Threads::default();
    for thread in fs::read_dir(folder.join("task")).ok()? {
        // A thread that ends while we read is missing from the sum, as all that ended before.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        let mut fields = text.split_ascii_whitespace().map(str::parse::<u64>);
        sum.run_nanoseconds += fields.next()?.ok()?;
        sum.waited_nanoseconds += fields.next()?.ok()?;
    }
    Some(sum)
}

fn share_out(precise: u64, ticked: CpuTime) -> CpuTime {
    let sum = ticked.user_nanoseconds + ticked.system_nanoseconds;
    if sum == 0 {
        return CpuTime { user_nanoseconds: precise, ..ticked };
    }
    let user = (precise as f64 * ticked.user_nanoseconds as f64 / sum as f64) as u64;
    CpuTime { user_nanoseconds: user, system_nanoseconds: precise - user, ..ticked }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has no utime and stime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_last_bracket() {
        let text = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 3 0 5 1000 200";
        let ticks = parse_stat(text).unwrap();
        assert_eq!((ticks.user, ticks.system), (250, 31));
        assert!(parse_stat("17 (a S").is_none());
    }

    #[test]
    fn status_gives_bytes() {
        let memory = parse_status("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n");
        assert_eq!((memory.resident_bytes, memory.resident_peak_bytes), (1 << 20, 2 << 20));
    }

    #[test]
    fn drops_are_summed_over_the_sockets_of_the_port() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
        let line = |port: u16, inode: u32, drops: u32| {
            format!(
                " 1: 00000000:{port:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 {inode} 2 0000000000000000 {drops}\n"
            )
        };
        let text = header.to_string() + &line(1514, 7, 3) + &line(1514, 8, 4) + &line(1515, 9, 100);
        assert_eq!(parse_udp(&text, 1514), [(7, 3), (8, 4)]);
        assert_eq!(parse_udp(&text, 1516), []);
    }

    #[test]
    fn the_precise_sum_is_shared_as_the_ticks_say() {
        let ticked =
            CpuTime { user_nanoseconds: 30_000_000, system_nanoseconds: 10_000_000, waited_nanoseconds: 7 };
        let time = share_out(44_000_000, ticked);
        assert_eq!((time.user_nanoseconds, time.system_nanoseconds), (33_000_000, 11_000_000));
        assert_eq!(time.waited_nanoseconds, 7);
        assert_eq!(share_out(5, CpuTime::default()).user_nanoseconds, 5);
    }

    #[test]
    fn this_process_has_used_something() {
        let pid = std::process::id() as i32;
        assert!(memory(pid).unwrap().resident_bytes > 0);
        let used = cpu_time(pid).unwrap();
        assert!(used.user_nanoseconds + used.system_nanoseconds > 0);
        assert!(cpu_time(i32::MAX).is_err());
    }
}
