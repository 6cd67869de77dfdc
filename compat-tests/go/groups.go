// franz-go in the groups of the new protocols: KIP-848, and share groups.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func runGroups() {
	fmt.Println("CLIENT franz-go|1.22.3|Go|consumer groups of KIP-848: joins, range, regular expressions, commits, killed member and broker|groups-franz-go/")
	run("groups-franz-go", []test{
		{"second-member", nextSecondMember},
		{"range", nextRange},
		{"regular-expression", nextRegularExpression},
		{"killed-member", nextKilledMember},
		{"killed-broker", nextKilledBroker},
	})
}

func runShares() {
	fmt.Println("CLIENT franz-go|1.22.3|Go|share groups: accept, release, reject|shares-franz-go/")
	run("shares-franz-go", []test{{"accept-release-reject", shareAcknowledged}})
}

// A member of a group of KIP-848: what it has, and what it got. It commits after each poll, before anything is taken from it.
type nextMember struct {
	client *kgo.Client
	mutex  sync.Mutex
	owned  map[string]bool
	values []int
	given  int
	failed error
	done   chan struct{}
}

func nextOptions(group string) []kgo.Opt {
	return []kgo.Opt{kgo.ConsumerGroup(group), kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.MetadataMaxAge(time.Second)}
}

func nextJoin(group string, options ...kgo.Opt) *nextMember {
	m := &nextMember{owned: map[string]bool{}, done: make(chan struct{})}
	own := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			for topic, partitions := range topics {
				for _, p := range partitions {
					if has {
						m.owned[fmt.Sprint(topic, "/", p)] = true
						m.given++
					} else {
						delete(m.owned, fmt.Sprint(topic, "/", p))
					}
				}
			}
		}
	}
	all := append(nextOptions(group), kgo.OnPartitionsAssigned(own(true)), kgo.OnPartitionsRevoked(own(false)), kgo.OnPartitionsLost(own(false)))
	m.client = franz(append(all, options...)...)
	go m.read()
	return m
}

func (m *nextMember) read() {
	defer close(m.done)
	for {
		fetches := m.client.PollFetches(background)
		if fetches.IsClientClosed() {
			return
		}
		m.mutex.Lock()
		fetches.EachRecord(func(r *kgo.Record) { m.values = append(m.values, number(r)) })
		m.mutex.Unlock()
		if fetches.NumRecords() > 0 {
			if err := m.client.CommitUncommittedOffsets(background); err != nil {
				m.mutex.Lock()
				m.failed = err
				m.mutex.Unlock()
			}
		}
		m.client.AllowRebalance()
	}
}

func number(r *kgo.Record) int { return must(strconv.Atoi(string(r.Value))) }

// leave ends the reading first: what is being committed still counts.
func (m *nextMember) leave() {
	m.client.CloseAllowingRebalance()
	<-m.done
}

func (m *nextMember) has() []string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var all []string
	for one := range m.owned {
		all = append(all, one)
	}
	slices.Sort(all)
	return all
}

// How many partitions it was given so far.
func (m *nextMember) gained() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.given
}

// What members read, in order of the numbers.
func valuesOf(members ...*nextMember) []int {
	var all []int
	for _, m := range members {
		m.mutex.Lock()
		check(m.failed)
		all = append(all, m.values...)
		m.mutex.Unlock()
	}
	slices.Sort(all)
	return all
}

