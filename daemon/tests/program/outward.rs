//! What the manager says to agents: active responses, kept messages, shared files, requests.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixDatagram, UnixStream},
};

use codec::{HexDigest, Merged, Method, ToAgent};

use crate::{
    agent::{ACK, Agent, Tcp, Udp},
    program::{PATIENCE, TestHome},
};

const WEB: &str = "001 web any 0123456789abcdef";
const DB: &str = "002 db 127.0.0.1 fedcba9876543210";

/// Writes a line as analysisd and the tools do.
fn respond(home: &TestHome, line: &str) {
    let socket = UnixDatagram::unbound().unwrap();
    let line = format!("{line}\0");
    socket.send_to(line.as_bytes(), home.path().join("queue/alerts/ar")).unwrap();
}

/// Letters that do not compress.
fn noise(length: usize) -> String {
    let mut state = 1u64;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    });
    letters.take(length).collect()
}

fn keep_alive(digest: &str) -> Vec<u8> {
    format!("#!-Linux web 6.1.0 - OSSEC HIDS v4.3.0\n{digest} merged.mg\n\nfiller").into_bytes()
}

/// Sends a keep-alive, and takes what comes after its acknowledgement until a file is complete.
fn take_file(
    agent: &mut Agent,
    digest: &str,
    send: impl Fn(&[u8]),
    mut receive: impl FnMut() -> Vec<u8>,
) -> Vec<u8> {
    send(&agent.seal(&keep_alive(digest)));
    assert_eq!(agent.open(&receive()), ACK);
    let (mut announced, mut content) = (None, Vec::new());
    loop {
        let text = agent.open(&receive());
        if let ToAgent::FileBegin { digest, name } = ToAgent::parse(&text).unwrap() {
            assert_eq!(name.as_bytes(), b"merged.mg");
            announced = Some(digest);
        } else if text == b"#!-close file " {
            break;
        } else {
            assert!(ToAgent::chunk_is_safe(&text), "{} within a file", codec::Escaped(&text));
            content.extend_from_slice(&text);
        }
    }
    assert_eq!(announced, Some(HexDigest::of(&content)), "what an agent checks before it unpacks");
    content
}

#[test]
fn active_responses_reach_agents_over_both_transports() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    let program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::Blowfish));
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    let udp = Udp::connect(program.address);
    udp.start(&mut db);
    respond(&home, "(local_source) [] NNS 001 restart-ossec0 - null (from_the_server) (no_rule_id)");
    assert_eq!(web.open(&tcp.receive()), b"#!-execd restart-ossec0 - null (from_the_server) (no_rule_id)");
    respond(&home, "(msg_to_agent) [] N!S 002 syscheck restart");
    assert_eq!(db.open(&udp.receive()), b"#!-syscheck restart");
    respond(
        &home,
        "(db) 127.0.0.1->/var/log/my own log NRN (null) host-deny600 - 192.0.2.7 1.2 5712 (db) - -",
    );
    assert_eq!(db.open(&udp.receive()), b"#!-execd host-deny600 - 192.0.2.7 1.2 5712 (db) - -");
    respond(&home, "(local_source) [] ANN (null) x");
    assert_eq!(web.open(&tcp.receive()), b"#!-execd x");
    assert_eq!(db.open(&udp.receive()), b"#!-execd x");
    respond(&home, "nonsense");
    respond(&home, "(nobody) any->x NRN (null) x");
    program.wait_for_metric("ringmaster_agent_messages_sent_total", &[], 5);
    program.wait_for_metric("ringmaster_agent_messages_invalid_total", &[], 1);
    program.wait_for_metric("ringmaster_agent_messages_dropped_unknown_total", &[], 1);
    assert_eq!(program.metric("ringmaster_agent_messages_held", &[]), 0);
    program.assert_balanced();
}

