//! An hour in an OSSEC installation, with the bytes that its programs were recorded with when ringmaster stood in
//! ossec-remoted's place: ossec-agentd and ossec-logcollector on one side, ossec-analysisd, agent_control and manage_agents on
//! the other. From the event to analysisd and back to the agent, from manage_agents to the agent that is let in or cut off.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::net::UnixDatagram,
};

use codec::{HexDigest, Merged, Method};

use crate::{
    agent::{ACK, Agent, Udp},
    program::{PATIENCE, Program, TestHome},
};

const WEB: &str = "002 web-aes any 1a6b0fe1f3a9a0d2a5d9ab3bd1c0ef4d";
/// What manage_agents appends, and what it makes of it to remove the agent: in place, as long as it was.
const LATE: &str = "007 late any a5f5c830be99b45091aaa4608d397872";
const LATE_REMOVED: &str = "007 #*#*#*#*#*#*#*#*#*#*#b45091aaa4608d397872";

/// analysisd's ar.conf and an operator's agent.conf, and what ossec-remoted makes of both.
const AR_CONF: &str = "restart-ossec0 - restart-ossec.sh - 0\nrestart-ossec0 - restart-ossec.cmd - 0\n\
     host-deny600 - host-deny.sh - 600\n";
const AGENT_CONF: &str = "<agent_config>\n <localfile>\n  <log_format>syslog</log_format>\n  \
     <location>/var/log/pushed.log</location>\n </localfile>\n</agent_config>\n";
const MERGED_DIGEST: &str = "f228cce7111a1f079995afb99fbb5c3f";

const KEEP_ALIVE: &str = "#!-Linux vm 6.18.44 #1 SMP PREEMPT_DYNAMIC @0 x86_64 - OSSEC HIDS v4.2.0 / 1099e7b6200feee19b7599753e9613f4";

/// A home with what an installation has, and analysisd's end of the queue socket.
fn installation() -> (TestHome, UnixDatagram) {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    for folder in ["etc/shared", "queue/alerts", "queue/agent-info", "logs", "var/run"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    fs::write(home.path().join("etc/ossec.conf"), "<ossec_config></ossec_config>\n").unwrap();
    fs::write(home.path().join("etc/shared/ar.conf"), AR_CONF).unwrap();
    fs::write(home.path().join("etc/shared/agent.conf"), AGENT_CONF).unwrap();
    let analysisd = UnixDatagram::bind(home.path().join("queue/ossec/queue")).unwrap();
    analysisd.set_read_timeout(Some(PATIENCE)).unwrap();
    (home, analysisd)
}

fn next(analysisd: &UnixDatagram) -> Vec<u8> {
    let mut buffer = [0; 8_192];
    let bytes = analysisd.recv(&mut buffer).expect("a datagram for analysisd");
    buffer[..bytes].to_vec()
}

/// What another program writes to the socket that the manager makes.
fn respond(home: &TestHome, line: &[u8]) {
    UnixDatagram::unbound().unwrap().send_to(line, home.path().join("queue/alerts/ar")).unwrap();
}

#[test]
fn a_brute_force_reaches_analysisd_and_its_response_the_agents_execd() {
    let (home, analysisd) = installation();
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesOssec);
    let udp = Udp::connect(program.address);
    udp.start(&mut web);
    for (index, port) in (4_711..4_720).enumerate() {
        let line = format!(
            "/var/log/auth.log:Nov 22 09:18:50 host sshd[12{index}]: Failed password for invalid user admin from 10.1.2.3 \
             port {port} ssh2"
        );
        udp.send(&web.seal(format!("1:{line}").as_bytes()));
        // Eight of these within two minutes are rule 5712, by the name in the location.
        assert_eq!(next(&analysisd), format!("1:(web-aes) any->{line}\0").into_bytes());
    }
    respond(
        &home,
        b"(web-aes) any->/var/log/auth.log NRN (null) host-deny600 - 10.1.2.3 1795339131.9 5712 (web-aes) \
          any->/var/log/auth.log (null)\0",
    );
    assert_eq!(
        web.open(&udp.receive()),
        b"#!-execd host-deny600 - 10.1.2.3 1795339131.9 5712 (web-aes) any->/var/log/auth.log (null)"
    );
    // agent_control -r -u 002, and -R 002.
    respond(&home, b"(msg_to_agent) [] N!S 002 syscheck restart\0");
    assert_eq!(web.open(&udp.receive()), b"#!-syscheck restart");
    respond(&home, b"(msg_to_agent) [] NNS 002 restart-ossec0 - null (from_the_server) (no_rule_id)\0");
    assert_eq!(web.open(&udp.receive()), b"#!-execd restart-ossec0 - null (from_the_server) (no_rule_id)");
    program.assert_balanced();
}

