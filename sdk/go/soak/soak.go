// A projection that allocates much memory, to test Go's garbage collector in the real host.
// README.md of the SDK has the results.
package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"

	"lantern"
)

type user struct {
	Events   int64            `lantern:"events,sum"`
	Checksum int64            `lantern:"checksum,sum"`
	Words    lantern.Distinct `lantern:"words"`
}

var byUser = lantern.Table[user]{Name: "by_user", Description: "Events by subject."}

// tree is memory that each collection has to visit.
type tree struct {
	left, right *tree
	text        string
}

func grown(depth int) *tree {
	if depth == 0 {
		return nil
	}
	return &tree{grown(depth - 1), grown(depth - 1), fmt.Sprint("leaf ", depth)}
}

var (
	ballast *tree
	events  int
)

func apply(event *lantern.Event) error {
	// Creates much garbage: the data is parsed into maps, reordered, and written as text
	// again.
	var data map[string]any
	if err := json.Unmarshal([]byte(event.Data()), &data); err != nil {
		return err
	}
	var words []string
	for name, value := range data {
		words = append(words, strings.Repeat(fmt.Sprintf("%s=%v;", name, value), 20))
	}
	sort.Strings(words)
	sum := int64(0)
	for _, letter := range strings.Join(words, "\n") {
		sum = sum*31%1_000_003 + int64(letter)
	}
	row := byUser.Row(event.Subject())
	row.Events++
	row.Checksum = lantern.Add(row.Checksum, sum)
	for _, word := range words {
		row.Words.Add(word)
	}
	// Part of the memory that stays is replaced.
	if events%1000 == 0 {
		ballast.left = grown(12)
	}
	if events++; events%10_000 == 0 {
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		lantern.Log(lantern.Info, fmt.Sprintf("this instance: %d events, %d collections, %d MiB allocated, heap of %d MiB",
			events, memory.NumGC, memory.TotalAlloc>>20, memory.HeapSys>>20))
	}
	return nil
}

func init() {
	lantern.Register(lantern.Projection{
		Name:        "soak",
		Version:     "1.0.0",
		Description: "Keeps the garbage collector busy",
		Subscribes:  []string{"*"},
		Attributes:  lantern.Subject | lantern.Data,
		Tables:      []lantern.AnyTable{&byUser},
		OnFailure:   lantern.ParkEvent,
		Setup: func() error {
			ballast = grown(15)
			// Twenty times as many collections as by default.
			debug.SetGCPercent(5)
			return nil
		},
		Apply: apply,
	})
}

func main() {}
