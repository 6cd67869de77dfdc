// Copies records from one topic to another in franz-go's transactions, with the offsets that it read, until it is killed
// (../transactions/suite.py). Every third transaction is aborted and done again. After any error it begins anew.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func runTransfer(from, to, group, id string) {
	for {
		fmt.Fprintln(os.Stderr, "begins anew:", transfer(from, to, group, id))
		time.Sleep(200 * time.Millisecond)
	}
}

func transfer(from, to, group, id string) error {
	session, err := kgo.NewGroupTransactSession(franzAccess(kgo.TransactionalID(id), kgo.ConsumerGroup(group), kgo.ConsumeTopics(from),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(20*time.Second), kgo.SessionTimeout(6*time.Second),
		kgo.RecordDeliveryTimeout(20*time.Second), kgo.FetchMaxWait(200*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer session.Close()
	for turn := 1; ; {
		fetches := session.PollRecords(context.Background(), 50)
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			return err
		}
		var failed error
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(context.Background(), &kgo.Record{Topic: to, Partition: record.Partition, Value: record.Value}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed = err
				}
			})
		})
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		// Or what is aborted may never have been sent.
		if err := session.Client().Flush(ctx); err != nil {
			cancel()
			return err
		}
		outcome := kgo.TryCommit
		if turn%3 == 0 {
			outcome = kgo.TryAbort
		}
		committed, err := session.End(ctx, outcome)
		cancel()
		switch {
		case err != nil:
			return err
		case failed != nil && committed:
			return failed
		case committed:
			fmt.Println("COMMITTED", fetches.NumRecords())
		default:
			fmt.Println("ABORTED")
		}
		turn++
	}
}
