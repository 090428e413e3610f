//! More connections than one table of direct descriptors holds. In a process of its own, for its limit of descriptors.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[expect(dead_code, reason = "the bed is made for the other tests")]
#[path = "shard/bed.rs"]
mod bed;

use bed::{ACK, Bed, Ports, STARTUP, TcpAgent, datagram, event};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_shard_opens_rings_for_more_connections_than_a_table_holds() {
    const AGENTS: u32 = 90;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), maximum: limit.maximum }).unwrap();
    let bed = Bed::with(1, Ports::Own, |settings| settings.shards.connections_max = 200);
    bed.until("the shard runs", |bed| bed.sum(|metrics| metrics.turns.read()) > 0);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();

    let reader = bed.reader();
    let mut agents: Vec<TcpAgent> =
        (1..=AGENTS).map(|number| TcpAgent::started(number, bed.address())).collect();
    assert_eq!(bed.sum(|metrics| metrics.connections_authenticated.read()), u64::from(AGENTS));
    for agent in &mut agents {
        let number = agent.identity.number;
        agent.say(event(number, 1).as_bytes());
        assert_eq!(reader.next(), datagram(number, 1));
    }
    // Half of them go, and others take their slots, on all rings.
    agents.retain(|agent| agent.identity.number % 2 == 0);
    bed.until("half are gone", |bed| bed.sum(|metrics| metrics.connections.read()) == u64::from(AGENTS / 2));
    let replaced = agents.iter().map(|agent| agent.identity.number - 1).collect::<Vec<_>>();
    for number in replaced {
        let mut agent = TcpAgent::connect(number, bed.address());
        // Two messages on: the agent's counters went on elsewhere.
        (0..2).for_each(|_| drop(agent.identity.frame(b"1:a:b")));
        agent.say(STARTUP);
        assert_eq!(agent.hear(), ACK);
        agents.push(agent);
    }
    for agent in &mut agents {
        let number = agent.identity.number;
        agent.say(event(number, 2).as_bytes());
        assert_eq!(reader.next(), datagram(number, 2));
    }
    bed.finish();
}
