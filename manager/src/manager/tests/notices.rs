//! What is told about agents.

use bytes::Bytes;

use super::*;

impl Bench {
    /// What was told since the last look.
    fn told(&mut self) -> Vec<(String, Notice)> {
        self.actions();
        std::mem::take(&mut self.notices)
    }
}

fn connected(host: u8, transport: Transport) -> Notice {
    Notice::Connected { from: from(host, 1_000), transport }
}

fn of(agent: &str, notices: impl IntoIterator<Item = Notice>) -> Vec<(String, Notice)> {
    notices.into_iter().map(|notice| (agent.to_owned(), notice)).collect()
}

#[test]
fn a_connection_is_told_of_when_it_authenticates_and_when_it_ends() {
    let mut bench = Bench::new(Settings::default());
    let (first, second) = (bench.connect(0), bench.connect(1));
    assert_eq!(bench.told(), [], "nobody has said who he is");
    bench.says(first, "001", EVENT);
    bench.says(first, "001", EVENT);
    assert_eq!(bench.told(), of("001", [connected(9, Transport::Tcp)]), "once, and not for each event");
    bench.says(second, "001", EVENT);
    assert_eq!(bench.told(), of("001", [connected(9, Transport::Tcp)]), "overtaken is not gone");
    bench.manager.on_closed(id(1));
    assert_eq!(bench.told(), of("001", [Notice::Disconnected { reason: CloseReason::Peer }]));

    let again = bench.connect(2);
    bench.says(again, "001", EVENT);
    bench.told();
    bench.manager.on_keys(table("002 two any key-two\n", None));
    assert_eq!(bench.told(), [], "there is no such agent any more");
}

#[test]
fn over_udp_another_address_is_news() {
    let mut bench = Bench::new(Settings::default());
    bench.says(udp(7), "001", EVENT);
    assert_eq!(bench.told(), [], "events may come from anywhere");
    bench.says(udp(7), "001", STARTUP);
    bench.says(udp(7), "001", STARTUP);
    bench.says(udp(8), "001", STARTUP);
    let started = || Notice::Started { version: None };
    let expected =
        [connected(7, Transport::Udp), started(), started(), connected(8, Transport::Udp), started()];
    assert_eq!(bench.told(), of("001", expected));
}

#[test]
fn what_agents_say_of_themselves() {
    let long = format!("#!-agent startup {{\"version\":\"{}\"}}", "v".repeat(65));
    for (text, expected) in [
        (
            br#"#!-agent startup {"version":"v4.14.7"}"#.as_slice(),
            Notice::Started { version: Some("v4.14.7".into()) },
        ),
        (long.as_bytes(), Notice::Started { version: None }),
        (b"#!-agent shutdown ", Notice::Stopped),
        (
            b"#!-req 7b err no",
            Notice::RequestAnswer { id: Bytes::from_static(b"7b"), text: Bytes::from_static(b"err no") },
        ),
    ] {
        let mut bench = Bench::new(Settings::default());
        let connection = bench.connect(0);
        bench.says(connection, "001", text);
        assert_eq!(bench.told()[1..], of("001", [expected]));
        assert_eq!(
            bench.says(connection, "001", b"#!-something else"),
            Verdict::Control(ControlKind::Unknown)
        );
        assert_eq!(bench.told(), []);
    }
}

#[test]
fn a_keep_alive_is_told_whole_once_and_then_in_a_word() {
    let mut bench = Bench::new(Settings::default());
    let connection = bench.connect(0);
    bench.says(connection, "001", STARTUP);
    bench.told();
    let said = |text: &'static [u8]| Notice::KeepAlive { text: Bytes::from_static(text) };
    for (text, expected) in [
        (b"#!-Linux web01\nx merged.mg\n\nfiller".as_slice(), said(b"#!-Linux web01\nx merged.mg\n\n")),
        (b"#!-Linux web01\nx merged.mg\n\nother filler", Notice::KeepAliveSame),
        (b"#!-Linux web01\nx merged.mg\n\nother\0", Notice::KeepAliveSame),
        (b"#!-Linux web02\nx merged.mg\n\nother", said(b"#!-Linux web02\nx merged.mg\n\n")),
        (b"#!-Linux web01\nx merged.mg\n\nother", said(b"#!-Linux web01\nx merged.mg\n\n")),
    ] {
        bench.says(connection, "001", text);
        assert_eq!(bench.told(), of("001", [expected]));
    }
    let other_cipher = bench.seal("001", Method::AesWazuh, b"#!-Linux web01\nx merged.mg\n\nother");
    bench.receive(&[(connection, &other_cipher)]);
    assert_eq!(bench.told(), of("001", [said(b"#!-Linux web01\nx merged.mg\n\n")]));
    bench.manager.table().by_id("001".parse().unwrap()).unwrap().state().forget_keep_alive();
    let again = bench.seal("001", Method::AesWazuh, b"#!-Linux web01\nx merged.mg\n\nother");
    bench.receive(&[(connection, &again)]);
    assert_eq!(
        bench.told(),
        of("001", [said(b"#!-Linux web01\nx merged.mg\n\n")]),
        "it had not come through"
    );
}

#[test]
fn a_stop_is_announced_as_wazuh_does_it_and_counted_apart() {
    let wazuh = Settings { announces_stops: true, ..Settings::default() };
    for (settings, expected) in
        [(wazuh.clone(), &b"wazuh-remoted:ossec: Agent stopped: 'one->any'."[..]), (Settings::default(), b"")]
    {
        let mut bench = Bench::new(settings);
        assert_eq!(bench.says(udp(7), "001", b"#!-agent shutdown "), Verdict::Control(ControlKind::Shutdown));
        let raised: Vec<&[u8]> = bench.sink.events.iter().map(|(_, rest)| &rest[..]).collect();
        assert_eq!(raised.concat(), expected);
        let counters = bench.manager.counters();
        assert_eq!((counters.raised, counters.events), (u64::from(!expected.is_empty()), 0));
        assert!(counters.balanced());
    }
    let mut bench = Bench::new(wazuh);
    bench.sink.is_full = true;
    bench.says(udp(7), "001", b"#!-agent shutdown ");
    assert_eq!(bench.manager.counters().raised_dropped, 1);
    let connection = bench.connect(0);
    for _ in 0..3 {
        bench.says(connection, "001", b"#!-agent shutdown ");
    }
    assert_eq!(bench.manager.counters().raised, 1, "back-pressure does not hold it, so there is one");
}

#[test]
fn what_became_of_an_agents_messages_is_counted_at_the_agent() {
    let mut bench = Bench::new(Settings::default());
    bench.says(udp(7), "001", EVENT);
    bench.says(udp(7), "001", STARTUP);
    bench.says(udp(7), "001", b"no queue");
    bench.receive(&[(udp(7), b"!001!:garbage")]);
    let table = Arc::clone(bench.manager.table());
    let count = |id: &str| {
        let state = table.by_id(id.parse().unwrap()).unwrap().state();
        (state.events(), state.dropped())
    };
    assert_eq!((count("001"), count("002")), ((1, 2), (0, 0)));
}