#[test]
fn what_is_for_an_agent_that_is_away_waits_and_comes_in_order_after_the_ack() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    for number in 0..20 {
        respond(&home, &format!("(local_source) [] NNS 001 order {number}"));
    }
    program.wait_for_metric("ringmaster_agent_messages_kept_total", &[], 20);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    for number in 0..10 {
        assert_eq!(web.open(&tcp.receive()), format!("#!-execd order {number}").as_bytes());
    }
    drop(tcp);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    // Those that the old connection's host had are through; the others come, in order.
    let mut next = 10;
    while next < 20 {
        let text = String::from_utf8(web.open(&tcp.receive())).unwrap();
        let number: u32 = text.strip_prefix("#!-execd order ").unwrap().parse().unwrap();
        assert!(number >= next, "{number} after {next}");
        next = number + 1;
    }
    program.wait_for_metric("ringmaster_agent_messages_sent_total", &[], 20);
    assert_eq!(program.metric("ringmaster_agent_messages_held", &[]), 0);
}

#[test]
fn a_message_whose_connection_ends_under_way_is_sent_again() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect_with_receive_buffer(program.address, 4_096);
    tcp.start(&mut web);
    // Noise does not compress: the connection is full long before all of it is sent.
    let noise = noise(60_000);
    for number in 0..60 {
        respond(&home, &format!("(local_source) [] NNS 001 {number} {noise}"));
    }
    program.wait_for_metric("ringmaster_agent_messages_total", &[], 60);
    tcp.reset();
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    let number = |text: &[u8]| -> u32 {
        let text = std::str::from_utf8(text).unwrap().strip_prefix("#!-execd ").unwrap();
        text.split_once(' ').unwrap().0.parse().unwrap()
    };
    let mut last = number(&web.open(&tcp.receive()));
    while last < 59 {
        let next = number(&web.open(&tcp.receive()));
        assert_eq!(next, last + 1, "none is missing, and none comes twice");
        last = next;
    }
    program.wait_for_metric("ringmaster_agent_messages_sent_total", &[], 60);
    assert_eq!(program.metric("ringmaster_agent_messages_held", &[]), 0);
}

#[test]
fn over_udp_a_message_for_an_agent_that_is_away_is_dropped_and_counted() {
    let home = TestHome::new(&format!("{DB}\n"), "");
    let program = home.start();
    let mut db = Agent::new(DB, Method::Blowfish);
    let udp = Udp::connect(program.address);
    udp.start(&mut db);
    udp.send(&db.seal(b"#!-agent shutdown "));
    program.wait_for_metric("ringmaster_control_total", &[], 2);
    respond(&home, "(local_source) [] NNS 002 x");
    program.wait_for_metric("ringmaster_agent_messages_dropped_away_total", &[], 1);
    let noise = noise(2_000);
    udp.start(&mut db);
    respond(&home, &format!("(local_source) [] NNS 002 {noise}"));
    program.wait_for_metric("ringmaster_agent_messages_dropped_too_long_total", &[], 1);
}

