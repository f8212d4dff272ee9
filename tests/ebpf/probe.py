"""A process of the workload: does what its arguments say with real sockets, and prints one JSON object a line.

  tcp ADDRESS PORT [PATH]     connect; with PATH, one HTTP request
  udp ADDRESS PORT COUNT      datagrams of a socket that is not connected, and whom the answers come from
  udp-connected ADDRESS PORT  the same of one that is
  tcp-from SOURCE ADDRESS PORT [PATH], udp-from SOURCE ADDRESS PORT COUNT
                              the same from an address of one's own
  bind ADDRESS PORT           hold a port, for as long as the process lives
  rebind ADDRESS COUNT        bind sockets to ports that the kernel chooses, each of them twice
  together ADDRESS COUNT      two processes bind each port at the same time, and one of them closes it; says so, and
                              waits for the end of standard input
  flood ADDRESS PORT SECONDS  send datagrams as fast as it goes, whatever comes of it
  again ADDRESS PORT PATH COUNT SIZE
                              requests with bodies on one connection; how many came back as they were
  fast-open ADDRESS PORT      connect by sending
  socket FAMILY TYPE PROTOCOL make a socket
  shares ADDRESS PORT COUNT   how often each server has answered
  questions                   lines "tcp|udp ADDRESS PORT" on standard input, "tcp-from|udp-from SOURCE PORT" for what
                              is opened to the workload; a word for each: deny, allow, inspect
  hold ADDRESS PORT, hold-from SOURCE ADDRESS PORT
                              connect, then echo a line of standard input through it for each line, until it ends
  loop ADDRESS PORT SECONDS   connect again and again; counts of what came of it
"""
import ctypes, errno, json, mmap, os, socket, struct, sys, time


def name(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(address, port, timeout=5, source=None):
    s = socket.socket(family(address), socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if source:
        s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        s.bind((source, 0))
    s.settimeout(timeout)
    began = time.monotonic()
    try:
        s.connect((address, port))
    except socket.timeout:
        return None, {"error": "timeout"}
    except OSError as error:
        return None, {"error": name(error), "microseconds": int((time.monotonic() - began) * 1e6)}
    shown = lambda end: "%s:%d" % (end[0], end[1]) if ":" not in end[0] else "[%s]:%d" % (end[0], end[1])
    try:
        return s, {"error": None, "peer": shown(s.getpeername()), "local": shown(s.getsockname())}
    except OSError as error:  # ended since
        return None, {"error": name(error)}


def request(s, host, path):
    s.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path, host)).encode())
    answer = b""
    while True:
        try:
            more = s.recv(65536)
        except OSError as error:
            return {"status": name(error)}
        if not more:
            break
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ")
    return {"status": int(words[1]) if len(words) > 1 else 0, "body": body.decode(errors="replace").strip()}


def tcp(address, port, path=None, source=None):
    s, said = connect(address, int(port), source=source)
    if s and path:
        try:
            said.update(request(s, address if ":" not in address else "[%s]" % address, path))
        except OSError as error:
            said["status"] = name(error)
    return said


def tcp_from(source, address, port, path=None):
    return tcp(address, port, path, source)


def udp_from(source, address, port, count):
    return udp(address, port, count, source)


def bind(address, port):
    s = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        s.bind((address, int(port)))
        return {"error": None}
    except OSError as error:
        return {"error": name(error)}


def rebind(address, count):
    libc = ctypes.CDLL(None)
    for _ in range(int(count)):
        with socket.socket(family(address), socket.SOCK_DGRAM) as s:
            s.bind((address, 0))
            s.connect(("10.50.2.1", 53))
            libc.connect(s.fileno(), bytes(16), 16)  # AF_UNSPEC: the port is gone
            s.bind((address, 0))
    return {"error": None}


