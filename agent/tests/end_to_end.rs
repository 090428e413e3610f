//! The program between a collector and a manager that are stand-ins: what arrives, in which order, whatever breaks.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod stand_ins;
mod with_ringmaster;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

use codec::HexDigest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stand_ins::{
    Home, Manager, PATIENCE, Pen, Program, absent, client, collector, event, number, pid_file, read, send,
};

const OWN: &str = "[delivery]\nconfirm_seconds = 1\n[reconnect]\nseconds_max = 1\n";

#[test]
fn events_arrive_in_order_and_a_cut_loses_none() {
    let (mut manager, address) = Manager::listen();
    let home = Home::new(&client(address, "tcp"), OWN);
    let _program = Program::start(&home);
    let collector = collector(&home);
    manager.accept();
    assert!(manager.keep_alive().starts_with("#!-Linux "));
    assert_eq!(manager.text(), "1:ossec:ossec: Agent started: 'web->any'.");
    send(&collector, 0..50);
    assert_eq!(manager.events_to(19), Vec::from_iter(0..20));
    manager.cut();
    send(&collector, 50..100);
    manager.accept();
    let again = manager.events_to(99);
    assert!(again[0] <= 20, "what was not confirmed is sent again: {again:?}");
    assert_eq!(again, Vec::from_iter(again[0]..100), "in order");
    // It goes on as ever.
    send(&collector, 100..110);
    assert_eq!(manager.events_to(109), Vec::from_iter(100..110));
}

/// Event 0 of the collector has the number 3: the agent's own three come first.
#[test]
fn a_manager_that_acknowledges_is_given_what_it_does_not_have() {
    let (mut manager, address) = Manager::listen();
    let home = Home::new(&client(address, "tcp"), OWN);
    let mut program = Program::start(&home);
    send(&collector(&home), 0..20);
    let offer = manager.accept_and_agree();
    program.says("Delivery is acknowledged by the manager.");
    manager.has(0);
    while manager.text() != "#!-ringmaster next 0" {}
    assert_eq!(manager.events_to(19), Vec::from_iter(0..20));
    // 5 is the last that every sink has; so much is known when the connection breaks, and more by the time it is back.
    manager.has(3 + 6);
    manager.cut();
    assert_eq!(manager.accept_and_agree().session, offer.session);
    manager.has(3 + 10);
    while manager.text() != "#!-ringmaster next 13" {}
    assert_eq!(manager.events_to(19), Vec::from_iter(10..20));
    program.ends(Signal::SIGKILL);
    let mut program = Program::start(&home);
    assert_eq!(manager.accept_and_agree().session, offer.session);
    manager.has(3 + 18);
    while manager.text() != "#!-ringmaster next 21" {}
    assert_eq!(manager.events_to(19), [18, 19]);
    // At its end it asks, and hears.
    program.signal(Signal::SIGTERM);
    program.says("SIGNAL [(15)-(Terminated)] Received.");
    manager.keep_alive();
    manager.has(spool::JUMP + 100);
    manager.acknowledge_to_the_end();
    assert!(program.ends_by_itself().success());

    // Put back from a backup that was made before the manager had anything: the manager knows better, and is told so.
    std::fs::remove_file(home.path("queue/ringmaster-agent/state")).unwrap();
    let mut program = Program::start(&home);
    let other = manager.accept_and_agree();
    assert_ne!(other.session, offer.session);
    manager.has(u64::MAX);
    program.says("It has a new session now");
    let third = manager.accept_and_agree();
    assert_ne!(third.session, other.session);
    manager.has(third.first);
    while manager.text() != format!("#!-ringmaster next {}", third.first) {}
}

#[test]
fn who_wants_no_acknowledged_delivery_offers_none() {
    let (mut manager, address) = Manager::listen();
    let home = Home::new(&client(address, "tcp"), "[delivery]\nacknowledged = false\n");
    let mut program = Program::start(&home);
    assert_eq!(manager.accept_any(), "#!-agent startup ");
    program.says("Delivery is confirmed by keep-alives: events may arrive twice after a break.");
}

