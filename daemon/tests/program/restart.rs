//! Counters outlive the process, however it ends.

use codec::Method;

use crate::{
    agent::{Agent, Udp},
    program::{Program, TestHome},
};

const WEB: &str = "001 web any 0123456789abcdef";

/// Sends a message that was accepted before, and one that was not.
fn replay_is_refused(program: &Program, agent: &mut Agent, old: &[u8]) {
    let udp = Udp::connect(program.address);
    udp.send(old);
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"counter_duplicate\""], 1);
    assert_eq!(program.metric("ringmaster_events_total", &[]), 0);
    udp.start(agent);
}

#[test]
fn a_clean_stop_leaves_ossecs_files_and_they_count() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    Udp::connect(program.address).start(&mut agent);
    let old = agent.seal(b"1:/var/log/a:once");
    Udp::connect(program.address).send(&old);
    program.wait_for_metric("ringmaster_events_total", &[], 1);
    let (status, _) = program.terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(home.read("queue/rids/001"), "0:2:");
    assert_eq!(home.read("queue/rids/sender_counter"), "0:1:");
    assert!(home.read("queue/ringmaster/counters").starts_with("ringmaster counters 1 clean\n"));

    let program = home.start();
    replay_is_refused(&program, &mut agent, &old);
    program.terminate();

    // The cure that everyone knows for "Duplicated counter".
    std::fs::remove_file(home.path().join("queue/rids/001")).unwrap();
    let program = home.start();
    Udp::connect(program.address).start(&mut Agent::new(WEB, Method::AesWazuh));
}

#[test]
fn a_kill_loses_no_counter_that_was_written() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    Udp::connect(program.address).start(&mut agent);
    let old = agent.seal(b"1:/var/log/a:once");
    Udp::connect(program.address).send(&old);
    program.wait_for_metric("ringmaster_events_total", &[], 1);
    program.wait_until(|_| home.read("queue/ringmaster/counters").contains("\n001 0 2 "));
    program.kill();
    assert!(home.read("queue/ringmaster/counters").starts_with("ringmaster counters 1 running\n"));

    let program = home.start();
    replay_is_refused(&program, &mut agent, &old);
    let (_, line) = program.terminate();
    assert!(line.contains("dropped 1 (counter_duplicate 1)"), "{line}");
    let sender = home.read("queue/rids/sender_counter");
    let global: u32 = sender.split(':').next().unwrap().parse().unwrap();
    assert!(global >= 100, "an agent must never see a counter go back after a kill: {sender}");
}
