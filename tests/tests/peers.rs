//! Real clients and servers: curl, wrk, Python, Node.js and nginx.

use std::path::Path;
use std::process::Command;

use portreeve_tests::sidecar::{Setup, Sidecar};
use portreeve_tests::upstream::Program;
use portreeve_tests::{Need, needed, trial};

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let (curl, nginx) = (Need::Program("curl"), Need::Program("nginx"));
    let (python, node, wrk) =
        (Need::Program("python3"), Need::Program("node"), Need::Program("wrk"));
    let tests = vec![
        trial("curl_talks_to_nginx", &[curl, nginx], curl_talks_to_nginx),
        trial("curl_uploads_with_100_continue", &[curl, nginx], curl_uploads_with_100_continue),
        trial(
            "curl_keeps_its_connection_after_a_denial",
            &[curl, nginx],
            curl_keeps_its_connection,
        ),
        trial("curl_talks_to_nginx_in_http2", &[curl, nginx], curl_talks_to_nginx_in_http2),
        trial("h2load_sees_no_failed_stream", &[Need::Program("h2load"), nginx], h2load),
        trial("node_talks_to_node_in_http2", &[node], node_talks_to_node_in_http2),
        trial("java_upgrades_to_http2", &[Need::Program("java")], java_upgrades_to_http2),
        trial("wrk_sees_no_failed_request", &[wrk, nginx], wrk_sees_no_failed_request),
        trial("python_talks_to_python", &[python], python_talks_to_python),
        trial("node_talks_to_node", &[node], node_talks_to_node),
        trial("node_websocket_session", &[node], node_websocket_session),
        trial("chromium_shows_a_page", &[Need::Program("chromium"), nginx], chromium_shows_a_page),
    ];
    libtest_mimic::run(&arguments, tests).exit();
}

fn in_front_of(upstream: &Program) -> Sidecar {
    Setup::new(upstream.address).start()
}

/// Standard output of a program that must succeed, and within a minute.
fn output(command: &mut Command) -> String {
    let mut limited = Command::new("timeout");
    limited.arg("60").arg(command.get_program()).args(command.get_args());
    let output = limited.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn curl(arguments: &[&str]) -> String {
    output(
        Command::new(needed("curl"))
            .args(["--silent", "--show-error", "--max-time", "20"])
            .args(arguments),
    )
}

fn curl_talks_to_nginx() {
    let nginx = Program::nginx(&needed("nginx"));
    let sidecar = in_front_of(&nginx);
    let url = |path: &str| format!("http://{}{path}", sidecar.address);
    assert_eq!(curl(&[&url("/public/hello")]), "hello from nginx\n");
    let status = |arguments: &[&str]| {
        curl(&[&["--output", "/dev/null", "--write-out", "%{http_code}"], arguments].concat())
    };
    assert_eq!(status(&[&url("/private")]), "403");
    assert_eq!(status(&["--path-as-is", &url("/public/../private")]), "403");
    assert_eq!(status(&["--request", "DELETE", &url("/public/hello")]), "403");
    assert_eq!(status(&["--head", &url("/public/hello")]), "200");
    assert_eq!(status(&["--http1.0", &url("/public/hello")]), "200");
    // Asks for an upgrade to HTTP/2, which is not passed on.
    assert_eq!(status(&["--http2", &url("/public/hello")]), "200");
    assert_eq!(status(&["--request-target", "http://x/public/hello", &url("/")]), "400");
    assert_eq!(status(&["--proxy", &url(""), "http://shop/public/hello"]), "200");
    assert_eq!(status(&["--range", "0-3", &url("/public/hello")]), "206");
    assert_eq!(status(&["--compressed", &url("/public/hello")]), "200");
}

fn curl_talks_to_nginx_in_http2() {
    let nginx = Program::nginx_with_http2(&needed("nginx"));
    let sidecar = in_front_of(&nginx);
    let url = |path: &str| format!("http://{}{path}", sidecar.address);
    let said = |how: &str, path: &str| {
        let write = [
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_version} %{http_code} %{size_download}",
        ];
        curl(&[&[how, &url(path)], &write[..]].concat())
    };
    // With prior knowledge, and by an upgrade.
    for how in ["--http2-prior-knowledge", "--http2"] {
        assert_eq!(said(how, "/public/hello"), "2 200 17", "{how}");
        assert_eq!(said(how, "/public/large"), "2 200 1048576", "{how}");
        assert_eq!(said(how, "/private"), "2 403 15", "{how}");
        assert_eq!(said(how, "/public%2fhello"), "2 307 50", "{how}");
    }
}

