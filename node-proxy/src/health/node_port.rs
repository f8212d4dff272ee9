//! `healthCheckNodePort`: where a load balancer of outside asks whether it may send connections of a service
//! to this node. The answer is kube-proxy's: 200 while the node has backends, 503 when not, and the number
//! in `X-Load-Balancing-Endpoint-Weight`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_ipv6_v6only;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::{LocalBackends, Task};

/// Connections to one port at once; who comes beyond it ends the oldest, so that who is slow is in nobody's
/// way.
const AT_ONCE: usize = 64;
/// Those who wait for that, in the kernel.
const QUEUE: u32 = 128;
/// The longest that one of them may take.
const LONGEST: Duration = Duration::from_secs(5);

/// A port that is answered at, on all addresses of the node, until this is dropped.
pub(super) struct NodePort {
    told: watch::Sender<Told>,
    _task: Task,
}

/// What is told to who asks.
#[derive(Clone, PartialEq)]
struct Told {
    local: LocalBackends,
    is_leaving: bool,
}

impl NodePort {
    /// Opens a port.
    pub(super) fn open(port: u16, local: &LocalBackends, is_leaving: bool) -> io::Result<Self> {
        let (told, telling) = watch::channel(Told { local: local.clone(), is_leaving });
        Ok(Self { told, _task: Task(tokio::spawn(serve(listen(port)?, telling))) })
    }

    /// From now on, this is told.
    pub(super) fn tell(&self, local: &LocalBackends, is_leaving: bool) {
        self.told.send_replace(Told { local: local.clone(), is_leaving });
    }
}

/// Both families by one socket, where there is IPv6, whatever `net.ipv6.bindv6only` says.
fn listen(port: u16) -> io::Result<TcpListener> {
    let (socket, at) = match TcpSocket::new_v6() {
        Ok(socket) => {
            set_ipv6_v6only(&socket, false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(QUEUE)
}

async fn serve(listener: TcpListener, telling: watch::Receiver<Told>) {
    let mut open = VecDeque::with_capacity(AT_ONCE);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Of files there may be more in a moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if open.len() == AT_ONCE {
            open.pop_front();
        }
        let connection = tokio::spawn(serve_one(stream, telling.clone()));
        open.push_back(Task(connection));
    }
}

async fn serve_one(stream: TcpStream, telling: watch::Receiver<Told>) {
    let answer = service_fn(|_| async { Ok::<_, Infallible>(answer(&telling.borrow())) });
    let mut server = http1::Builder::new();
    let connection = server.keep_alive(false).serve_connection(TokioIo::new(stream), answer);
    // Whoever goes away, or is too slow, has asked nothing.
    let _ = tokio::time::timeout(LONGEST, connection).await;
}

fn answer(told: &Told) -> Response<Full<Bytes>> {
    let Told { local: LocalBackends { service, count }, is_leaving } = told;
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": count,
        "serviceProxyHealthy": !is_leaving,
    });
    let mut answer = Response::new(Full::from(body.to_string()));
    if *count == 0 || *is_leaving {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", (*count).into());
    answer
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::datapath::ServiceName;
    use crate::health::{Checkup, Heard, Wanted};

    fn ask(at: SocketAddr) -> Option<(String, String)> {
        let mut stream = TcpStream::connect(at).ok()?;
        // A port that closes resets who is in its queue.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.to_owned(), body.to_owned()))
    }

    fn wanted(port: u16, count: usize) -> Wanted {
        let service = ServiceName { namespace: "default".to_owned(), name: "shop".to_owned() };
        let ports = [(port, LocalBackends { service, count })].into();
        Wanted { ports, ..Wanted::default() }
    }

    fn eventually(mut look: impl FnMut() -> bool) {
        for _ in 0..500 {
            if look() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not come");
    }

    #[test]
    fn who_asks_is_told_as_kube_proxy_does() {
        let free = TcpListener::bind("[::]:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut checkup = Checkup::start().unwrap();
        checkup.want(wanted(port, 2));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let heard = runtime.block_on(checkup.heard());
        let [Heard::Unanswered(failing)] = &heard[..] else { panic!("{heard:?}") };
        assert!(failing[&port].contains("in use"), "{failing:?}");
        drop(free);
        checkup.want(wanted(port, 2));
        eventually(|| ask(at).is_some());
        let (head, body) = ask(at).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.contains("x-load-balancing-endpoint-weight: 2"), "{head}");
        assert!(ask((Ipv6Addr::LOCALHOST, port).into()).is_some(), "both families");
        assert_eq!(
            body,
            "{\"localEndpoints\":2,\"service\":{\"name\":\"shop\",\"namespace\":\"default\"},\
             \"serviceProxyHealthy\":true}"
        );
        checkup.want(wanted(port, 0));
        eventually(|| ask(at).unwrap().0.starts_with("HTTP/1.1 503"));
        checkup.want(wanted(port, 1));
        eventually(|| ask(at).unwrap().0.starts_with("HTTP/1.1 200"));
        checkup.leave();
        eventually(|| ask(at).unwrap().1.ends_with("\"serviceProxyHealthy\":false}"));
        assert!(ask(at).unwrap().0.starts_with("HTTP/1.1 503"));
        checkup.want(Wanted::default());
        eventually(|| ask(at).is_none());
    }

    #[test]
    fn who_asks_slowly_keeps_nobody_from_asking() {
        let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let checkup = Checkup::start().unwrap();
        checkup.want(wanted(port, 1));
        eventually(|| ask(at).is_some());
        let slow: Vec<_> = (0..3 * AT_ONCE).map(|_| TcpStream::connect(at).unwrap()).collect();
        let began = std::time::Instant::now();
        assert!(ask(at).unwrap().0.starts_with("HTTP/1.1 200"));
        assert!(began.elapsed() < LONGEST, "it did not wait for them to be ended");
        drop(slow);
    }
}
