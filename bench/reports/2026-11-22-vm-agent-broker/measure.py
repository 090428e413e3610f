#!/usr/bin/env python3
"""What ringmaster-agent and ringmaster-broker cost, beside ossec-agentd: at rest, and under all the events they take.

    measure.py FOLDER rest|load [--turns 3] [--seconds 180] [--events 60000] [--rows udp,tcp,...] [--ossec-agentd COMMAND]

FOLDER has ringmaster, ringmaster-agent and ringmaster-broker. COMMAND starts an ossec-agentd of AES and has {port}, {home}, {id}, {name},
{key} and {notify} in it; without it its rows are left out. The manager has core 0, all others core 1. Prints one line a measurement.
"""

import argparse, os, shlex, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

KEYS = {f"{n:03}": f"{n:064x}" for n in range(1, 13)}
EVENT = 300
BORN = []


def start(command, core, log, **more):
    taskset = ["taskset", "-c", str(core)]
    child = subprocess.Popen(taskset + command, stderr=open(log, "ab"), stdout=subprocess.DEVNULL, **more)
    BORN.append(child)
    return child


def end(child):
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    BORN.remove(child)


def until(holds, what, seconds=60):
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"it did not come to that: {what}")


def free_port():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


class Manager:
    def __init__(self, programs, work):
        self.home, self.port, self.program = f"{work}/manager", free_port(), f"{programs}/ringmaster"
        write(f"{self.home}/etc/client.keys", "".join(f"{id} a{id} any {key}\n" for id, key in KEYS.items()))
        write(f"{self.home}/etc/ringmaster.toml", f"""
[listen]
addresses = ["127.0.0.1:{self.port}"]
receive_buffer_bytes = 33554432
[shards]
cores = [0]
[sink.queue]
enabled = false
[sink.archives]
text = true
[metrics]
address = "none"
""")
        self.child = start([self.program, "--home", self.home], 0, f"{work}/manager.log")
        asks = [self.program, "--home", self.home, "status"]
        until(lambda: subprocess.run(asks, capture_output=True).returncode == 0, "a manager that answers")
        self.file = f"{self.home}/logs/archives/archives.log"
        self.at, self.rest = 0, b""

    def numbers(self):
        """The numbers of the events that have come since it was last asked."""
        try:
            with open(self.file, "rb") as file:
                file.seek(self.at)
                text = file.read()
        except FileNotFoundError:
            return []
        self.at += len(text)
        lines = (self.rest + text).split(b"\n")
        self.rest = lines.pop()
        return [int(line[-8:]) for line in lines if line[-9:-8] == b"#"]


class Agent:
    """ringmaster-agent, or ossec-agentd, in a home of its own."""

    def __init__(self, args, work, id, port, kind, notify):
        self.home, self.kind = f"{work}/agent-{id}-{kind}", kind
        key, name = KEYS[id], f"a{id}"
        if kind == "ossec":
            words = args.ossec_agentd.format(port=port, home=self.home, id=id, name=name, key=key, notify=notify)
            self.wrapper = start(["sh", "-c", words], 1, f"{work}/ossec.log")
            self.pid = until(lambda: descendant(self.wrapper.pid, "ossec-agentd"), "ossec-agentd")
            log = f"{self.home}/logs/ossec.log"
            until(lambda: os.path.exists(log) and b"(4102)" in open(log, "rb").read(), "ossec-agentd connected", 90)
            return
        transport = "udp" if kind == "udp" else "tcp"
        client = f"<server-ip>127.0.0.1</server-ip><port>{port}</port><protocol>{transport}</protocol>"
        client += f"<crypto_method>aes</crypto_method><notify_time>{notify}</notify_time>"
        write(f"{self.home}/etc/ossec.conf", f"<ossec_config><client>{client}</client></ossec_config>\n")
        write(f"{self.home}/etc/client.keys", f"{id} {name} any {key}\n")
        acknowledged = "true" if kind == "acknowledged" else "false"
        write(f"{self.home}/etc/ringmaster-agent.toml", f"[delivery]\nacknowledged = {acknowledged}\n")
        program = f"{args.folder}/ringmaster-agent"
        self.wrapper = start([program, "--home", self.home], 1, f"{work}/agent.log")
        self.pid = self.wrapper.pid
        asks = [program, "--home", self.home, "status"]
        until(lambda: subprocess.run(asks, capture_output=True).returncode == 0, "an agent that is connected")

    def feed(self, first, count, rate):
        collector = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        collector.connect(f"{self.home}/queue/ossec/queue")
        head = b"1:/var/log/messages:Nov 22 12:00:00 host program[1]: "
        head += b"x" * (EVENT - len(head) - 9)
        began = time.monotonic()
        for number in range(first, first + count):
            if rate and (number - first) % 20 == 0:
                late = began + (number - first) / rate - time.monotonic()
                if late > 0:
                    time.sleep(late)
            while True:
                try:
                    collector.send(head + b"#%08d" % number)
                    break
                except BlockingIOError:
                    time.sleep(0.001)
                except OSError as error:
                    if error.errno != 105:
                        raise
                    time.sleep(0.001)
        return began


class Broker:
    def __init__(self, args, work, manager, number):
        program, self.port, server_port = f"{args.folder}/ringmaster-broker", free_port(), free_port()
        dirs = [f"{work}/broker-{number}-{role}" for role in ("server", "client")]
        server = [program, "server", "--listen", f"127.0.0.1:{server_port}", "--manager", f"127.0.0.1:{manager.port}", "--dir", dirs[0]]
        client = [program, "client", "--server", f"127.0.0.1:{server_port}", "--listen", f"127.0.0.1:{self.port}", "--dir", dirs[1]]
        self.server = start(server, 1, f"{work}/broker.log")
        self.client = start(client, 1, f"{work}/broker.log")
        asks = [program, "status", "--dir", dirs[1]]
        until(lambda: subprocess.run(asks, capture_output=True).returncode == 0, "a broker that is well")


