//! Both programs between an agent and a manager, on loopback, with cuts and kills in the middle.

use std::fs;
use std::process::Command;

use crate::programs::{Agent, Manager, Program};

/// How many datagrams the client's spools took since it was started.
fn kept(status: &serde_json::Value) -> u64 {
    status["client"]["counters"]["kept"].as_u64().unwrap()
}

/// What it still has.
fn waiting(status: &serde_json::Value) -> u64 {
    let lines = status["client"]["lines"].as_array().unwrap();
    lines.iter().map(|line| line["kept"].as_u64().unwrap()).sum()
}

#[test]
fn a_relay_loses_and_repeats_nothing_over_kills_of_everybody() {
    let scratch = tempfile::tempdir().unwrap();
    let (at_agent, at_manager) = (scratch.path().join("client"), scratch.path().join("server"));
    let secret = scratch.path().join("secret");
    fs::write(&secret, "0123456789abcdef\n").unwrap();
    let secret = secret.to_str().unwrap();
    let certificate = scratch.path().join("certificate.pem");
    let key = scratch.path().join("key.pem");
    let made = Command::new(env!("CARGO_BIN_EXE_ringmaster-broker"))
        .args(["certificate", "--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()])
        .output()
        .unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let fingerprint = made.lines().last().unwrap().strip_prefix("fingerprint ").unwrap();

    let mut manager = Manager::start();
    let manager_address = manager.address().to_string();
    let start_server = |listen: &str| {
        let files = ["--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
        let options = ["--listen", listen, "--manager", &manager_address, "--secret-file", secret];
        Program::start("server", &at_manager, &[&options[..], &files[..]].concat())
    };
    let server = start_server("127.0.0.1:0");
    let server_address = server.listening().to_string();
    let start_client = |listen: &str| {
        let options =
            ["--listen", listen, "--server", &server_address, "--secret-file", secret, "--name", "site"];
        Program::start("client", &at_agent, &[&options[..], &["--fingerprint", fingerprint]].concat())
    };
    let client = start_client("127.0.0.1:0");
    let broker = client.listening();

    let (mut one, mut other) = (Agent::new("001"), Agent::new("1234"));
    one.send(broker, 50);
    other.send(broker, 50);
    manager.take("001", 50);
    manager.take("1234", 50);
    assert_eq!(one.answer(), "answer 1");
    assert_eq!(other.answer(), "answer 1");
    assert_ne!(manager.sources["001"], manager.sources["1234"], "one source an agent");

    // The server is killed; what comes meanwhile is kept.
    server.kill();
    one.send(broker, 100);
    client.wait_until(|status| kept(status) == 200);
    let server = start_server(&server_address);
    manager.take("001", 150);

    // The manager dies with some unread, and is there again.
    one.send(broker, 100);
    for _ in 0..10 {
        manager.read();
    }
    manager.stop();
    other.send(broker, 50);
    client.wait_until(|status| kept(status) == 350 && status["client"]["is_well"] == false);
    manager.start_again();
    manager.take("001", 250);
    manager.take("1234", 100);

    // The client is killed with everything in its spool.
    let server_dies_too = server;
    server_dies_too.kill();
    one.send(broker, 100);
    client.wait_until(|status| kept(status) == 450);
    client.kill();
    let server = start_server(&server_address);
    let client = start_client(&broker.to_string());
    manager.take("001", 350);
    other.send(broker, 10);
    manager.take("1234", 110);

    client.wait_until(|status| waiting(status) == 0);
    manager.assert_whole(&one);
    manager.assert_whole(&other);
    assert!(client.terminate().success());
    assert!(server.terminate().success());
}

#[test]
fn a_gate_keeps_what_comes_while_the_manager_is_away() {
    let scratch = tempfile::tempdir().unwrap();
    let mut manager = Manager::start();
    let manager_address = manager.address().to_string();
    let options = ["--listen", "127.0.0.1:0", "--manager", &manager_address];
    let server = Program::start("server", &scratch.path().join("server"), &options);
    let server_address = server.listening().to_string();
    let options = [
        "--listen",
        "127.0.0.1:0",
        "--server",
        &server_address,
        "--mode",
        "gate",
        "--manager",
        &manager_address,
    ];
    let client = Program::start("client", &scratch.path().join("client"), &options);
    let broker = client.listening();
    client.wait_until(|status| status["client"]["is_well"] == true);

    let mut agent = Agent::new("001");
    agent.send(broker, 20);
    manager.take("001", 20);
    assert_eq!(agent.answer(), "answer 1");
    client.wait_until(|status| status["client"]["counters"]["passed"] == 20);

    manager.stop();
    client.wait_until(|status| status["client"]["is_well"] == false);
    agent.send(broker, 60);
    client.wait_until(|status| kept(status) == 60);
    manager.start_again();
    manager.take("001", 80);
    manager.assert_whole(&agent);
    assert_eq!(manager.repeated, 0);
    client.wait_until(|status| status["client"]["counters"]["replayed"] == 60);
}

#[test]
fn whoever_does_not_have_the_secret_or_the_right_server_gets_nothing_through() {
    let scratch = tempfile::tempdir().unwrap();
    let manager = Manager::start();
    let secret = scratch.path().join("secret");
    fs::write(&secret, "0123456789abcdef").unwrap();
    let manager_address = manager.address().to_string();
    let options =
        ["--listen", "127.0.0.1:0", "--manager", &manager_address, "--secret-file", secret.to_str().unwrap()];
    let server = Program::start("server", &scratch.path().join("server"), &options);
    let server_address = server.listening().to_string();
    let options = ["--listen", "127.0.0.1:0", "--server", &server_address];
    let mut client = Program::start("client", &scratch.path().join("one"), &options);
    client.wait_for_line("the shared secret is another one");
    let fingerprint = "00".repeat(32);
    let pinned = [&options[..], &["--fingerprint", &fingerprint]].concat();
    let mut client = Program::start("client", &scratch.path().join("other"), &pinned);
    client.wait_for_line("datagrams are kept");
    assert_eq!(client.status()["client"]["is_well"], false);
    assert_eq!(server.status()["server"]["counters"]["packets"], 0);
    assert!(server.status()["server"]["counters"]["turned_away"].as_u64().unwrap() > 0);
}

#[test]
fn the_status_for_the_eye_and_for_prometheus() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("client");
    let said = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster-broker"));
        let output = command.args(["status", "--dir"]).arg(&dir).args(options).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(said(&[]).0, 2, "nobody answers");
    let client = Program::start("client", &dir, &["--listen", "127.0.0.1:0", "--server", "127.0.0.1:1"]);
    Agent::new("007").send(client.listening(), 3);
    client.wait_until(|status| kept(status) == 3);
    let (code, text) = said(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("no connection to the server"), "{text}");
    let line = text.lines().find(|line| line.starts_with("007")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("3"), "{line}");
    let metrics = said(&["--metrics"]).1;
    for line in [
        "ringmaster_broker_agent_kept{agent=\"007\"} 3",
        "ringmaster_broker_agent_datagrams_total{agent=\"007\"} 3",
        "ringmaster_broker_client_kept_total 3",
        "ringmaster_broker_client_is_well 0",
        "ringmaster_broker_client_kernel_drops_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    let mut second = Command::new(env!("CARGO_BIN_EXE_ringmaster-broker"));
    second.args(["client", "--server", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--dir"]).arg(&dir);
    let refused = second.output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another ringmaster-broker client"));
}
