//! Which shard an agent's datagrams come to: the one that its id names, whatever port it sends from.
//!
//! A classic BPF program on the SO_REUSEPORT group of an address reads the digits of `!id!` at the beginning of a datagram.
//! What has none (agents that are known by their address, strangers) the kernel spreads by its hash of addresses and
//! ports, as it does without a program.

use std::net::UdpSocket;

use socket2::SockFilter;
use uring::Errno;

/// An id of more digits is not looked at; agents have three or more, and no file has a hundred million of them.
const DIGITS_MAX: u8 = 8;

/// Has the kernel bring agent `n` to socket `n % sockets` of the group that `member` is in, in the order in which they were
/// bound.
///
/// # Errors
/// The kernel's, if it has no such programs.
pub(super) fn steer(member: &UdpSocket, sockets: u32) -> Result<(), Errno> {
    uring::sockets::select_in_group(member, &program(sockets))
}

/// What one instruction does: to the register A or the register X, with the constant k, with a word of the program's memory.
#[derive(Clone, Copy)]
#[repr(u16)]
enum Code {
    /// A = k.
    Load = 0x00,
    /// A = the byte at k of the datagram's text.
    LoadByte = 0x30,
    /// A = the length of the text.
    LoadLength = 0x80,
    /// A = word k.
    LoadWord = 0x60,
    /// X = word k.
    LoadWordX = 0x61,
    /// Word k = A.
    Store = 0x02,
    /// A += X.
    AddX = 0x0c,
    /// A -= k, modulo 2^32.
    Subtract = 0x14,
    /// A *= k.
    Multiply = 0x24,
    /// A %= k.
    Modulo = 0x94,
    /// Goes on elsewhere if A == k.
    IfEqual = 0x15,
    /// ... if A > k.
    IfGreater = 0x25,
    /// ... if A >= k.
    IfAtLeast = 0x35,
    /// Ends with k.
    Return = 0x06,
    /// Ends with A.
    ReturnA = 0x16,
}

/// Where the program goes on.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// The end for what has no id.
    ByHash,
    /// The end for what has one.
    ByNumber,
}

/// No socket has this index: the kernel falls back to its hash.
const BY_HASH: u32 = u32::MAX;

/// The program's memory: the id as far as it is read, and its next digit.
const NUMBER: u32 = 0;
const DIGIT: u32 = 1;

/// The program. It can't loop: each digit that there may be has its own instructions.
fn program(sockets: u32) -> Vec<SockFilter> {
    use Code::*;
    let step = |code, k| (code, k, To::Next, To::Next);
    // Reading behind the end would end the program with 0, which is a socket.
    let shortest = u32::from(DIGITS_MAX) + 2;
    let mut steps = vec![
        step(LoadLength, 0),
        (IfAtLeast, shortest, To::Next, To::ByHash),
        step(Load, 0),
        step(Store, NUMBER),
        step(LoadByte, 0),
        (IfEqual, u32::from(b'!'), To::Next, To::ByHash),
    ];
    for at in 1..=u32::from(DIGITS_MAX) {
        let end = if at == 1 { To::ByHash } else { To::ByNumber };
        steps.extend([
            step(LoadByte, at),
            (IfEqual, u32::from(b'!'), end, To::Next),
            step(Subtract, u32::from(b'0')),
            (IfGreater, 9, To::ByHash, To::Next),
            step(Store, DIGIT),
            step(LoadWord, NUMBER),
            step(Multiply, 10),
            step(LoadWordX, DIGIT),
            step(AddX, 0),
            step(Store, NUMBER),
        ]);
    }
    steps.extend([
        step(LoadByte, u32::from(DIGITS_MAX) + 1),
        (IfEqual, u32::from(b'!'), To::ByNumber, To::ByHash),
    ]);
    // In this order: the kernel's check takes what the end before has not stored for not stored.
    let by_number = steps.len();
    steps.extend([step(LoadWord, NUMBER), step(Modulo, sockets), step(ReturnA, 0)]);
    let by_hash = steps.len();
    steps.push(step(Return, BY_HASH));

    let resolved = steps.iter().enumerate().map(|(at, &(code, k, then, otherwise))| {
        let ahead = |to| match to {
            To::Next => 0,
            To::ByHash => by_hash - at - 1,
            To::ByNumber => by_number - at - 1,
        };
        let [then, otherwise] =
            [then, otherwise].map(|to| u8::try_from(ahead(to)).expect("the program has 92 instructions"));
        SockFilter::new(code as u16, then, otherwise, k)
    });
    resolved.collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use uring::sockets::{UdpSettings, udp_socket};

    use super::*;

    const SENDERS: usize = 64;

    /// A group of so many sockets, steered.
    fn group(sockets: u32) -> Vec<UdpSocket> {
        let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let group: Vec<UdpSocket> = (0..sockets)
            .map(|_| {
                let socket =
                    udp_socket(&UdpSettings { address, shared: true, receive_buffer_bytes: 1 << 20 })
                        .unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                address = socket.local_addr().unwrap();
                socket
            })
            .collect();
        steer(&group[0], sockets).unwrap();
        group
    }

    /// Sends `text` once from each of many ports, and one datagram for each socket by its number after it; how many of the
    /// first each socket has.
    fn spread(group: &[UdpSocket], text: &[u8]) -> Vec<usize> {
        let to = group[0].local_addr().unwrap();
        for _ in 0..SENDERS {
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(text, to).unwrap();
        }
        let marker = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..group.len() {
            marker.send_to(format!("!{number:03}!the end").as_bytes(), to).unwrap();
        }
        let count = |socket: &UdpSocket| {
            let mut buffer = [0; 64];
            let mut count = 0;
            loop {
                let (bytes, _) = socket.recv_from(&mut buffer).unwrap();
                if buffer[..bytes].ends_with(b"the end") {
                    return count;
                }
                assert_eq!(&buffer[..bytes], text);
                count += 1;
            }
        };
        group.iter().map(count).collect()
    }

    #[test]
    fn an_agent_comes_to_the_socket_of_its_number_from_whatever_port() {
        for sockets in [2, 3] {
            let group = group(sockets);
            for (id, number) in [
                ("1", 1),
                ("000", 0),
                ("001", 1),
                ("002", 2),
                ("010", 10),
                ("1234", 1_234),
                ("65537", 65_537),
                ("00000005", 5),
                ("99999999", 99_999_999),
            ] {
                let mut expected = vec![0; sockets as usize];
                expected[number % sockets as usize] = SENDERS;
                let text = format!("!{id}!:ciphertext that is long enough");
                assert_eq!(spread(&group, text.as_bytes()), expected, "{text:?}, {sockets} sockets");
            }
        }
    }

    #[test]
    fn what_names_no_agent_is_spread_by_the_kernel() {
        let group = group(2);
        for text in [
            &b":ciphertext without an id"[..],
            b"!!:ciphertext",
            b"!12a!:ciphertext",
            b"!-12!:ciphertext",
            b"! 12!:ciphertext",
            b"!123456789!:ciphertext",
            b"!12345678901234567890",
            b"!",
            b"",
            b"!2!short",
        ] {
            let counts = spread(&group, text);
            assert_eq!(counts.iter().sum::<usize>(), SENDERS, "{text:?}");
            assert!(counts.iter().all(|&count| count > 0), "{text:?}: {counts:?}");
        }
    }
}
