//! One question to one backend, and the next.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{Heard, Probe};
use crate::objects::Question;

/// Longest head of an answer.
const HEAD: usize = 16 * 1024;

const USER_AGENT: &str = concat!("portreeve-node/", env!("CARGO_PKG_VERSION"));

/// Asks until it is aborted, or nobody listens.
pub(super) async fn ask_again_and_again(
    probe: Probe,
    turns: Arc<Semaphore>,
    tell: mpsc::Sender<Heard>,
) {
    let mut times = interval_at(Instant::now() + delay(&probe), probe.check.interval);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let Ok(turn) = turns.acquire().await else { return };
        let heard = match ask(&probe).await {
            Ok(()) => Heard::Answer(probe.clone(), Ok(())),
            Err(Wrong::Backend(error)) => Heard::Answer(probe.clone(), Err(error)),
            Err(Wrong::Node(error)) => Heard::Unable(error),
        };
        drop(turn);
        if tell.send(heard).await.is_err() {
            return;
        }
    }
}

/// Not all at once: each backend within the first second, or the first interval.
fn delay(probe: &Probe) -> Duration {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    probe.target.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % 1000).min(probe.check.interval)
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// With the backend, or the way to it.
    Backend(String),
    /// With this node, which says nothing of the backend.
    Node(String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(
                Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL,
            ) => Self::Node(error.to_string()),
            _ => Self::Backend(match error.kind().to_string() {
                kind if kind.contains("uncategorized") => error.to_string(),
                kind => kind,
            }),
        }
    }
}

/// Whether a backend is well.
async fn ask(probe: &Probe) -> Result<(), Wrong> {
    match timeout(probe.check.timeout, answer(probe)).await {
        Ok(answer) => answer,
        Err(_) => Err(Wrong::Backend(format!("no answer within {:?}", probe.check.timeout))),
    }
}

async fn answer(probe: &Probe) -> Result<(), Wrong> {
    let stream = TcpStream::connect(probe.target).await?;
    match &probe.check.question {
        Question::Connect => Ok(()),
        Question::Get(path) => get(stream, probe, path).await.map_err(Wrong::Backend),
    }
}

async fn get(stream: TcpStream, probe: &Probe, path: &str) -> Result<(), String> {
    let no_http = |error: hyper::Error| format!("no answer in HTTP/1.1: {error}");
    let request = Request::get(path)
        .header(header::HOST, probe.target.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(no_http)?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // It may have ended with the answer.
        _ = connection => answer.await,
    };
    match answer.map_err(no_http)?.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::objects::HealthCheck;

    fn probe(target: SocketAddr, question: Question) -> Probe {
        let (interval, timeout) = (Duration::from_secs(1), Duration::from_millis(300));
        Probe {
            target,
            check: HealthCheck { question, port: None, interval, timeout, fall: 3, rise: 2 },
        }
    }

    /// Answers everybody with the same, and says what it was asked.
    async fn serve(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (asked, questions) = mpsc::channel(8);
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = vec![0; 4096];
                let length = stream.read(&mut question).await.unwrap();
                asked
                    .send(String::from_utf8_lossy(&question[..length]).into_owned())
                    .await
                    .unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer.is_empty() {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
        });
        (address, questions)
    }

    #[tokio::test]
    async fn who_answers_a_get_with_what_it_is_to_be_is_well() {
        let (address, mut questions) =
            serve("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        let get = || Question::Get("/healthz?full=1".to_owned());
        assert_eq!(ask(&probe(address, get())).await, Ok(()));
        let question = questions.recv().await.unwrap();
        assert!(question.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{question}");
        assert!(question.contains(&format!("host: {address}\r\n")), "{question}");
        for (answer, said) in [
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "answered 503"),
            ("220 mail.example ESMTP\r\n", "no answer in HTTP/1.1"),
            ("", "no answer within 300ms"),
        ] {
            let (address, _questions) = serve(answer).await;
            let error = ask(&probe(address, get())).await.unwrap_err();
            assert!(
                matches!(&error, Wrong::Backend(error) if error.starts_with(said)),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn who_accepts_a_connection_is_well_if_that_is_all_that_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(&probe(address, Question::Connect)).await, Ok(()));
        drop(listener);
        let refused = Wrong::Backend("connection refused".to_owned());
        assert_eq!(ask(&probe(address, Question::Connect)).await, Err(refused));
    }

    #[test]
    fn what_the_node_lacks_is_not_the_backends_fault() {
        let wrong = |errno: Errno| Wrong::from(io::Error::from(errno));
        assert!(matches!(wrong(Errno::MFILE), Wrong::Node(error) if error.contains("open files")));
        assert!(matches!(wrong(Errno::ADDRNOTAVAIL), Wrong::Node(_)));
        assert_eq!(wrong(Errno::HOSTUNREACH), Wrong::Backend("host unreachable".to_owned()));
        assert!(matches!(wrong(Errno::PROTO), Wrong::Backend(error) if error.contains("rotocol")));
    }
}
