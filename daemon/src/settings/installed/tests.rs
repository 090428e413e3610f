//! Installations of both products, as `ringmaster check` shows them.

use std::fs;

use crate::settings::{self, Loaded, Sources, effective, listeners};

/// What OSSEC's installer leaves, shortened.
const OSSEC: &str = "<ossec_config>
  <global>
    <email_notification>no</email_notification>
    <logall>yes</logall>
    <white_list>127.0.0.1</white_list>
  </global>
  <rules>
    <include>rules_config.xml</include>
  </rules>
</ossec_config>
<ossec_config> <!-- rules global entry -->
  <remote>
    <connection>syslog</connection>
    <allowed-ips>10.0.0.0/8</allowed-ips>
  </remote>
  <remote>
    <connection>secure</connection>
    <crypto_accept>aes</crypto_accept>
  </remote>
</ossec_config>
";

/// What Wazuh's installer leaves, shortened.
const WAZUH: &str = "<!--
  Wazuh - Manager - Default configuration for debian 12
-->
<ossec_config>
  <global>
    <logall>no</logall>
    <logall_json>no</logall_json>
    <agents_disconnection_time>10m</agents_disconnection_time>
  </global>
  <remote>
    <connection>secure</connection>
    <port>1514</port>
    <protocol>tcp,udp</protocol>
    <queue_size>131072</queue_size>
  </remote>
  <cluster><name>wazuh</name></cluster>
</ossec_config>
";

