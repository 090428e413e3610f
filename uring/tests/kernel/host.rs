//! Sockets, limits and cores.

use std::os::unix::net::UnixDatagram;
use std::thread;

use uring::Errno;
use uring::sockets::{
    TcpSettings, UdpSettings, allowed_cores, kernel_drops, nofile, pin_thread, receive_buffer_bytes,
    set_nofile_to_hard, tcp_listener, udp_socket, unix_datagram,
};

#[test]
fn sockets_share_an_address_only_if_both_say_so() {
    let mut settings =
        UdpSettings { address: "127.0.0.1:0".parse().unwrap(), shared: true, receive_buffer_bytes: 65_536 };
    let first = udp_socket(&settings).unwrap();
    settings.address = first.local_addr().unwrap();
    let second = udp_socket(&settings).unwrap();
    assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    settings.shared = false;
    assert_eq!(udp_socket(&settings).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);

    let mut settings = TcpSettings {
        address: "127.0.0.1:0".parse().unwrap(),
        shared: true,
        backlog: 16,
        receive_buffer_bytes: Some(65_536),
    };
    let first = tcp_listener(&settings).unwrap();
    settings.address = first.local_addr().unwrap();
    assert!(tcp_listener(&settings).is_ok());
    settings.shared = false;
    assert_eq!(tcp_listener(&settings).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_receive_buffer_is_granted_and_told() {
    let settings =
        UdpSettings { address: "[::1]:0".parse().unwrap(), shared: false, receive_buffer_bytes: 100_000 };
    let socket = udp_socket(&settings).unwrap();
    assert_eq!(receive_buffer_bytes(&socket), Ok(200_000), "the kernel doubles it for its own overhead");
    assert_eq!(kernel_drops(&socket), Ok(0));
}

#[test]
fn what_is_no_socket_has_no_drops() {
    let file = std::fs::File::open("/proc/self/status").unwrap();
    assert_eq!(kernel_drops(&file), Err(Errno::NOTSOCK));
}

#[test]
fn a_queue_socket_is_connected_when_somebody_listens() {
    let path = std::env::temp_dir().join(format!("ringmaster-queue-{}", std::process::id()));
    assert_eq!(unix_datagram(&path, 65_536).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let queue = UnixDatagram::bind(&path).unwrap();
    unix_datagram(&path, 65_536).unwrap().send(b"event").unwrap();
    let mut bytes = [0; 8];
    assert_eq!(queue.recv(&mut bytes).unwrap(), 5);
    drop(queue);
    assert_eq!(unix_datagram(&path, 65_536).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_soft_limit_of_descriptors_becomes_the_hard_one() {
    let limit = set_nofile_to_hard();
    assert_eq!(limit, nofile());
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    assert_eq!(u64::from(limit), hard.unwrap_or(u64::from(u32::MAX)));
}

#[test]
fn a_thread_is_pinned_to_a_core_that_it_may_use() {
    let pinned = thread::spawn(|| {
        let core = *allowed_cores().unwrap().last().unwrap();
        pin_thread(core).unwrap();
        assert_eq!(allowed_cores(), Ok(vec![core]));
        assert_eq!(pin_thread(usize::MAX), Err(Errno::INVAL));
    });
    pinned.join().unwrap();
}
