//! What is known of agents, and who is told.

use std::{
    fs::{self, File, FileTimes},
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixStream},
    },
    time::{Duration, SystemTime},
};

use codec::Method;
use serde_json::{Value, json};

use crate::{
    agent::{ACK, Agent, Tcp, Udp},
    program::{PATIENCE, Program, TestHome},
};

const WEB: &str = "001 web any 0123456789abcdef";
const DB: &str = "002 db 127.0.0.1 fedcba9876543210";

fn agents(home: &TestHome, ids: &[&str]) -> Vec<Value> {
    let said = home.said(&[&["agents", "--json"], ids].concat());
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_for_agent(home: &TestHome, program: &Program, id: &str, key: &str, value: &Value) -> Value {
    let mut agent = Value::Null;
    program.wait_until(|_| {
        agent = agents(home, &[id]).remove(0);
        agent[key] == *value
    });
    agent
}

#[test]
fn agents_are_shown_as_they_come_and_go() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    let program = home.start();
    let before = agents(&home, &[]);
    assert_eq!(before.len(), 2);
    for (agent, id) in before.iter().zip(["001", "002"]) {
        assert_eq!(
            (&agent["id"], &agent["status"], &agent["since"]),
            (&json!(id), &json!("never"), &Value::Null)
        );
    }
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.send(&web.seal(br#"#!-agent startup {"version":"v4.14.7"}"#));
    assert_eq!(web.open(&tcp.receive()), ACK);
    tcp.send(&web.seal(b"1:/var/log/a:an event"));
    tcp.send(&web.seal(b"no event"));
    let mut db = Agent::new(DB, Method::Blowfish);
    Udp::connect(program.address).start(&mut db);

    let shown = wait_for_agent(&home, &program, "001", "dropped", &1.into());
    for (key, value) in [
        ("name", "web"),
        ("ip", "any"),
        ("status", "active"),
        ("protocol", "tcp"),
        ("cipher", "aes"),
        ("version", "v4.14.7"),
        ("counter", "0:3"),
    ] {
        assert_eq!(shown[key], value, "{shown}");
    }
    assert_eq!(shown["events"], 1);
    assert!(shown["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{shown}");
    assert!(shown["last_event"].as_str().unwrap().starts_with("20"), "{shown}");
    let shown = wait_for_agent(&home, &program, "2", "status", &"active".into());
    assert_eq!((&shown["protocol"], &shown["cipher"]), (&json!("udp"), &json!("blowfish")));
    program.wait_for_metric("ringmaster_agents_active", &[], 2);

    drop(tcp);
    wait_for_agent(&home, &program, "001", "status", &"disconnected".into());
    program.wait_for_metric("ringmaster_agents_disconnected", &[], 1);
    let table = home.said(&["agents"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("ID ") && lines[1].starts_with("001 ") && lines[2].starts_with("002 "),
        "{table}"
    );
    assert!(lines[1].contains(" disconnected ") && lines[2].contains(" active "), "{table}");

    let unknown = home.command(&["agents", "7"]);
    assert_eq!(unknown.status.code(), Some(1));
    let complaint = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(complaint, "ringmaster: no agent in client.keys has the id \"7\"\n");
    let status: Value = serde_json::from_str(&home.said(&["status"])).unwrap();
    assert_eq!((&status["pid"], &status["agents"]["active"]), (&json!(program.pid()), &json!(1)));
}

#[test]
fn agent_info_is_what_ossec_writes_and_its_time_is_the_last_keep_alive() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    let program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::Blowfish), Agent::new(DB, Method::AesOssec));
    let udp = Udp::connect(program.address);
    udp.start(&mut web);
    let keep_alive = |filler: &str| {
        format!("#!-Linux vm 6.18 #1 SMP x86_64 - OSSEC HIDS v4.2.0\nx merged.mg\n\n{filler}").into_bytes()
    };
    for filler in ["filler", "other"] {
        udp.send(&web.seal(&keep_alive(filler)));
        assert_eq!(web.open(&udp.receive()), ACK);
    }
    let line = "Linux vm 6.18 #1 SMP x86_64 - OSSEC HIDS v4.2.0";
    let expected = format!("{line}\ncrypto_method:blowfish\n");
    program.wait_until(|_| home.read("queue/agent-info/web-any") == expected);
    assert!(!home.path().join("queue/agent-info/db-127.0.0.1").exists(), "a start-up is no keep-alive");

    let path = home.path().join("queue/agent-info/web-any");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(long_ago))
        .unwrap();
    let inode = path.metadata().unwrap().ino();
    udp.send(&web.seal(&keep_alive("third")));
    program.wait_until(|_| path.metadata().unwrap().mtime() > 1_000_000);
    assert_eq!((home.read("queue/agent-info/web-any"), path.metadata().unwrap().ino()), (expected, inode));

    let other = Udp::connect(program.address);
    other.send(&db.seal(b"#!-Linux db / 0123456789abcdef0123456789abcdef\nx merged.mg\n\n"));
    program.wait_until(|_| {
        home.read("queue/agent-info/db-127.0.0.1")
            == "Linux db / 0123456789abcdef0123456789abcdef\ncrypto_method:aes\n"
    });
    program.terminate();
    // The next run knows who was there.
    let program = home.start();
    let shown = wait_for_agent(&home, &program, "001", "status", &"active".into());
    assert_eq!((&shown["version"], &shown["system"]), (&json!("v4.2.0"), &json!(line)));
}

#[test]
fn an_agent_of_wazuh_that_stops_raises_an_event() {
    let settings = "[sink.queue]\nenabled = true\nproduct = \"wazuh\"\n";
    let home = TestHome::new(&format!("{WEB}\n"), settings);
    let reader = UnixDatagram::bind(home.path().join("queue/ossec/queue")).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    tcp.send(&web.seal(b"#!-agent shutdown "));
    let mut buffer = [0; 1_024];
    let bytes = reader.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"1:[001] (web) any->wazuh-remoted:ossec: Agent stopped: 'web->any'.\0");
    program.wait_for_metric("ringmaster_events_raised_total", &[], 1);
    program.assert_balanced();
    assert!(!home.path().join("queue/agent-info").exists(), "Wazuh has a database in its place");
    let (_, line) = program.terminate();
    assert!(
        line.contains("received 2 = events 0 + control 2 + dropped 0; raised 1; queue: delivered 1 of 1"),
        "{line}"
    );
}

#[test]
fn the_command_socket_answers_lines_of_json_to_owner_and_group() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let none = home.command(&["agents"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no ringmaster runs on this home"), "{none:?}");
    let program = home.start();
    let path = home.path().join("queue/ringmaster/command");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let mut line = || lines.next().unwrap();
    stream.write_all(b"{\"command\":\"agents\",\"ids\":[\"001\"]}\n").unwrap();
    assert!(line().starts_with("{\"item\":{"));
    assert_eq!(line(), "{\"ok\":null}");
    stream.write_all(b"{\"command\":\"agents\",\"ids\":[\"7\"]}\n").unwrap();
    assert_eq!(line(), "{\"refused\":\"no agent in client.keys has the id \\\"7\\\"\"}");
    stream.write_all(b"hello\n").unwrap();
    assert!(line().starts_with("{\"refused\":\"no request that is known"));
    program.terminate();
    assert!(!path.exists());
}