// Each partition is one member's, and each member has as many.
func sharedBy(partitions int, members ...*nextMember) func() bool {
	return func() bool {
		all := map[string]bool{}
		for _, m := range members {
			has := m.has()
			if len(has) != partitions/len(members) {
				return false
			}
			for _, one := range has {
				all[one] = true
			}
		}
		return len(all) == partitions
	}
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func produceNumbers(topic string, from, to, partitions int) {
	client := franz(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	var batch []*kgo.Record
	for n := from; n < to; n++ {
		batch = append(batch, &kgo.Record{Topic: topic, Partition: int32(n % partitions), Value: fmt.Append(nil, n)})
	}
	check(client.ProduceSync(background, batch...).FirstErr())
}

func setForGroup(group, name, value string) {
	client := franz()
	defer client.Close()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value, config.Op = name, &value, kmsg.IncrementalAlterConfigOpSet
	resource.Configs = append(resource.Configs, config)
	request.Resources = append(request.Resources, resource)
	response := must(request.RequestWith(background, client))
	check(kerr.ErrorForCode(response.Resources[0].ErrorCode))
}

func nextSecondMember() {
	topic, group := unique("joins"), unique("joins")
	setForGroup(group, "consumer.heartbeat.interval.ms", "1000")
	franzCreate(topic, 4)
	first := nextJoin(group, kgo.ConsumeTopics(topic))
	waitFor("all partitions", sharedBy(4, first))
	produceNumbers(topic, 0, 1000, 4)
	second := nextJoin(group, kgo.ConsumeTopics(topic))
	waitFor("a shared topic", sharedBy(4, first, second))
	client := franz()
	defer client.Close()
	admin := kadm.NewClient(client)
	equal("type", must(admin.ListGroups(background))[group].GroupType, "consumer")
	produceNumbers(topic, 1000, 2000, 4)
	waitFor("all records", func() bool { return len(valuesOf(first, second)) >= 2000 })
	second.leave()
	waitFor("the rest to be taken over", sharedBy(4, first))
	produceNumbers(topic, 2000, 3000, 4)
	waitFor("the rest of them", func() bool { return len(valuesOf(first, second)) >= 3000 })
	first.leave()
	equal("each once", valuesOf(first, second), upTo(3000))
	committed := must(admin.FetchOffsets(background, group))
	for p := range int32(4) {
		found, _ := committed.Lookup(topic, p)
		equal("committed", found.At, 750)
	}
}

func nextRange() {
	one, two, group := unique("range-a"), unique("range-b"), unique("range")
	franzCreate(one, 4)
	franzCreate(two, 4)
	options := []kgo.Opt{kgo.ConsumeTopics(one, two), kgo.Balancers(kgo.RangeBalancer())}
	first, second := nextJoin(group, options...), nextJoin(group, options...)
	waitFor("both topics shared", sharedBy(8, first, second))
	for _, m := range []*nextMember{first, second} {
		has := m.has()
		for i := range 2 {
			equal("the same of both", strings.TrimPrefix(has[i], one), strings.TrimPrefix(has[i+2], two))
		}
		m.leave()
	}
}

func nextRegularExpression() {
	mark := unique("regex")
	first, later, other := mark+"-a", mark+"-b", "other-"+mark
	franzCreate(first, 2)
	franzCreate(other, 2)
	m := nextJoin(unique("regex"), kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+regexp.QuoteMeta(mark)+".*"))
	waitFor("what matches", func() bool { return slices.Equal(m.has(), []string{first + "/0", first + "/1"}) })
	franzCreate(later, 2)
	waitFor("what came later", func() bool { return len(m.has()) == 4 && strings.HasPrefix(m.has()[2], later) })
	produceNumbers(later, 0, 100, 2)
	waitFor("its records", func() bool { return slices.Equal(valuesOf(m), upTo(100)) })
	m.leave()
}

// runMember reads in a group, and tells what, until it is killed.
func runMember(group, topic string) {
	client := franz(append(nextOptions(group), kgo.ConsumeTopics(topic))...)
	for {
		fetches := client.PollFetches(background)
		fetches.EachRecord(func(r *kgo.Record) { fmt.Println(number(r)) })
		client.AllowRebalance()
	}
}

func nextKilledMember() {
	topic, group := unique("killed"), unique("killed")
	setForGroup(group, "consumer.heartbeat.interval.ms", "1000")
	setForGroup(group, "consumer.session.timeout.ms", "6000")
	franzCreate(topic, 4)
	survivor := nextJoin(group, kgo.ConsumeTopics(topic))
	waitFor("all partitions", sharedBy(4, survivor))
	victim := exec.Command(must(os.Executable()), "member", group, topic)
	said := must(victim.StdoutPipe())
	check(victim.Start())
	defer func() { _ = victim.Process.Kill() }()
	waitFor("a shared topic", func() bool { return len(survivor.has()) == 2 })
	produceNumbers(topic, 0, 1000, 4)
	lines := bufio.NewScanner(said)
	for range 500 {
		equal("a line", lines.Scan(), true)
	}
	check(victim.Process.Kill())
	_ = victim.Wait()
	waitFor("the rest to be taken over", sharedBy(4, survivor))
	produceNumbers(topic, 1000, 2000, 4)
	// It committed nothing, so all of it comes again.
	waitFor("all records", func() bool { return len(valuesOf(survivor)) >= 2000 })
	equal("each once", valuesOf(survivor), upTo(2000))
	survivor.leave()
}

func nextKilledBroker() {
	topic, group := unique("broker"), unique("broker")
	franzCreate(topic, 4)
	first, second := nextJoin(group, kgo.ConsumeTopics(topic)), nextJoin(group, kgo.ConsumeTopics(topic))
	waitFor("a shared topic", sharedBy(4, first, second))
	produceNumbers(topic, 0, 1000, 4)
	waitFor("the first records", func() bool { return len(valuesOf(first, second)) >= 1000 })
	had, given := first.has(), first.gained()+second.gained()
	broker("kill9")
	broker("start")
	produceNumbers(topic, 1000, 2000, 4)
	waitFor("the later ones", func() bool { return len(valuesOf(first, second)) >= 2000 })
	equal("each once", valuesOf(first, second), upTo(2000))
	equal("partitions", fmt.Sprint(first.has(), first.gained()+second.gained()), fmt.Sprint(had, given))
	first.leave()
	second.leave()
}

func shareAcknowledged() {
	topic, group := unique("share"), unique("share")
	setForGroup(group, "share.auto.offset.reset", "earliest")
	franzCreate(topic, 2)
	produceNumbers(topic, 0, 200, 2)
	client := franz(kgo.ShareGroup(group), kgo.ConsumeTopics(topic))
	defer client.Close()
	counts, accepted := map[int]int32{}, map[int]bool{}
	read := func(wait time.Duration) {
		ctx, cancel := context.WithTimeout(background, wait)
		defer cancel()
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			n := number(r)
			equal("delivery count", r.DeliveryCount(), counts[n]+1)
			counts[n]++
			switch {
			case n%10 == 0:
				r.Ack(kgo.AckReject)
			case n%3 == 0 && counts[n] == 1:
				r.Ack(kgo.AckRelease)
			default:
				equal("accepted before", accepted[n], false)
				accepted[n] = true
				r.Ack(kgo.AckAccept)
			}
		})
		check(client.FlushAcks(background))
	}
	waitFor("all but those that nobody wants", func() bool { read(200 * time.Millisecond); return len(accepted) == 180 })
	read(2 * time.Second)
	for n := range 200 {
		often := int32(1)
		if n%3 == 0 && n%10 != 0 {
			often = 2
		}
		equal(fmt.Sprint("deliveries of ", n), counts[n], often)
	}
}
