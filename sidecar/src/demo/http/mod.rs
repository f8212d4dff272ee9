//! `portreeve demo`: an upstream, the policy everybody quotes, and what comes of a dozen requests.
//!
//! | file | what |
//! | --- | --- |
//! | `upstream.rs` | the service behind the proxy |
//! | `requests.rs` | what is asked, and a client that asks it byte for byte |

mod requests;
mod upstream;

use std::net::SocketAddr;

use self::requests::REQUESTS;
use super::{Demo, Example, Peered};
use crate::Failure;

/// The policy, as it stands in the examples.
const POLICY: Example = Example {
    path: "examples/demo/policy.yaml",
    text: include_str!("../../../../examples/demo/policy.yaml"),
};

/// Who has which loopback address.
const PEERS: [Peered; 1] = [(1, "app=client")];

/// Runs the demo.
pub(super) fn run(once: bool) -> Result<(), Failure> {
    let upstream = upstream::start().map_err(Failure::new)?;
    let demo = Demo::start(&POLICY, "app=shop", &PEERS, upstream, 80)?;
    demo.introduce(
        "upstream",
        "GET /public/.* and nothing else, and every call carries X-Token: [0-9]+",
    )?;
    let answers = REQUESTS.iter().enumerate();
    demo.show(answers.map(|(n, request)| request.ask(demo.address, n)).collect())?;
    if !once {
        demo.stay(&tries(demo.address))?;
    }
    demo.end();
    Ok(())
}

fn tries(address: SocketAddr) -> String {
    format!(
        "  curl -i -H 'X-Token: 42' http://{address}/public/hello\n  \
         curl -i http://{address}/public/hello\n  \
         curl -i --path-as-is -H 'X-Token: 42' http://{address}/public/../private\n"
    )
}
