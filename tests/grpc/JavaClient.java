// The client in Java: grpc-java over Netty, with messages that are bytes. It prints what every call came
// to, a line each; or does what it is told, line by line: a call, or the life of a stream.
//
//     java -cp FOLDER:FOLDER/* JavaClient calls|told ADDRESS

import io.grpc.*;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.*;
import java.util.stream.*;

public class JavaClient {
    static ManagedChannel channel;
    static PrintStream out;

    public static void main(String[] arguments) throws Exception {
        out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8");
        String[] address = arguments[1].split(":");
        channel = NettyChannelBuilder.forAddress(address[0], Integer.parseInt(address[1])).usePlaintext().build();
        if (arguments[0].equals("calls")) calls();
        else told();
        channel.shutdownNow();
    }

    static void told() throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        Chat chat = null;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String came = "";
            switch (line) {
                case "call": came = text(get("again")); break;
                case "open":
                    chat = new Chat("Orders/Chat", MethodType.BIDI_STREAMING);
                    came = chat.turn("open");
                    break;
                case "turn": came = chat.turn("turn"); break;
                case "end": came = chat.end(); break;
                case "wait": came = chat.receive(); break;
            }
            out.println(came.split(" ")[0]);
        }
    }

    static void tell(String what, Object told) { out.println(what + ": " + told); }

    static void calls() throws Exception {
        tell("unary", text(get("hello")));
        tell("empty", size(get("")));
        tell("denied", text(simple("Admin/Reset", "x")));
        tell("next", text(get("again")));
        tell("denied method", text(simple("Orders/Delete", "x")));
        tell("client streaming", upload("Orders/Put", List.of(bytes("one"), bytes("three"), bytes("seventh"))));
        tell("server streaming", allOf("Orders/Watch", "5", JavaClient::refusal));
        tell("bidi", inTurn());
        Chat denied = new Chat("Admin/Chat", MethodType.BIDI_STREAMING);
        tell("denied bidi", denied.receive());
        tell("beside open streams", besideOpenStreams());
        List<byte[]> parts = Collections.nCopies(16, bytes("x".repeat(64 << 10)));
        List<String> outcomes = new ArrayList<>();
        for (int n = 0; n < 20; n++) outcomes.add(upload("Admin/Load", parts));
        tell("denied uploads", tally(outcomes));
        tell("after them", text(get("still here")));
        tell("deadline", deadline());
        tell("gzip", gzipped());
        tell("large", size(get("x".repeat(1 << 20))));
        tell("many messages", manyMessages());
        tell("error", attempt(simple("Orders/Fail", "0"), answer -> "0", JavaClient::detailed));
        tell("error in a stream", allOf("Orders/Fail", "2", JavaClient::detailed));
        headers();
        tell("cancel", cancelled());
        tell("cancel of a flood", cancelledFlood());
        tell("concurrent", concurrent());
    }

    static String besideOpenStreams() throws Exception {
        List<Chat> chats = new ArrayList<>();
        List<String> before = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            chats.add(new Chat("Orders/Chat", MethodType.BIDI_STREAMING));
            before.add(chats.get(n).turn("before"));
        }
        String told = text(simple("Admin/Reset", "x"));
        List<String> then = new ArrayList<>();
        for (int n = 0; n < 3; n++) then.add(before.get(n) + " " + chats.get(n).turn("after") + " " + chats.get(n).end());
        return told + ", then " + String.join(", ", then);
    }

    static String inTurn() throws Exception {
        Chat chat = new Chat("Orders/Chat", MethodType.BIDI_STREAMING);
        String told = chat.turn("one") + " " + chat.turn("two") + " " + chat.turn("three");
        return chat.end() + " " + told;
    }

    static String deadline() {
        CallOptions late = CallOptions.DEFAULT.withDeadlineAfter(500, TimeUnit.MILLISECONDS);
        return attempt(() -> unary(channel, "Orders/Slow", bytes("x"), late), answer -> "0",
                error -> String.valueOf(error.getStatus().getCode().value()));
    }

    static String gzipped() {
        byte[] sent = bytes("portreeve ".repeat(6554));
        AtomicReference<Metadata> initial = new AtomicReference<>(), trailing = new AtomicReference<>();
        Channel capturing = ClientInterceptors.intercept(channel, MetadataUtils.newCaptureMetadataInterceptor(initial, trailing));
        return attempt(() -> unary(capturing, "Orders/Get", sent, CallOptions.DEFAULT.withCompression("gzip")),
                answer -> "0 " + (Arrays.equals(answer, sent) ? "the same " : "other ") + sent.length + " bytes, "
                        + values(trailing.get(), "x-compressed") + " compressed", JavaClient::refusal);
    }

    static String manyMessages() throws Exception {
        Chat chat = new Chat("Orders/Chat", MethodType.BIDI_STREAMING);
        for (int n = 0; n < 4000; n++) chat.send(bytes(String.valueOf(n)));
        chat.requests.onCompleted();
        for (int next = 0; ; next++) {
            Object answer = chat.answers.take();
            if (answer == Chat.END) return "0 " + next + " in order";
            if (answer instanceof StatusRuntimeException) return refusal((StatusRuntimeException) answer);
            if (!string((byte[]) answer).equals(String.valueOf(next))) return "out of order after " + next;
        }
    }

    static void headers() {
        Metadata sent = new Metadata();
        sent.put(key("x-token"), "42");
        sent.put(key("x-multi"), "one");
        sent.put(key("x-multi"), "two");
        sent.put(key("x-long"), "y".repeat(5000));
        sent.put(binary("x-data-bin"), new byte[] {0, (byte) 255, 16});
        AtomicReference<Metadata> initial = new AtomicReference<>(), trailing = new AtomicReference<>();
        Channel capturing = ClientInterceptors.intercept(channel, MetadataUtils.newCaptureMetadataInterceptor(initial, trailing));
        byte[] seen = unary(with(capturing, sent), "Orders/Headers", new byte[0], CallOptions.DEFAULT.withDeadlineAfter(60, TimeUnit.SECONDS));
        tell("initial metadata", values(initial.get(), "x-initial") + " " + values(initial.get(), "x-multi"));
        tell("trailing metadata", values(trailing.get(), "x-trailing") + " " + hex(trailing.get().get(binary("x-data-bin"))));
        tell("the server sees", seenByServer(string(seen)));
        Metadata wrong = new Metadata();
        wrong.put(key("x-token"), "43");
        tell("wrong token", text(() -> unary(with(channel, wrong), "Orders/Headers", new byte[0], CallOptions.DEFAULT)));
        tell("no token", text(simple("Orders/Headers", "")));
    }

    // Of what the server says of a request's head, the part that is the same for every client.
    static String seenByServer(String listed) {
        Map<String, String> seen = listed.lines().map(line -> line.split(": ", 2)).collect(Collectors.toMap(line -> line[0], line -> line[1]));
        return seen.get("content-type") + ", " + seen.get("te") + ", " + (seen.containsKey("grpc-timeout") ? "a timeout" : "no timeout")
                + ", " + seen.get("x-multi") + ", " + seen.get("x-long").length() + " bytes";
    }

    static String cancelled() throws Exception {
        Chat chat = new Chat("Orders/Chat", MethodType.BIDI_STREAMING);
        String told = chat.turn("before");
        chat.requests.cancel("enough", null);
        return chat.receive().split(" ")[0] + " " + told;
    }

    // More than anybody buffers: the server is held up when it is told.
    static String cancelledFlood() throws Exception {
        Context.CancellableContext context = Context.current().withCancellation();
        Iterator<byte[]> flood = context.call(() -> ClientCalls.blockingServerStreamingCall(
                channel, method("Orders/Watch", MethodType.SERVER_STREAMING), CallOptions.DEFAULT, bytes("1000000")));
        String first = string(flood.next());
        context.cancel(null);
        try {
            while (true) flood.next();
        } catch (StatusRuntimeException error) {
            return error.getStatus().getCode().value() + " " + first;
        }
    }

    static String concurrent() throws Exception {
        List<Future<byte[]>> calls = new ArrayList<>();
        for (int n = 0; n < 200; n++) {
            ClientCall<byte[], byte[]> call = channel.newCall(method("Orders/Get", MethodType.UNARY), CallOptions.DEFAULT);
            calls.add(ClientCalls.futureUnaryCall(call, bytes(String.valueOf(n))));
        }
        List<String> outcomes = new ArrayList<>();
        for (int n = 0; n < 200; n++) {
            try {
                outcomes.add(string(calls.get(n).get()).equals(String.valueOf(n)) ? "0" : "somebody else's");
            } catch (ExecutionException error) {
                outcomes.add(refusal((StatusRuntimeException) error.getCause()));
            }
        }
        return tally(outcomes);
    }

    // A stream in which answers are queued as they come.
    static class Chat implements ClientResponseObserver<byte[], byte[]> {
        static final Object END = new Object();
        final BlockingQueue<Object> answers = new LinkedBlockingQueue<>();
        final Semaphore ready = new Semaphore(0);
        ClientCallStreamObserver<byte[]> requests;
        volatile boolean ended;

        Chat(String name, MethodType type) {
            ClientCall<byte[], byte[]> call = channel.newCall(method(name, type), CallOptions.DEFAULT);
            if (type == MethodType.CLIENT_STREAMING) ClientCalls.asyncClientStreamingCall(call, this);
            else ClientCalls.asyncBidiStreamingCall(call, this);
        }

        public void beforeStart(ClientCallStreamObserver<byte[]> stream) {
            requests = stream;
            stream.setOnReadyHandler(ready::release);
        }

        public void onNext(byte[] message) { answers.add(message); }

        public void onError(Throwable error) {
            ended = true;
            answers.add(error);
            ready.release();
        }

        public void onCompleted() {
            ended = true;
            answers.add(END);
            ready.release();
        }

        // Waits until there is room for it.
        void send(byte[] message) throws Exception {
            while (!requests.isReady() && !ended) ready.acquire();
            if (!ended) requests.onNext(message);
        }

        String receive() throws Exception {
            Object answer = answers.take();
            if (answer == END) return "0";
            return answer instanceof StatusRuntimeException ? refusal((StatusRuntimeException) answer) : string((byte[]) answer);
        }

        // Sends one message and waits for what comes back.
        String turn(String word) throws Exception {
            requests.onNext(bytes(word));
            return receive();
        }

        String end() throws Exception {
            if (!ended) requests.onCompleted();
            return receive();
        }
    }

    static String upload(String name, List<byte[]> parts) throws Exception {
        Chat call = new Chat(name, MethodType.CLIENT_STREAMING);
        for (byte[] part : parts) call.send(part);
        if (!call.ended) call.requests.onCompleted();
        Object answer = call.answers.take();
        return answer instanceof StatusRuntimeException ? refusal((StatusRuntimeException) answer) : "0 " + string((byte[]) answer);
    }

    static String allOf(String name, String word, Function<StatusRuntimeException, String> failed) {
        List<String> told = new ArrayList<>();
        try {
            ClientCalls.blockingServerStreamingCall(channel, method(name, MethodType.SERVER_STREAMING), CallOptions.DEFAULT, bytes(word))
                    .forEachRemaining(message -> told.add(string(message)));
            told.add(0, "0");
        } catch (StatusRuntimeException error) {
            told.add(failed.apply(error));
        }
        return String.join(" ", told);
    }

    static byte[] unary(Channel on, String name, byte[] message, CallOptions options) {
        return ClientCalls.blockingUnaryCall(on, method(name, MethodType.UNARY), options, message);
    }

    static Supplier<byte[]> simple(String name, String word) { return () -> unary(channel, name, bytes(word), CallOptions.DEFAULT); }

    static Supplier<byte[]> get(String word) { return simple("Orders/Get", word); }

    static Channel with(Channel on, Metadata metadata) {
        return ClientInterceptors.intercept(on, MetadataUtils.newAttachHeadersInterceptor(metadata));
    }

    // Messages as they are.
    static final MethodDescriptor.Marshaller<byte[]> RAW = new MethodDescriptor.Marshaller<>() {
        public InputStream stream(byte[] message) { return new ByteArrayInputStream(message); }

        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    };

    static MethodDescriptor<byte[], byte[]> method(String name, MethodType type) {
        return MethodDescriptor.newBuilder(RAW, RAW).setType(type).setFullMethodName("shop.v1." + name).build();
    }

    static String attempt(Supplier<byte[]> call, Function<byte[], String> told, Function<StatusRuntimeException, String> failed) {
        try {
            return told.apply(call.get());
        } catch (StatusRuntimeException error) {
            return failed.apply(error);
        }
    }

    static String text(Supplier<byte[]> call) { return attempt(call, answer -> "0 " + string(answer), JavaClient::refusal); }

    static String size(Supplier<byte[]> call) { return attempt(call, answer -> "0 " + answer.length + " bytes", JavaClient::refusal); }

    static String refusal(StatusRuntimeException error) {
        return error.getStatus().getCode().value() + " " + error.getStatus().getDescription();
    }

    static String detailed(StatusRuntimeException error) {
        return refusal(error) + ", details " + hex(error.getTrailers().get(binary("grpc-status-details-bin")));
    }

    static Metadata.Key<String> key(String name) { return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER); }

    static Metadata.Key<byte[]> binary(String name) { return Metadata.Key.of(name, Metadata.BINARY_BYTE_MARSHALLER); }

    static String values(Metadata metadata, String name) {
        Iterable<String> values = metadata.getAll(key(name));
        return values == null ? "" : String.join(",", values);
    }

    static byte[] bytes(String text) { return text.getBytes(StandardCharsets.UTF_8); }

    static String string(byte[] bytes) { return new String(bytes, StandardCharsets.UTF_8); }

    static String hex(byte[] bytes) { return bytes == null ? "" : HexFormat.of().formatHex(bytes); }

    // How often each outcome was seen.
    static String tally(List<String> outcomes) {
        Map<String, Long> counted = outcomes.stream().collect(Collectors.groupingBy(outcome -> outcome, TreeMap::new, Collectors.counting()));
        return counted.entrySet().stream().map(entry -> entry.getValue() + " x " + entry.getKey()).collect(Collectors.joining(", "));
    }
}
