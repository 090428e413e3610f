use codec::{Method, OpenSettings, Opener, Sealer};

use super::*;

/// One agent, and a manager's pen and glasses.
struct Bench {
    agent: Agent,
    tools: Tools,
    now: Duration,
    said: Counter,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Bench {
    fn new(profile: Profile) -> Bench {
        let id: AgentId = "001".parse().expect("digits");
        let settings = AgentSettings {
            profile: Arc::new(profile),
            id,
            key: Arc::new(CipherKey::new("name", id.as_str(), "key")),
            sends_id: true,
            address: IpAddr::from([192, 0, 2, 1]),
            sent: Counter { global: 3, local: 9_997 },
            taken: Counter::ZERO,
        };
        let agent = Agent::new(settings, seconds(1));
        Bench { agent, tools: Tools::new([1; 32]), now: seconds(1), said: Counter::ZERO }
    }

    /// One input; its outputs as words, messages opened.
    fn input(&mut self, input: impl FnOnce(&mut Agent, &mut Tools, Duration)) -> Vec<String> {
        input(&mut self.agent, &mut self.tools, self.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.tools.next_output()).collect();
        outputs.iter().map(|output| self.word(output)).collect()
    }

    fn word(&self, output: &Output) -> String {
        let Output::Transmit(bytes) = output else { return format!("{output:?}") };
        let sealed = bytes.strip_prefix(b"!001!").expect("it sends its id");
        let mut opener = Opener::new(OpenSettings::default());
        let opened = opener.open(&[Sealed { key: self.agent.key(), bytes: sealed, method_hint: None }]);
        let opened = opened.get(0).expect("it seals what opens");
        assert_eq!(opened.method, self.agent.profile().method);
        assert!(opened.counter > Counter { global: 3, local: 9_997 });
        String::from_utf8_lossy(opened.text).into_owned()
    }

    fn timeout(&mut self) -> Vec<String> {
        self.now = self.agent.next_timeout().expect("it waits for something");
        self.input(Agent::on_timeout)
    }

    fn hears(&mut self, text: &[u8]) -> Vec<String> {
        self.said = self.said.next();
        let message = self.said_under(self.said, text);
        self.input(|agent, tools, now| agent.on_message(tools, now, &message))
    }

    fn said_under(&self, counter: Counter, text: &[u8]) -> Vec<u8> {
        let envelope = Envelope {
            id_prefix: None,
            method: self.agent.profile().method,
            random: 0,
            counter,
            initialization_vector: [5; 16],
            text,
        };
        let mut message = Vec::new();
        Sealer::new().seal(self.agent.key(), &envelope, &mut message).expect("the text is short");
        message
    }

    /// Connected and acknowledged.
    fn ready(profile: Profile) -> Bench {
        let mut bench = Bench::new(profile);
        assert_eq!(bench.timeout(), ["Connect"]);
        assert!(bench.input(Agent::on_connected)[0].starts_with("#!-agent startup "));
        let outputs = bench.hears(b"#!-agent ack ");
        assert_eq!(outputs[..2], ["Acknowledged", "Ready"]);
        assert!(outputs[2].starts_with("#!-Linux"), "then a keep-alive: {outputs:?}");
        assert_eq!(bench.agent.state(), State::Ready);
        bench
    }
}

fn all_profiles() -> Vec<Profile> {
    let mut profiles = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
            profiles.extend([Profile::ossec(transport, method), Profile::wazuh(transport, method)]);
        }
    }
    profiles
}

#[test]
fn starts_keeps_alive_and_sends() {
    for profile in all_profiles() {
        let (notify_time, product) = (profile.notify_time, profile.product);
        let mut bench = Bench::ready(profile);
        let before = bench.now;
        let keep_alive = bench.timeout();
        assert_eq!(bench.now - before, notify_time);
        let line = match product {
            Product::Ossec => "x merged.mg\n\n",
            Product::Wazuh => "x merged.mg\n#\"_agent_ip\":192.0.2.1\n",
        };
        assert!(keep_alive[0].contains(line), "{keep_alive:?}");
        let sent = bench.input(|agent, tools, _| agent.submit(tools, b"1:a:b").expect("it is ready"));
        assert_eq!(sent, ["1:a:b"]);
    }
}

#[test]
fn startups() {
    let startup = |profile| {
        let mut bench = Bench::new(profile);
        bench.timeout();
        bench.input(Agent::on_connected)
    };
    assert_eq!(startup(Profile::ossec(Transport::Udp, Method::Blowfish)), ["#!-agent startup "]);
    let wazuh = startup(Profile::wazuh(Transport::Tcp, Method::AesWazuh));
    assert_eq!(wazuh, ["#!-agent startup {\"version\":\"v4.14.7\"}"]);
}