/// A home with these files; what `check` prints of what is not a default, what it remarks, or the error. The home's own
/// path is taken out.
fn check(files: &[(&str, &str)], listen: &[&str], expected: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sources = Sources {
        home: home.path().to_owned(),
        file: home.path().join("etc/ringmaster.toml"),
        cores: None,
        run: None,
        listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let said = match sources.load() {
        Err(error) => error.to_string(),
        Ok(Loaded { settings, origins, remarks, unused }) => {
            let effective = effective(&settings, &origins);
            let set = effective.lines().skip(1).filter(|line| !line.ends_with("# default"));
            let mut lines: Vec<String> = set.map(str::to_owned).collect();
            lines.extend(listeners(&settings).lines().map(str::to_owned));
            lines.extend(unused.iter().map(settings::NotUsed::to_string));
            lines.extend(remarks);
            lines.join("\n")
        }
    };
    let said = said.replace(&format!("{}/", home.path().display()), "");
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{said}");
}

#[test]
fn an_ossec_installation_as_found() {
    check(
        &[
            ("etc/ossec.conf", OSSEC),
            (
                "etc/internal_options.conf",
                "# shipped\nremoted.recv_counter_flush=128\nremoted.verify_msg_id=1\n",
            ),
            ("etc/ossec-init.conf", "DIRECTORY=\"/var/ossec\"\nVERSION=\"v4.3.0\"\n"),
        ],
        &[],
        &[
            "listen.addresses = [\"[::]:1514\"]  # default, not used: <remote> of etc/ossec.conf takes its place",
            "agents.crypto_accept = \"aes\"  # etc/ossec.conf:16",
            "agents.replay = \"strict\"  # etc/internal_options.conf:3",
            "sink.queue.enabled = true  # installation: etc/ossec-init.conf says so",
            "sink.queue.path = \"queue/ossec/queue\"  # installation: etc/ossec-init.conf says so",
            "sink.queue.product = \"ossec\"  # installation: etc/ossec-init.conf says so",
            "sink.archives.text = false  # installation: etc/ossec-init.conf says so",
            "# listens: syslog udp [::]:514 allowed=10.0.0.0/8  # etc/ossec.conf:12",
            "# listens: secure udp+tcp [::]:1514 crypto_accept=aes  # etc/ossec.conf:16",
            "remoted.recv_counter_flush is not used: every counter that moved is written each second  # \
             etc/internal_options.conf:2",
        ],
    );
}

#[test]
fn a_wazuh_installation_as_found() {
    check(
        &[
            ("etc/ossec.conf", WAZUH),
            ("etc/internal_options.conf", "remoted.verify_msg_id=0\nremoted.worker_pool=4\n"),
            ("etc/local_internal_options.conf", "remoted.worker_pool=8\n"),
            ("bin/wazuh-control", ""),
        ],
        &[],
        &[
            "listen.addresses = [\"[::]:1514\"]  # default, not used: <remote> of etc/ossec.conf takes its place",
            "agents.replay = \"off\"  # etc/internal_options.conf:1",
            "agents.silence_deadline_seconds = 600  # etc/ossec.conf:8",
            "sink.queue.enabled = true  # installation: bin/wazuh-control is there",
            "sink.queue.path = \"queue/sockets/queue\"  # installation: bin/wazuh-control is there",
            "sink.queue.product = \"wazuh\"  # installation: bin/wazuh-control is there",
            "sink.archives.text = false  # installation: bin/wazuh-control is there",
            "# listens: secure udp+tcp 0.0.0.0:1514 crypto_accept=both  # etc/ossec.conf:10",
            "remoted.worker_pool is not used: shards receive: shards.cores  # etc/local_internal_options.conf:1",
            "<queue_size> is not used: what waits is bounded in bytes: sink.soft_bytes, sink.hard_bytes  # \
             etc/ossec.conf:14",
        ],
    );
}

#[test]
fn each_source_goes_over_the_ones_before() {
    let files = [
        ("etc/ossec.conf", OSSEC),
        ("etc/internal_options.conf", "remoted.verify_msg_id=1\n"),
        ("etc/local_internal_options.conf", "\nremoted.verify_msg_id=0\n"),
        ("etc/ringmaster.toml", "[agents]\ncrypto_accept = \"blowfish\"\n[sink.queue]\npath = \"q\"\n"),
    ];
    let below = [
        "agents.crypto_accept = \"blowfish\"  # etc/ringmaster.toml:2",
        "agents.replay = \"off\"  # etc/local_internal_options.conf:2",
        "sink.queue.enabled = true  # installation: etc/ossec.conf is there",
        "sink.queue.path = \"q\"  # etc/ringmaster.toml:4",
        "sink.queue.product = \"ossec\"  # installation: etc/ossec.conf is there",
        "sink.archives.text = false  # installation: etc/ossec.conf is there",
    ];
    let conf = [
        "listen.addresses = [\"[::]:1514\"]  # default, not used: <remote> of etc/ossec.conf takes its place",
    ];
    let listens = [
        "# listens: syslog udp [::]:514 allowed=10.0.0.0/8  # etc/ossec.conf:12",
        "# listens: secure udp+tcp [::]:1514 crypto_accept=blowfish  # etc/ossec.conf:16",
    ];
    check(&files, &[], &[&conf[..], &below, &listens].concat());
    let line = ["listener = []  # command line", "listen.addresses = [\"127.0.0.1:0\"]  # command line"];
    let listens = ["# listens: secure udp+tcp 127.0.0.1:0 crypto_accept=blowfish  # command line"];
    check(&files, &["127.0.0.1:0"], &[&line[..], &below, &listens].concat());
}

#[test]
fn listeners_of_the_settings_file() {
    let tables = "[[listener]]\nkind = \"syslog\"\naddress = \"0.0.0.0:514\"\nprotocols = [\"tcp\", \"udp\"]\n\
        allowed = [\"10.0.0.0/8\"]\ndenied = [\"10.0.0.1\"]\n\n[[listener]]\naddress = \"127.0.0.1:1514\"\n\
        crypto_accept = \"aes\"\nproxy_protocol_from = [\"192.0.2.0/24\"]\n";
    let listens = [
        "# listens: syslog udp+tcp 0.0.0.0:514 allowed=10.0.0.0/8 denied=10.0.0.1  # etc/ringmaster.toml:1",
        "# listens: secure udp+tcp 127.0.0.1:1514 proxy_protocol_from=192.0.2.0/24 crypto_accept=aes  # \
         etc/ringmaster.toml:8",
    ];
    let listener = "listener = [{ address = \"0.0.0.0:514\", allowed = [\"10.0.0.0/8\"], denied = [\"10.0.0.1\"], kind = \
        \"syslog\", protocols = [\"udp\", \"tcp\"], proxy_protocol_from = [] }, { address = \"127.0.0.1:1514\", allowed = [], \
        crypto_accept = \"aes\", denied = [], kind = \"secure\", proxy_protocol_from = [\"192.0.2.0/24\"] }]  # \
        etc/ringmaster.toml:1";
    let replaced = "listen.addresses = [\"[::]:1514\"]  # default, not used: [[listener]] of etc/ringmaster.toml takes its place";
    check(&[("etc/ringmaster.toml", tables)], &[], &[&[listener, replaced][..], &listens].concat());
    let both = format!("{tables}[listen]\naddresses = [\"[::1]:1514\"]\n");
    let address = "listen.addresses = [\"[::1]:1514\"]  # etc/ringmaster.toml:13";
    let first = "# listens: secure udp+tcp [::1]:1514 crypto_accept=both  # etc/ringmaster.toml:13";
    check(&[("etc/ringmaster.toml", &both)], &[], &[&[listener, address, first][..], &listens].concat());
}

#[test]
fn archives_have_one_writer() {
    let at = |toml: &str, expected: &[&str]| {
        let files = [("etc/ossec.conf", OSSEC), ("etc/ringmaster.toml", toml)];
        check(&files, &["127.0.0.1:0"], expected);
    };
    at(
        "[sink.archives]\ntext = true\n",
        &[
            "etc/ringmaster.toml:2:1: sink.archives.text is on and analysisd writes the same file (etc/ossec.conf:4: \
           <logall>): switch one of them off",
        ],
    );
    let alone = [
        "listener = []  # command line",
        "listen.addresses = [\"127.0.0.1:0\"]  # command line",
        "agents.crypto_accept = \"aes\"  # etc/ossec.conf:16",
        "sink.queue.enabled = false  # etc/ringmaster.toml:2",
        "sink.queue.path = \"queue/ossec/queue\"  # installation: etc/ossec.conf is there",
        "sink.queue.product = \"ossec\"  # installation: etc/ossec.conf is there",
        "sink.archives.text = true  # etc/ossec.conf:4",
        "# listens: secure udp+tcp 127.0.0.1:0 crypto_accept=aes  # command line",
    ];
    at("[sink.queue]\nenabled = false\n", &alone);
    let mut said = alone;
    said[6] = "sink.archives.text = false  # etc/ringmaster.toml:4";
    at("[sink.queue]\nenabled = false\n[sink.archives]\ntext = false\n", &said);
}

#[test]
fn refusals_name_file_and_line() {
    let remote = |options: &str| format!("<ossec_config>\n<remote>\n{options}\n</remote></ossec_config>");
    let conf = |options: &str, expected: &str| {
        check(&[("etc/ossec.conf", &remote(options))], &[], &[expected]);
    };
    conf("<port>x</port>", "etc/ossec.conf:3: <port>: 'x' can't be used: use a port from 1 to 65535");
    conf(
        "<connection>syslog</connection>",
        "etc/ossec.conf:2: a syslog listener without allowed addresses: name who may send lines (<allowed-ips> in \
         ossec.conf, allowed in ringmaster.toml; \"any\" for everyone)",
    );
    conf(
        "<connection>secure</connection></remote>\n<remote><connection>secure</connection>\
         <crypto_accept>aes</crypto_accept>",
        "etc/ossec.conf:4: [::]:1514 is listened on by etc/ossec.conf:2 too, with another kind or other rules: make them \
         agree, or give it another port",
    );
    check(
        &[("etc/ossec.conf", OSSEC), ("etc/local_internal_options.conf", "remoted.verify_msg_id=2\n")],
        &[],
        &[
            "etc/local_internal_options.conf:1: remoted.verify_msg_id: '2' can't be used: use 0 (off) or 1 (strict)",
        ],
    );
    check(
        &[("etc/ringmaster.toml", "[[listener]]\naddress = \"host:1\"\n")],
        &[],
        &[
            "etc/ringmaster.toml:2:11: \"host:1\" is no address and port: write 192.0.2.1:1514, or [::]:1514 for every \
           address",
        ],
    );
    check(
        &[("etc/ringmaster.toml", "[[listener]]\naddress = \"[::]:1\"\nprotocols = []\n")],
        &[],
        &["etc/ringmaster.toml:3:13: no protocol: use [\"udp\"], [\"tcp\"] or [\"udp\", \"tcp\"]"],
    );
    check(
        &[("etc/ossec.conf", "<ossec_config>\n")],
        &[],
        &["etc/ossec.conf:1: <ossec_config> is never closed: add \
        </ossec_config>"],
    );
}

#[test]
fn an_ossec_conf_without_listeners_has_the_default() {
    check(
        &[("etc/ossec.conf", "<ossec_config></ossec_config>"), ("queue/sockets/x", "")],
        &[],
        &[
            "sink.queue.enabled = true  # installation: queue/sockets is there",
            "sink.queue.path = \"queue/sockets/queue\"  # installation: queue/sockets is there",
            "sink.queue.product = \"wazuh\"  # installation: queue/sockets is there",
            "sink.archives.text = false  # installation: queue/sockets is there",
            "# listens: secure udp+tcp [::]:1514 crypto_accept=both  # default",
            "etc/ossec.conf: no <remote> says where to listen: the default is used",
        ],
    );
}
