//! What a service manager sees.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::program::{PATIENCE, TestHome};

#[test]
fn systemd_is_told_of_the_beginning_the_life_and_the_end() {
    let home = TestHome::new("", "");
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 4_096];
        let bytes = socket.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..bytes]).trim().to_owned()
    };
    let program = home.start_with(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")]);
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    program.signal(Signal::TERM);
    let last = std::iter::from_fn(|| Some(hear())).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn hangup_reads_keys_and_ends_nothing() {
    let home = TestHome::new("001 web any k\n", "");
    let program = home.start();
    program.signal(Signal::HUP);
    program.signal(Signal::HUP);
    assert_eq!(program.get("/readyz").0, 200);
    let (status, line) = program.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(line.contains("received 0 = events 0 + control 0 + dropped 0"), "{line}");
}

#[test]
fn interrupt_ends_as_terminate_does() {
    let home = TestHome::new("", "");
    let mut program = home.start();
    program.signal(Signal::INT);
    program.wait_for_line("stopped: received 0 ");
    assert_eq!(program.ended().code(), Some(0));
}