fn h2load() {
    let nginx = Program::nginx_with_http2(&needed("nginx"));
    let sidecar = in_front_of(&nginx);
    for (path, expected) in [("/public/hello", "5000 2xx"), ("/private", "5000 4xx")] {
        let url = format!("http://{}{path}", sidecar.address);
        let mut command = Command::new(needed("h2load"));
        let report = output(command.args(["-n", "5000", "-c", "10", "-m", "100", &url]));
        assert!(report.contains("0 errored, 0 timeout"), "{report}");
        assert!(report.replace(", ", " ").contains(expected), "{report}");
    }
}

fn java_upgrades_to_http2() {
    const CLIENT: &str = r#"
        import java.net.URI;
        import java.net.http.*;
        public class H2c {
            public static void main(String[] urls) throws Exception {
                var client = HttpClient.newHttpClient();
                for (var url : urls) {
                    var request = HttpRequest.newBuilder(URI.create(url)).build();
                    var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                    System.out.println(answer.version() + " " + answer.statusCode());
                }
            }
        }"#;
    let (upstream, seen) = portreeve_tests::http2::serve();
    let sidecar = Setup::new(upstream).start();
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("H2c.java");
    std::fs::write(&source, CLIENT).expect("a file");
    let mut command = Command::new(needed("java"));
    let url = |path: &str| format!("http://{}{path}", sidecar.address);
    command.arg(&source).args([url("/public/a"), url("/private"), url("/public/a")]);
    assert_eq!(output(&mut command), "HTTP_2 200\nHTTP_2 403\nHTTP_2 200\n");
    assert_eq!(seen.what().connections, 2, "one to ask whether it speaks HTTP/2, and the pair's");
}

fn curl_uploads_with_100_continue() {
    let nginx = Program::nginx(&needed("nginx"));
    let sidecar = in_front_of(&nginx);
    let file = nginx.folder.path().join("upload");
    std::fs::write(&file, vec![b'x'; 3 << 20]).expect("a file");
    let data = format!("@{}", file.display());
    for encoding in ["A: b", "Transfer-Encoding: chunked"] {
        let taken = curl(&[
            "--header",
            "Expect: 100-continue",
            "--header",
            encoding,
            "--data-binary",
            &data,
            &format!("http://{}/upload", sidecar.address),
        ]);
        assert_eq!(taken, "taken\n", "{encoding}");
    }
    let denied = curl(&[
        "--header",
        "Expect: 100-continue",
        "--data-binary",
        &data,
        &format!("http://{}/elsewhere", sidecar.address),
    ]);
    assert_eq!(denied, "Access denied\r\n");
}

fn curl_keeps_its_connection() {
    let nginx = Program::nginx(&needed("nginx"));
    let sidecar = in_front_of(&nginx);
    let url = |path: &str| format!("http://{}{path}", sidecar.address);
    let count = curl(&[
        "--output",
        "/dev/null",
        "--write-out",
        "%{num_connects} ",
        &url("/public/hello"),
        "--next",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{num_connects} ",
        &url("/private"),
        "--next",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{num_connects}",
        &url("/public/hello"),
    ]);
    assert_eq!(count, "1 0 0");
}

fn wrk_sees_no_failed_request() {
    let nginx = Program::nginx(&needed("nginx"));
    let sidecar = in_front_of(&nginx);
    let report = output(
        Command::new(needed("wrk"))
            .args(["-t2", "-c64", "-d3s"])
            .arg(format!("http://{}/public/hello", sidecar.address)),
    );
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
}

fn script(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a script");
    path
}

