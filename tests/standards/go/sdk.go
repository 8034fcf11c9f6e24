// Sends events in every mode with the CloudEvents SDK, and reads them back. The
// server's address is the only argument.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// An event whose attributes need every kind of encoding.
func newEvent(id, kind string, data any) event.Event {
	e := cloudevents.NewEvent()
	e.SetID(id)
	e.SetSource("/sdk/go")
	e.SetType("sdk.go")
	// The SDK writes headers without percent-encoding. Attributes that need percent-encoding are
	// sent in the other modes only.
	if strings.HasPrefix(id, "binary") {
		e.SetSubject("say \"hi\" €")
	} else {
		e.SetSubject("say \"hi\" \\ 5% €")
	}
	e.SetTime(time.Date(2026, 1, 31, 23, 59, 59, 999000000, time.UTC))
	e.SetDataSchema("https://example.org/schema.json#order")
	e.SetExtension("comexample", "a, b; c=d")
	must(e.SetData(kind, data))
	return e
}

func events(mode string) []event.Event {
	return []event.Event{
		newEvent(mode+"-json", "application/json", map[string]any{"n": 5, "t": "ü\n\"\\"}),
		newEvent(mode+"-text", "text/plain", "zwei Wörter"),
		newEvent(mode+"-bytes", "application/octet-stream", []byte{0, 255, 13, 10}),
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func send(request *http.Request) {
	answer, err := http.DefaultClient.Do(request)
	must(err)
	defer answer.Body.Close()
	var taken map[string]any
	must(json.NewDecoder(answer.Body).Decode(&taken))
	if answer.StatusCode != http.StatusOK {
		log.Fatalf("%d: %v", answer.StatusCode, taken)
	}
}

func main() {
	server, sent := os.Args[1], map[string]event.Event{}
	for _, mode := range []string{"binary", "structured"} {
		ctx := binding.WithForceBinary(context.Background())
		if mode == "structured" {
			ctx = binding.WithForceStructured(context.Background())
		}
		for _, e := range events(mode) {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, server+"/v1/events", nil)
			must(err)
			must(cehttp.WriteRequest(ctx, (*binding.EventMessage)(&e), request))
			send(request)
			sent[e.ID()] = e
		}
	}
	batch := events("batch")
	request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), server+"/v1/events", batch)
	must(err)
	send(request)
	for _, e := range batch {
		sent[e.ID()] = e
	}

	request, err = http.NewRequest(http.MethodGet, server+"/v1/events?limit=1000&types=sdk.go", nil)
	must(err)
	request.Header.Set("Accept", event.ApplicationCloudEventsBatchJSON)
	answer, err := http.DefaultClient.Do(request)
	must(err)
	read, err := cehttp.NewEventsFromHTTPResponse(answer)
	must(err)
	if len(read) != len(sent) {
		log.Fatalf("%d events were sent and %d read", len(sent), len(read))
	}
	for _, e := range read {
		want := sent[e.ID()]
		if e.Context.String() != want.Context.String() {
			log.Fatalf("sent:\n%s\nread:\n%s", want, e)
		}
		if !reflect.DeepEqual(e.Data(), want.Data()) {
			log.Fatalf("%s: %q was sent and %q read", e.ID(), want.Data(), e.Data())
		}
	}
	fmt.Printf("%d events\n", len(read))
}
