//! Where policy meets protocol: a connection is judged, and gets the gate that policy asks for.
//!
//! To add a protocol: a gate in `portreeve-protocols`, a session beside `http.rs` that translates
//! its requests into policy queries, and an arm in [`start`].

mod carried_out;
mod connection;
mod detect;
mod http;
mod http1;
mod http2;
mod in_flight;
mod kafka;
mod opaque;
mod reading;
mod session;
mod side;

use std::sync::Arc;

use portreeve_policy::HttpRules;
use portreeve_protocols::http1::Http1;
use portreeve_protocols::http2::PREFACE;
use portreeve_protocols::kafka::Kafka;
use tokio::net::TcpStream;

pub use self::carried_out::carried_out;
pub(crate) use self::connection::Connection;
use self::http1::HttpSession;
use self::http2::Http2Session;
use self::kafka::KafkaSession;
use self::opaque::{Opaque, OpaqueSession};
use self::reading::Reading;
use self::session::Inspect;
pub(crate) use self::side::canonical;
use crate::http2::{Pair, ToUpstream, grant};
use crate::listener::{Settings, reset};
use crate::relay::{End, HandedOver, Relay, Session};
use crate::runtime::{Paced, Registration, Share};

/// Judges a new connection and, if it may exist, relays it on a task of its own.
pub(crate) fn start(
    client: TcpStream,
    settings: &Settings,
    connection: Connection,
    registration: Registration,
) {
    let (verdict, reading) = connection.judged();
    let share = connection.tenant().share();
    match reading {
        None => reset(client),
        Some(Reading::Unseen) => {
            let session = OpaqueSession::new(connection, &verdict);
            spawn(share, Relay::new(client, Opaque, session, registration));
        }
        Some(Reading::Http { rules, only_seen: true }) => spawn(share, async move {
            if detect::speaks_http(&client).await {
                http(client, connection, rules, registration).await;
            } else {
                let session = OpaqueSession::new(connection, &verdict);
                Relay::new(client, Opaque, session, registration).await;
            }
        }),
        Some(Reading::Http { rules, only_seen: false }) => {
            spawn(share, http(client, connection, rules, registration));
        }
        Some(Reading::Kafka { rules, only_seen: true }) => {
            let advertised = settings.advertised.clone();
            spawn(share, async move {
                if detect::speaks_kafka(&client).await {
                    let gate = Kafka::new(connection.worker().kafka.clone(), advertised);
                    let session = KafkaSession::new(connection, rules);
                    Relay::new(client, gate, session, registration).await;
                } else {
                    let session = OpaqueSession::new(connection, &verdict);
                    Relay::new(client, Opaque, session, registration).await;
                }
            });
        }
        Some(Reading::Kafka { rules, only_seen: false }) => {
            let limits = connection.worker().kafka.clone();
            let gate = Kafka::new(limits, settings.advertised.clone());
            let session = KafkaSession::new(connection, rules);
            spawn(share, Relay::new(client, gate, session, registration));
        }
    }
}

/// Runs a connection on a task, in its endpoint's share of the time where there are others.
fn spawn<F>(share: Option<Arc<Share>>, connection: F)
where
    F: Future<Output: Send> + Send + 'static,
{
    match share {
        None => drop(tokio::spawn(connection)),
        Some(share) => drop(tokio::spawn(Paced::new(share, connection))),
    }
}

/// Relays HTTP, whichever version the client begins with.
async fn http(
    client: TcpStream,
    connection: Connection,
    rules: Option<Arc<HttpRules>>,
    registration: Registration,
) {
    let gate = Http1::new(connection.worker().http1.clone());
    let session = HttpSession::new(connection, rules);
    let mut relay = Relay::new(client, gate, session, registration);
    if (&mut relay).await == End::HandedOver {
        // Boxed, so that HTTP/1.1 does not pay for its size.
        Box::pin(handed_over(relay.hand_over())).await;
    }
}

/// Goes on with a client that has sent the preface of HTTP/2, or asked for it.
async fn handed_over(mut handed_over: HandedOver<HttpSession>) {
    if !handed_over.unread.starts_with(PREFACE) {
        let connection = handed_over.session.connection();
        let (worker, upstream) = (connection.worker(), handed_over.session.upstream());
        let client = &mut handed_over.client;
        let head = worker.limits.header_timeout;
        let http1 = &worker.http1;
        let unread = &handed_over.unread;
        match grant(client, unread, &worker.known_servers, &upstream, head, http1).await {
            Ok(Some(said)) => handed_over.unread = said,
            Ok(None) => {
                let gate = Http1::for_good(http1.clone());
                Relay::resumed(handed_over, gate).await;
                return;
            }
            // It went away, or did not do as it had asked to.
            Err(_) => {
                handed_over.session.closed(End::Aborted, 0, 0);
                return;
            }
        }
    }
    http2(handed_over).await;
}

/// Relays HTTP/2 for a client whose preface has been read.
async fn http2(handed_over: HandedOver<HttpSession>) {
    let HandedOver { client, unread, session, handle } = handed_over;
    let session = Http2Session::new(session.into_policy());
    let worker = session.worker();
    let (limits, stall) = (worker.http2.clone(), worker.limits.http2_stall_timeout);
    Pair::new(client, unread, ToUpstream, session, handle, limits, stall).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection is little more than this future.
    #[test]
    fn a_connection_stays_small() {
        let size = size_of::<Relay<Http1, HttpSession>>();
        assert!(size <= 480, "{size} bytes");
    }
}
