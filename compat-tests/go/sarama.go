package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

func saramaConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	saramaAccess(config)
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	// Commits wait behind fetches: this client has one connection to a broker.
	config.Consumer.MaxWaitTime = 50 * time.Millisecond
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	return config
}

func saramaCreate(topic string, partitions int32) {
	admin := must(sarama.NewClusterAdmin(bootstrap, saramaConfig()))
	defer admin.Close()
	check(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
}

func saramaRead(topic string, count int) []*sarama.ConsumerMessage {
	consumer := must(sarama.NewConsumer(bootstrap, saramaConfig()))
	defer consumer.Close()
	partition := must(consumer.ConsumePartition(topic, 0, sarama.OffsetOldest))
	defer partition.Close()
	var all []*sarama.ConsumerMessage
	for len(all) < count {
		select {
		case message := <-partition.Messages():
			all = append(all, message)
		case <-time.After(30 * time.Second):
			panic(fmt.Sprintf("got %d of %d records", len(all), count))
		}
	}
	return all
}

func runSarama() {
	fmt.Println("CLIENT sarama|1.61.1|Go|codecs, acks, group of two, resume, admin, large messages|sarama/")
	run("sarama", []test{
		{"round-trips", saramaRoundTrips},
		{"large-messages", saramaLarge},
		{"group-of-two", saramaGroup},
		{"administration", saramaAdmin},
	})
}

func saramaRoundTrips() {
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		topic := unique(codec.String())
		saramaCreate(topic, 1)
		var expected []string
		for _, acks := range []sarama.RequiredAcks{sarama.WaitForLocal, sarama.WaitForAll} {
			config := saramaConfig()
			config.Producer.Compression, config.Producer.RequiredAcks = codec, acks
			producer := must(sarama.NewSyncProducer(bootstrap, config))
			for _, r := range records {
				message := &sarama.ProducerMessage{Topic: topic}
				if r.key != nil {
					message.Key = sarama.ByteEncoder(r.key)
				}
				if r.value != nil {
					message.Value = sarama.ByteEncoder(r.value)
				}
				for _, h := range r.headers {
					message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.key), Value: h.value})
				}
				_, _, err := producer.SendMessage(message)
				check(err)
				expected = append(expected, describe(r.key, r.value, r.headers))
			}
			check(producer.Close())
		}
		for n, message := range saramaRead(topic, len(expected)) {
			var headers []header
			for _, h := range message.Headers {
				headers = append(headers, header{string(h.Key), h.Value})
			}
			equal(codec.String(), describe(message.Key, message.Value, headers), expected[n])
		}
	}
}

func saramaLarge() {
	topic := unique("large")
	saramaCreate(topic, 1)
	config := saramaConfig()
	config.Producer.MaxMessageBytes = 5_000_000
	producer := must(sarama.NewSyncProducer(bootstrap, config))
	defer producer.Close()
	send := func(bytes int) error {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(make([]byte, bytes))})
		return err
	}
	check(send(1_000_000))
	if err := send(1_100_000); !errors.Is(err, sarama.ErrMessageSizeTooLarge) {
		panic(fmt.Sprint("a message above the limit: ", err))
	}
}

type saramaMember struct {
	mutex  sync.Mutex
	claims int
	values map[string]bool
	cancel context.CancelFunc
	ended  chan struct{}
}

func (m *saramaMember) Setup(session sarama.ConsumerGroupSession) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.claims = 0
	for _, partitions := range session.Claims() {
		m.claims += len(partitions)
	}
	return nil
}

func (m *saramaMember) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *saramaMember) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.mutex.Lock()
			m.values[string(message.Value)] = true
			m.mutex.Unlock()
			session.MarkMessage(message, "")
			session.Commit()
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *saramaMember) owns() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.claims
}

func saramaJoin(topic, group string) *saramaMember {
	ctx, cancel := context.WithCancel(background)
	m := &saramaMember{values: map[string]bool{}, cancel: cancel, ended: make(chan struct{})}
	client := must(sarama.NewConsumerGroup(bootstrap, group, saramaConfig()))
	go func() {
		defer close(m.ended)
		for ctx.Err() == nil {
			_ = client.Consume(ctx, []string{topic}, m)
		}
		_ = client.Close()
	}()
	return m
}

func saramaGroup() {
	topic, group := unique("group"), unique("group")
	saramaCreate(topic, 4)
	first, second := saramaJoin(topic, group), saramaJoin(topic, group)
	waitFor("a shared topic", func() bool { return first.owns() == 2 && second.owns() == 2 })
	producer := must(sarama.NewSyncProducer(bootstrap, saramaConfig()))
	for n := range 200 {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: int32(n % 4), Value: sarama.StringEncoder(fmt.Sprint(n))})
		check(err)
	}
	check(producer.Close())
	waitFor("all records", func() bool {
		first.mutex.Lock()
		second.mutex.Lock()
		defer first.mutex.Unlock()
		defer second.mutex.Unlock()
		return len(first.values)+len(second.values) == 200
	})
	second.cancel()
	<-second.ended
	waitFor("the rest to be taken over", func() bool { return first.owns() == 4 })
	first.cancel()
	<-first.ended
	admin := must(sarama.NewClusterAdmin(bootstrap, saramaConfig()))
	defer admin.Close()
	offsets := must(admin.ListConsumerGroupOffsets(group, nil))
	sum := int64(0)
	for _, block := range offsets.Blocks[topic] {
		sum += block.Offset
	}
	equal("committed", sum, 200)
}

func saramaAdmin() {
	admin := must(sarama.NewClusterAdmin(bootstrap, saramaConfig()))
	defer admin.Close()
	topic := unique("admin")
	check(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))
	check(admin.CreatePartitions(topic, 3, nil, false))
	waitFor("three partitions", func() bool { return must(admin.ListTopics())[topic].NumPartitions == 3 })
	value := "123456"
	check(admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}, false))
	waitFor("the new setting", func() bool {
		entries := must(admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}}))
		return len(entries) == 1 && entries[0].Value == value
	})
	_, controller, err := admin.DescribeCluster()
	check(err)
	equal("controller", controller >= 0, true)
	check(admin.DeleteTopic(topic))
}