#[test]
fn events_outlive_the_program_and_an_absent_manager() {
    let (socket, address) = absent();
    let home = Home::new(&client(address, "tcp"), OWN);
    let mut program = Program::start(&home);
    send(&collector(&home), 0..200);
    program.has_taken(203);
    program.ends(Signal::SIGKILL);

    let mut manager = Manager::appear(socket);
    let mut program = Program::start(&home);
    send(&collector(&home), 200..210);
    manager.accept();
    assert_eq!(manager.events_to(209), Vec::from_iter(0..210));
    // Killed again while connected: what is confirmed does not come back.
    loop {
        program.signal(Signal::SIGUSR1);
        if program.says("Events: ").contains("the spool holds 0 ") {
            break;
        }
        manager.keep_alive();
    }
    program.ends(Signal::SIGKILL);
    let _program = Program::start(&home);
    send(&collector(&home), 210..211);
    manager.accept();
    assert_eq!(manager.events_to(210), [210]);
}

#[test]
fn a_full_spool_makes_collectors_wait_and_loses_nothing() {
    let (socket, address) = absent();
    let home = Home::new(&client(address, "tcp"), &format!("{OWN}[spool]\nmebibytes_max = 1\n"));
    let mut program = Program::start(&home);
    let collector = collector(&home);
    collector.set_nonblocking(true).unwrap();
    let lock = home.path("queue/ossec/.wait");
    let mut sent = 0;
    loop {
        match collector.send(&event(sent)) {
            Ok(_) => sent += 1,
            Err(_) if lock.exists() => break,
            Err(_) => std::thread::yield_now(),
        }
    }
    assert!(sent > 10_000, "{sent} events of some 70 bytes are a mebibyte");
    let mut manager = Manager::appear(socket);
    manager.accept();
    assert_eq!(manager.events_to(sent - 1), Vec::from_iter(0..sent));
    // The last ones are asked for, forgotten, and with them the lock.
    manager.keep_alive();
    manager.keep_alive();
    program.says("Releasing lock.");
    assert!(!lock.exists());
    send(&collector, sent..sent + 1);
    assert_eq!(manager.events_to(sent), [sent]);
}

#[test]
fn a_disk_that_takes_nothing_makes_collectors_wait_and_loses_nothing() {
    let (mut manager, address) = Manager::listen();
    let home = Home::new(&client(address, "tcp"), OWN);
    let mut program = Program::start(&home);
    let collector = collector(&home);
    manager.accept();
    send(&collector, 0..10);
    assert_eq!(manager.events_to(9), Vec::from_iter(0..10));
    program.may_write(Some(0));
    send(&collector, 10..20);
    program.says("Setting lock: collectors wait.");
    assert!(home.path("queue/ossec/.wait").exists());
    let (_, text) = status(&home, "--json");
    let stuck: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&stuck["spool"]["is_written"], &stuck["is_locked"]), (&false.into(), &true.into()), "{text}");
    program.may_write(None);
    assert_eq!(manager.events_to(19), Vec::from_iter(10..20));
    program.says("Releasing lock.");
    assert!(!home.path("queue/ossec/.wait").exists());
    send(&collector, 20..30);
    assert_eq!(manager.events_to(29), Vec::from_iter(20..30));
}

#[test]
fn a_spool_that_can_not_be_made_is_named() {
    let (_socket, address) = absent();
    let home = Home::new(&client(address, "tcp"), OWN);
    std::fs::write(home.path("queue/ringmaster-agent"), "a file").unwrap();
    let said = Program::refused(&home);
    assert!(said.contains("queue/ringmaster-agent: "), "{said}");
    assert!(!home.path("queue/ossec/queue").exists(), "collectors are not invited");
}

