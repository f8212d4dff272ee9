//! The proxy: sockets, relays, snapshots, telemetry.