fn python_talks_to_python() {
    let server = Program::start(|folder, address| {
        std::fs::create_dir_all(folder.join("public")).expect("a folder");
        std::fs::write(folder.join("public/hello"), "hello from python\n").expect("a file");
        let mut command = Command::new(needed("python3"));
        command
            .args(["-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1"])
            .arg(address.port().to_string())
            .current_dir(folder);
        command
    });
    let sidecar = in_front_of(&server);
    let client = script(
        server.folder.path(),
        "client.py",
        "import http.client, sys, urllib.request, urllib.error\n\
         host = sys.argv[1]\n\
         print(urllib.request.urlopen('http://%s/public/hello' % host).read().decode(), end='')\n\
         try:\n    urllib.request.urlopen('http://%s/private' % host)\n\
         except urllib.error.HTTPError as e:\n    print(e.code, e.read())\n\
         c = http.client.HTTPConnection(host)\n\
         for path in ['/public/hello', '/private', '/public/hello']:\n    \
         c.request('GET', path); r = c.getresponse(); r.read(); print(r.status)\n",
    );
    let seen = output(Command::new(needed("python3")).arg(client).arg(sidecar.address.to_string()));
    assert_eq!(seen, "hello from python\n403 b'Access denied\\r\\n'\n200\n403\n200\n");
}

