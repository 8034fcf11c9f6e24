// A projection that breaks the rules, in Go: README.md of the suite lists its events.
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"time"

	"lantern"
)

type count struct {
	Events int64 `lantern:"events,sum"`
}

type read struct {
	Value string `lantern:"value"`
}

var (
	counts = lantern.Table[count]{Name: "counts", Description: "Events by type."}
	reads  = lantern.Table[read]{Name: "read", Description: "What was read of the surroundings."}
	kept   [][]byte
)

func recurse(depth int) int {
	if depth < 0 {
		return 0
	}
	return recurse(depth+1) + 1
}

// await waits for a message of a goroutine.
func await(send func(to chan<- string)) string {
	messages := make(chan string)
	go send(messages)
	return <-messages
}

func apply(event *lantern.Event) error {
	counts.Row(event.Type()).Events++
	var none []int
	switch event.Type() {
	case "r.error":
		return errors.New("refused by the projection")
	case "r.loop":
		for {
			none = nil
		}
	case "r.trap":
		fmt.Print(none[0])
	case "r.recursion":
		fmt.Print(recurse(0))
	case "r.memory":
		for {
			kept = append(kept, make([]byte, 1<<20))
		}
	case "r.file":
		_, err := os.ReadFile("/etc/passwd")
		return err
	case "r.write":
		return os.WriteFile("/tmp/written", nil, 0o600)
	case "r.socket":
		_, err := net.Dial("tcp", "127.0.0.1:80")
		return err
	case "r.process":
		return exec.Command("/bin/true").Run()
	case "r.exit":
		os.Exit(3)
	case "r.deadlock":
		await(func(chan<- string) {})
	case "r.goroutine":
		await(func(chan<- string) { panic("a goroutine panics") })
	case "r.thread":
		value := await(func(to chan<- string) { to <- "the goroutine has run" })
		reads.Put(event.Type(), read{value})
	case "r.sleep":
		time.Sleep(time.Hour)
		reads.Put(event.Type(), read{"it is over"})
	case "r.clock":
		reads.Put(event.Type(), read{time.Now().UTC().Format(time.RFC3339Nano)})
	case "r.random":
		var bytes [8]byte
		_, err := rand.Read(bytes[:])
		reads.Put(event.Type(), read{fmt.Sprintf("%x", bytes)})
		return err
	case "r.environment":
		reads.Put(event.Type(), read{fmt.Sprint(os.Environ(), len(os.Args))})
	case "r.unseeded":
		// Differs from instance to instance: the check of determinism must see it.
		reads.Put(event.ID(), read{fmt.Sprint(random.Uint64())})
	}
	return nil
}

func init() {
	lantern.Register(lantern.Projection{
		Name:        "rules",
		Version:     "1.0.0",
		Description: "A projection that breaks the rules",
		Subscribes:  []string{"r.*"},
		Attributes:  lantern.ID,
		Tables:      []lantern.AnyTable{&counts, &reads},
		OnFailure:   lantern.ParkEvent,
		Apply:       apply,
	})
}

func main() {}
