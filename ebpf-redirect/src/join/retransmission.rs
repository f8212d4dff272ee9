//! Segments that overlap with what came before, as TCP sends them when acknowledgements were late: made
//! here, since on loopback they come once in tens of thousands of connections.

use std::io::{self, Read, Write};
use std::mem::size_of_val;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use super::exchange::Random;
use super::layout;
use super::repair::sequences;
use super::scratch::Scratch;

#[test]
#[ignore = "needs root: it loads programs, and sends raw packets"]
fn what_overlaps_is_not_read_twice() {
    let scratch = Scratch::load(&layout::read().expect("a layout")).expect("the programs");
    let mut random = Random::new(3);
    let stream: Vec<u8> = (0..120_000).map(|_| random.next().to_ne_bytes()[7]).collect();
    for enrolled in [false, true] {
        for (known, new) in [(5, 5), (1, 1), (4095, 1), (4096, 7), (20_000, 20_000), (60_000, 1000)]
        {
            let (mut client, server) = scratch.plain_pair().expect("a pair");
            if enrolled {
                scratch.enrol(&server).expect("enrolled");
            }
            client.write_all(&stream[..60_000]).expect("sent");
            let mut come = read(&server, 60_000);
            let segment = &stream[60_000 - known..60_000 + new];
            send(&client, &server, known, segment).expect("sent");
            come.extend(read(&server, new));
            assert!(come == stream[..60_000 + new], "{known} and {new}, enrolled: {enrolled}");
        }
    }
}

fn read(mut server: &TcpStream, length: usize) -> Vec<u8> {
    server.set_nonblocking(true).expect("a socket");
    let (mut come, mut buffer) = (Vec::new(), vec![0; 200_000]);
    // Longer than what is waited for, so that what is too much is seen.
    for _ in 0..50 {
        if let Ok(more) = server.read(&mut buffer) {
            come.extend(&buffer[..more]);
        }
        if come.len() > length {
            break;
        }
        thread::sleep(Duration::from_millis(if come.len() < length { 5 } else { 1 }));
    }
    come
}

/// Sends a segment from the client that begins so many bytes before the next one.
fn send(client: &TcpStream, server: &TcpStream, before: usize, bytes: &[u8]) -> io::Result<()> {
    let (next, acknowledged) = sequences(client.as_fd())?;
    let sequence = next.wrapping_sub(u32::try_from(before).expect("small"));
    let ports = [client.local_addr()?.port(), server.local_addr()?.port()];
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    segment.extend(sequence.to_be_bytes().iter().chain(&acknowledged.to_be_bytes()));
    // 8 words of header; PSH and ACK; the window; checksum and urgent pointer.
    segment.extend([0x80, 0x18, 0x02, 0x00, 0, 0, 0, 0]);
    // Time stamps, without which TCP takes it for an old one.
    segment.extend([1, 1, 8, 10].iter().chain(&timestamp(client)?.to_be_bytes()).chain(&[0; 4]));
    segment.extend(bytes);
    let sum = checksum(&segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    // SAFETY: the calls take numbers and as many bytes as is said; the socket is nobody else's.
    let sent = unsafe {
        let raw = libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        let raw = OwnedFd::from_raw_fd(raw);
        let mut to: libc::sockaddr_in = std::mem::zeroed();
        to.sin_family = libc::sa_family_t::try_from(libc::AF_INET).expect("small");
        to.sin_addr.s_addr = u32::from_ne_bytes(LOOPBACK);
        let length = libc::socklen_t::try_from(size_of_val(&to)).expect("small");
        let (bytes, to) = (segment.as_ptr().cast(), (&raw const to).cast());
        libc::sendto(raw.as_raw_fd(), bytes, segment.len(), 0, to, length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The client's clock, as its next packet would tell it.
fn timestamp(client: &TcpStream) -> io::Result<u32> {
    let (mut value, mut length) = (0_u32, 4);
    // SAFETY: the option is 4 bytes, and there is room for them.
    let result = unsafe {
        libc::getsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_TIMESTAMP,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// RFC 9293, 3.1.
fn checksum(segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).expect("one packet").to_be_bytes();
    let pseudo = [&LOOPBACK[..], &LOOPBACK, &[0, 6], &length].concat();
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let pair = |word: &[u8]| u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
    let sum: u32 = words.map(|word| u32::from(pair(word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("16 bits")
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
