// One franz-go producer and two members of a group until standard input ends; says what it was told
// (../failures/suite.py).
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var saying sync.Mutex

// Milliseconds that never jump.
var began = time.Now()

func say(what string, words ...any) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Print(what, " ", time.Since(began).Milliseconds(), " ", fmt.Sprintln(words...))
}

func partitionList(topics map[string][]int32) string {
	var all []string
	for _, partitions := range topics {
		for _, partition := range partitions {
			all = append(all, fmt.Sprint(partition))
		}
	}
	if len(all) == 0 {
		return "-"
	}
	sort.Strings(all)
	return strings.Join(all, ",")
}

func runSteady(topic, group string) {
	producing, stopProducing := context.WithCancel(context.Background())
	reading, stopReading := context.WithCancel(context.Background())
	var producer, members sync.WaitGroup
	producer.Add(1)
	go func() { defer producer.Done(); steadyProduce(producing, topic) }()
	for n := range 2 {
		members.Add(1)
		go func() { defer members.Done(); steadyRead(reading, topic, group, fmt.Sprint("m", n)) }()
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	stopProducing()
	producer.Wait()
	say("PRODUCED")
	lines.Scan()
	stopReading()
	members.Wait()
}

func steadyProduce(ctx context.Context, topic string) {
	client := must(kgo.NewClient(franzAccess(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(120*time.Second), kgo.ProduceRequestTimeout(5*time.Second), kgo.ProducerLinger(5*time.Millisecond))...))
	defer client.Close()
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprint("f", n)
		client.Produce(context.Background(), &kgo.Record{Value: []byte(value), Partition: int32(n % 6)}, func(record *kgo.Record, err error) {
			if err == nil {
				say("ACK", value, record.Partition, record.Offset)
			} else {
				say("FAILED", value, strings.ReplaceAll(err.Error(), " ", "_"))
			}
		})
		time.Sleep(5 * time.Millisecond)
	}
	check(client.Flush(context.Background()))
}

func steadyRead(ctx context.Context, topic, group, name string) {
	told := func(what string) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			say(what, name, partitionList(partitions))
		}
	}
	client := must(kgo.NewClient(franzAccess(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(told("ASSIGNED")), kgo.OnPartitionsRevoked(told("REVOKED")), kgo.OnPartitionsLost(told("LOST")))...))
	defer client.Close()
	for ctx.Err() == nil {
		poll, done := context.WithTimeout(ctx, 200*time.Millisecond)
		fetches := client.PollFetches(poll)
		done()
		next := map[int32]int64{}
		fetches.EachRecord(func(record *kgo.Record) {
			say("READ", name, record.Partition, record.Offset, string(record.Value))
			next[record.Partition] = record.Offset + 1
		})
		if len(next) > 0 {
			commit, done := context.WithTimeout(context.Background(), 30*time.Second)
			if err := client.CommitRecords(commit, fetches.Records()...); err == nil {
				for partition, offset := range next {
					say("COMMITTED", name, partition, offset)
				}
			} else {
				fmt.Fprintln(os.Stderr, "not committed:", err)
			}
			done()
		}
		client.AllowRebalance()
	}
}
