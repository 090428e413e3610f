//! Sockets that the service manager has bound.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use crate::program::{PATIENCE, TestHome};

/// Starts the program with a datagram socket as descriptor 3 and a listener as 4, as systemd does: `sh` moves them there.
fn activated(home: &TestHome, udp: &UdpSocket, tcp: &TcpListener) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_ringmaster")).arg("--home").arg(home.path());
    command.stdin(Stdio::from(OwnedFd::from(udp.try_clone().unwrap())));
    command.stdout(Stdio::from(OwnedFd::from(tcp.try_clone().unwrap())));
    command.env_remove("NOTIFY_SOCKET").env("TZ", "UTC");
    command
}

/// A UDP socket and a listener on one free port.
fn bound() -> (UdpSocket, TcpListener, SocketAddr) {
    let tries = std::iter::repeat_with(|| {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        TcpListener::bind(address).map(|tcp| (udp, tcp, address))
    });
    tries.take(64).find_map(Result::ok).unwrap()
}

#[test]
fn what_waits_in_inherited_sockets_is_answered() {
    let (udp, tcp, address) = bound();
    let home = TestHome::new("", "[shards]\ncores = [0]\n");
    let settings = home.read("etc/ringmaster.toml").replace("127.0.0.1:0\"]", &format!("{address}\"]"));
    std::fs::write(home.path().join("etc/ringmaster.toml"), settings).unwrap();
    // Sent before the program is there: the sockets keep it.
    let early = UdpSocket::bind("127.0.0.1:0").unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    early.send_to(b"#ping", address).unwrap();

    let program = home.start_as(activated(&home, &udp, &tcp));
    assert_eq!(program.address, address);
    let mut buffer = [0; 16];
    let bytes = early.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"#pong");
    program.wait_for_metric("ringmaster_control_total", &[], 1);
    assert!(program.terminate().0.success());
    // They are the service manager's, and still there.
    early.send_to(b"#ping", address).unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(udp.recv(&mut buffer).unwrap(), 5);
}

#[test]
fn sockets_that_nobody_listens_on_are_refused() {
    let (udp, tcp, address) = bound();
    let home = TestHome::new("", "[shards]\ncores = [0]\n");
    let output = activated(&home, &udp, &tcp).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("socket for {address}, which is not listened on")), "{said}");
}