#[test]
fn agent_conf_is_pushed_as_ossec_remoted_merges_it_and_the_tools_see_the_agent() {
    let (home, _analysisd) = installation();
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesOssec);
    let udp = Udp::connect(program.address);
    udp.start(&mut web);
    udp.send(&web.seal(format!("{KEEP_ALIVE}\nx merged.mg\n\nfiller").as_bytes()));
    assert_eq!(web.open(&udp.receive()), ACK);
    let begin = web.open(&udp.receive());
    assert_eq!(begin, format!("#!-up file {MERGED_DIGEST} merged.mg\n").into_bytes());
    let mut content = Vec::new();
    loop {
        match web.open(&udp.receive()) {
            text if text == b"#!-close file " => break,
            chunk => content.extend(chunk),
        }
    }
    assert_eq!(HexDigest::of(&content).as_str(), MERGED_DIGEST);
    let unpacked = Merged::parse(&content).unwrap().files;
    let unpacked: Vec<_> = unpacked.iter().map(|file| (file.name.as_bytes(), file.content)).collect();
    let expected = [(&b"ar.conf"[..], AR_CONF.as_bytes()), (b"agent.conf", AGENT_CONF.as_bytes())];
    assert_eq!(unpacked, expected);

    // What agent_control and list_agents read.
    let expected = format!("{}\ncrypto_method:aes\n", KEEP_ALIVE.trim_start_matches("#!-"));
    program.wait_until(|_| home.read("queue/agent-info/web-aes-any") == expected);
}

#[test]
fn manage_agents_adds_and_removes_beside_the_running_manager() {
    let (home, analysisd) = installation();
    let mut program = home.start();
    let keys = home.path().join("etc/client.keys");
    let append = |line: &str| {
        let mut file = OpenOptions::new().append(true).open(&keys).unwrap();
        writeln!(file, "{line}").unwrap();
    };
    let mut late = Agent::new(LATE, Method::AesOssec);
    append(LATE);
    program.wait_for_line("1409: client.keys changed: 2 agents");
    let udp = Udp::connect(program.address);
    udp.start(&mut late);
    udp.send(&late.seal(b"1:ossec:ossec: Agent started: 'late->any'."));
    assert_eq!(next(&analysisd), b"1:(late) any->ossec:ossec: Agent started: 'late->any'.\0");

    let mut file = OpenOptions::new().write(true).open(&keys).unwrap();
    file.seek(SeekFrom::Start(WEB.len() as u64 + 1)).unwrap();
    file.write_all(LATE_REMOVED.as_bytes()).unwrap();
    drop(file);
    program.wait_for_line("1409: client.keys changed: 1 agents");
    udp.send(&late.seal(b"1:ossec:still here"));
    dropped_as_unknown(&program);
    assert_eq!(home.read("etc/client.keys"), format!("{WEB}\n{LATE_REMOVED}\n"), "its id is not given again");
}

fn dropped_as_unknown(program: &Program) {
    program.wait_for_metric("ringmaster_dropped_total", &["reason=\"id_unknown\""], 1);
    program.assert_balanced();
}