#[test]
fn acknowledged_delivery_is_offered_and_agreed_before_the_agent_is_ready() {
    let offer = DeliveryOffer { session: 0xfe, first: 7 };
    let mut bench = Bench::new(Profile::ossec(Transport::Tcp, Method::AesOssec));
    bench.agent.set_delivery(Some(offer));
    bench.timeout();
    let startup = bench.input(Agent::on_connected);
    assert_eq!(startup, ["#!-agent startup delivery 1 00000000000000fe 7"]);
    assert_eq!(bench.hears(b"#!-ringmaster delivery 00000000000000ff"), [""; 0], "another's session");
    assert_eq!(bench.hears(b"#!-ringmaster delivery 00000000000000fe"), ["DeliveryAgreed"]);
    assert_eq!(bench.hears(b"#!-ringmaster taken 9"), ["DeliveryTaken { before: 9 }"]);
    assert_eq!(bench.input(|agent, tools, _| agent.say_next(tools, 9)), [""; 0], "it is not ready");
    assert_eq!(bench.hears(b"#!-agent ack ")[..2], ["Acknowledged", "Ready"]);
    assert_eq!(bench.input(|agent, tools, _| agent.say_next(tools, 9)), ["#!-ringmaster next 9"]);
    assert_eq!(bench.hears(b"#!-ringmaster taken 10"), ["DeliveryTaken { before: 10 }"]);
    assert!(bench.hears(b"#!-ringmaster delivery 00000000000000fe")[0].starts_with("Received"), "too late");
    assert_eq!(bench.input(|agent, tools, _| agent.reconnect(tools)), ["Disconnect", "Locked", "Connect"]);

    // Who offers nothing is told nothing; and a start-up of Wazuh's has no room for it.
    let mut bench = Bench::ready(Profile::ossec(Transport::Tcp, Method::AesOssec));
    assert!(bench.hears(b"#!-ringmaster taken 9")[0].starts_with("Received"));
    let mut bench = Bench::new(Profile::wazuh(Transport::Tcp, Method::AesWazuh));
    bench.agent.set_delivery(Some(offer));
    bench.timeout();
    assert_eq!(bench.input(Agent::on_connected), ["#!-agent startup {\"version\":\"v4.14.7\"}"]);
}

/// Nobody answers: how long until the agent does something, and what.
#[test]
fn unanswered() {
    let waits = |profile: Profile, count: usize| -> Vec<u64> {
        let mut bench = Bench::new(profile);
        bench.timeout();
        bench.input(Agent::on_connected);
        let wait = |_| {
            let before = bench.now;
            let did = bench.timeout();
            assert_eq!(did.len(), 1, "{did:?}");
            (bench.now - before).as_secs()
        };
        (0..count).map(wait).collect()
    };
    assert_eq!(waits(Profile::ossec(Transport::Udp, Method::Blowfish), 4), [1, 2, 3, 4]);
    assert_eq!(waits(Profile::ossec(Transport::Udp, Method::Blowfish), 70)[69], 60);
    assert_eq!(waits(Profile::wazuh(Transport::Udp, Method::AesWazuh), 6), [10; 6]);
    // Over TCP it hangs up, and asks to be connected again.
    assert_eq!(waits(Profile::wazuh(Transport::Tcp, Method::AesWazuh), 2), [10, 10]);
}

#[test]
fn a_lost_connection_is_asked_for_at_once_then_every_ten_seconds() {
    let mut bench = Bench::ready(Profile::wazuh(Transport::Tcp, Method::AesWazuh));
    assert_eq!(bench.input(Agent::on_closed), ["Locked", "Connect"]);
    assert_eq!(bench.agent.state(), State::Locked);
    let refused = bench.agent.submit(&mut bench.tools, b"1:a:b");
    assert_eq!(refused, Err(SubmitError::Locked));
    for _ in 0..3 {
        let before = bench.now;
        assert_eq!(bench.input(Agent::on_closed), [""; 0]);
        assert_eq!(bench.timeout(), ["Connect"]);
        assert_eq!(bench.now - before, seconds(10));
    }
    bench.input(Agent::on_connected);
    assert_eq!(bench.hears(b"#!-agent ack ")[1], "Ready");
}

#[test]
fn silence_locks() {
    for profile in
        [Profile::ossec(Transport::Udp, Method::Blowfish), Profile::wazuh(Transport::Tcp, Method::AesWazuh)]
    {
        let time_reconnect = profile.time_reconnect;
        let mut bench = Bench::ready(profile);
        let heard = bench.now;
        let last =
            std::iter::from_fn(|| Some(bench.timeout())).find(|outputs| !outputs[0].starts_with("#!-"));
        assert_eq!(last.expect("it ends"), ["Disconnect", "Locked", "Connect"]);
        assert_eq!(bench.now - heard, time_reconnect);
    }
}

