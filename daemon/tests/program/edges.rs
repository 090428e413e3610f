//! Who stands before the door: devices that speak syslog, strangers, load balancers that ask whether anybody is at home.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use crate::program::{PATIENCE, TestHome};

#[test]
fn a_syslog_listener_of_the_settings_takes_lines_and_names_strangers() {
    let home = TestHome::new(
        "",
        "[sink.queue]\nenabled = true\n\
         [[listener]]\nkind = \"syslog\"\naddress = \"127.0.0.1:0\"\nallowed = [\"127.0.0.1\"]\n",
    );
    let queue = UnixDatagram::bind(home.path().join("queue/ossec/queue")).unwrap();
    queue.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut program = home.start();
    let status: serde_json::Value = serde_json::from_str(&home.read("var/run/ringmaster.json")).unwrap();
    let syslog = status["syslog"][0].as_str().unwrap();
    let send_from = |host: &str, line: &[u8]| {
        UdpSocket::bind((host, 0)).unwrap().send_to(line, syslog).unwrap();
    };
    send_from("127.0.0.1", b"<34>Oct 11 22:14:15 router7 su: x\n");
    let mut datagram = [0; 256];
    let bytes = queue.recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..bytes], b"2:127.0.0.1:Oct 11 22:14:15 router7 su: x\0");
    send_from("127.0.0.9", b"<34>x");
    let line = program.wait_for_line("1213: ");
    assert!(
        line.contains("1 message dropped: message from an address that the listener does not allow; the last from 127.0.0.9:"),
        "{line}"
    );
    assert_eq!(program.wait_for_metric("ringmaster_syslog_lines_total", &[], 1), 1);
    program.assert_balanced();
    let (status, line) = program.terminate();
    assert!(status.success());
    assert!(line.contains("received 2 = events 1 + control 0 + dropped 1 (address_denied 1)"), "{line}");
}

#[test]
fn readyz_knows_that_nobody_reads_though_nothing_is_sent() {
    let home = TestHome::new("", "[sink.queue]\nenabled = true\n");
    let path = home.path().join("queue/ossec/queue");
    let queue = UnixDatagram::bind(&path).unwrap();
    let program = home.start();
    program.wait_until(|status| status == 200);
    drop(queue);
    program.wait_until(|status| status == 503);
    assert!(program.get("/readyz").1.contains("the queue sink of shard"), "{}", program.get("/readyz").1);
    std::fs::remove_file(&path).unwrap();
    let _queue = UnixDatagram::bind(&path).unwrap();
    program.wait_until(|status| status == 200);
}

#[test]
fn readyz_knows_that_the_archives_cannot_be_written_though_nothing_came() {
    let home = TestHome::new("", "[sink.queue]\nenabled = false\n");
    let program = home.start();
    program.wait_until(|status| status == 200);
    let (folder, aside) = (home.path().join("logs/archives"), home.path().join("logs/aside"));
    std::fs::rename(&folder, &aside).unwrap();
    program.wait_until(|status| status == 503);
    assert!(program.get("/readyz").1.contains("archive_text"), "{}", program.get("/readyz").1);
    std::fs::rename(&aside, &folder).unwrap();
    program.wait_until(|status| status == 200);
}
