//! Many endpoints under one proxy, on loopback: every endpoint has an address of its own there.
#![expect(clippy::expect_used, reason = "what a test relies on may panic")]

mod both_ends;
mod comings;
mod harness;
mod limits;
mod policies;