#[test]
fn anything_genuine_is_a_sign_of_life() {
    let mut bench = Bench::ready(Profile::wazuh(Transport::Tcp, Method::AesWazuh));
    for _ in 0..20 {
        bench.now += seconds(50);
        assert_eq!(
            bench.hears(b"#!-execd something"),
            [
                "Received([35, 33, 45, 101, 120, 101, 99, 100, 32, 115, 111, 109, 101, 116, 104, 105, 110, 103])"
            ]
        );
        bench.input(Agent::on_timeout);
        assert_eq!(bench.agent.state(), State::Ready);
    }
}

#[test]
fn only_what_grows_and_opens_is_taken() {
    let mut bench = Bench::new(Profile::ossec(Transport::Udp, Method::Blowfish));
    bench.timeout();
    bench.input(Agent::on_connected);
    let ack = bench.said_under(Counter { global: 2, local: 2 }, b"#!-execd x");
    bench.input(|agent, tools, now| agent.on_message(tools, now, &ack));
    let old = bench.said_under(Counter { global: 2, local: 1 }, b"#!-agent ack ");
    for bytes in [&old[..], b"#!-agent ack ", b"", &old[..20]] {
        assert_eq!(bench.input(|agent, tools, now| agent.on_message(tools, now, bytes)), [""; 0]);
        assert_eq!(bench.agent.state(), State::Starting);
    }
}

#[test]
fn a_wazuh_agent_takes_anything_but_the_acknowledgement_for_a_failure() {
    let mut bench = Bench::new(Profile::wazuh(Transport::Tcp, Method::AesWazuh));
    bench.timeout();
    bench.input(Agent::on_connected);
    assert_eq!(bench.hears(b"#!-execd x"), ["Disconnect"]);
}

#[test]
fn messages_sealed_elsewhere_leave_room() {
    let mut bench = Bench::ready(Profile::ossec(Transport::Udp, Method::Blowfish));
    let ahead = Counter { global: 9, local: 100 };
    bench.agent.sealed_elsewhere(ahead);
    assert_eq!(bench.agent.next_counter(), Counter { global: 9, local: 101 });
    bench.agent.sealed_elsewhere(Counter { global: 1, local: 1 });
    bench.timeout();
    assert_eq!(bench.agent.counters().0, Counter { global: 9, local: 101 }, "the keep-alive came after it");
}

#[test]
fn stops() {
    let mut bench = Bench::ready(Profile::wazuh(Transport::Tcp, Method::AesWazuh));
    let outputs = bench.input(|agent, tools, _| agent.stop(tools));
    assert_eq!(outputs, ["#!-agent shutdown ", "Disconnect"]);
    assert_eq!((bench.agent.state(), bench.agent.next_timeout()), (State::Stopped, None));
    let mut bench = Bench::ready(Profile::ossec(Transport::Udp, Method::Blowfish));
    assert_eq!(bench.input(|agent, tools, _| agent.stop(tools)), ["Disconnect"]);
}

#[test]
fn jitter_spreads_a_fleet() {
    let profile =
        Profile { reconnect_jitter: seconds(10), ..Profile::wazuh(Transport::Tcp, Method::AesWazuh) };
    let mut bench = Bench::ready(profile);
    bench.input(Agent::on_closed);
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let before = bench.now;
        bench.input(Agent::on_closed);
        bench.timeout();
        let wait = bench.now - before;
        assert!(wait >= seconds(10) && wait < seconds(20), "{wait:?}");
        waits.insert(wait);
    }
    assert!(waits.len() > 15, "they differ: {waits:?}");
}

#[test]
fn an_agent_is_small() {
    assert!(size_of::<Agent>() <= 192, "{} bytes", size_of::<Agent>());
}

#[test]
fn a_probe_is_a_keep_alive_before_its_time_and_tells_of_the_files() {
    let mut bench = Bench::new(Profile::ossec(Transport::Tcp, Method::AesOssec));
    assert_eq!(bench.input(Agent::probe), [""; 0], "nobody is there to answer");
    let mut bench = Bench::ready(Profile::ossec(Transport::Tcp, Method::AesOssec));
    let asked = bench.agent.asked();
    assert_eq!(asked, 2, "the start-up and the first keep-alive");
    let conf = HexDigest::of(b"conf");
    bench.agent.set_files(SharedFiles { agent_conf: Some(conf), merged: Some(HexDigest::of(b"merged")) });
    let said = bench.input(Agent::probe);
    assert!(said[0].contains(&format!(" / {conf}\n{} merged.mg\n", HexDigest::of(b"merged"))), "{said:?}");
    assert_eq!(bench.agent.asked(), asked + 1);
}

#[test]
fn what_is_ignored_is_counted() {
    let mut bench = Bench::ready(Profile::ossec(Transport::Tcp, Method::AesOssec));
    let old = bench.said_under(Counter { global: 0, local: 1 }, b"#!-agent ack ");
    bench.input(|agent, tools, now| agent.on_message(tools, now, &old));
    bench.input(|agent, tools, now| agent.on_message(tools, now, b"noise"));
    assert_eq!(bench.agent.ignored(), Ignored { unopened: 1, stale: 1 });
}
