//! The counters' commands.

use codec::Method;

use crate::{
    agent::{Agent, Udp},
    program::TestHome,
};

const WEB: &str = "001 web any 0123456789abcdef";

/// An agent that was restored: it counts from the beginning again.
fn restored() -> Agent {
    Agent::new(WEB, Method::AesWazuh)
}

#[test]
fn a_counter_is_reset_while_the_manager_runs_and_stays_so() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let udp = Udp::connect(program.address);
    let mut agent = restored();
    (0..3).for_each(|_| udp.start(&mut agent));
    program.terminate();
    assert_eq!(home.read("queue/rids/001"), "0:3:");

    let program = home.start();
    let udp = Udp::connect(program.address);
    udp.send(&restored().seal(b"1:a:refused"));
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"counter_duplicate\""], 1);
    assert_eq!(home.said(&["agents", "reset-counter", "1"]), "counter of agent 001 reset; it was 0:3\n");
    assert!(!home.path().join("queue/rids/001").exists());
    program.kill();
    let program = home.start();
    Udp::connect(program.address).start(&mut restored());
    let unknown = home.command(&["agents", "reset-counter", "7"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no agent in client.keys has the id \"7\""));
}

#[test]
fn a_counter_is_reset_on_the_files_of_a_manager_that_does_not_run() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    for clean in [true, false] {
        let program = home.start();
        let udp = Udp::connect(program.address);
        let mut agent = restored();
        (0..3).for_each(|_| udp.start(&mut agent));
        if clean {
            program.terminate();
        } else {
            program.wait_until(|_| home.read("queue/ringmaster/counters").contains("\n001 0 3 "));
            program.kill();
        }
        let said = home.said(&["agents", "reset-counter", "001"]);
        assert_eq!(said, "counter of agent 001 reset; it was 0:3\n", "clean: {clean}");
    }
    let program = home.start();
    Udp::connect(program.address).start(&mut restored());
}

#[test]
fn counters_go_to_ossecs_files_and_come_from_them() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    Udp::connect(program.address).start(&mut restored());
    program.wait_until(|_| home.read("queue/ringmaster/counters").contains("\n001 0 1 "));
    let refused = home.command(&["counters", "export"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("is in use by another ringmaster"),
        "{refused:?}"
    );
    program.kill();
    assert_eq!(home.read("queue/rids/001"), "", "a kill leaves OSSEC's files behind");
    assert!(home.said(&["counters", "export"]).starts_with("counters of 1 agent written to "));
    assert_eq!(home.read("queue/rids/001"), "0:1:");
    assert!(home.read("queue/rids/sender_counter").starts_with("101:"), "beyond all that was sent");

    std::fs::create_dir(home.path().join("backup")).unwrap();
    std::fs::write(home.path().join("backup/001"), "7:7:").unwrap();
    let backup = home.path().join("backup");
    let said = home.said(&["counters", "import", "--from", backup.to_str().unwrap()]);
    assert!(said.starts_with("counters of 1 agent taken from "), "{said}");
    assert_eq!(home.read("queue/rids/001"), "7:7:");
    let program = home.start();
    Udp::connect(program.address).send(&restored().seal(b"1:a:refused"));
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"counter_old\""], 1);
}
