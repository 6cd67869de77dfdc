// How the three Go clients come to a broker that takes nobody who is not known: by TLS and as CLIENT_USER.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	segmentscram "github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kgo"
	franzscram "github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/xdg-go/scram"
)

var user, password = os.Getenv("CLIENT_USER"), os.Getenv("CLIENT_PASSWORD")

// trusting is what a client of the broker's authority connects with.
func trusting() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(os.Getenv("CLIENT_CA"))))
	return &tls.Config{RootCAs: roots}
}

func inSHA256() bool { return os.Getenv("CLIENT_MECHANISM") == "SCRAM-SHA-256" }

// franzAccess adds to options where the broker is and how to come in.
func franzAccess(options ...kgo.Opt) []kgo.Opt {
	options = append(options, kgo.SeedBrokers(bootstrap...))
	if user == "" {
		return options
	}
	mechanism := franzscram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	if inSHA256() {
		mechanism = franzscram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	}
	return append(options, kgo.DialTLSConfig(trusting()), kgo.SASL(mechanism))
}

// saramaSCRAM is what sarama leaves to its users: a conversation by SCRAM.
type saramaSCRAM struct {
	*scram.ClientConversation
	hash scram.HashGeneratorFcn
}

func (s *saramaSCRAM) Begin(user, password, authorization string) error {
	client, err := s.hash.NewClient(user, password, authorization)
	if err == nil {
		s.ClientConversation = client.NewConversation()
	}
	return err
}

func saramaAccess(config *sarama.Config) {
	if user == "" {
		return
	}
	hash := scram.SHA512
	if inSHA256() {
		hash = scram.SHA256
	}
	config.Net.TLS.Enable, config.Net.TLS.Config = true, trusting()
	config.Net.SASL.Enable, config.Net.SASL.User, config.Net.SASL.Password = true, user, password
	config.Net.SASL.Mechanism = sarama.SASLMechanism(os.Getenv("CLIENT_MECHANISM"))
	config.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &saramaSCRAM{hash: hash} }
}

// segmentAccess is for what of kafka-go names no way of its own.
func segmentAccess() {
	if user == "" {
		return
	}
	algorithm := segmentscram.SHA512
	if inSHA256() {
		algorithm = segmentscram.SHA256
	}
	mechanism := must(segmentscram.Mechanism(algorithm, user, password))
	kafka.DefaultTransport = &kafka.Transport{TLS: trusting(), SASL: mechanism}
	kafka.DefaultDialer = &kafka.Dialer{Timeout: kafka.DefaultDialer.Timeout, DualStack: true, TLS: trusting(), SASLMechanism: mechanism}
}
