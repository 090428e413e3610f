//! The settings change while the manager runs.

use std::fs;

use codec::Method;
use rustix::process::Signal;

use crate::{
    agent::{Agent, Tcp, Udp},
    program::TestHome,
};

const WEB: &str = "001 web any 0123456789abcdef";
const DB: &str = "003 db any fedcba9876543210";

/// Appends to the settings file.
fn append(home: &TestHome, text: &str) {
    let path = home.path().join("etc/ringmaster.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(path, settings + text).unwrap();
}

#[test]
fn a_reload_changes_what_can_change_and_drops_no_agent() {
    let core = uring::sockets::allowed_cores().unwrap()[0];
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), &format!("[shards]\ncores = [{core}]\n"));
    let mut program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::Blowfish));
    let (mut tcp, udp) = (Tcp::connect(program.address), Udp::connect(program.address));
    tcp.start(&mut web);
    udp.start(&mut db);

    append(&home, "[agents]\ncrypto_accept = \"aes\"\nold_format = true\n");
    program.signal(Signal::HUP);
    program.wait_for_line("reload: agents.crypto_accept: \"aes\" takes the place of \"both\"");
    program
        .wait_for_line("reload: listener secure udp+tcp 127.0.0.1:0: crypto_accept=aes takes the place of");
    program.wait_for_line("reload: agents.old_format: true takes the place of false at the next start");
    // The answer comes from the turn that takes the settings, or from a later one.
    tcp.start(&mut web);
    udp.send(&db.seal(b"1:a:refused"));
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"method_not_accepted\""], 1);
    tcp.start(&mut web);
    assert_eq!(program.metric("ringmaster_connections", &[]), 1, "the connection has lived through it");

    append(&home, "replay = \"sometimes\"\n");
    let refused = home.command(&["reload"]);
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{complaint}");
    let said = program.wait_for_line("reload: ");
    for text in [&complaint, &said] {
        assert!(
            text.contains("etc/ringmaster.toml:") && text.contains("everything stays as it was"),
            "{text}"
        );
    }
    udp.send(&db.seal(b"1:a:refused as before"));
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"method_not_accepted\""], 2);
    tcp.start(&mut web);

    let path = home.path().join("etc/ringmaster.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings.replace("sometimes", "off").replace("\"aes\"", "\"both\"")).unwrap();
    let answer = home.command(&["reload"]);
    let expected = "agents.crypto_accept: \"both\" takes the place of \"aes\"\n\
        agents.replay: \"off\" takes the place of \"strict\"\n\
        listener secure udp+tcp 127.0.0.1:0: crypto_accept=both takes the place of crypto_accept=aes\n\
        agents.old_format: true takes the place of false at the next start\n";
    assert_eq!(String::from_utf8_lossy(&answer.stdout), expected);
    tcp.start(&mut web);
    udp.start(&mut db);
    assert_eq!(program.metric("ringmaster_settings_loads_total", &[]), 2);
    assert_eq!(program.metric("ringmaster_settings_refusals_total", &[]), 1);
    program.assert_balanced();
}