#[test]
fn merged_mg_is_pushed_to_agents_that_have_another() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    fs::create_dir_all(home.path().join("etc/shared")).unwrap();
    // With zero bytes, and with what looks like a control message where a chunk would begin.
    let mut file = vec![b'x'; 30_000];
    file[40] = 0;
    for place in (0..30_000 - 900).step_by(450) {
        file[place + 450 - 20..place + 450].copy_from_slice(b"#!-agent ack #!-#!-#");
    }
    fs::write(home.path().join("etc/shared/agent.conf"), &file).unwrap();
    let mut program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::AesOssec));
    let tcp = std::cell::RefCell::new(Tcp::connect(program.address));
    tcp.borrow_mut().start(&mut web);
    let udp = Udp::connect(program.address);
    udp.start(&mut db);
    let over_tcp = |agent: &mut Agent, digest: &str| {
        take_file(agent, digest, |message| tcp.borrow_mut().send(message), || tcp.borrow_mut().receive())
    };
    let over_udp = |agent: &mut Agent, digest: &str| {
        let receive = || {
            let message = udp.receive();
            assert!(message.len() <= codec::limits::DATAGRAM_TO_AGENT_BYTES_MAX);
            message
        };
        take_file(agent, digest, |message| udp.send(message), receive)
    };
    let merged = over_tcp(&mut web, "x");
    assert_eq!(merged, over_udp(&mut db, "x"));
    let apart = Merged::parse(&merged).unwrap();
    assert_eq!((apart.files[0].name.as_bytes(), apart.files[0].content), (&b"agent.conf"[..], &file[..]));
    assert_eq!(
        fs::read(home.path().join("etc/shared/merged.mg")).unwrap(),
        merged,
        "for the tools that look there"
    );

    // One that has it is told nothing but the acknowledgement: the next that it hears is the next one's.
    let digest = HexDigest::of(&merged);
    tcp.borrow_mut().send(&web.seal(&keep_alive(digest.as_str())));
    assert_eq!(web.open(&tcp.borrow_mut().receive()), ACK);
    // That keep-alive is dealt with, so it can't ask for the file that comes now.
    program.wait_for_metric("ringmaster_shared_pushes_confirmed_total", &[], 1);
    fs::write(home.path().join("etc/shared/more"), b"more").unwrap();
    program.wait_for_line("shared files: 1 merged.mg of ");
    let merged = over_tcp(&mut web, digest.as_str());
    assert_eq!(Merged::parse(&merged).unwrap().files.len(), 2);
    program.wait_for_metric("ringmaster_shared_pushes_sent_total", &[], 3);
    program.assert_balanced();
}

#[test]
fn wazuh_agents_get_their_groups_file() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    for (path, content) in [
        ("etc/shared/agent.conf", "<ossec>\n"),
        ("etc/shared/servers/agent.conf", "<servers>\n"),
        ("queue/agent-groups/001", "servers\n"),
    ] {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let tcp = std::cell::RefCell::new(Tcp::connect(program.address));
    tcp.borrow_mut().send(&web.seal(br#"#!-agent startup {"version":"v4.14.7"}"#));
    assert_eq!(web.open(&tcp.borrow_mut().receive()), ACK);
    let merged =
        take_file(&mut web, "x", |message| tcp.borrow_mut().send(message), || tcp.borrow_mut().receive());
    assert_eq!(merged, b"#servers\n!10 agent.conf\n<servers>\n");
}

/// One request on the socket of wazuh-remoted.
struct Asked(UnixStream);

impl Asked {
    fn ask(home: &TestHome, request: &[u8]) -> Asked {
        let mut stream = UnixStream::connect(home.path().join("queue/sockets/remote")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&(request.len() as u32).to_le_bytes()).unwrap();
        stream.write_all(request).unwrap();
        Asked(stream)
    }

    fn answer(mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0, "one answer a connection");
        answer
    }

    fn json(self) -> serde_json::Value {
        serde_json::from_slice(&self.answer()).unwrap()
    }
}

/// Takes a request and returns its counter and payload.
fn request(text: &[u8]) -> (String, Vec<u8>) {
    let ToAgent::Request { counter, payload } = ToAgent::parse(text).unwrap() else {
        panic!("{} is no request", codec::Escaped(text))
    };
    (String::from_utf8(counter.to_vec()).unwrap(), payload.to_vec())
}

#[test]
fn requests_to_agents_and_their_answers_over_both_transports() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    let program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::AesWazuh));
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    let udp = Udp::connect(program.address);
    udp.start(&mut db);

    let asked = Asked::ask(&home, b"001 agent getstate");
    let (counter, payload) = request(&web.open(&tcp.receive()));
    assert_eq!(payload, b"agent getstate");
    tcp.send(&web.seal(format!("#!-req {counter} {{\"error\":0}}").as_bytes()));
    assert_eq!(asked.answer(), b"{\"error\":0}");

    let asked = Asked::ask(&home, b"002 agent getconfig client");
    let (counter, _) = request(&db.open(&udp.receive()));
    udp.send(&db.seal(format!("#!-req {counter} ack").as_bytes()));
    udp.send(&db.seal(format!("#!-req {counter} ok {{}}").as_bytes()));
    assert_eq!(asked.answer(), b"ok {}");
    loop {
        // The request itself may have come twice, if the machine is slow.
        match request(&db.open(&udp.receive())) {
            (acknowledged, payload) if payload == b"ack" => break assert_eq!(acknowledged, counter),
            (again, _) => assert_eq!(again, counter),
        }
    }
    for nobody in [&b"003 agent getstate"[..], b"x agent getstate", b"nothing"] {
        assert_eq!(Asked::ask(&home, nobody).answer(), b"err Cannot send request");
    }
    program.wait_for_metric("ringmaster_agent_requests_answered_total", &[], 2);
    assert_eq!(program.metric("ringmaster_agent_requests_failed_total", &[]), 1);
}

