//! What the knobs are on this host. Needs no rights: what may not be read is said to be unreadable.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use rustix::process::{Resource, getrlimit};
use uring::sockets::{UdpSettings, receive_buffer_bytes, udp_socket};

use super::Fleet;
use super::findings::Reading;
use super::knobs::{Knob, Place};

/// Reads one knob of this host.
#[must_use]
pub fn read(knob: &Knob, fleet: &Fleet) -> Reading {
    match knob.place {
        Place::Descriptors => hard_limit(Resource::Nofile),
        Place::Governor => governor(Path::new("/sys/devices/system/cpu"), &fleet.cores),
        Place::LockedMemory => hard_limit(Resource::Memlock),
        Place::ReceiveBuffer => granted_receive_buffer(fleet.receive_buffer_bytes),
        Place::Ring => Reading::Word(match uring::probe() {
            Ok(()) => "works".to_owned(),
            Err(unsupported) => unsupported.to_string(),
        }),
        Place::Setting => Reading::Number(fleet.receive_buffer_bytes),
        Place::Sysctl { number } => sysctl(Path::new("/proc/sys"), knob.name, number),
    }
}

/// What this process may raise its own limit to; "unlimited" is a number too.
fn hard_limit(resource: Resource) -> Reading {
    Reading::Number(getrlimit(resource).maximum.unwrap_or(u64::MAX))
}

/// One number of the file that `name` stands for under `root`.
fn sysctl(root: &Path, name: &str, number: usize) -> Reading {
    let text = match fs::read_to_string(root.join(name.replace('.', "/"))) {
        Ok(text) => text,
        Err(error) => return unread(&error),
    };
    match text.split_whitespace().nth(number).and_then(|word| word.parse().ok()) {
        Some(value) => Reading::Number(value),
        None => Reading::Unreadable(io::ErrorKind::InvalidData),
    }
}

/// The governor of these cores under `root`: the first that is not `performance`, if any.
fn governor(root: &Path, cores: &[usize]) -> Reading {
    let mut all = Reading::Absent;
    for core in cores {
        match fs::read_to_string(root.join(format!("cpu{core}/cpufreq/scaling_governor"))) {
            Ok(word) if word.trim() == "performance" => all = Reading::Word("performance".to_owned()),
            Ok(word) => return Reading::Word(word.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return unread(&error),
        }
    }
    all
}

/// What the kernel grants a UDP socket that asks as [`crate::listen`] does. It sends and receives nothing.
fn granted_receive_buffer(bytes: u64) -> Reading {
    let socket = udp_socket(&UdpSettings {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        shared: true,
        // The kernel doubles what it is asked for.
        receive_buffer_bytes: usize::try_from(bytes / 2).unwrap_or(usize::MAX),
    });
    let granted = socket.and_then(|socket| Ok(receive_buffer_bytes(&socket)?));
    granted.map_or_else(|error| unread(&error), |bytes| Reading::Number(bytes as u64))
}

fn unread(error: &io::Error) -> Reading {
    if error.kind() == io::ErrorKind::NotFound { Reading::Absent } else { Reading::Unreadable(error.kind()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_sysctl_is_one_of_the_numbers_of_its_file() {
        let root = root(&[("net/ipv4/udp_mem", "1\t2\t3\n"), ("net/core/word", "many\n")]);
        let check = |name: &str, number: usize, expected: Reading| {
            assert_eq!(sysctl(root.path(), name, number), expected, "{name} {number}");
        };
        check("net.ipv4.udp_mem", 0, Reading::Number(1));
        check("net.ipv4.udp_mem", 2, Reading::Number(3));
        check("net.ipv4.udp_mem", 3, Reading::Unreadable(io::ErrorKind::InvalidData));
        check("net.core.word", 0, Reading::Unreadable(io::ErrorKind::InvalidData));
        check("net.core.none", 0, Reading::Absent);
        check("net.core", 0, Reading::Unreadable(io::ErrorKind::IsADirectory));
    }

    #[test]
    fn the_governor_is_that_of_the_worst_core() {
        let of = |core: usize| format!("cpu{core}/cpufreq/scaling_governor");
        let root = root(&[(&of(0), "performance\n"), (&of(1), "powersave\n")]);
        let check = |cores: &[usize], expected: Reading| assert_eq!(governor(root.path(), cores), expected);
        check(&[0], Reading::Word("performance".to_owned()));
        check(&[0, 1], Reading::Word("powersave".to_owned()));
        check(&[2], Reading::Absent);
        check(&[0, 2], Reading::Word("performance".to_owned()));
    }

    #[test]
    fn the_kernel_grants_a_small_buffer_as_asked() {
        assert_eq!(granted_receive_buffer(65_536), Reading::Number(65_536));
    }
}
