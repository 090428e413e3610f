//! In `bin/`, under the name of the C program: as ossec-control starts, asks and stops it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::program::{PATIENCE, TestHome};

/// A home with `bin/ossec-remoted`. What runs there in the background ends with it.
struct InPlace {
    home: TestHome,
}

impl InPlace {
    fn new(settings: &str) -> InPlace {
        let home = TestHome::new("", settings);
        fs::create_dir_all(home.path().join("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_ringmaster"), home.path().join("bin/ossec-remoted")).unwrap();
        InPlace { home }
    }

    fn call(&self, arguments: &[&str]) -> Output {
        let program = self.home.path().join("bin/ossec-remoted");
        Command::new(program).args(arguments).env_remove("NOTIFY_SOCKET").output().unwrap()
    }

    /// The pid files that ossec-control looks for, with what they say.
    fn pid_files(&self) -> Vec<(PathBuf, Pid)> {
        let entries = fs::read_dir(self.home.path().join("var/run")).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("ossec-remoted-"));
        let read = |path: PathBuf| {
            let pid = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
            (path, Pid::from_raw(pid).unwrap())
        };
        ours.map(|entry| read(entry.path())).collect()
    }

    /// As `ossec-control stop`: TERM, and wait until the process is gone.
    fn stop(&self) {
        for (_, pid) in self.pid_files() {
            kill_process(pid, Signal::TERM).unwrap();
            let started = Instant::now();
            while test_kill_process(pid).is_ok() {
                assert!(started.elapsed() < PATIENCE, "{pid:?} did not end");
                thread::yield_now();
            }
        }
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        for (_, pid) in self.pid_files() {
            // It has ended already if the test went well.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn ossec_control_starts_asks_and_stops_it_as_it_does_the_c_program() {
    let place = InPlace::new("");
    let started = place.call(&[]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let files = place.pid_files();
    let [(path, pid)] = files.as_slice() else { panic!("one pid file: {files:?}") };
    let number = pid.as_raw_nonzero();
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("ossec-remoted-{number}.pid"));
    // `ps -p PID | grep ossec`
    assert_eq!(fs::read_to_string(format!("/proc/{number}/comm")).unwrap(), "ossec-remoted\n");
    assert!(place.home.read("logs/ossec.log").contains(" ossec-remoted: INFO: listening on 127.0.0.1:"));

    let again = place.call(&[]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("is in use by another ringmaster (pid {number})")), "{said}");

    place.stop();
    assert!(!path.exists());
    assert!(place.home.read("logs/ossec.log").contains(" ossec-remoted: INFO: stopped: received 0 "));
}

#[test]
fn the_test_of_the_configuration_says_what_is_wrong_by_its_exit_status() {
    let place = InPlace::new("");
    let good = place.call(&["-t"]);
    assert!(good.status.success() && good.stdout.is_empty() && good.stderr.is_empty(), "{good:?}");
    fs::write(place.home.path().join("etc/ringmaster.toml"), "[stop]\ngrace = 3\n").unwrap();
    for arguments in [&["-t"][..], &[], &["-f"]] {
        let bad = place.call(arguments);
        let said = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert_eq!(bad.status.code(), Some(1), "{arguments:?}");
        assert!(said.starts_with("ossec-remoted: ") && said.contains("unknown field `grace`"), "{said}");
    }
    assert_eq!(place.pid_files(), []);
}

#[test]
fn a_start_that_fails_is_told_where_it_was_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = InPlace::new("");
    let settings = format!("[listen]\naddresses = [\"{}\"]\n", taken.local_addr().unwrap());
    fs::write(place.home.path().join("etc/ringmaster.toml"), settings).unwrap();
    let output = place.call(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("another program has it") && said.contains("ossec-remoted: did not start"),
        "{said}"
    );
    assert_eq!(place.pid_files(), []);
}
