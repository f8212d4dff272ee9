//! The gRPC suite's server, to run its clients against by hand. It prints where it listens, refuses what
//! the suite's policy forbids unless it is told `before` (then somebody before it does), and prints what
//! it has seen when its input ends.

use portreeve_tests::grpc::{Denials, Server};

fn main() {
    let before = std::env::args().nth(1).is_some_and(|argument| argument == "before");
    let server = Server::start(if before { Denials::Before } else { Denials::Here });
    println!("{}", server.address);
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {}
    println!("{:#?}", server.seen());
}
