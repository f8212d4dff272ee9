// The client in Go: google.golang.org/grpc, with messages that are bytes. It prints what every call came
// to, a line each; or does what it is told, line by line: a call, or the life of a stream.
//
//	client calls|told ADDRESS
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Messages as they are.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }
func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = bytes.Clone(data)
	return nil
}

// No name: what comes after the plus in `application/grpc+proto` is optional.
func (raw) Name() string { return "" }

var connection *grpc.ClientConn

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	var err error
	connection, err = grpc.NewClient("passthrough:///"+os.Args[2], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	check(err)
	if os.Args[1] == "calls" {
		calls()
		return
	}
	var stream chat
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var came string
		switch lines.Text() {
		case "call":
			came = text(get("again"))
		case "open":
			stream = open(context.Background(), "Orders/Chat")
			came = stream.turn("open")
		case "turn":
			came = stream.turn("turn")
		case "end":
			came = stream.end()
		case "wait":
			_, err := stream.receive()
			came = refusal(err)
		}
		fmt.Println(strings.Fields(came)[0])
	}
}

func calls() {
	ctx := context.Background()
	tell := func(what string, told any) { fmt.Printf("%s: %v\n", what, told) }
	tell("unary", text(get("hello")))
	tell("empty", size(get("")))
	tell("denied", text(simple("Admin/Reset", "x")))
	tell("next", text(get("again")))
	tell("denied method", text(simple("Orders/Delete", "x")))
	tell("client streaming", text(upload("Orders/Put", []byte("one"), []byte("three"), []byte("seventh"))))
	tell("server streaming", allOf(watch(ctx, "Orders/Watch", "5"), refusal))
	tell("bidi", inTurn())
	denied := open(ctx, "Admin/Chat")
	_, err := denied.receive()
	tell("denied bidi", refusal(err))
	tell("beside open streams", besideOpenStreams())
	var outcomes []string
	parts := make([][]byte, 16)
	for i := range parts {
		parts[i] = bytes.Repeat([]byte("x"), 64<<10)
	}
	for range 20 {
		outcomes = append(outcomes, text(upload("Admin/Load", parts...)))
	}
	tell("denied uploads", tally(outcomes))
	tell("after them", text(get("still here")))
	late, done := context.WithTimeout(ctx, 500*time.Millisecond)
	_, err = unary(late, "Orders/Slow", []byte("x"))
	done()
	tell("deadline", int(status.Code(err)))
	tell("gzip", gzipped())
	tell("large", size(get(strings.Repeat("x", 1<<20))))
	tell("many messages", manyMessages())
	_, err = simple("Orders/Fail", "0")
	tell("error", detailed(err))
	tell("error in a stream", allOf(watch(ctx, "Orders/Fail", "2"), detailed))
	headers(tell)
	tell("cancel", cancelled())
	tell("cancel of a flood", cancelledFlood())
	tell("concurrent", concurrent())
}

func besideOpenStreams() string {
	var chats []chat
	var before []string
	for range 3 {
		opened := open(context.Background(), "Orders/Chat")
		chats, before = append(chats, opened), append(before, opened.turn("before"))
	}
	told := text(simple("Admin/Reset", "x")) + ", then"
	var then []string
	for i, opened := range chats {
		then = append(then, fmt.Sprintf(" %s %s %s", before[i], opened.turn("after"), opened.end()))
	}
	return told + strings.Join(then, ",")
}

func gzipped() string {
	sent := []byte(strings.Repeat("portreeve ", 6554))
	var trailer metadata.MD
	got, err := unary(context.Background(), "Orders/Get", sent, grpc.UseCompressor(gzip.Name), grpc.Trailer(&trailer))
	if err != nil {
		return refusal(err)
	}
	same := "other"
	if bytes.Equal(got, sent) {
		same = "the same"
	}
	return fmt.Sprintf("0 %s %d bytes, %s compressed", same, len(sent), values(trailer, "x-compressed"))
}

func inTurn() string {
	opened := open(context.Background(), "Orders/Chat")
	told := []string{opened.turn("one"), opened.turn("two"), opened.turn("three")}
	return opened.end() + " " + strings.Join(told, " ")
}

func manyMessages() string {
	opened := open(context.Background(), "Orders/Chat")
	go func() {
		for n := range 4000 {
			message := []byte(strconv.Itoa(n))
			if opened.SendMsg(&message) != nil {
				return
			}
		}
		_ = opened.CloseSend()
	}()
	for next := 0; ; next++ {
		message, err := opened.receive()
		if errors.Is(err, io.EOF) {
			return fmt.Sprintf("0 %d in order", next)
		}
		if err != nil {
			return refusal(err)
		}
		if string(message) != strconv.Itoa(next) {
			return fmt.Sprintf("out of order after %d", next)
		}
	}
}

func headers(tell func(string, any)) {
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	sent := metadata.Pairs("x-token", "42", "x-multi", "one", "x-multi", "two",
		"x-long", strings.Repeat("y", 5000), "x-data-bin", "\x00\xff\x10")
	var initial, trailing metadata.MD
	seen, err := unary(metadata.NewOutgoingContext(ctx, sent), "Orders/Headers", nil, grpc.Header(&initial), grpc.Trailer(&trailing))
	check(err)
	tell("initial metadata", values(initial, "x-initial")+" "+values(initial, "x-multi"))
	tell("trailing metadata", fmt.Sprintf("%s %x", values(trailing, "x-trailing"), values(trailing, "x-data-bin")))
	tell("the server sees", seenByServer(string(seen)))
	_, err = unary(metadata.AppendToOutgoingContext(ctx, "x-token", "43"), "Orders/Headers", nil)
	tell("wrong token", refusal(err))
	_, err = unary(ctx, "Orders/Headers", nil)
	tell("no token", refusal(err))
}

