//! The settings change while the manager runs, and an installation runs as it is found.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
};

use codec::Method;
use rustix::process::Signal;

use crate::{
    agent::{Agent, Tcp, Udp},
    program::{PATIENCE, TestHome},
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
    program.wait_for_line("reload: agents.crypto_accept: \"both\" -> \"aes\"");
    program.wait_for_line(
        "reload: listener secure udp+tcp 127.0.0.1:0: crypto_accept=both -> crypto_accept=aes",
    );
    program.wait_for_line("reload: agents.old_format: false -> true, at the next start");
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
    let expected = "agents.crypto_accept: \"aes\" -> \"both\"\n\
        agents.replay: \"strict\" -> \"off\"\n\
        listener secure udp+tcp 127.0.0.1:0: crypto_accept=aes -> crypto_accept=both\n\
        agents.old_format: false -> true, at the next start\n";
    assert_eq!(String::from_utf8_lossy(&answer.stdout), expected);
    tcp.start(&mut web);
    udp.start(&mut db);
    assert_eq!(program.metric("ringmaster_settings_loads_total", &[]), 2);
    assert_eq!(program.metric("ringmaster_settings_refusals_total", &[]), 1);
    program.assert_balanced();
}

/// An OSSEC installation's ossec.conf: agents on one port, syslog from `allowed` on the other.
fn ossec_conf(agents: u16, syslog: u16, allowed: &str) -> String {
    format!(
        "<ossec_config><global><logall>yes</logall></global></ossec_config>\n<ossec_config>\n  <remote>\n    \
         <connection>secure</connection>\n    <port>{agents}</port>\n    <local_ip>127.0.0.1</local_ip>\n  </remote>\n  \
         <remote><! an old comment !>\n    <connection>syslog</connection>\n    <port>{syslog}</port>\n    \
         <local_ip>127.0.0.1</local_ip>\n    <allowed-ips>{allowed}</allowed-ips>\n  </remote>\n</ossec_config>\n"
    )
}

#[test]
fn an_installation_of_ossec_runs_as_it_is_found() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    // Free in both protocols most likely; the product's files have no port that means any.
    let probes = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let [agents, syslog] = probes.map(|probe| probe.local_addr().unwrap().port());
    let conf = home.path().join("etc/ossec.conf");
    fs::write(&conf, ossec_conf(agents, syslog, "127.0.0.0/8")).unwrap();
    fs::write(home.path().join("etc/internal_options.conf"), "remoted.verify_msg_id=1\nremoted.debug=0\n")
        .unwrap();
    fs::write(home.path().join("etc/ringmaster.toml"), "[metrics]\naddress = \"127.0.0.1:0\"\n").unwrap();
    let analysisd = UnixDatagram::bind(home.path().join("queue/ossec/queue")).unwrap();
    analysisd.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut datagram = [0; 1_024];
        let bytes = analysisd.recv(&mut datagram).expect("the event");
        String::from_utf8_lossy(&datagram[..bytes]).into_owned()
    };

    let mut program = home.start();
    assert_eq!(program.address, SocketAddr::from(([127, 0, 0, 1], agents)));
    let mut web = Agent::new(WEB, Method::Blowfish);
    let (mut tcp, udp) = (Tcp::connect(program.address), Udp::connect(program.address));
    udp.send(&web.seal(b"1:/var/log/auth.log:over UDP"));
    assert_eq!(hear(), "1:(web) any->/var/log/auth.log:over UDP\0");
    tcp.send(&web.seal(b"1:/var/log/auth.log:over TCP"));
    assert_eq!(hear(), "1:(web) any->/var/log/auth.log:over TCP\0");
    let device = Udp::connect(SocketAddr::from(([127, 0, 0, 1], syslog)));
    device.send(b"<34>Nov 22 09:00:00 router su: x\n");
    assert_eq!(hear(), "2:127.0.0.1:Nov 22 09:00:00 router su: x\0");

    fs::write(&conf, ossec_conf(agents, syslog, "10.0.0.0/8")).unwrap();
    program.signal(Signal::HUP);
    let line = program.wait_for_line("reload: listener syslog udp 127.0.0.1:");
    assert!(line.contains("allowed=127.0.0.0/8 -> allowed=10.0.0.0/8"), "{line}");
    program.wait_for_metric("ringmaster_settings_loads_total", &[], 1);
    // Each shard takes the rules between two turns, and this does not know which shard hears the device.
    let refused = (0..10_000).any(|_| {
        device.send(b"<34>Nov 22 09:00:01 router su: y\n");
        program.metric("ringmaster_dropped_total", &["reason=\"address_denied\""]) > 0
    });
    assert!(refused, "the device is not allowed any more");
    program.assert_balanced();
    assert!(!home.path().join("logs/archives/archives.log").exists(), "analysisd writes it, and nobody else");
    assert!(!home.path().join("queue/sockets").exists(), "what is another product's is not made");
}
