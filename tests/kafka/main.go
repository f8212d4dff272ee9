// A client with franz-go: many requests in flight on a connection, their order checked.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func told(err error) string {
	var known *kerr.Error
	if errors.As(err, &known) {
		return known.Message
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func main() {
	broker, allowed, secret := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.AllowAutoTopicCreation(),
		kgo.UnknownTopicRetries(-1), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	// Both topics in one flush: the allowed one is not to suffer.
	results := map[string]string{}
	var records []*kgo.Record
	for n := 0; n < 200; n++ {
		records = append(records, &kgo.Record{Topic: allowed, Value: fmt.Appendf(nil, "%d", n)})
	}
	records = append(records, &kgo.Record{Topic: secret, Value: []byte("x")})
	for _, result := range client.ProduceSync(ctx, records...) {
		if known := results[result.Record.Topic]; known == "" || known == "ok" {
			results[result.Record.Topic] = told(result.Err)
		}
	}
	fmt.Println("produce allowed:", results[allowed])
	fmt.Println("produce secret:", results[secret])

	consumer, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumerGroup("franz"),
		kgo.ConsumeTopics(allowed), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		panic(err)
	}
	got := 0
	for got < 200 && ctx.Err() == nil {
		fetches := consumer.PollFetches(ctx)
		fetches.EachError(func(topic string, _ int32, err error) { fmt.Println("fetch:", topic, told(err)) })
		got += fetches.NumRecords()
	}
	fmt.Println("consumed:", got)
	fmt.Println("commit:", told(consumer.CommitUncommittedOffsets(ctx)))
	consumer.Close()

	reader, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(secret))
	if err != nil {
		panic(err)
	}
	short, done := context.WithTimeout(ctx, 5*time.Second)
	refused := "nothing said"
	for short.Err() == nil && refused == "nothing said" {
		reader.PollFetches(short).EachError(func(_ string, _ int32, err error) { refused = told(err) })
	}
	done()
	reader.Close()
	fmt.Println("consume secret:", refused)

	topics, err := kadm.NewClient(client).ListTopics(ctx)
	fmt.Println("sees allowed:", topics.Has(allowed), "sees secret:", topics.Has(secret), told(err))
}
