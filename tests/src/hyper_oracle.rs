//! How hyper reads the bytes that the gate lets through: it must find the same requests.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use portreeve_protocols::http1::Decision;
use portreeve_protocols::http1::fuzz::{Connection, by_path};
use tokio::io::AsyncWriteExt;

/// Method and target of every request that hyper's server finds in the bytes, and whether it read
/// them all without an error.
///
/// # Panics
/// When there is no memory for a runtime.
#[must_use]
pub fn requests(bytes: &[u8]) -> (Vec<(String, String)>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(bytes.len() + 64 * 1024);
        client.write_all(bytes).await.expect("room for it");
        let found = Arc::new(Mutex::new(Vec::new()));
        let seen = found.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let asked = (request.method().to_string(), request.uri().to_string());
                let whole = request.into_body().collect().await.is_ok();
                if whole {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        client.shutdown().await.expect("a pipe");
        let drain = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        });
        let served = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service)
            .await;
        drain.abort();
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        (found, served.is_ok())
    })
}

/// What the gate accepts, hyper reads the same way. Input: what a client sends.
///
/// # Panics
/// When an invariant does not hold.
pub fn http1_hyper(data: &[u8]) {
    // A server that answers everything keeps the pipeline going.
    let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(8);
    let outcome = Connection::new(data, &answers).run(|| 40, by_path);
    let allowed: Vec<_> = outcome
        .judged
        .iter()
        .filter(|(.., decision)| *decision == Decision::Allow)
        .map(|(method, path, _)| (method.clone(), path.clone()))
        .collect();
    let (found, _) = requests(&outcome.to_server);
    // The last one may be incomplete: its body had not come, or was refused half-way.
    let complete = found.len() >= allowed.len().saturating_sub(1);
    assert!(found.len() <= allowed.len(), "hyper finds {found:?}, judged were {allowed:?}");
    assert_eq!(found[..], allowed[..found.len()], "read differently");
    assert!(complete, "hyper finds only {found:?} of {allowed:?}");
}