#[test]
fn what_the_manager_sends_reaches_the_agents_other_parts() {
    let (mut manager, address) = Manager::listen();
    let home = Home::new(&client(address, "tcp"), OWN);
    let execd = UnixDatagram::bind(home.path("queue/alerts/execq")).unwrap();
    execd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut program = Program::start(&home);
    manager.accept();
    assert!(manager.keep_alive().contains("\nx merged.mg\n"), "it has none yet");

    manager.say(b"#!-execd restart-ossec0 - null (from_the_server) (no_rule_id)");
    let mut buffer = [0; 128];
    let bytes = execd.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"restart-ossec0 - null (from_the_server) (no_rule_id)\0");

    let evil = b"!3 ../../evil\nabc";
    manager.push("merged.mg", evil);
    assert!(program.says("A shared file is refused").contains("could leave its folder"));
    manager.push("../merged.mg", b"!3 agent.conf\nabc");
    let content = b"<agent_config>\n</agent_config>\n".repeat(100);
    let merged = [format!("!{} agent.conf\n", content.len()).as_bytes(), &content].concat();
    manager.push("merged.mg", &merged);
    program.says("merged.mg received from the manager: 1 files in it.");
    assert_eq!(read(&home.path("etc/shared/agent.conf")).as_bytes(), content);
    assert!(!home.path("etc/evil").exists() && !home.path("evil").exists());
    let told = format!(" / {}\n{} merged.mg\n", HexDigest::of(&content), HexDigest::of(&merged));
    while !manager.keep_alive().contains(&told) {}

    manager.say(b"#!-syscheck restart");
    manager.say(b"#!-force_reconnect");
    manager.cut_by_agent();
    assert_eq!(read(&home.path("var/run/.syscheck_run")), "/var/run/.syscheck_run\n");
    manager.accept();
    assert!(manager.keep_alive().contains(&told));
}

#[test]
fn a_clean_end_repeats_nothing_and_leaves_ossecs_files() {
    let (mut manager, address) = Manager::listen();
    // No keep-alive of its own may be on its way at the end.
    let client = client(address, "tcp").replace("<notify_time>1<", "<notify_time>600<");
    let home = Home::new(&client, OWN);
    let mut program = Program::start(&home);
    let pid_file = home.path(&format!("var/run/ringmaster-agent-{}.pid", program.pid()));
    assert!(pid_file.exists());
    let second = Program::refused(&home);
    assert!(second.contains("another process has this spool"), "{second}");
    manager.accept();
    assert_eq!(read(&home.path("queue/ossec/.agent_info")), "web\n-\n001\n-\n");
    send(&collector(&home), 0..10);
    assert_eq!(manager.events_to(9), Vec::from_iter(0..10));
    program.signal(Signal::SIGTERM);
    program.says("SIGNAL [(15)-(Terminated)] Received.");
    manager.acknowledge_to_the_end();
    assert!(program.ends_by_itself().success());
    assert!(!pid_file.exists());
    assert_eq!(read(&home.path("queue/rids/sender_counter")), manager.pen.heard.to_string());
    assert_eq!(read(&home.path("queue/rids/001")), manager.pen.said.to_string());

    let _program = Program::start(&home);
    send(&collector(&home), 10..11);
    manager.accept();
    assert_eq!(manager.events_to(10), [10]);
}

/// As ossec-control starts it: by a link in bin/, and it looks for the pid file.
#[test]
fn called_as_ossec_agentd_it_goes_to_the_background() {
    let (mut manager, address) = Manager::listen();
    let home = Home::new(&client(address, "tcp"), OWN);
    let link = home.path("ossec-agentd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ringmaster-agent"), &link).unwrap();
    let status = Command::new(&link).arg("-D").arg(home.path("")).status().unwrap();
    assert!(status.success(), "it leaves its terminal");
    manager.accept();
    assert_eq!(manager.text().get(..3), Some("#!-"));
    let pid_file = pid_file(&home, "ossec-agentd-").unwrap();
    let pid = read(&pid_file).trim().parse().unwrap();
    assert!(pid_file.ends_with(format!("ossec-agentd-{pid}.pid")));
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    manager.acknowledge_to_the_end();
    while pid_file.exists() {
        std::thread::yield_now();
    }
    assert!(
        read(&home.path("logs/ossec.log")).contains(" ossec-agentd(1225): INFO: SIGNAL [(15)-(Terminated)]")
    );
}

