#!/usr/bin/env python3
"""Measures what each knob of the host changes: off and on in turn, `loadgen` with its embedded manager on core 0 and itself on 1.

    sudo tuning/measure.py target/release/loadgen                  # all knobs, three turns, under ten minutes; prints the tables
    sudo tuning/measure.py target/release/loadgen --only qlen,rps --turns 5
    sudo tuning/measure.py target/release/loadgen --readme tuning/README.md    # writes them between its knobs:begin and knobs:end

Sysctls of the network are set in a network namespace of the run's own. Four settings belong to the whole host (rmem_max, wmem_max,
netdev_max_backlog, transparent huge pages): they are set for one run and put back after it, whatever ends this program but kill -9.
Needs root, two cores, and Linux's unshare, setpriv and prlimit (util-linux). Nothing leaves loopback.
"""

import argparse
import dataclasses
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

RUN_SECONDS_MAX = 90
MIGRATED_CONNECTIONS = 1_000

HOST_FILES = {
    "rmem_max": "/proc/sys/net/core/rmem_max",
    "wmem_max": "/proc/sys/net/core/wmem_max",
    "netdev_max_backlog": "/proc/sys/net/core/netdev_max_backlog",
    "thp": "/sys/kernel/mm/transparent_hugepage/enabled",
}
WITHOUT_NET_ADMIN = "setpriv --bounding-set -net_admin --inh-caps -net_admin --ambient-caps -net_admin --".split()
UDP = "--proto udp --agents 1000".split()


@dataclasses.dataclass
class Side:
    """How the machine is set for a run: off or on."""

    host: dict = dataclasses.field(default_factory=dict)
    namespace: dict = dataclasses.field(default_factory=dict)
    rps_cores: str | None = None
    prefix: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Knob:
    title: str
    off_name: str
    on_name: str
    off: Side
    on: Side
    arguments: list


KNOBS = {
    "qlen": Knob(
        "net.unix.max_dgram_qlen", "10", "512",
        Side(namespace={"net.unix.max_dgram_qlen": "10"}), Side(),
        UDP + ["--rate", "20000"],
    ),
    "rmem": Knob(
        "net.core.rmem_max, without CAP_NET_ADMIN, bursts of 64", "212992", "16777216",
        Side(host={"rmem_max": "212992"}, prefix=WITHOUT_NET_ADMIN),
        Side(host={"rmem_max": "16777216"}, prefix=WITHOUT_NET_ADMIN),
        UDP + ["--rate", "30000", "--burst", "64"],
    ),
    "wmem": Knob(
        "net.core.wmem_max", "212992", "4194304",
        Side(host={"wmem_max": "212992"}), Side(host={"wmem_max": "4194304"}),
        UDP + ["--rate", "20000"],
    ),
    "backlog": Knob(
        "net.core.netdev_max_backlog, RPS of lo to the shard's core, bursts of 64", "1000", "16384",
        Side(host={"netdev_max_backlog": "1000"}, rps_cores="1"),
        Side(host={"netdev_max_backlog": "16384"}, rps_cores="1"),
        UDP + ["--rate", "30000", "--burst", "64"],
    ),
    "rps": Knob(
        "RPS of lo: softirq on the generator's core or on the shard's", "generator's", "shard's",
        Side(rps_cores="0"), Side(rps_cores="1"),
        UDP + ["--rate", "20000"],
    ),
    "somaxconn": Knob(
        "net.core.somaxconn, 4,000 agents connect at once", "128", "4096",
        Side(namespace={"net.core.somaxconn": "128"}), Side(namespace={"net.core.somaxconn": "4096"}),
        "--proto tcp --agents 4000 --rate 4000 --connect-in-flight 4000".split(),
    ),
    "nofile": Knob(
        "RLIMIT_NOFILE, 2,000 TCP agents: spare rings or none", "600", "20000",
        Side(prefix=["prlimit", "--nofile=600:600"]), Side(),
        "--proto tcp --agents 2000 --rate 20000".split(),
    ),
    "thp": Knob(
        "transparent huge pages, 19,900 agents, Blowfish", "never", "always",
        Side(host={"thp": "never"}), Side(host={"thp": "always"}),
        "--proto udp --agents 19900 --cipher blowfish --rate 20000".split(),
    ),
}
MIGRATE = "migrate"

COLUMNS = [("cpu_us", ".1f"), ("lost", ",.0f"), ("p99_ms", ".1f"), ("connect_seconds", ".2f")]
HEAD = """\
| knob: off / on | CPU an event off, µs | on | lost off | on | p99 off, ms | on | connected after off, s | on | core not had |
|---|---|---|---|---|---|---|---|---|---|
"""


def main():
    asked = arguments()
    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGHUP, stopped)
    begun = time.time()
    before = {name: host_setting(name) for name in HOST_FILES}
    rows, migrated = [], ""
    for word in asked.only:
        if time.time() - begun > asked.budget:
            print(f"no time left for {word}", file=sys.stderr)
        elif word == MIGRATE:
            migrated = migration_row(asked.turns)
        else:
            rows.append(row(KNOBS[word], *measured(asked, KNOBS[word], before)))
            print(f"{time.time() - begun:.0f} s {rows[-1]}", file=sys.stderr)
    assert {name: host_setting(name) for name in HOST_FILES} == before, "the host is not as it was"
    text = report(asked, rows, migrated)
    print(text)
    if asked.readme:
        replace_between_marks(asked.readme, text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = [*KNOBS, MIGRATE]
    parser.add_argument("loadgen", type=os.path.abspath, help="the program, built with --release")
    parser.add_argument("--only", type=lambda text: text.split(","), default=words, help=",".join(words))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="how long events are made in each run")
    parser.add_argument("--budget", type=float, default=600, help="seconds after which no further knob is begun")
    parser.add_argument("--readme", help="a file with the marks <!-- knobs:begin --> and <!-- knobs:end -->")
    asked = parser.parse_args()
    unknown = [word for word in asked.only if word not in words]
    if unknown:
        parser.error(f"no such knob: {', '.join(unknown)}; there are {', '.join(words)}")
    if os.geteuid() != 0:
        parser.error("network namespaces and sysctls need root")
    return asked


