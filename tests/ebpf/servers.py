"""Servers of a test, one for each argument KIND@ADDRESS:PORT, until standard input ends.

  http   answers with its own address and the client's: "10.0.0.1:80 10.0.0.2:4711"; echo for lines that are not HTTP
  again  answers with the request's body
  echo   sends lines back
  word   says "allow", and nothing else
  udp    answers each datagram with its own address
  unbound, udp-unbound
         "http" and "udp" on a port that the kernel has chosen (there is one), after a datagram to somebody
"""
import socket, struct, sys, threading


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def shown(end):
    return "%s:%d" % (end[0], end[1])


def lines(s):
    while True:
        got = s.recv(65536)
        if not got:
            return
        s.sendall(got)


def word(s):
    s.sendall(b"allow\n")


def http(s):
    head = b""
    while True:
        while b"\r\n\r\n" not in head:
            more = s.recv(65536)
            if not more:
                return
            head += more
        last = b"connection: close" in head.lower()
        _, _, head = head.partition(b"\r\n\r\n")
        body = ("%s %s\n" % (shown(s.getsockname()), shown(s.getpeername()))).encode()
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if last:
            return


def again(s):
    got = b""
    while True:
        while b"\r\n\r\n" not in got:
            more = s.recv(65536)
            if not more:
                return
            got += more
        head, _, got = got.partition(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        parts, length = [got], len(got)
        while length < size:
            more = s.recv(1 << 20)
            if not more:
                return
            parts.append(more)
            length += len(more)
        got = b"".join(parts)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + got[:size])
        got = got[size:]


def guarded(serve, s):
    try:
        with s:
            serve(s)
    except OSError:
        pass


def choose(s, port):
    """The port, unless it is bound: IP_LOCAL_PORT_RANGE."""
    s.setsockopt(socket.IPPROTO_IP, 51, struct.pack("I", port << 16 | port))


def stream(serve, address, port, bound=True):
    s = socket.socket(family(address), socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
    if address == "::":
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if bound:
        s.bind((address, port))
    else:
        choose(s, port)
    s.listen(512)
    def accept():
        while True:
            c, _ = s.accept()
            threading.Thread(target=guarded, args=(serve, c), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


def udp(address, port, bound=True):
    s = socket.socket(family(address), socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
    if bound:
        s.bind((address, port))
    else:
        choose(s, port)
        s.sendto(b"", ("10.50.2.1", 53))
    def answer():
        while True:
            _, peer = s.recvfrom(65536)
            s.sendto(shown(s.getsockname()).encode(), peer)
    threading.Thread(target=answer, daemon=True).start()


for argument in sys.argv[1:]:
    kind, _, where = argument.partition("@")
    address, _, port = where.rpartition(":")
    address = address.strip("[]")
    if kind in ("udp", "udp-unbound"):
        udp(address, int(port), kind == "udp")
    elif kind == "unbound":
        stream(http, address, int(port), False)
    else:
        stream({"http": http, "again": again, "echo": lines, "word": word}[kind], address, int(port))
print("ready", flush=True)
sys.stdin.read()
