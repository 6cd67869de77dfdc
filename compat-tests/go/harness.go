// What the three Go suites share: naming, waiting, reporting.
package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"
)

var bootstrap = strings.Split(os.Getenv("BOOTSTRAP"), ",")

type header struct {
	key   string
	value []byte
}

type record struct {
	key, value []byte
	headers    []header
}

// Nulls, empties, binary, a header key twice.
var records = []record{
	{[]byte("k"), []byte("v"), []header{{"h", []byte("1")}, {"h", []byte("2")}, {"empty", []byte{}}}},
	{nil, []byte("no key"), nil},
	{[]byte("no value"), nil, nil},
	{[]byte{}, []byte{}, nil},
	{[]byte{0, 255, 1}, bytes.Repeat([]byte{7}, 300), []header{{"bin", []byte{0, 1, 2}}}},
}

type test struct {
	name string
	run  func()
}

type skip string

func unique(name string) string { return fmt.Sprintf("%s-%08x", name, rand.Uint32()) }

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func equal(what string, actual, expected any) {
	if a, e := fmt.Sprint(actual), fmt.Sprint(expected); a != e {
		panic(fmt.Sprintf("%s: expected %.200s, got %.200s", what, e, a))
	}
}

func waitFor(what string, condition func() bool) {
	deadline := time.Now().Add(40 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			panic("waited 40 s for " + what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func broker(verb string) {
	ctl := os.Getenv("BROKER_CTL")
	if ctl == "" {
		panic(skip("no control of the broker"))
	}
	check(exec.Command(ctl, verb).Run())
}

func numbered(from, to int) []string {
	all := make([]string, 0, to-from)
	for n := from; n < to; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

// describe prints a record so that nil and empty differ.
func describe(key, value []byte, headers []header) string {
	part := func(b []byte) string {
		if b == nil {
			return "null"
		}
		return fmt.Sprintf("%q", b)
	}
	out := part(key) + "=" + part(value)
	for _, h := range headers {
		out += " " + h.key + ":" + fmt.Sprintf("%q", h.value)
	}
	return out
}

func run(client string, tests []test) {
	for _, t := range tests {
		func() {
			start := time.Now()
			defer func() {
				name := client + "/" + t.name
				switch failure := recover().(type) {
				case nil:
					fmt.Println("PASS " + name)
				case skip:
					fmt.Println("SKIP " + name + ": " + string(failure))
				default:
					debug.PrintStack()
					fmt.Printf("FAIL %s: %.300s\n", name, strings.Join(strings.Fields(fmt.Sprint(failure)), " "))
				}
				fmt.Fprintf(os.Stderr, "%s took %v\n", name, time.Since(start))
			}()
			t.run()
		}()
	}
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "steady" {
		runSteady(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) == 6 && os.Args[1] == "transfer" {
		runTransfer(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "member" {
		runMember(os.Args[2], os.Args[3])
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "security" {
		fmt.Println("CLIENT franz-go|1.22.3|Go|every mechanism over TLS and without, a certificate|security/franz-go/")
		run("security/franz-go", securityTests())
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "groups" {
		runGroups()
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "shares" {
		runShares()
		return
	}
	runFranz()
	runSarama()
	runSegment()
}