#[test]
fn questions_of_wazuhs_tools_about_the_manager() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    let program = home.start();
    let mut web = Agent::new(WEB, Method::AesWazuh);
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    tcp.send(&web.seal(b"1:a:b"));
    program.wait_for_metric("ringmaster_events_total", &[], 1);
    let ask = |request: &str| Asked::ask(&home, request.as_bytes()).json();
    let stats = ask(r#"{"command":"getstats"}"#);
    assert_eq!((stats["error"].as_u64(), stats["message"].as_str()), (Some(0), Some("ok")));
    let metrics = &stats["data"]["metrics"];
    assert_eq!(metrics["messages"]["received_breakdown"]["event"], 1);
    assert_eq!(metrics["messages"]["received_breakdown"]["control_breakdown"]["startup"], 1);
    assert_eq!(metrics["messages"]["sent_breakdown"]["ack"], 1);
    assert_eq!((&metrics["tcp_sessions"], &stats["data"]["name"]), (&1.into(), &"wazuh-remoted".into()));
    for agents in [r#""agents":[1,2]"#, r#""agents":"all","last_id":0"#] {
        let stats = ask(&format!(r#"{{"command":"getagentsstats","parameters":{{{agents}}}}}"#));
        assert_eq!(stats["error"], 0, "{stats}");
        let agent = &stats["data"]["agents"][0];
        assert_eq!(
            (&agent["id"], &agent["metrics"]["messages"]["received_breakdown"]["event"]),
            (&1.into(), &1.into())
        );
        assert_eq!(stats["data"]["agents"].as_array().unwrap().len(), 1, "002 was never heard");
    }
    let errors = [
        ("{", 2),
        ("{}", 3),
        (r#"{"command":"x"}"#, 4),
        (r#"{"command":"getconfig"}"#, 5),
        (r#"{"command":"getconfig","parameters":{}}"#, 6),
        (r#"{"command":"getconfig","parameters":{"section":"x"}}"#, 7),
        (r#"{"command":"getagentsstats","parameters":{}}"#, 8),
        (r#"{"command":"getagentsstats","parameters":{"agents":[]}}"#, 9),
        (r#"{"command":"getagentsstats","parameters":{"agents":"all"}}"#, 10),
    ];
    for (request, error) in errors {
        assert_eq!(ask(request)["error"], error, "{request}");
    }
    let many: Vec<String> = (1..=150).map(|number| number.to_string()).collect();
    let many = format!(r#"{{"command":"getagentsstats","parameters":{{"agents":[{}]}}}}"#, many.join(","));
    assert_eq!(ask(&many)["error"], 11);
}

#[test]
fn another_program_that_has_the_socket_is_named() {
    let home = TestHome::new(&format!("{WEB}\n"), "");
    fs::create_dir_all(home.path().join("queue/alerts")).unwrap();
    let _other = UnixDatagram::bind(home.path().join("queue/alerts/ar")).unwrap();
    let output = home.command(&["run"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("queue/alerts/ar: another program has it: stop ossec-remoted"), "{said}");
}

#[test]
fn messages_by_hand_and_what_became_of_each() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n003 away any k\n"), "");
    let program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::Blowfish));
    let mut tcp = Tcp::connect(program.address);
    tcp.start(&mut web);
    let udp = Udp::connect(program.address);
    udp.start(&mut db);
    let said = |arguments: &[&str]| {
        let output = home.command(arguments);
        let (said, refused) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        (output.status.success(), said.unwrap() + &refused.unwrap())
    };
    let sent = (true, "001: sent over tcp\n".to_owned());
    assert_eq!(said(&["send", "001", "syscheck", "restart"]), sent);
    assert_eq!(web.open(&tcp.receive()), b"#!-syscheck restart");
    let (succeeded, lines) = said(&["send", "all", "#!-force_reconnect"]);
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        (succeeded, lines),
        (true, vec!["001: sent over tcp", "002: sent over udp"]),
        "003 is not there"
    );
    assert_eq!(web.open(&tcp.receive()), b"#!-force_reconnect");
    assert_eq!(db.open(&udp.receive()), b"#!-force_reconnect");
    let kept = "003: kept: the agent is away, and gets it when it comes back\n";
    assert_eq!(said(&["send", "003", "execd", "x"]), (true, kept.to_owned()));
    assert_eq!(
        said(&["send", "004", "execd", "x"]),
        (false, "004: dropped: no agent has this id\n".to_owned())
    );
    let (succeeded, why) = said(&["send", "everybody", "x"]);
    assert!(!succeeded && why.contains("\"everybody\" is no agent"), "{why}");
    assert_eq!(
        said(&["request", "003", "agent", "getstate"]),
        (false, "err Cannot send request\n".to_owned())
    );
    let (_, status) = said(&["status"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["outward"]["agent_messages_kept"], 1);
    program.assert_balanced();
}

#[test]
fn an_agent_that_does_not_read_its_file_holds_nobody_up() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "[shared]\nbytes_per_second = 100000000\n");
    fs::create_dir_all(home.path().join("etc/shared")).unwrap();
    fs::write(home.path().join("etc/shared/large"), noise(1_000_000)).unwrap();
    let program = home.start();
    let (mut web, mut db) = (Agent::new(WEB, Method::AesWazuh), Agent::new(DB, Method::AesWazuh));
    let mut deaf = Tcp::connect_with_receive_buffer(program.address, 4_096);
    deaf.start(&mut web);
    deaf.send(&web.seal(&keep_alive("x")));
    program.wait_for_metric("ringmaster_shared_pushes_total", &[], 1);
    let tcp = std::cell::RefCell::new(Tcp::connect(program.address));
    tcp.borrow_mut().start(&mut db);
    let merged =
        take_file(&mut db, "x", |message| tcp.borrow_mut().send(message), || tcp.borrow_mut().receive());
    assert_eq!(Merged::parse(&merged).unwrap().files[0].content.len(), 1_000_000);
    // What it does not read is little, it is not closed for it, and it is still heard.
    deaf.send(&web.seal(b"1:a:b"));
    program.wait_for_metric("ringmaster_events_total", &[], 1);
    program.wait_for_metric("ringmaster_shared_pushes_sent_total", &[], 1);
    assert_eq!(program.metric("ringmaster_slow_readers_total", &[]), 0);
    program.assert_balanced();
}

#[test]
fn what_is_for_an_agent_leaves_from_the_address_that_it_speaks_to() {
    let home = TestHome::new(&format!("{WEB}\n{DB}\n"), "");
    let listen =
        "[listen]\naddresses = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\n[metrics]\naddress = \"127.0.0.1:0\"\n";
    fs::write(home.path().join("etc/ringmaster.toml"), listen).unwrap();
    let program = home.start();
    let status: serde_json::Value = serde_json::from_str(&home.read("var/run/ringmaster.json")).unwrap();
    for (index, line) in [(0, WEB), (1, DB)] {
        let mut agent = Agent::new(line, Method::AesOssec);
        // Connected, as an agent's socket is: it takes nothing from elsewhere.
        let udp = Udp::connect(status["listen"][index].as_str().unwrap().parse().unwrap());
        udp.start(&mut agent);
        respond(&home, &format!("(local_source) [] NNS {} x", &line[..3]));
        assert_eq!(agent.open(&udp.receive()), b"#!-execd x");
    }
    program.wait_for_metric("ringmaster_agent_messages_sent_total", &[], 2);
}
