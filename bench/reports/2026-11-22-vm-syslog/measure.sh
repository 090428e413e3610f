#!/bin/bash
# Ringmaster beside rsyslog: the same generator, into a file each, in turns. Both on core 0, the generator on core 1.
# Usage: measure.sh FOLDER_OF_PROGRAMS TURNS SECONDS RATE...       (FOLDER: where `ringmaster` and `loadgen` are)
# Prints one line a measurement: program, protocol, rate, lines sent, lines in the file, CPU seconds, CPU ns a line.
set -eu
programs=$1 turns=$2 seconds=$3
shift 3
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT

cat > "$work/rsyslog.conf" <<CONF
global(workDirectory="$work" maxMessageSize="64k")
module(load="imudp")
module(load="imtcp")
template(name="line" type="string" string="%timegenerated:::date-rfc3339% %hostname%->%fromhost-ip% %rawmsg-after-pri%\n")
ruleset(name="file") { action(type="omfile" file="$work/rsyslog.log" template="line" ${OMFILE:-}) }
input(type="imudp" address="127.0.0.1" port="5514" ruleset="file" rcvbufSize="16m")
input(type="imtcp" address="127.0.0.1" port="5514" ruleset="file")
CONF

mkdir -p "$work/home/etc"
: > "$work/home/etc/client.keys"
cat > "$work/home/etc/ringmaster.toml" <<CONF
[listen]
addresses = ["127.0.0.1:5614"]
receive_buffer_bytes = 33554432
[shards]
cores = [0]
[sink.queue]
enabled = false
[sink.archives]
text = true
[metrics]
address = "none"
[[listener]]
kind = "syslog"
address = "127.0.0.1:5515"
protocols = ["udp", "tcp"]
allowed = ["127.0.0.1"]
CONF

taskset -c 0 rsyslogd -n -f "$work/rsyslog.conf" -i "$work/rsyslog.pid" 2> "$work/rsyslog.err" &
rsyslog=$!
taskset -c 0 "$programs/ringmaster" --home "$work/home" 2> "$work/ringmaster.err" &
ringmaster=$!
sleep 2

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# program pid port file protocol rate
measure() {
  : > "$4"
  sleep 0.3
  before=$(ticks "$2")
  sent=$(taskset -c 1 "$programs/loadgen" syslog --to "127.0.0.1:$3" --proto "$5" --rate "$6" --duration "$seconds") || true
  sleep 1.5
  after=$(ticks "$2")
  lines=$(wc -l < "$4")
  # A line's number is at its end: each is there once if all are different.
  distinct=$(awk '{ print $NF }' "$4" | sort -u | wc -l)
  echo "$1 $5 $6 sent: ${sent%%,*} | file: $lines distinct: $distinct cpu_ms: $(( (after - before) * 10 )) ns_a_line: $(( (after - before) * 10000000 / (lines + 1) ))"
}

for turn in $(seq "$turns"); do
  for rate in "$@"; do
    for protocol in udp tcp; do
      measure rsyslog "$rsyslog" 5514 "$work/rsyslog.log" "$protocol" "$rate"
      measure ringmaster "$ringmaster" 5515 "$work/home/logs/archives/archives.log" "$protocol" "$rate"
    done
  done
done
rsyslogd -v | head -1
cat "$work/rsyslog.err" "$work/ringmaster.err" >&2
