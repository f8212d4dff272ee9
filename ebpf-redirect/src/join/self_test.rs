//! The cases that have to come out right on the running kernel before sockets are joined: each has gone
//! wrong on some kernel. They take some tenths of a second, and touch nothing but sockets of their own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use portreeve_ebpf_common::JoinState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;

use super::exchange::{Fault, Noise, Random, Reading, Stream, Writing};
use super::scratch::{Scratch, key};
use super::{JoinError, layout};

/// Tries whether sockets can be joined on this kernel.
///
/// # Errors
/// [`JoinError`], which names the cases that went wrong.
pub fn self_test() -> Result<(), JoinError> {
    let layout = layout::read().map_err(JoinError::Layout)?;
    let scratch = Scratch::load(&layout).map_err(JoinError::Programs)?;
    let noise = Noise::new(LARGE);
    let failed: Vec<_> = CASES
        .iter()
        .filter_map(|(name, case)| {
            case(&scratch, &noise).err().map(|fault| format!("{name}: {fault}"))
        })
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(JoinError::Unsafe { failed }) }
}

type Case = fn(&Scratch, &Noise) -> Result<(), Fault>;

const CASES: &[(&str, Case)] = &[
    ("messages go from socket to socket", messages_go_straight),
    ("what waits to be read is counted", what_waits_is_counted),
    ("what comes over TCP is counted", what_comes_over_tcp_is_counted),
    ("readers wake up, and see all bytes and the end", readers_see_all),
    ("a large write arrives whole", a_large_write),
    ("an answer comes after the end of the question", an_answer_after_the_end),
    ("what was sent before the socket was closed arrives", closed_after_sending),
    ("what was sent over TCP first is not overtaken", tcp_is_not_overtaken),
    ("a reader that stops holds the sender back, and loses nothing", a_reader_that_stops),
    ("who sends to a closed socket is told as by TCP", sending_to_a_closed_socket),
];

fn messages_go_straight(scratch: &Scratch, _: &Noise) -> Result<(), Fault> {
    let (mut client, mut server) = scratch.pair()?;
    client.write_all(b"there")?;
    server.read_exact(&mut [0; 5])?;
    server.write_all(b"back")?;
    client.read_exact(&mut [0; 4])?;
    for socket in [&client, &server] {
        expect(scratch, socket, JoinState::JOINED)?;
    }
    Ok(())
}

fn what_waits_is_counted(scratch: &Scratch, _: &Noise) -> Result<(), Fault> {
    let (mut client, server) = scratch.pair()?;
    for sent in 1..=50_u64 {
        client.write_all(&[0; 100])?;
        let mut polled = [PollFd::new(&server, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))
            .map_err(std::io::Error::from)?;
        let counted = ioctl_fionread(&server).map_err(std::io::Error::from)?;
        if counted != 100 * sent {
            return Err(Fault::Counted { counted, waiting: 100 * sent });
        }
    }
    Ok(())
}

/// To a socket that is enrolled, from one that is not.
fn what_comes_over_tcp_is_counted(scratch: &Scratch, _: &Noise) -> Result<(), Fault> {
    let (mut client, server) = scratch.plain_pair()?;
    scratch.enrol(&server)?;
    for sent in 1..=50_u64 {
        client.write_all(&[0; 100])?;
        // It may take a moment.
        let deadline = Instant::now() + Duration::from_secs(1);
        let counted = loop {
            let counted = ioctl_fionread(&server).map_err(std::io::Error::from)?;
            if counted == 100 * sent || Instant::now() > deadline {
                break counted;
            }
            thread::yield_now();
        };
        if counted != 100 * sent {
            return Err(Fault::Counted { counted, waiting: 100 * sent });
        }
    }
    Ok(())
}

fn readers_see_all(scratch: &Scratch, noise: &Noise) -> Result<(), Fault> {
    let readings = [Reading::LevelTriggered, Reading::EdgeTriggered, Reading::Counted];
    let writings =
        [Writing::Blocking, Writing::Gathered, Writing::EdgeTriggered, Writing::Blocking];
    // Each with each.
    for (seed, (reading, writing)) in
        (1..=24).zip(readings.into_iter().cycle().zip(writings.into_iter().cycle()))
    {
        let stream = Stream { reading, writing, ..stream(300_000, 20_000) };
        let (client, server) = scratch.pair()?;
        carry(&stream, client, &server, noise, seed)?;
    }
    Ok(())
}

fn a_large_write(scratch: &Scratch, noise: &Noise) -> Result<(), Fault> {
    let (client, server) = scratch.pair()?;
    carry(&stream(LARGE as u64, LARGE), client, &server, noise, 1)
}

