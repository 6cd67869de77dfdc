package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var background = context.Background()

func within(seconds int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(background, time.Duration(seconds)*time.Second)
}

func franz(options ...kgo.Opt) *kgo.Client {
	return must(kgo.NewClient(franzAccess(append([]kgo.Opt{kgo.MetadataMinAge(100 * time.Millisecond)}, options...)...)...))
}

func franzCreate(topic string, partitions int32) {
	client := franz()
	defer client.Close()
	response := must(kadm.NewClient(client).CreateTopics(background, partitions, 1, nil, topic))
	check(response[topic].Err)
}

func franzRead(topic string, count int, offset kgo.Offset) []*kgo.Record {
	client := franz(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: offset}}))
	defer client.Close()
	var all []*kgo.Record
	ctx, cancel := within(40)
	defer cancel()
	for len(all) < count {
		fetches := client.PollFetches(ctx)
		check(fetches.Err0())
		all = append(all, fetches.Records()...)
	}
	return all
}

func runFranz() {
	fmt.Println("CLIENT franz-go|1.22.3|Go|codecs, acks, cooperative group, dying member, admin, idempotence across kill -9, topic recreated|franz-go/")
	run("franz-go", []test{
		{"round-trips", franzRoundTrips},
		{"large-messages", franzLarge},
		{"offsets-and-times", franzOffsets},
		{"cooperative-group", franzGroup},
		{"administration", franzAdmin},
		{"topic-recreated", franzRecreated},
		{"idempotent-kill-9", franzIdempotent},
	})
}

func franzRoundTrips() {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	for name, codec := range codecs {
		topic := unique(name)
		franzCreate(topic, 1)
		var expected []string
		for _, acks := range []kgo.Acks{kgo.AllISRAcks(), kgo.LeaderAck(), kgo.NoAck()} {
			client := franz(kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			for _, r := range records {
				out := &kgo.Record{Topic: topic, Key: r.key, Value: r.value}
				for _, h := range r.headers {
					out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.key, Value: h.value})
				}
				check(client.ProduceSync(background, out).FirstErr())
				expected = append(expected, describe(r.key, r.value, r.headers))
			}
			client.Close()
		}
		for n, r := range franzRead(topic, len(expected), kgo.NewOffset().AtStart()) {
			var headers []header
			for _, h := range r.Headers {
				headers = append(headers, header{h.Key, h.Value})
			}
			equal(name, describe(r.Key, r.Value, headers), expected[n])
		}
	}
}

