//! A plan as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::{Line, Plan, STALL_SECONDS};

/// The plan as a person reads it: the answer, both protocols side by side, and what it was computed from.
pub fn table(plan: &Plan) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write_table(plan, &mut out);
    out
}

fn write_table(plan: &Plan, out: &mut String) -> std::fmt::Result {
    let demand = &plan.demand;
    writeln!(
        out,
        "{} agents x {} events/s = {:.0} events/s; texts of {} bytes, messages of {}; {}; into the {}; \
         {:.0} % of each core left free",
        demand.agents,
        demand.events_a_second_each,
        plan.events_a_second,
        demand.text_bytes,
        demand.message_bytes,
        demand.cipher.name(),
        demand.sink.name(),
        demand.margin * 100.0,
    )?;
    writeln!(
        out,
        "\n{:5}  {:>6}  {:>12}  {:15}  {:>14}  {:>5}  {:>5}  {:>10}  {:>12}  {:>15}",
        "proto",
        "ev/seg",
        "CPU us/event",
        "(interval)",
        "one core's max",
        "load",
        "cores",
        "memory MiB",
        "rcvbuf MiB",
        "Mbit/s in + out",
    )?;
    for line in &plan.lines {
        write_line(line, out)?;
    }
    writeln!(out, "\n{}", answer(plan))?;
    writeln!(
        out,
        "\nOf an event's CPU, in ns:\nproto  ev/seg  receive  turn (decode, decide, form)  hand-over"
    )?;
    for line in &plan.lines {
        let (name, segment, cpu) = (line.protocol.name(), line.events_a_segment, &line.cpu);
        writeln!(
            out,
            "{name:5}  {segment:6}  {:7.0}  {:27.0}  {:9.0}",
            cpu.receive.ns, cpu.turn.ns, cpu.hand_over.ns
        )?;
    }
    writeln!(out, "\nReceive buffers for a stall of {STALL_SECONDS} s:")?;
    for line in &plan.lines {
        let (name, segment) = (line.protocol.name(), line.events_a_segment);
        let whose = if line.memory.connections > 0 { "all connections" } else { "each shard's socket" };
        let buffer = &line.receive_buffer;
        writeln!(out, "{name:5}  {segment:6}  {} bytes for {whose}: {}", buffer.bytes, buffer.sysctl)?;
    }
    writeln!(out, "\nComputed from (ns of one event: median, interval):")?;
    let used: BTreeMap<_, _> =
        plan.lines.iter().flat_map(|line| &line.cpu.from).map(|used| (&used.bench, used.figure)).collect();
    for (bench, figure) in used {
        writeln!(out, "  {bench:66} {:7.0}  {:.0} - {:.0}", figure.ns, figure.low_ns, figure.high_ns)?;
    }
    writeln!(
        out,
        "\nNot in it: the kernel's work before a message is in its socket's queue (on loopback the sender's, on a network \
         card the core's that takes its interrupts), keep-alives, and what reads the sink."
    )
}

fn write_line(line: &Line, out: &mut String) -> std::fmt::Result {
    let total = line.cpu.total;
    let interval = format!("({:.2} - {:.2})", total.low_ns / 1e3, total.high_ns / 1e3);
    let rate = format!("{:.0}/s", line.one_core_events_a_second);
    let network = format!("{:.0} + {:.0}", line.network.received_bits / 1e6, line.network.sent_bits / 1e6);
    writeln!(
        out,
        "{:5}  {:6}  {:12.2}  {interval:15}  {rate:>14}  {:5.2}  {:5}  {:10}  {:12.1}  {network:>15}",
        line.protocol.name(),
        line.events_a_segment,
        total.ns / 1e3,
        line.load_cores,
        line.cores,
        line.memory.total >> 20,
        line.receive_buffer.bytes as f64 / f64::from(1 << 20),
    )
}

/// What was asked for, in one sentence.
fn answer(plan: &Plan) -> String {
    let demand = &plan.demand;
    let asked = plan.lines.iter().filter(|line| line.protocol == demand.protocol);
    let (most, least) =
        asked.fold((0, u64::MAX), |(most, least), line| (line.cores.max(most), line.cores.min(least)));
    let name = demand.protocol.name().to_uppercase();
    let cores =
        if most == least { format!("{most}") } else { format!("{most} (1 event a segment) to {least}") };
    let enough = if most <= demand.cores {
        "are enough"
    } else if least <= demand.cores {
        "are enough only with several events a segment"
    } else {
        "are not enough"
    };
    format!("Over {name} the fleet needs {cores} cores; {} {enough}.", demand.cores)
}

#[cfg(test)]
mod tests {
    use super::super::{Cipher, Demand, Figure, Figures, Protocol, Sink, needed, plan};
    use super::*;

    /// Every part costs a microsecond: three an event, a third of a million events a second and core.
    fn shown(agents: u64, cores: u64) -> String {
        let figure = Figure { ns: 1_000.0, low_ns: 900.0, high_ns: 1_100.0 };
        let figures: Figures =
            needed(Cipher::Aes, Sink::Archive).into_iter().map(|name| (name, figure)).collect();
        let demand = Demand {
            agents,
            events_a_second_each: 10.0,
            text_bytes: 200,
            message_bytes: 260,
            cipher: Cipher::Aes,
            protocol: Protocol::Tcp,
            sink: Sink::Archive,
            margin: 0.5,
            cores,
        };
        table(&plan(&figures, &demand).unwrap())
    }

    #[test]
    fn the_answer_says_how_many_cores_and_whether_they_are_there() {
        // 1,000,000 events/s of 3 us are three cores, six with half of each free.
        assert!(shown(100_000, 8).contains("Over TCP the fleet needs 6 cores; 8 are enough."));
        assert!(shown(100_000, 4).contains("needs 6 cores; 4 are not enough."));
    }

    #[test]
    fn every_line_shows_its_limit_and_every_figure_its_bench() {
        let shown = shown(1_000, 2);
        assert_eq!(shown.matches("333333/s").count(), 8, "{shown}");
        assert_eq!(shown.matches("(2.70 - 3.30)").count(), 8, "{shown}");
        for bench in needed(Cipher::Aes, Sink::Archive) {
            assert!(shown.contains(&bench), "{bench} is not named");
        }
    }
}