def descendant(pid, name):
    for task in os.listdir(f"/proc/{pid}/task") if os.path.isdir(f"/proc/{pid}/task") else []:
        try:
            children = open(f"/proc/{pid}/task/{task}/children").read().split()
        except OSError:
            continue
        for child in children:
            try:
                if open(f"/proc/{child}/comm").read().strip() == name:
                    return int(child)
            except OSError:
                continue
            found = descendant(int(child), name)
            if found:
                return found
    return None


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        for line in open(f"/proc/{pid}/task/{task}/status"):
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def memory_kib(pid):
    found = {}
    for line in open(f"/proc/{pid}/smaps_rollup"):
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0].rstrip(":")] = int(words[1])
    return found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"]


def rest(args, work, manager):
    """Everything at once: whoever is at rest disturbs nobody."""
    watched = []
    for notify, ids in ((600, ("001", "002", "003", "004", "005")), (10, ("006", "007", "008", "009", "010"))):
        broker = Broker(args, work, manager, notify)
        for id, kind in zip(ids, ("udp", "tcp", "acknowledged")):
            watched.append((f"ringmaster-agent {kind}", notify, Agent(args, work, id, manager.port, kind, notify).pid))
        behind = Agent(args, work, ids[3], broker.port, "udp", notify)
        watched.append(("ringmaster-broker client, 1 agent", notify, broker.client.pid))
        watched.append(("ringmaster-broker server, 1 agent", notify, broker.server.pid))
        assert behind.pid
        if args.ossec_agentd:
            watched.append(("ossec-agentd", notify, Agent(args, work, ids[4], manager.port, "ossec", notify).pid))
    time.sleep(20)
    before = [(switches(pid), cpu_seconds(pid)) for _, _, pid in watched]
    time.sleep(args.seconds)
    print("program | notify_time, s | RSS, KiB | PSS, KiB | private, KiB | wake-ups a minute | CPU, ms a minute")
    for (name, notify, pid), (woke, used) in zip(watched, before):
        minutes = args.seconds / 60
        rss, pss, private = memory_kib(pid)
        wakes, cpu = (switches(pid) - woke) / minutes, (cpu_seconds(pid) - used) / minutes * 1_000
        print(f"{name} | {notify} | {rss} | {pss} | {private} | {wakes:.1f} | {cpu:.0f}", flush=True)


def load(args, work, manager):
    """Each alone, in turns."""
    rows = [("ossec", "001", None), ("udp", "002", None), ("tcp", "003", None), ("acknowledged", "004", None),
            ("relay-ossec", "005", 4_000), ("relay-udp", "006", 4_000)]
    wanted = args.rows.split(",") if args.rows else [row for row, _, _ in rows]
    first, results = 1, {}
    for turn in range(args.turns):
        for row, id, rate in rows:
            if row not in wanted or ("ossec" in row and not args.ossec_agentd):
                continue
            broker = Broker(args, work, manager, f"{row}-{turn}") if row.startswith("relay") else None
            kind = row.removeprefix("relay-")
            agent = Agent(args, f"{work}", id, broker.port if broker else manager.port, kind, 600)
            time.sleep(2)
            manager.numbers()
            pids = [agent.pid, manager.child.pid] + ([broker.client.pid, broker.server.pid] if broker else [])
            before = [cpu_seconds(pid) for pid in pids]
            began = agent.feed(first, args.events, rate)
            fed = last = time.monotonic()
            came = manager.numbers()
            while len(came) < args.events and time.monotonic() < last + 5:
                more = manager.numbers()
                if more:
                    came += more
                    last = time.monotonic()
                time.sleep(0.02)
            # What is confirmed later costs too.
            time.sleep(7)
            came += manager.numbers()
            used = [(cpu_seconds(pid) - one) / args.events * 1e6 for pid, one in zip(pids, before)]
            lost = args.events - len(set(came) & set(range(first, first + args.events)))
            again, swapped = len(came) - len(set(came)), sum(b < a for a, b in zip(came, came[1:]))
            pace = args.events / (last - began)
            results.setdefault(row, []).append([pace] + used)
            words = " ".join(f"{one:.1f}" for one in used)
            print(f"{row} turn {turn + 1}: {args.events} fed in {fed - began:.2f} s, arrived in {last - began:.2f} s: {pace:.0f}/s; lost {lost}, "
                  f"repeated {again}, out of order {swapped}; CPU us an event (program, manager, broker client, server): {words}", flush=True)
            first += args.events
            end(agent.wrapper)
            if broker:
                end(broker.client)
                end(broker.server)
    print("\nrow | events/s | program | manager | broker client | broker server        median (least to greatest)")
    for row, turns in results.items():
        columns = [f"{statistics.median(c):.1f} ({min(c):.1f} to {max(c):.1f})" for c in zip(*turns)]
        print(" | ".join([row] + columns))


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder")
    parser.add_argument("what", choices=["rest", "load"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rows")
    parser.add_argument("--ossec-agentd")
    args = parser.parse_args()
    args.folder = os.path.abspath(args.folder)
    os.sched_setaffinity(0, {1})
    work = tempfile.mkdtemp(prefix="agent-broker-", dir="/dev/shm" if args.what == "load" else None)
    os.chmod(work, 0o755)
    print(f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, load {os.getloadavg()[0]:.2f}", flush=True)
    try:
        manager = Manager(args.folder, work)
        {"rest": rest, "load": load}[args.what](args, work, manager)
        print(f"load {os.getloadavg()[0]:.2f} at the end")
    finally:
        for child in list(BORN):
            end(child)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