#[test]
fn the_man_page_is_of_the_program() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringmaster-agent")).arg("--man").output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains(".TH ringmaster-agent 1") && page.contains("ringmaster\\-agent.toml"), "{page}");
}

#[test]
fn its_status_tells_what_it_has_and_does() {
    let (socket, address) = absent();
    let home = Home::new(&client(address, "tcp"), OWN);
    let (code, _) = status(&home, "--json");
    assert_eq!(code, 2, "nobody answers");
    let mut program = Program::start(&home);
    send(&collector(&home), 0..50);
    program.has_taken(53);
    let (code, text) = status(&home, "--json");
    let away: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &away["is_connected"]), (1, &false.into()));
    assert!(away["last_word_seconds"].is_null());
    assert_eq!((&away["events"]["taken"], &away["spool"]["records"]), (&53.into(), &53.into()));
    assert!(away["spool"]["oldest_seconds"].as_f64().is_some_and(|age| age >= 0.0), "{text}");

    let mut manager = Manager::appear(socket);
    manager.accept();
    assert_eq!(manager.events_to(49), Vec::from_iter(0..50));
    let there = loop {
        manager.keep_alive();
        let (code, text) = status(&home, "--json");
        let there: serde_json::Value = serde_json::from_str(&text).unwrap();
        if there["spool"]["records"] == 0 {
            assert_eq!(code, 0);
            break there;
        }
    };
    assert_eq!((&there["connections"], &there["events"]["confirmed"]), (&1.into(), &53.into()));
    assert!(there["spool"]["oldest_seconds"].is_null());
    let (code, text) = status(&home, "--metrics");
    assert_eq!(code, 0);
    assert!(text.contains("\nringmaster_agent_events_taken_total 53\n"), "{text}");

    // Whoever may connect and says nothing, or goes away at once, holds up nobody.
    let path = home.path("queue/ringmaster-agent/status");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
    (0..20).for_each(|_| drop(UnixStream::connect(&path).unwrap()));
    send(&collector(&home), 50..60);
    assert_eq!(manager.events_to(59), Vec::from_iter(50..60));
    assert_eq!(status(&home, "--json").0, 0);
    drop(silent);
}

/// The exit status of `ringmaster-agent status`, and what it prints.
fn status(home: &Home, option: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster-agent"));
    let output = command.arg("status").arg(option).arg("--home").arg(home.path("")).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn servers_are_tried_in_turn() {
    let (_refuses, nobody) = absent();
    let (mut manager, address) = Manager::listen();
    let server = |port: u16| {
        format!("<server><address>localhost</address><port>{port}</port><protocol>tcp</protocol></server>")
    };
    let home = Home::new(&format!("{}{}", server(nobody.port()), server(address.port())), OWN);
    let mut program = Program::start(&home);
    send(&collector(&home), 0..5);
    manager.accept();
    assert_eq!(manager.events_to(4), Vec::from_iter(0..5));
    program.says(&format!("(4102): INFO: Connected to server localhost, port {}.", address.port()));
}

#[test]
fn over_udp_as_ossec_agentd() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let home = Home::new(&client(socket.local_addr().unwrap(), "udp"), OWN);
    let _program = Program::start(&home);
    let mut pen = Pen::new();
    let mut buffer = [0; 65_536];
    let mut next = |pen: &mut Pen| {
        let (bytes, from) = socket.recv_from(&mut buffer).unwrap();
        (pen.open(&buffer[..bytes]), from)
    };
    // The first is lost, and comes again.
    assert_eq!(next(&mut pen).0, "#!-agent startup ");
    send(&collector(&home), 0..100);
    let (again, from) = next(&mut pen);
    assert_eq!(again, "#!-agent startup ");
    socket.send_to(&pen.seal(b"#!-agent ack "), from).unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < 100 {
        let (text, from) = next(&mut pen);
        if text.starts_with("#!-") {
            socket.send_to(&pen.seal(b"#!-agent ack "), from).unwrap();
        }
        numbers.extend(number(&text));
    }
    assert_eq!(numbers, Vec::from_iter(0..100));
}