func franzLarge() {
	topic := unique("large")
	franzCreate(topic, 1)
	client := franz(kgo.ProducerBatchMaxBytes(5_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer client.Close()
	check(client.ProduceSync(background, &kgo.Record{Topic: topic, Value: make([]byte, 1_000_000)}).FirstErr())
	err := client.ProduceSync(background, &kgo.Record{Topic: topic, Value: make([]byte, 1_100_000)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		panic(fmt.Sprint("a message above the limit: ", err))
	}
}

func franzOffsets() {
	topic := unique("offsets")
	franzCreate(topic, 1)
	client := franz()
	defer client.Close()
	base := time.Now().Add(-200 * time.Second).Truncate(time.Millisecond)
	for n := range 100 {
		check(client.ProduceSync(background, &kgo.Record{Topic: topic, Value: fmt.Append(nil, n), Timestamp: base.Add(time.Duration(n) * time.Second)}).FirstErr())
	}
	equal("offset", string(franzRead(topic, 1, kgo.NewOffset().At(42))[0].Value), "42")
	equal("time", string(franzRead(topic, 1, kgo.NewOffset().AfterMilli(base.UnixMilli()+49_500))[0].Value), "50")
	admin := kadm.NewClient(client)
	offset := func(listed kadm.ListedOffsets, err error) int64 {
		check(err)
		return listed[topic][0].Offset
	}
	equal("start", offset(admin.ListStartOffsets(background, topic)), 0)
	equal("end", offset(admin.ListEndOffsets(background, topic)), 100)
	equal("after", offset(admin.ListOffsetsAfterMilli(background, base.UnixMilli()+10_000, topic)), 10)
	equal("largest", offset(admin.ListMaxTimestampOffsets(background, topic)), 99)
}

type franzMember struct {
	client *kgo.Client
	mutex  sync.Mutex
	owned  map[int32]bool
	values map[string]int
	done   chan struct{}
}

func franzJoin(topic, group string) *franzMember {
	m := &franzMember{owned: map[int32]bool{}, values: map[string]int{}, done: make(chan struct{})}
	own := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			for _, p := range partitions[topic] {
				if has {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
	m.client = franz(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.OnPartitionsAssigned(own(true)), kgo.OnPartitionsRevoked(own(false)), kgo.OnPartitionsLost(own(false)), kgo.AutoCommitInterval(100*time.Millisecond))
	go func() {
		defer close(m.done)
		for {
			fetches := m.client.PollFetches(background)
			if fetches.IsClientClosed() {
				return
			}
			m.mutex.Lock()
			fetches.EachRecord(func(r *kgo.Record) { m.values[string(r.Value)]++ })
			m.mutex.Unlock()
		}
	}()
	return m
}

func (m *franzMember) owns() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return len(m.owned)
}

func franzGroup() {
	topic, group := unique("group"), unique("group")
	franzCreate(topic, 6)
	first, second := franzJoin(topic, group), franzJoin(topic, group)
	waitFor("a shared topic", func() bool { return first.owns() == 3 && second.owns() == 3 })
	client := franz(kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	defer client.Close()
	for _, n := range numbered(0, 300) {
		check(client.ProduceSync(background, &kgo.Record{Topic: topic, Value: []byte(n)}).FirstErr())
	}
	seen := func() int {
		first.mutex.Lock()
		second.mutex.Lock()
		defer first.mutex.Unlock()
		defer second.mutex.Unlock()
		all := map[string]bool{}
		for _, values := range []map[string]int{first.values, second.values} {
			for value := range values {
				all[value] = true
			}
		}
		return len(all)
	}
	waitFor("all records", func() bool { return seen() == 300 })
	second.client.Close()
	<-second.done
	waitFor("the rest to be taken over", func() bool { return first.owns() == 6 })
	admin := kadm.NewClient(client)
	described := must(admin.DescribeGroups(background, group))
	equal("state", described[group].State, "Stable")
	equal("members", len(described[group].Members), 1)
	waitFor("all offsets to be committed", func() bool {
		lags := must(admin.Lag(background, group))
		return lags[group].Lag.Total() == 0
	})
	first.client.Close()
	<-first.done
}

func franzAdmin() {
	client := franz()
	defer client.Close()
	admin := kadm.NewClient(client)
	topic, group := unique("admin"), unique("admin")
	value := "7200000"
	response := must(admin.CreateTopics(background, 2, 1, map[string]*string{"retention.ms": &value}, topic))
	check(response[topic].Err)
	equal("exists", errors.Is(must(admin.CreateTopics(background, 2, 1, nil, topic))[topic].Err, kerr.TopicAlreadyExists), true)
	setting := func(name string) string {
		configs := must(admin.DescribeTopicConfigs(background, topic))
		for _, config := range configs[0].Configs {
			if config.Key == name {
				return config.MaybeValue()
			}
		}
		return ""
	}
	waitFor("the settings at every broker", func() bool { return setting("retention.ms") == value })
	_ = must(admin.AlterTopicConfigs(background, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")}}, topic))
	waitFor("the new setting", func() bool { return setting("cleanup.policy") == "compact" })
	_ = must(admin.AlterTopicConfigs(background, []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "cleanup.policy"}}, topic))
	waitFor("the default", func() bool { return setting("cleanup.policy") == "delete" })
	check(must(admin.UpdatePartitions(background, 4, topic))[topic].Err)
	waitFor("four partitions", func() bool {
		return len(must(admin.ListTopics(background, topic))[topic].Partitions) == 4
	})
	for range 10 {
		check(client.ProduceSync(background, &kgo.Record{Topic: topic, Value: []byte("x"), Partition: 0}).FirstErr())
	}
	ends := must(admin.ListEndOffsets(background, topic))
	deleted := must(admin.DeleteRecords(background, ends.Offsets()))
	check(deleted.Error())
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 3, -1)
	check(must(admin.CommitOffsets(background, group, offsets)).Error())
	committed := must(admin.FetchOffsets(background, group))
	found, _ := committed.Lookup(topic, 0)
	equal("committed", found.At, 3)
	check(must(admin.DeleteOffsets(background, group, kadm.TopicsSet{topic: {0: {}}})).Error())
	committed = must(admin.FetchOffsets(background, group))
	_, still := committed.Lookup(topic, 0)
	equal("deleted offset", still, false)
	_ = must(admin.DeleteGroup(background, group))
	dirs := must(admin.DescribeAllLogDirs(background, nil))
	equal("log dirs", len(dirs) > 0, true)
	check(must(admin.DeleteTopics(background, topic))[topic].Err)
}

func franzRecreated() {
	topic := unique("again")
	franzCreate(topic, 1)
	client := franz(kgo.UnknownTopicRetries(-1), kgo.DisableIdempotentWrite())
	defer client.Close()
	check(client.ProduceSync(background, &kgo.Record{Topic: topic, Value: []byte("old")}).FirstErr())
	admin := kadm.NewClient(client)
	check(must(admin.DeleteTopics(background, topic))[topic].Err)
	waitFor("the name to be free", func() bool { return must(admin.CreateTopics(background, 1, 1, nil, topic))[topic].Err == nil })
	// A broker may tell of the old topic for a moment, and this client holds on to the id that it learned.
	waitFor("a delivery to the new topic", func() bool {
		client.PurgeTopicsFromClient(topic)
		ctx, cancel := within(30)
		defer cancel()
		return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("new")}).FirstErr() == nil
	})
	equal("first record", string(franzRead(topic, 1, kgo.NewOffset().AtStart())[0].Value), "new")
}

func franzIdempotent() {
	topic := unique("idempotent")
	franzCreate(topic, 1)
	client := franz(kgo.ProducerLinger(time.Millisecond), kgo.MaxBufferedRecords(50_000))
	var wait sync.WaitGroup
	var mutex sync.Mutex
	var failure error
	delivered := 0
	for n := range 20_000 {
		wait.Add(1)
		client.Produce(background, &kgo.Record{Topic: topic, Value: fmt.Append(nil, n)}, func(_ *kgo.Record, err error) {
			mutex.Lock()
			delivered++
			failure = errors.Join(failure, err)
			mutex.Unlock()
			wait.Done()
		})
		if n == 10_000 {
			waitFor("some deliveries", func() bool { mutex.Lock(); defer mutex.Unlock(); return delivered > 100 })
			broker("kill9")
			broker("start")
		}
	}
	wait.Wait()
	client.Close()
	check(failure)
	for n, r := range franzRead(topic, 20_000, kgo.NewOffset().AtStart()) {
		equal("order", string(r.Value), fmt.Sprint(n))
	}
}
