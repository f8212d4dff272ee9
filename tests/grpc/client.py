"""The client in Python: gRPC's C core, with messages that are bytes. It prints what every call came to, a
line each; or does what it is told, line by line: a call, or the life of a stream.

client.py calls|told ADDRESS
"""

import collections
import queue
import sys

import grpc

sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)

channel = None
ENDED = object()


def method(kind, name):
    return getattr(channel, kind)(f"/shop.v1.{name}")


def unary(name, message, **options):
    return method("unary_unary", name)(message, **options)


def attempt(call, told):
    try:
        return told(call())
    except grpc.RpcError as error:
        return refusal(error)


def text(call):
    return attempt(call, lambda answer: "0 " + answer.decode())


def size(call):
    return attempt(call, lambda answer: f"0 {len(answer)} bytes")


def refusal(error):
    return f"{error.code().value[0]} {error.details()}"


def detailed(error):
    return f"{refusal(error)}, details {values(error.trailing_metadata(), 'grpc-status-details-bin')}"


def values(metadata, name):
    found = [value for key, value in metadata if key == name]
    return ",".join(value.hex() if isinstance(value, bytes) else value for value in found)


def tally(outcomes):
    """How often each outcome was seen."""
    return ", ".join(f"{n} x {what}" for what, n in sorted(collections.Counter(outcomes).items()))


class Chat:
    """A stream in both directions."""

    def __init__(self, name):
        self.outgoing = queue.Queue()
        self.answers = method("stream_stream", name)(iter(self.outgoing.get, ENDED))

    def receive(self):
        try:
            return next(self.answers).decode()
        except StopIteration:
            return "0"
        except grpc.RpcError as error:
            return refusal(error)

    def turn(self, word):
        """Sends one message and waits for what comes back."""
        self.outgoing.put(word.encode())
        return self.receive()

    def end(self):
        self.outgoing.put(ENDED)
        return self.receive()


def beside_open_streams():
    chats = [Chat("Orders/Chat") for _ in range(3)]
    before = [chat.turn("before") for chat in chats]
    told = text(lambda: unary("Admin/Reset", b"x"))
    then = [f"{was} {chat.turn('after')} {chat.end()}" for chat, was in zip(chats, before)]
    return f"{told}, then {', '.join(then)}"


def in_turn():
    chat = Chat("Orders/Chat")
    told = [chat.turn(word) for word in ("one", "two", "three")]
    return " ".join([chat.end(), *told])


def denied_bidi():
    chat = Chat("Admin/Chat")
    told = chat.receive()
    chat.outgoing.put(ENDED)
    return told


def all_of(name, word, failed):
    told = []
    try:
        for message in method("unary_stream", name)(word):
            told.append(message.decode())
        return " ".join(["0", *told])
    except grpc.RpcError as error:
        return " ".join([*told, failed(error)])


def upload(name, parts):
    return text(lambda: method("stream_unary", name)(iter(parts)))


def gzipped():
    sent = b"portreeve " * 6554
    answer, call = method("unary_unary", "Orders/Get").with_call(sent, compression=grpc.Compression.Gzip)
    same = "the same" if answer == sent else "other"
    return f"0 {same} {len(sent)} bytes, {values(call.trailing_metadata(), 'x-compressed')} compressed"


def many_messages():
    got = -1
    sent = (str(n).encode() for n in range(4000))
    try:
        for got, message in enumerate(method("stream_stream", "Orders/Chat")(sent)):
            if message != str(got).encode():
                return f"out of order after {got}"
        return f"0 {got + 1} in order"
    except grpc.RpcError as error:
        return refusal(error)


def error():
    try:
        unary("Orders/Fail", b"0")
        return "0"
    except grpc.RpcError as error:
        return detailed(error)


def deadline():
    try:
        unary("Orders/Slow", b"x", timeout=0.5)
        return "0"
    except grpc.RpcError as error:
        return error.code().value[0]