def together(address, count):
    count, seen = int(count), mmap.mmap(-1, 2)
    own, other = (0, 1) if os.fork() else (1, 0)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[own % os.cpu_count()]})
    kept = []
    for number in range(count):
        s = socket.socket(family(address), socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        seen[own] = (seen[own] + 1) % 256
        while (seen[other] - seen[own]) % 256 > 1:
            pass
        s.bind((address, 20000 + number))
        kept.append(s)
        seen[own] = (seen[own] + 1) % 256
        while (seen[other] - seen[own]) % 256 > 1:
            pass
    if own:
        os._exit(0)
    os.wait()
    print(json.dumps({"error": None}), flush=True)
    sys.stdin.read()


def flood(address, port, seconds):
    until, denied, pair = time.monotonic() + float(seconds), 0, (address, int(port))
    os.fork()
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        while time.monotonic() < until:
            for _ in range(1000):
                try:
                    s.sendto(b"", pair)
                except OSError:
                    denied += 1
    return {"denied": denied}


def udp(address, port, count, source=None):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    if source:
        s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        s.bind((source, 0))
    s.settimeout(2)
    said = {"error": None, "from": [], "bodies": []}
    for number in range(int(count)):
        try:
            s.sendto(b"%d" % number, (address, int(port)))
            body, peer = s.recvfrom(2048)
            said["from"].append("%s:%d" % (peer[0], peer[1]))
            said["bodies"].append(body.decode())
        except socket.timeout:
            said["error"] = "timeout"
            break
        except OSError as error:
            said["error"] = name(error)
            break
    return said


def udp_connected(address, port):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        s.connect((address, int(port)))
        s.send(b"0")
        body, peer = s.recvfrom(2048)
        return {"error": None, "peer": "%s:%d" % s.getpeername()[:2], "from": "%s:%d" % peer[:2], "body": body.decode()}
    except socket.timeout:
        return {"error": "timeout"}
    except OSError as error:
        return {"error": name(error)}


def again(address, port, path, count, size):
    # With a time-out: such a socket does not block.
    s, said = connect(address, int(port))
    said["same"] = 0
    noise = os.urandom(int(size) + int(count))
    for number in range(int(count) if s else 0):
        body = noise[number:number + int(size)]
        try:
            head = "GET %s HTTP/1.1\r\nHost: service\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
            s.sendall(head.encode() + body)
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(65536) or sys.exit("the end in a head")
            parts = [got.partition(b"\r\n\r\n")[2]]
            length = len(parts[0])
            while length < len(body):
                parts.append(s.recv(1 << 20) or sys.exit("the end in a body"))
                length += len(parts[-1])
            said["same"] += b"".join(parts) == body
        except OSError as error:
            said["error"] = name(error) if error.errno else str(error)
            break
    return said


def fast_open(address, port):
    s = socket.socket(family(address), socket.SOCK_STREAM)
    # A time-out would make it a socket that does not wait, and the answer EINPROGRESS.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    try:
        s.sendto(b"GET /public/a HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n", 0x20000000, (address, int(port)))
        return {"error": None, "answer": s.recv(4096).decode(errors="replace").split("\r\n")[0]}
    except OSError as error:
        return {"error": name(error)}


def make(kind_family, kind, protocol):
    try:
        socket.socket(int(kind_family), int(kind), int(protocol)).close()
        return {"error": None}
    except OSError as error:
        return {"error": name(error)}


def questions():
    """Everything here is local. Who is turned to the proxy is greeted by it; who goes straight finds a closed
    port, or the word of the workload."""
    for line in sys.stdin:
        kind, address, port = line.split()
        print(answer(kind, address, int(port)))


def answer(kind, address, port):
    tcp, inbound = kind.startswith("tcp"), kind.endswith("-from")
    with socket.socket(family(address), socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        try:
            if tcp:
                # No TIME_WAIT: there are more questions than ports.
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            if inbound:
                s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
                s.bind((address, 0))
                address = "fd50::1" if ":" in address else "10.50.0.1"
            s.connect((address, port))
            if tcp:
                return s.recv(64).decode().strip()
            if inbound:
                s.send(b"?")
                s.recv(64)
            return "allow"
        except socket.timeout:
            return "timeout"
        except OSError as error:
            if inbound:
                return {errno.ECONNREFUSED: "deny"}.get(error.errno, name(error))
            # Whatever else the kernel says comes after the verdict.
            return {errno.EPERM: "deny"}.get(error.errno, "allow")


def hold_from(source, address, port):
    return hold(address, port, source)


def hold(address, port, source=None):
    s, said = connect(address, int(port), source=source)
    print(json.dumps(said), flush=True)
    if not s:
        return None
    for line in sys.stdin:
        try:
            s.sendall(line.encode())
            got = b""
            while not got.endswith(b"\n"):
                more = s.recv(65536)
                if not more:
                    break
                got += more
            print(json.dumps({"echo": got.decode().strip() or None}), flush=True)
        except OSError as error:
            print(json.dumps({"echo": None, "error": name(error)}), flush=True)
    return None


def loop(address, port, seconds):
    counts, until = {}, time.monotonic() + float(seconds)
    while time.monotonic() < until:
        s, said = connect(address, int(port))
        outcome = said["error"] or "connected"
        counts[outcome] = counts.get(outcome, 0) + 1
        if s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            s.close()
    return counts


def shares(address, port, count):
    counts = {}
    for _ in range(int(count)):
        said = tcp(address, port, "/")
        server = said.get("body", said["error"] or "").split(" ")[0]
        counts[server] = counts.get(server, 0) + 1
    return counts


DO = {"tcp": tcp, "shares": shares, "again": again, "tcp-from": tcp_from, "udp-from": udp_from, "bind": bind, "flood": flood, "rebind": rebind, "together": together, "udp": udp, "udp-connected": udp_connected, "fast-open": fast_open, "socket": make,
      "questions": questions, "hold": hold, "hold-from": hold_from, "loop": loop}
result = DO[sys.argv[1]](*sys.argv[2:])
if result is not None:
    print(json.dumps(result))
