//! Why an HTTP/2 connection is ended by the proxy. What is wrong with a single request's head has the
//! names of [`http1::Refusal`](crate::http1::Refusal) and ends its stream alone.

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $by_server:literal, $text:literal;)+) => {
        /// Why a connection was ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $variant,)+
        }

        impl Refusal {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// A stable short name for metrics and logs: `control_flood`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether the server, not the client, is at fault.
            #[must_use]
            pub fn by_server(self) -> bool {
                match self { $(Self::$variant => $by_server,)+ }
            }
        }
    };
}

refusals! {
    /// RFC 9113 section 5.4.1.
    Protocol = "protocol_error", false, "the client broke the rules of HTTP/2";
    /// RFC 9113 section 10.5; CVE-2019-9512, -9513, -9515, -9518.
    ControlFlood = "control_flood", false, "the client sends frames that carry nothing";
    /// RFC 9113 section 10.5.1; CVE-2024-27316 and its relatives.
    HeaderFlood = "header_flood", false, "the client sends a head without end";
    /// CVE-2023-44487.
    ResetFlood = "reset_flood", false, "the client takes back requests as fast as it makes them";
    /// The time for a head has run out before the connection was set up.
    SetupTimeout = "setup_timeout", false, "the client did not finish setting up the connection";
    /// Nothing is taken of what waits.
    Stalled = "stalled", false, "a peer does not take what waits for it";
    /// The server does not speak HTTP/2, or not well.
    ResponseProtocol = "response_protocol_error", true, "the server broke the rules of HTTP/2";
    /// The same as from clients.
    ResponseFlood = "response_flood", true, "the server sends frames that carry nothing";
    /// The same as from clients.
    ResponseHeaderFlood = "response_header_flood", true, "the server sends a head without end";
}