def headers(tell):
    sent = [("x-token", "42"), ("x-multi", "one"), ("x-multi", "two"), ("x-long", "y" * 5000), ("x-data-bin", b"\x00\xff\x10")]
    seen, call = method("unary_unary", "Orders/Headers").with_call(b"", metadata=sent, timeout=60)
    initial, trailing = call.initial_metadata(), call.trailing_metadata()
    tell("initial metadata", f"{values(initial, 'x-initial')} {values(initial, 'x-multi')}")
    tell("trailing metadata", f"{values(trailing, 'x-trailing')} {values(trailing, 'x-data-bin')}")
    tell("the server sees", seen_by_server(seen.decode()))
    tell("wrong token", text(lambda: unary("Orders/Headers", b"", metadata=[("x-token", "43")])))
    tell("no token", text(lambda: unary("Orders/Headers", b"")))


def seen_by_server(listed):
    """Of what the server says of a request's head, the part that is the same for every client."""
    seen = dict(line.split(": ", 1) for line in listed.splitlines())
    timeout = "a timeout" if seen.get("grpc-timeout") else "no timeout"
    return f"{seen['content-type']}, {seen['te']}, {timeout}, {seen['x-multi']}, {len(seen['x-long'])} bytes"


def cancelled():
    chat = Chat("Orders/Chat")
    told = chat.turn("before")
    chat.answers.cancel()
    code = chat.answers.code().value[0]
    chat.outgoing.put(ENDED)
    return f"{code} {told}"


def cancelled_flood():
    """More than anybody buffers: the server is held up when it is told."""
    call = method("unary_stream", "Orders/Watch")(b"1000000")
    first = next(call).decode()
    call.cancel()
    return f"{call.code().value[0]} {first}"


def concurrent():
    get = method("unary_unary", "Orders/Get")
    calls = [get.future(str(n).encode()) for n in range(200)]

    def outcome(n, call):
        return attempt(call.result, lambda answer: "0" if answer == str(n).encode() else "somebody else's")

    return tally(outcome(n, call) for n, call in enumerate(calls))


def calls():
    def tell(what, told):
        print(f"{what}: {told}")

    def get(message):
        return lambda: unary("Orders/Get", message)

    tell("unary", text(get(b"hello")))
    tell("empty", size(get(b"")))
    tell("denied", text(lambda: unary("Admin/Reset", b"x")))
    tell("next", text(get(b"again")))
    tell("denied method", text(lambda: unary("Orders/Delete", b"x")))
    tell("client streaming", upload("Orders/Put", [b"one", b"three", b"seventh"]))
    tell("server streaming", all_of("Orders/Watch", b"5", refusal))
    tell("bidi", in_turn())
    tell("denied bidi", denied_bidi())
    tell("beside open streams", beside_open_streams())
    tell("denied uploads", tally(upload("Admin/Load", [b"x" * (64 << 10)] * 16) for _ in range(20)))
    tell("after them", text(get(b"still here")))
    tell("deadline", deadline())
    tell("gzip", gzipped())
    tell("large", size(get(b"x" * (1 << 20))))
    tell("many messages", many_messages())
    tell("error", error())
    tell("error in a stream", all_of("Orders/Fail", b"2", detailed))
    headers(tell)
    tell("cancel", cancelled())
    tell("cancel of a flood", cancelled_flood())
    tell("concurrent", concurrent())


def told():
    for line in sys.stdin:
        match line.strip():
            case "call":
                came = text(lambda: unary("Orders/Get", b"again"))
            case "open":
                chat = Chat("Orders/Chat")
                came = chat.turn("open")
            case "turn":
                came = chat.turn("turn")
            case "end":
                came = chat.end()
            case "wait":
                came = chat.receive()
                chat.outgoing.put(ENDED)
        print(came.split()[0])


with grpc.insecure_channel(sys.argv[2]) as channel:
    if sys.argv[1] == "calls":
        calls()
    else:
        told()