fn an_answer_after_the_end(scratch: &Scratch, noise: &Noise) -> Result<(), Fault> {
    for round in 0..8 {
        let (client, server) = scratch.pair()?;
        let stream = stream(50_000, 5_000);
        thread::scope(|scope| {
            let served = scope.spawn(|| {
                stream.read(&server, noise, &mut Random::new(round), true)?;
                stream.write(&server, noise, &mut Random::new(round))?;
                Ok(server.shutdown(Shutdown::Write)?)
            });
            stream.write(&client, noise, &mut Random::new(round))?;
            client.shutdown(Shutdown::Write)?;
            stream.read(&client, noise, &mut Random::new(round), true)?;
            served.join().unwrap_or(Err(Fault::Stalled { at: 0 }))
        })?;
    }
    Ok(())
}

fn closed_after_sending(scratch: &Scratch, noise: &Noise) -> Result<(), Fault> {
    for round in 0..16 {
        let (client, server) = scratch.pair()?;
        let stream = stream(50_000, 5_000);
        stream.write(&client, noise, &mut Random::new(round))?;
        drop(client);
        stream.read(&server, noise, &mut Random::new(round), true)?;
    }
    Ok(())
}

fn tcp_is_not_overtaken(scratch: &Scratch, noise: &Noise) -> Result<(), Fault> {
    for round in 0..16 {
        let (client, server) = scratch.plain_pair()?;
        let [before, after] =
            [stream(5_000, 5_000), Stream { from: 5_000, ..stream(95_000, 9_000) }];
        scratch.enrol(&server)?;
        scratch.enrol_before(&client, || before.write(&client, noise, &mut Random::new(round)))?;
        after.write(&client, noise, &mut Random::new(round))?;
        expect(scratch, &client, JoinState::SEPARATE)?;
        let whole = stream(100_000, 10_000);
        drop(client);
        whole.read(&server, noise, &mut Random::new(round), true)?;
    }
    Ok(())
}

fn a_reader_that_stops(scratch: &Scratch, noise: &Noise) -> Result<(), Fault> {
    let (client, server) = scratch.pair()?;
    let total = 64 << 20;
    let stream = Stream { writing: Writing::EdgeTriggered, ..stream(total, 100_000) };
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            stream.write(&client, noise, &mut Random::new(1))?;
            Ok::<_, Fault>(client.shutdown(Shutdown::Write)?)
        });
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline
            && scratch.state(&key(&client)?)?.mode != JoinState::SEPARATE
        {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        let held_back = !sent.is_finished();
        stream.read(&server, noise, &mut Random::new(2), true)?;
        sent.join().unwrap_or(Err(Fault::Stalled { at: 0 }))?;
        if held_back { Ok(()) } else { Err(Fault::Unbounded { waiting: total }) }
    })
}

fn sending_to_a_closed_socket(scratch: &Scratch, _: &Noise) -> Result<(), Fault> {
    let (mut client, mut server) = scratch.pair()?;
    client.write_all(b"there")?;
    server.read_exact(&mut [0; 5])?;
    drop(server);
    let deadline = Instant::now() + Duration::from_secs(1);
    let error = loop {
        match client.write(b"more") {
            Err(error) => break error,
            Ok(_) if Instant::now() > deadline => return Err(Fault::Unbounded { waiting: 0 }),
            Ok(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    if matches!(error.kind(), BrokenPipe | ConnectionReset) { Ok(()) } else { Err(error.into()) }
}

fn stream(total: u64, most: usize) -> Stream {
    Stream {
        from: 0,
        total,
        most: (most, most),
        writing: Writing::Blocking,
        reading: Reading::LevelTriggered,
        pause: None,
    }
}

/// Writes in one thread and reads in this one.
fn carry(
    stream: &Stream,
    client: TcpStream,
    server: &TcpStream,
    noise: &Noise,
    seed: u64,
) -> Result<(), Fault> {
    thread::scope(|scope| {
        let sent = scope.spawn(move || {
            stream.write(&client, noise, &mut Random::new(seed))?;
            Ok::<_, Fault>(client.shutdown(Shutdown::Write)?)
        });
        stream.read(server, noise, &mut Random::new(seed + 1), true)?;
        sent.join().unwrap_or(Err(Fault::Stalled { at: 0 }))
    })
}

fn expect(scratch: &Scratch, socket: &TcpStream, mode: u32) -> Result<(), Fault> {
    let found = scratch.state(&key(socket)?)?.mode;
    if found == mode { Ok(()) } else { Err(Fault::Mode { found, expected: mode }) }
}

/// Bytes of a write that is larger than any buffer.
const LARGE: usize = 5 << 20;
