//! Joined sockets beside plain ones: the same bytes, in every way of writing and reading them.

use std::io::{Read, Seek, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use portreeve_ebpf_common::JoinState;
use rustix::net::{SendFlags, send};

use super::exchange::{Fault, Noise, Random, Reading, Stream, Writing};
use super::layout;
use super::scratch::{Scratch, key};

/// What happens at the end of what a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Both sides send at once, and end their own direction.
    AtOnce,
    /// The client ends its direction, then the server answers.
    Reply,
    /// The client closes its socket and does not read.
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    course: Course,
    there: Stream,
    back: Stream,
    seed: u64,
}

impl Plan {
    fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let course = [Course::AtOnce, Course::Reply, Course::Close][random.up_to(3) - 1];
        let (there, back) = (stream(&mut random), stream(&mut random));
        Self { course, there, back, seed }
    }

    fn bytes(&self) -> u64 {
        self.there.total + if self.course == Course::Close { 0 } else { self.back.total }
    }
}

fn stream(random: &mut Random) -> Stream {
    let most = (1 << random.up_to(23) >> 1, 1 << random.up_to(22) >> 1);
    let total = random.up_to((most.0.min(most.1) * 3000).clamp(1, 24 << 20));
    let pause = (random.up_to(3) == 1)
        .then(|| (random.up_to(total) as u64, Duration::from_millis(random.up_to(20) as u64)));
    Stream {
        from: random.next() >> 32,
        total: total as u64,
        most,
        writing: [Writing::Blocking, Writing::Gathered, Writing::EdgeTriggered]
            [random.up_to(3) - 1],
        reading: [Reading::LevelTriggered, Reading::EdgeTriggered, Reading::Counted]
            [random.up_to(3) - 1],
        pause,
    }
}

/// What has gone wrong: who fails closes its socket, and others then fail, too.
fn carry_out(plan: &Plan, client: TcpStream, server: TcpStream, noise: &Noise) -> Vec<String> {
    let Plan { course, there, back, seed } = *plan;
    let random = |number: u64| Random::new(seed * 4 + number);
    let write = |socket: &TcpStream, stream: &Stream, number| {
        stream.write(socket, noise, &mut random(number))?;
        Ok::<_, Fault>(socket.shutdown(Shutdown::Write)?)
    };
    let read = |socket: &TcpStream, stream: &Stream, number| {
        stream.read(socket, noise, &mut random(number), true)
    };
    let named = |name: &str, result: Result<(), Fault>| {
        result.err().map(|fault| format!("{name}: {fault}"))
    };
    thread::scope(|scope| {
        let client_side = scope.spawn(move || {
            if course == Course::Close {
                let sent = there.write(&client, noise, &mut random(0)).map_err(Fault::from);
                return vec![named("the client's writer", sent)];
            }
            thread::scope(|scope| {
                let writer = scope.spawn(|| write(&client, &there, 0));
                let read = named("the client's reader", read(&client, &back, 1));
                let written = writer.join().expect("the client's writer");
                vec![read, named("the client's writer", written)]
            })
        });
        let server_side = scope.spawn(move || {
            if course != Course::AtOnce {
                let result = read(&server, &there, 3);
                let failed = result.is_err();
                let mut faults = vec![named("the server's reader", result)];
                if course == Course::Reply && !failed {
                    faults.push(named("the server's writer", write(&server, &back, 2)));
                }
                return faults;
            }
            thread::scope(|scope| {
                let writer = scope.spawn(|| write(&server, &back, 2));
                let read = named("the server's reader", read(&server, &there, 3));
                let written = writer.join().expect("the server's writer");
                vec![read, named("the server's writer", written)]
            })
        });
        let ends = [server_side.join(), client_side.join()];
        ends.into_iter().flat_map(|faults| faults.expect("a side")).flatten().collect()
    })
}

fn scratch() -> Scratch {
    Scratch::load(&layout::read().expect("the kernel's layout")).expect("the programs")
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "needs root: it loads programs"]
fn this_kernel_passes_the_self_test() {
    let start = Instant::now();
    super::self_test().expect("it passes");
    println!("in {:?}", start.elapsed());
}

#[test]
#[ignore = "needs root: it loads programs"]
fn joined_sockets_carry_what_plain_ones_carry() {
    let (scratch, noise) = (scratch(), Noise::new(4 << 20));
    let wanted = number("PORTREEVE_SOAK_MIB", 2048) << 20;
    let first = number("PORTREEVE_SOAK_SEED", 1);
    let [mut bytes, mut connections, mut separated] = [0, 0, 0];
    let mut times = [Duration::ZERO; 2];
    for seed in first.. {
        if bytes >= wanted {
            break;
        }
        let plan = Plan::random(seed);
        for joined in [true, false] {
            let (client, server) =
                if joined { scratch.pair() } else { scratch.plain_pair() }.expect("a pair");
            let key = key(&client).expect("addresses");
            let start = Instant::now();
            let faults = carry_out(&plan, client, server, &noise);
            times[usize::from(joined)] += start.elapsed();
            assert!(faults.is_empty(), "{faults:#?}; joined: {joined}, {plan:?}");
            if joined {
                let state = scratch.state(&key).expect("a state");
                assert!(state.mode != JoinState::UNDECIDED, "{state:?}");
                separated += u64::from(state.mode == JoinState::SEPARATE);
                scratch.forget(&key).expect("forgotten");
            }
        }
        bytes += plan.bytes();
        connections += 1;
    }
    println!(
        "{connections} connections, {} MiB joined and the same over TCP; {separated} clients were \
         sent back to TCP; {:?} joined, {:?} over TCP",
        bytes >> 20,
        times[1],
        times[0],
    );
}

#[test]
#[ignore = "needs root: it loads programs"]
fn what_is_sent_from_files_and_pipes_arrives() {
    let scratch = scratch();
    let mut random = Random::new(7);
    let sent: Vec<u8> = (0..3_000_000).map(|_| random.next().to_ne_bytes()[7]).collect();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&sent).and_then(|()| file.rewind()).expect("it is written");
    let (pipe, mut filled) = std::io::pipe().expect("a pipe");
    filled.write_all(&sent[..50_000]).expect("there is room");
    drop(filled);
    let (mut client, mut server) = scratch.pair().expect("a pair");
    let sender = thread::spawn(move || {
        // By sendfile(2) and splice(2).
        std::io::copy(&mut file, &mut client).expect("the file");
        std::io::copy(&mut &pipe, &mut client).expect("the pipe");
    });
    let mut come = Vec::new();
    server.read_to_end(&mut come).expect("all of it");
    sender.join().expect("sent");
    assert_eq!(come.len(), 3_050_000);
    assert!(come[..3_000_000] == sent && come[3_000_000..] == sent[..50_000]);
}

#[test]
#[ignore = "needs root: it loads programs"]
fn urgent_bytes_come_in_their_place() {
    let scratch = scratch();
    let (client, mut server) = scratch.pair().expect("a pair");
    for (bytes, flags) in
        [(&b"abc"[..], SendFlags::empty()), (b"X", SendFlags::OOB), (b"def", SendFlags::empty())]
    {
        assert_eq!(send(&client, bytes, flags), Ok(bytes.len()));
    }
    let mut come = [0; 7];
    server.read_exact(&mut come).expect("all of it");
    assert_eq!(&come, b"abcXdef");
}