const NODE_SERVER: &str = "
const http = require('http');
http.createServer((request, response) => {
  let size = 0;
  request.on('data', (chunk) => { size += chunk.length; });
  request.on('end', () => {
    response.writeHead(200, { Trailer: 'X-Size' });
    response.write(`${request.method} ${request.url} ${size}\\n`);
    response.addTrailers({ 'X-Size': String(size) });
    response.end();
  });
}).on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'];
  const accept = require('crypto').createHash('sha1')
    .update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n' +
    `Sec-WebSocket-Accept: ${accept}\\r\\n\\r\\n`);
  socket.on('end', () => socket.end());
  socket.on('data', (frame) => {
    // Unmasks a short text frame and sends it back.
    const length = frame[1] & 0x7f, mask = frame.subarray(2, 6);
    const text = Buffer.from(frame.subarray(6, 6 + length).map((byte, i) => byte ^ mask[i % 4]));
    socket.write(Buffer.concat([Buffer.from([0x81, length]), text]));
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
";

fn node_server() -> Program {
    Program::start(|folder, address| {
        let server = script(folder, "server.js", NODE_SERVER);
        let mut command = Command::new(needed("node"));
        command.arg(server).arg(address.port().to_string());
        command
    })
}

fn node_talks_to_node() {
    let server = node_server();
    let sidecar = in_front_of(&server);
    let client = script(
        server.folder.path(),
        "client.js",
        "
const http = require('http');
const [host, port] = process.argv[2].split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const ask = (method, path, body) => new Promise((resolve) => {
  const request = http.request({ host, port, method, path, agent }, (response) => {
    let text = '';
    response.on('data', (chunk) => { text += chunk; });
    response.on('end', () => resolve(`${response.statusCode} ${text.trim()} ${response.trailers['x-size'] ?? ''}`));
  });
  // Without a length: chunked.
  if (body) { request.write(body.slice(0, 10)); request.end(body.slice(10)); } else { request.end(); }
});
(async () => {
  console.log(await ask('GET', '/public/a?b=c'));
  console.log(await ask('POST', '/upload', 'x'.repeat(100000)));
  console.log(await ask('POST', '/private', 'x'.repeat(100)));
  console.log(await ask('GET', '/public/d'));
  agent.destroy();
})();
",
    );
    let seen = output(Command::new(needed("node")).arg(client).arg(sidecar.address.to_string()));
    let expected = "200 GET /public/a?b=c 0 0\n200 POST /upload 100000 100000\n403 Access denied \n\
                    200 GET /public/d 0 0\n";
    assert_eq!(seen, expected);
}

fn node_talks_to_node_in_http2() {
    let server = Program::start(|folder, address| {
        let server = script(
            folder,
            "server.js",
            "
const http2 = require('http2');
const [host, port] = process.argv[2].split(':');
const server = http2.createServer({ settings: { enableConnectProtocol: true } });
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':method'] === 'CONNECT') { stream.respond({ ':status': 200 }); stream.pipe(stream); return; }
  let size = 0;
  stream.on('data', (chunk) => { size += chunk.length; });
  stream.on('end', () => {
    stream.additionalHeaders({ ':status': 103, link: '</a.css>' });
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-size': String(size) }));
    stream.end(`${headers[':method']} ${headers[':path']}`);
  });
});
server.listen(+port, host);
",
        );
        let mut command = Command::new(needed("node"));
        command.arg(server).arg(address.to_string());
        command
    });
    let policy = portreeve_tests::sidecar::POLICY.replace("method: GET|HEAD, ", "");
    let sidecar = Setup::new(server.address).policy(&policy).start();
    let client = script(
        server.folder.path(),
        "client.js",
        "
const http2 = require('http2');
const session = http2.connect(`http://${process.argv[2]}`);
const ask = (headers, body) => new Promise((resolve) => {
  const stream = session.request(headers, { endStream: !body });
  let status, hints = '', size = '', text = '';
  stream.on('headers', (more) => { hints = ` after ${more[':status']}`; });
  stream.on('response', (head) => { status = head[':status']; });
  stream.on('trailers', (trailers) => { size = ` ${trailers['x-size']} bytes`; });
  stream.on('data', (chunk) => { text += chunk; if (text === 'frame') { stream.close(); } });
  stream.on('close', () => resolve(`${status}${hints} ${text.trim()}${size}`));
  stream.on('error', () => {});
  if (body && body.length > 10) { stream.write(body.slice(0, 10)); stream.end(body.slice(10)); }
  else if (body) { stream.write(body); }
});
session.once('remoteSettings', async () => {
  const all = await Promise.all([
    ask({ ':path': '/public/a?b=c' }),
    ask({ ':path': '/private' }),
    ask({ ':method': 'POST', ':path': '/public/up' }, 'x'.repeat(300000)),
    ask({ ':method': 'POST', ':path': '/private' }, 'x'.repeat(300000)),
    ask({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/public/ws' }, 'frame'),
    ask({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/private' }, 'frame'),
  ]);
  all.forEach((line) => console.log(line));
  session.close();
});
",
    );
    let seen = output(Command::new(needed("node")).arg(client).arg(sidecar.address.to_string()));
    let expected = "200 after 103 GET /public/a?b=c 0 bytes\n403 Access denied\n\
                    200 after 103 POST /public/up 300000 bytes\n403 Access denied\n\
                    200 frame\n403 Access denied\n";
    assert_eq!(seen, expected);
}

fn node_websocket_session() {
    let server = node_server();
    let sidecar = in_front_of(&server);
    let client = script(
        server.folder.path(),
        "ws.js",
        "
const http = require('http');
const [host, port] = process.argv[2].split(':');
const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' };
http.get({ host, port, path: '/public/ws', headers }).on('upgrade', (response, socket) => {
  console.log(response.statusCode, response.headers['sec-websocket-accept']);
  const texts = ['hello', 'GET /private'];
  const send = () => {
    const text = Buffer.from(texts[0]), mask = Buffer.from([1, 2, 3, 4]);
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length]), mask,
      Buffer.from(text.map((byte, i) => byte ^ mask[i % 4]))]));
  };
  socket.on('data', (frame) => {
    console.log(frame.subarray(2).toString());
    texts.shift();
    if (texts.length) send(); else socket.end();
  });
  send();
});
",
    );
    let seen = output(Command::new(needed("node")).arg(client).arg(sidecar.address.to_string()));
    assert_eq!(seen, "101 s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\nhello\nGET /private\n");
}

fn chromium_shows_a_page() {
    let nginx = Program::nginx(&needed("nginx"));
    let page = "<html><body><p id=a>before</p><script>\
                fetch('/private').then(r => { document.getElementById('a').textContent = 'private ' + r.status; });\
                </script></body></html>";
    let path = nginx.folder.path().join("www/public/index.html");
    std::fs::write(path, page).expect("a page");
    let sidecar = in_front_of(&nginx);
    let profile = nginx.folder.path().join("profile");
    let shown = output(
        Command::new(needed("chromium"))
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--virtual-time-budget=5000",
                "--dump-dom",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("http://{}/public/index.html", sidecar.address)),
    );
    assert!(shown.contains("private 403"), "{shown}");
}