// Of what the server says of a request's head, the part that is the same for every client.
func seenByServer(listed string) string {
	seen := map[string]string{}
	for line := range strings.Lines(listed) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		seen[name] = value
	}
	timeout := "a timeout"
	if seen["grpc-timeout"] == "" {
		timeout = "no timeout"
	}
	return fmt.Sprintf("%s, %s, %s, %s, %d bytes", seen["content-type"], seen["te"], timeout, seen["x-multi"], len(seen["x-long"]))
}

func cancelled() string {
	ctx, cancel := context.WithCancel(context.Background())
	opened := open(ctx, "Orders/Chat")
	told := opened.turn("before")
	cancel()
	_, err := opened.receive()
	return fmt.Sprintf("%d %s", status.Code(err), told)
}

// More than anybody buffers: the server is held up when it is told.
func cancelledFlood() string {
	ctx, cancel := context.WithCancel(context.Background())
	stream := watch(ctx, "Orders/Watch", "1000000")
	first, err := stream.receive()
	cancel()
	for err == nil {
		_, err = stream.receive()
	}
	return fmt.Sprintf("%d %s", status.Code(err), first)
}

func concurrent() string {
	outcomes := make([]string, 200)
	var calls sync.WaitGroup
	for n := range outcomes {
		calls.Go(func() {
			got, err := get(strconv.Itoa(n))
			switch {
			case err != nil:
				outcomes[n] = refusal(err)
			case string(got) == strconv.Itoa(n):
				outcomes[n] = "0"
			default:
				outcomes[n] = "somebody else's"
			}
		})
	}
	calls.Wait()
	return tally(outcomes)
}

// A stream in both directions.
type chat struct{ grpc.ClientStream }

func open(ctx context.Context, method string) chat {
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := connection.NewStream(ctx, both, "/shop.v1."+method)
	check(err)
	return chat{stream}
}

func (c chat) receive() ([]byte, error) {
	var message []byte
	err := c.RecvMsg(&message)
	return message, err
}

// Sends one message and waits for what comes back.
func (c chat) turn(word string) string {
	message := []byte(word)
	if err := c.SendMsg(&message); err != nil {
		return refusal(err)
	}
	answer, err := c.receive()
	if err != nil {
		return refusal(err)
	}
	return string(answer)
}

func (c chat) end() string {
	check(c.CloseSend())
	if _, err := c.receive(); !errors.Is(err, io.EOF) {
		return refusal(err)
	}
	return "0"
}

func unary(ctx context.Context, method string, message []byte, options ...grpc.CallOption) ([]byte, error) {
	var answer []byte
	err := connection.Invoke(ctx, "/shop.v1."+method, &message, &answer, options...)
	return answer, err
}

func get(word string) ([]byte, error) { return simple("Orders/Get", word) }

func simple(method, word string) ([]byte, error) {
	return unary(context.Background(), method, []byte(word))
}

func upload(method string, parts ...[]byte) ([]byte, error) {
	stream, err := connection.NewStream(context.Background(), &grpc.StreamDesc{ClientStreams: true}, "/shop.v1."+method)
	check(err)
	for _, part := range parts {
		// An end here means that the answer is there already.
		if stream.SendMsg(&part) != nil {
			break
		}
	}
	_ = stream.CloseSend()
	return chat{stream}.receive()
}

func watch(ctx context.Context, method, word string) chat {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/shop.v1."+method)
	check(err)
	message := []byte(word)
	check(stream.SendMsg(&message))
	check(stream.CloseSend())
	return chat{stream}
}

func allOf(stream chat, failed func(error) string) string {
	var told []string
	for {
		message, err := stream.receive()
		if errors.Is(err, io.EOF) {
			return strings.Join(append([]string{"0"}, told...), " ")
		}
		if err != nil {
			return strings.Join(append(told, failed(err)), " ")
		}
		told = append(told, string(message))
	}
}

func text(answer []byte, err error) string {
	if err != nil {
		return refusal(err)
	}
	return "0 " + string(answer)
}

func size(answer []byte, err error) string {
	if err != nil {
		return refusal(err)
	}
	return fmt.Sprintf("0 %d bytes", len(answer))
}

func refusal(err error) string {
	told, _ := status.FromError(err)
	if told.Code() == codes.OK {
		return "0"
	}
	return fmt.Sprintf("%d %s", told.Code(), told.Message())
}

// The details are a google.rpc.Status: its code and its message, put back into bytes.
func detailed(err error) string {
	told := status.Convert(err).Proto()
	details := []byte{0x08, byte(told.GetCode()), 0x12, byte(len(told.GetMessage()))}
	return fmt.Sprintf("%s, details %x", refusal(err), append(details, told.GetMessage()...))
}

func values(md metadata.MD, name string) string { return strings.Join(md.Get(name), ",") }

// How often each outcome was seen.
func tally(outcomes []string) string {
	counted := map[string]int{}
	for _, outcome := range outcomes {
		counted[outcome]++
	}
	var told []string
	for outcome, n := range counted {
		told = append(told, fmt.Sprintf("%d x %s", n, outcome))
	}
	sort.Strings(told)
	return strings.Join(told, ", ")
}
