package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lantern"
)

var public = strings.Fields("sums values scans fired tenants minutes hops sessions sliding settled late days hours sketches")

// text writes text as in rows.
func text(value string) string {
	object := string(lantern.NewObject().Text("", value).JSON())
	return object[len(`{"":`) : len(object)-1]
}

func folded(t *testing.T, name string, options lantern.TestOptions) string {
	parameters, err := os.ReadFile("../events/" + name + ".parameters.json")
	if err == nil {
		options.Parameters = string(parameters)
	}
	test, err := lantern.NewTest(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := test.FeedFile("../events/" + name + ".ndjson"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, table := range public {
		for _, row := range test.Rows(table) {
			fmt.Fprintf(&out, "%s\t%s\t%s\n", table, text(row.Key), row.Value)
		}
	}
	for _, event := range test.Emitted() {
		fmt.Fprintf(&out, "emitted\t%s\t%s\t%s\n", text(event.Subject), event.Time, event.Data)
	}
	for _, event := range test.Parked() {
		fmt.Fprintf(&out, "parked\t%s\n", text(event.ID))
	}
	return out.String()
}

// The host in memory gives the same bytes as the real one, however the events are folded.
func TestEveryFileGivesTheExpectedBytes(t *testing.T) {
	files, err := filepath.Glob("../events/*.ndjson")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no event files", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".ndjson")
		expected, err := os.ReadFile("../expected/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		for _, options := range []lantern.TestOptions{{Batch: 1}, {Batch: 7, Drop: true}, {Batch: 16384}} {
			t.Run(name+"/"+strconv.Itoa(options.Batch), func(t *testing.T) {
				found := strings.Split(folded(t, name, options), "\n")
				wanted := strings.Split(string(expected), "\n")
				for i := range max(len(found), len(wanted)) {
					if i >= len(found) || i >= len(wanted) || found[i] != wanted[i] {
						t.Fatalf("line %d is %.300q, and should be %.300q", i+1, at(found, i), at(wanted, i))
					}
				}
			})
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
