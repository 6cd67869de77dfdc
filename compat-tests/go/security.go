// franz-go by every mechanism, over TLS and without it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func securedTLS(withCertificate bool) *tls.Config {
	dir := os.Getenv("SECURITY")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(dir + "/ca.pem")))
	config := &tls.Config{RootCAs: roots}
	if withCertificate {
		config.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(dir+"/alice.pem", dir+"/alice.key"))}
	}
	return config
}

func mechanism(name, password string) sasl.Mechanism {
	user := os.Getenv("USER_NAME")
	switch name {
	case "PLAIN":
		return plain.Auth{User: user, Pass: password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	case "OAUTHBEARER":
		name := "alice"
		if password == "wrong" {
			name = password
		}
		return oauth.Auth{Token: string(must(os.ReadFile(os.Getenv("SECURITY") + "/" + name + ".jwt")))}.AsMechanism()
	default:
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	}
}

func securedOptions(protocol, name, password string) []kgo.Opt {
	servers := bootstrap
	if protocol != "SASL_SSL" {
		servers = strings.Split(os.Getenv(protocol), ",")
	}
	options := []kgo.Opt{kgo.SeedBrokers(servers...)}
	if protocol != "SASL_PLAINTEXT" {
		options = append(options, kgo.DialTLSConfig(securedTLS(name == "")))
	}
	if name != "" {
		options = append(options, kgo.SASL(mechanism(name, password)))
	}
	return options
}

func securedWorks(protocol, name string) {
	topic, mark := os.Getenv("TOPIC"), unique("franz")
	options := securedOptions(protocol, name, os.Getenv("USER_PASSWORD"))
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	producer := must(kgo.NewClient(options...))
	defer producer.Close()
	const count = 100
	for n := range count {
		check(producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(fmt.Sprintf("%s %d", mark, n))}).FirstErr())
	}
	options = append(options, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(unique("g")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	consumer := must(kgo.NewClient(options...))
	defer consumer.Close()
	seen := map[string]bool{}
	for len(seen) < count {
		fetches := consumer.PollFetches(ctx)
		check(ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			if strings.HasPrefix(string(r.Value), mark+" ") {
				seen[string(r.Value)] = true
			}
		})
	}
}

func securedRefused(protocol, name string) {
	client := must(kgo.NewClient(securedOptions(protocol, name, "wrong")...))
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := client.Ping(ctx); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		panic(fmt.Sprintf("not refused as it should be: %v", err))
	}
}

func securityTests() []test {
	tests := []test{{"SSL", func() { securedWorks("SSL", "") }}}
	for _, protocol := range []string{"SASL_SSL", "SASL_PLAINTEXT"} {
		for _, name := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"} {
			if name == "OAUTHBEARER" && protocol != "SASL_SSL" {
				continue
			}
			way := protocol + "-" + name
			tests = append(tests, test{way, func() { securedWorks(protocol, name) }})
			tests = append(tests, test{way + "-wrong", func() { securedRefused(protocol, name) }})
		}
	}
	return tests
}
