//! What is asked. The client writes byte for byte what stands here, since half of it is what no
//! well-behaved client would send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::demo::table::Answer;

/// One request of the demo.
pub(super) struct Asked {
    /// What the table says of it.
    line: &'static str,
    /// Everything but `Host` and `Connection`.
    request: &'static str,
    fields: &'static str,
    /// The last part of the client's loopback address: `127.0.0.1` is `app=client`, others are
    /// unknown.
    from: u8,
    expected: &'static str,
}

const fn asked(
    line: &'static str,
    request: &'static str,
    fields: &'static str,
    expected: &'static str,
) -> Asked {
    Asked { line, request, fields, from: 1, expected }
}

pub(super) const REQUESTS: [Asked; 13] = [
    asked("GET /public/hello, X-Token: 42", "GET /public/hello", "X-Token: 42\r\n", "200"),
    asked(
        "GET /public/docs?page=2, X-Token: 7",
        "GET /public/docs?page=2",
        "X-Token: 7\r\n",
        "200",
    ),
    asked("GET /public/hello, no token", "GET /public/hello", "", "403"),
    asked("GET /public/hello, X-Token: abc", "GET /public/hello", "X-Token: abc\r\n", "403"),
    asked(
        "GET /public/hello, two tokens",
        "GET /public/hello",
        "X-Token: 1\r\nX-Token: 2\r\n",
        "403",
    ),
    asked(
        "POST /public/hello, X-Token: 42",
        "POST /public/hello",
        "X-Token: 42\r\nContent-Length: 0\r\n",
        "403",
    ),
    asked("GET /private, X-Token: 42", "GET /private", "X-Token: 42\r\n", "403"),
    asked(
        "GET /public/../private, X-Token: 42",
        "GET /public/../private",
        "X-Token: 42\r\n",
        "403",
    ),
    asked("GET //public/hello, X-Token: 42", "GET //public/hello", "X-Token: 42\r\n", "200"),
    asked("GET /public%2Fhello, X-Token: 42", "GET /public%2Fhello", "X-Token: 42\r\n", "307"),
    asked(
        "GET /public/..;/private, X-Token: 42",
        "GET /public/..;/private",
        "X-Token: 42\r\n",
        "400",
    ),
    asked(
        "POST with two lengths (smuggling)",
        "POST /public/hello",
        "X-Token: 42\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "400",
    ),
    Asked {
        line: "GET /public/hello from 127.0.0.2",
        request: "GET /public/hello",
        fields: "X-Token: 42\r\n",
        from: 2,
        expected: "reset",
    },
];

impl Asked {
    /// Asks it on a connection of its own.
    pub(super) fn ask(&self, proxy: SocketAddr, number: usize) -> Answer {
        let seen = match self.exchange(proxy, number) {
            Ok(answer) => match answer.split(' ').nth(1) {
                Some(status) => status.to_owned(),
                None => "reset".to_owned(),
            },
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => "reset".to_owned(),
            Err(error) => error.to_string(),
        };
        let good = seen == self.expected;
        Answer { line: self.line, passed: seen == "200", seen, good }
    }

    fn exchange(&self, proxy: SocketAddr, number: usize) -> std::io::Result<String> {
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, self.from), 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect(&proxy.into())?;
        let mut stream = TcpStream::from(socket);
        talk(
            &mut stream,
            &format!(
                "{} HTTP/1.1\r\nHost: shop\r\nX-Request-Id: demo-{number}\r\nConnection: close\r\n{}\r\n",
                self.request, self.fields
            ),
        )
    }
}

fn talk(stream: &mut TcpStream, request: &str) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
