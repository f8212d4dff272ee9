//! `portreeve demo kafka`: a stand-in for a broker, "service1 may produce to topic1, service2 may consume
//! from it", and what comes of asking for that and for more.
//!
//! | file | what |
//! | --- | --- |
//! | `stand_in.rs` | what answers in a broker's place |
//! | `requests.rs` | what is asked, and a client that asks it |

mod requests;
mod stand_in;

use std::net::SocketAddr;

use self::requests::REQUESTS;
use super::{Demo, Example, Peered};
use crate::Failure;

/// The policy, as it stands in the examples.
const POLICY: Example = Example {
    path: "examples/demo/kafka.yaml",
    text: include_str!("../../../../examples/demo/kafka.yaml"),
};

/// Who has which loopback address.
const PEERS: [Peered; 2] = [(1, "app=service1"), (2, "app=service2")];

/// Runs the demo.
pub(super) fn run(once: bool) -> Result<(), Failure> {
    let advertised = stand_in::Advertised::default();
    let upstream = stand_in::start(&["topic1", "topic2"], &advertised).map_err(Failure::new)?;
    let demo = Demo::start(&POLICY, "app=kafka", &PEERS, upstream, 9092)?;
    // Clients come back to the proxy, wherever it found a port.
    let _ = advertised.set(demo.address);
    demo.introduce(
        "stand-in for a broker",
        "service1 may produce to topic1, service2 may consume from it, all else is refused",
    )?;
    let answers = REQUESTS.iter().map(|request| request.ask(demo.address)).collect();
    demo.show(answers)?;
    if !once {
        demo.stay(&tries(demo.address))?;
    }
    demo.end();
    Ok(())
}

fn tries(address: SocketAddr) -> String {
    format!(
        "  echo hello | kcat -b {address} -P -t topic1\n  \
         echo hello | kcat -b {address} -P -t topic2\n  \
         kcat -b {address} -C -t topic1 -e\n"
    )
}
