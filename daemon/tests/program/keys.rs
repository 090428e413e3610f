//! client.keys changes while the manager runs.

use std::fs;

use codec::Method;

use crate::{
    agent::{Agent, Tcp, Udp},
    program::TestHome,
};

const WEB: &str = "001 web any 0123456789abcdef";

#[test]
fn a_new_agent_is_taken_up_while_the_others_go_on() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let mut program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);

    let added = home.command(&["keys", "add", "mail", "--ip", "127.0.0.0/8"]);
    assert!(added.status.success());
    let line = String::from_utf8(added.stdout).unwrap();
    assert!(line.starts_with("002 mail 127.0.0.0/8 "), "{line}");
    program.wait_for_line("1409: client.keys changed: 2 agents");
    let mut mail = Agent::new(line.trim_end(), Method::Blowfish);
    Udp::connect(program.address).start(&mut mail);
    Tcp::connect(program.address).start(&mut mail);
    tcp.start(&mut web);
    program.assert_balanced();
}

#[test]
fn a_line_that_is_wrong_is_named_and_skipped() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let mut program = home.start();
    let beside = home.path().join("etc/beside");
    fs::write(&beside, format!("{WEB}\n002 bad 1.2.3 k\n003 good any k\n")).unwrap();
    fs::rename(&beside, home.path().join("etc/client.keys")).unwrap();
    let line = program.wait_for_line("client.keys:2: skipped");
    assert!(!line.contains(" k"), "no key is ever said: {line}");
    program.wait_for_line("1409: client.keys changed: 2 agents");
    Udp::connect(program.address).start(&mut Agent::new("003 good any k", Method::AesOssec));
    assert_eq!(program.metric("ringmaster_key_problems", &[]), 1);
}

#[test]
fn an_agent_that_is_removed_by_the_command_is_cut_off_and_its_neighbour_is_not() {
    let home = TestHome::new(&format!("{WEB}\n002 old any k\n"), "");
    let mut program = home.start();
    let (mut web, mut old) =
        (Agent::new(WEB, Method::AesWazuh), Agent::new("002 old any k", Method::Blowfish));
    let (mut web_tcp, mut old_tcp) = (Tcp::connect(program.address), Tcp::connect(program.address));
    web_tcp.start(&mut web);
    old_tcp.start(&mut old);
    assert_eq!(home.said(&["keys", "remove", "2"]), "Agent '002' removed.\n");
    program.wait_for_line("1409: client.keys changed: 1 agents");
    old_tcp.assert_ended();
    web_tcp.start(&mut web);
    Udp::connect(program.address).send(&old.seal(b"1:a:still here"));
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"id_unknown\""], 1);
    program.assert_balanced();
}

#[test]
fn an_agent_that_is_removed_is_shut_out() {
    let home = TestHome::new(&format!("{WEB}\n002 old any k\n"), "");
    let mut program = home.start();
    let mut old = Agent::new("002 old any k", Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut old);
    fs::write(home.path().join("etc/client.keys"), format!("{WEB}\n")).unwrap();
    program.wait_for_line("1409: client.keys changed: 1 agents");
    tcp.assert_ended();
    program.wait_for_metric("ringmaster_connections_closed_total", &["reason=\"key_removed\""], 1);
    Udp::connect(program.address).send(&old.seal(b"1:a:still here"));
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"id_unknown\""], 1);
}
