//! Start-up, events and sums over both transports.

use codec::Method;

use crate::{
    agent::{Agent, Tcp, Udp},
    program::TestHome,
};

const WEB: &str = "001 web any 0123456789abcdef";
const DB: &str = "002 db 127.0.0.1 fedcba9876543210";

#[test]
fn start_up_is_answered_with_exactly_the_ack_in_every_cipher_over_both_transports() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let mut counted = 0;
    for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
        // Counters go on from one method to the next: it is one agent.
        let mut agent = Agent::new(WEB, method);
        (0..counted).for_each(|_| drop(agent.seal(b"1:a:skipped")));
        Udp::connect(program.address).start(&mut agent);
        Tcp::connect(program.address).start(&mut agent);
        counted += 2;
    }
    assert_eq!(program.metric("ringmaster_control_total", &[]), 6);
    program.assert_balanced();
}

#[test]
fn events_arrive_in_the_archives_and_the_sums_balance() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "[sink.archives]\njson = true\n");
    let program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::Blowfish));
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    let udp = Udp::connect(program.address);
    udp.start(&mut db);

    tcp.send(&web.seal(b"1:/var/log/auth.log:Nov 22 02:12:14 web sshd[1]: over TCP"));
    udp.send(&db.seal(b"1:/var/log/auth.log:Nov 22 02:12:14 db sshd[1]: over UDP"));
    // And what must be counted as dropped: a stranger, garbage, a repeated message, an over-long frame.
    udp.send(&Agent::new("999 nobody any k", Method::Blowfish).seal(b"1:a:b"));
    udp.send(b"garbage");
    let repeated = db.seal(b"1:/var/log/auth.log:once");
    udp.send(&repeated);
    udp.send(&repeated);
    let mut hostile = Tcp::connect(program.address);
    hostile.send_raw(&u32::MAX.to_le_bytes());
    hostile.assert_ended();

    program.wait_for_metric("ringmaster_received_total", &[], 9);
    program.wait_for_metric("ringmaster_sink_delivered_total", &["sink=\"archive_text\""], 3);
    program.wait_for_metric("ringmaster_sink_delivered_total", &["sink=\"archive_json\""], 3);
    program.assert_balanced();
    assert_eq!(program.metric("ringmaster_events_total", &[]), 3);
    assert_eq!(program.metric("ringmaster_control_total", &[]), 2);
    for reason in ["id_unknown", "counter_duplicate", "frame_length"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(program.metric("ringmaster_dropped_total", &[&label]), 1, "{reason}");
    }

    let text = home.read("logs/archives/archives.log");
    let mut lines: Vec<&str> =
        text.lines().map(|line| line.split_at("2026 Nov 22 02:12:14".len()).1).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            " (db) 127.0.0.1->/var/log/auth.log Nov 22 02:12:14 db sshd[1]: over UDP",
            " (db) 127.0.0.1->/var/log/auth.log once",
            " (web) any->/var/log/auth.log Nov 22 02:12:14 web sshd[1]: over TCP",
        ]
    );
    let json = home.read("logs/archives/archives.json");
    assert_eq!(json.lines().count(), 3);
    for line in json.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["location"], "/var/log/auth.log");
    }
    assert_eq!(program.get("/readyz"), (200, "ready\n".to_owned()));

    let (status, line) = program.terminate();
    assert_eq!(status.code(), Some(0), "{line}");
    assert!(line.contains("received 9 = events 3 + control 2 + dropped 4 ("), "{line}");
    assert!(line.contains("archive_text: delivered 3 of 3; archive_json: delivered 3 of 3"), "{line}");
    assert!(!home.path().join("var/run/ringmaster.json").exists(), "nobody is there any more");
}

#[test]
fn a_new_connection_of_an_agent_takes_the_place_of_its_old_one() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut old = Tcp::connect(program.address);
    old.start(&mut agent);
    let mut new = Tcp::connect(program.address);
    new.start(&mut agent);
    old.assert_ended();
    new.start(&mut agent);
    program.assert_balanced();
}

#[test]
fn what_the_log_says_of_strangers_is_ossecs_number_a_count_and_an_address() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let mut program = home.start();
    let udp = Udp::connect(program.address);
    udp.send(&Agent::new("999 nobody any k", Method::Blowfish).seal(b"1:a:b"));
    let line = program.wait_for_line("1408: ");
    assert!(line.contains("1408: 1 message dropped: unknown id; the last from 127.0.0.1:"), "{line}");
}
