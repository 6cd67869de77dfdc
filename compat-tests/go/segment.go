package main

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

func runSegment() {
	segmentAccess()
	fmt.Println("CLIENT kafka-go|0.4.51|Go|codecs, acks, group reader, resume, admin|kafka-go/")
	run("kafka-go", []test{
		{"round-trips", segmentRoundTrips},
		{"group-resumes", segmentGroup},
		{"administration", segmentAdmin},
	})
}

func segmentClient() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(bootstrap...), Timeout: 20 * time.Second}
}

func segmentCreate(topic string, partitions int) {
	response := must(segmentClient().CreateTopics(background, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}}}))
	check(response.Errors[topic])
}

func segmentRoundTrips() {
	for _, codec := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		topic := unique("codec")
		segmentCreate(topic, 1)
		var expected []string
		for _, acks := range []kafka.RequiredAcks{kafka.RequireOne, kafka.RequireAll} {
			writer := &kafka.Writer{Addr: kafka.TCP(bootstrap...), Topic: topic, Compression: codec, RequiredAcks: acks, BatchTimeout: 5 * time.Millisecond}
			for _, r := range records {
				message := kafka.Message{Key: r.key, Value: r.value}
				for _, h := range r.headers {
					message.Headers = append(message.Headers, kafka.Header{Key: h.key, Value: h.value})
				}
				check(writer.WriteMessages(background, message))
				// This client does not tell null from empty when it reads.
				expected = append(expected, fmt.Sprintf("%q=%q %v", r.key, r.value, r.headers))
			}
			check(writer.Close())
		}
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: bootstrap, Topic: topic, Partition: 0, MaxWait: 200 * time.Millisecond})
		ctx, cancel := within(30)
		for _, wanted := range expected {
			message := must(reader.ReadMessage(ctx))
			var headers []header
			for _, h := range message.Headers {
				headers = append(headers, header{h.Key, h.Value})
			}
			equal(codec.String(), fmt.Sprintf("%q=%q %v", message.Key, message.Value, headers), wanted)
		}
		cancel()
		check(reader.Close())
	}
}

func segmentGroup() {
	topic, group := unique("group"), unique("group")
	segmentCreate(topic, 2)
	writer := &kafka.Writer{Addr: kafka.TCP(bootstrap...), Topic: topic, Balancer: &kafka.RoundRobin{}, RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond}
	seen := map[string]int{}
	for turn := range 2 {
		var messages []kafka.Message
		for _, n := range numbered(turn*50, turn*50+50) {
			messages = append(messages, kafka.Message{Value: []byte(n)})
		}
		check(writer.WriteMessages(background, messages...))
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: bootstrap, GroupID: group, Topic: topic, MaxWait: 200 * time.Millisecond, StartOffset: kafka.FirstOffset, SessionTimeout: 6 * time.Second, HeartbeatInterval: 300 * time.Millisecond, RebalanceTimeout: 6 * time.Second})
		ctx, cancel := context.WithTimeout(background, 40*time.Second)
		for range 50 {
			seen[string(must(reader.ReadMessage(ctx)).Value)]++
		}
		cancel()
		check(reader.Close())
	}
	check(writer.Close())
	equal("distinct records", len(seen), 100)
	for value, times := range seen {
		equal("times "+value+" was read", times, 1)
	}
}

func segmentAdmin() {
	client, topic := segmentClient(), unique("admin")
	segmentCreate(topic, 2)
	waitFor("two partitions", func() bool {
		metadata := must(client.Metadata(background, &kafka.MetadataRequest{Topics: []string{topic}}))
		return len(metadata.Topics[0].Partitions) == 2
	})
	versions := must(client.ApiVersions(background, &kafka.ApiVersionsRequest{}))
	equal("apis", len(versions.ApiKeys) > 20, true)
	deleted := must(client.DeleteTopics(background, &kafka.DeleteTopicsRequest{Topics: []string{topic}}))
	check(deleted.Errors[topic])
}