def stopped(*_):
    raise SystemExit("stopped")


def measured(asked, knob, before):
    """The runs off and the runs on; who begins changes from turn to turn."""
    off, on = [], []
    for turn in range(asked.turns):
        pair = [(knob.off, off), (knob.on, on)]
        for side, into in pair if turn % 2 == 0 else reversed(pair):
            into.append(run(asked, side, knob.arguments, before))
    return off, on


def run(asked, side, arguments, before):
    namespace = {"net.unix.max_dgram_qlen": "512", **side.namespace}
    steps = ["ip link set lo up"] + [f"sysctl -qw {name}={value}" for name, value in namespace.items()]
    if side.rps_cores is not None:
        steps += ["mount -t sysfs sysfs /sys", f"echo {side.rps_cores} > /sys/class/net/lo/queues/rx-0/rps_cpus"]
    script = " && ".join(steps) + ' && exec "$@"'
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = ["unshare", "-n", "-m", "bash", "-c", script, "_", *side.prefix, asked.loadgen, *arguments]
        command += ["--duration", f"{asked.seconds:g}s", "--drain", "500ms", "--max-loss", "99%"]
        command += ["--manager-cores", "0", "--cores", "1", "--json", out.name]
        try:
            set_host(side.host)
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_SECONDS_MAX
            )
        finally:
            set_host({name: before[name] for name in side.host})
        if os.path.getsize(out.name) == 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
        with open(out.name, encoding="utf-8") as file:
            return figures(json.load(file))


def figures(result):
    cpu = result["manager_cpu_ns_per_event"] or {"user": 0, "system": 0}
    return {
        "cpu_us": (cpu["user"] + cpu["system"]) / 1e3,
        "lost": result["events_lost"],
        "p99_ms": result["latency_ns"]["p99"] / 1e6,
        "connect_seconds": result["connect_seconds"],
        "waited": result["manager_waited_share"] or 0,
        "generator_was_the_limit": result["generator_was_the_limit"],
    }


def row(knob, off, on):
    cells = [f"{knob.title}: {knob.off_name} / {knob.on_name}"]
    for column, form in COLUMNS:
        cells += [spread([run[column] for run in runs], form) for runs in (off, on)]
    waited = max(run["waited"] for run in off + on)
    limit = ", loadgen was the limit" if any(run["generator_was_the_limit"] for run in off + on) else ""
    cells.append(f"{100 * waited:.0f} %{limit}")
    return "| " + " | ".join(cells) + " |"


def spread(values, form):
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def migration_row(turns):
    """Connections that two listeners of a SO_REUSEPORT group hold unaccepted, and one of the two is closed."""
    program = os.path.abspath(__file__)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", f"import runpy; runpy.run_path({program!r})['migrate']({turns})"],
        stdout=subprocess.PIPE, text=True, check=True, timeout=RUN_SECONDS_MAX,
    )
    off, on = json.loads(done.stdout)
    cells = [f"{statistics.median(lost):.0f} of {MIGRATED_CONNECTIONS} lost ({min(lost)}-{max(lost)})" for lost in (off, on)]
    return "| net.ipv4.tcp_migrate_req: 0 / 1, one of two listeners closed with connections unaccepted | " + " | ".join(cells) + " |"


def migrate(turns):
    """In a namespace of its own: prints how many connections were lost off and on, as JSON."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    lost = [[], []]
    for _ in range(turns):
        for value in (0, 1):
            with open("/proc/sys/net/ipv4/tcp_migrate_req", "w", encoding="utf-8") as file:
                file.write(str(value))
            lost[value].append(connections_lost())
    print(json.dumps(lost))


def connections_lost():
    listeners, port = [], 0
    for _ in range(2):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(4096)
        port = listener.getsockname()[1]
        listeners.append(listener)
    peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(MIGRATED_CONNECTIONS)]
    listeners[0].close()
    lost = sum(is_reset(peer) for peer in peers)
    for each in [*peers, listeners[1]]:
        each.close()
    return lost


def is_reset(peer):
    peer.setblocking(False)
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def report(asked, rows, migrated):
    stamp = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    with open("/proc/loadavg", encoding="utf-8") as file:
        load = file.read().split()[0]
    text = f"Measured {stamp} by `tuning/measure.py`, {asked.turns} turns of {asked.seconds:g} s each; load average {load} at the end.\n"
    if rows:
        text += "\n" + HEAD + "".join(line + "\n" for line in rows)
    if migrated:
        text += f"\n| knob: off / on | off | on |\n|---|---|---|\n{migrated}\n"
    return text


def replace_between_marks(path, text):
    begin, end = "<!-- knobs:begin -->\n", "<!-- knobs:end -->"
    with open(path, encoding="utf-8") as file:
        head, rest = file.read().split(begin, 1)
    tail = rest.split(end, 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + begin + text + end + tail)


def host_setting(name):
    with open(HOST_FILES[name], encoding="utf-8") as file:
        text = file.read().strip()
    return text.split("[")[1].split("]")[0] if "[" in text else text


def set_host(values):
    for name, value in values.items():
        with open(HOST_FILES[name], "w", encoding="utf-8") as file:
            file.write(value)


if __name__ == "__main__":
    main()
