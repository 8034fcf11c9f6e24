//go:build !wasip1

package lantern

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
)

// Test is a host in memory for tests of a projection, without WebAssembly and server:
//
//	test, err := lantern.NewTest(lantern.TestOptions{Batch: 7, Drop: true})
//	err = test.FeedFile("events.ndjson")
//	row, found := test.Row("by_product", "p1")
//
// It folds events as the real host does, and undoes the changes of failed calls. Only one Test can
// exist at a time.
type Test struct {
	options   TestOptions
	tables    []map[string]string
	timers    map[string]setTimer
	emitted   []TestEvent
	parked    []TestParked
	newest    Time
	watermark Time
	offset    uint64

	// running is the batch that the call in progress reads, and rejected has the events that it
	// rejects.
	running  *batch
	rejected []rejection
	// journal has the previous values of the rows that the call in progress has changed.
	journal []change
	// wrong is the first breach of the contract by this package.
	wrong error
}

// TestOptions say how a [Test] folds.
type TestOptions struct {
	// Parameters are JSON; empty if none are given.
	Parameters string
	// Batch is the maximum number of events of a call; 0 means 1,000. The tables must not depend on
	// it.
	Batch int
	// Drop is whether each call has a fresh instance. The tables must not depend on it.
	Drop bool
}

// TestRow is a row of a table.
type TestRow struct{ Key, Value string }

// TestEvent is an event that was emitted.
type TestEvent struct {
	Type, Subject string
	Time          Time
	Data          JSON
}

// TestParked is an event that could not be applied.
type TestParked struct{ ID, Reason string }

// rejection is an event that the call in progress rejects, by its place in the batch.
type rejection struct {
	index  int
	reason string
}

type change struct {
	table   uint32
	key     string
	before  string
	existed bool
}

type setTimer struct {
	due, at Time
	offset  uint64
}

// testEvent is an event as read from a file.
type testEvent struct {
	kind, id, source, subject, tenant, data string
	time, watermark                         Time
	offset                                  uint64
}

// host is the test in progress.
var host *Test

// NewTest returns a host without events. It returns an error if Setup fails.
func NewTest(options TestOptions) (*Test, error) {
	if options.Batch <= 0 {
		options.Batch = 1000
	}
	host = &Test{options: options, timers: make(map[string]setTimer), newest: minTime, watermark: minTime}
	if message := setup(options.Parameters); message != "" {
		return nil, errors.New(message)
	}
	for range registered.Tables {
		host.tables = append(host.tables, make(map[string]string))
	}
	return host, nil
}

// FeedFile folds the events of a file.
func (t *Test) FeedFile(path string) error {
	events, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return t.Feed(string(events))
}

// Feed folds events: one CloudEvent in JSON a line.
func (t *Test) Feed(ndjson string) error {
	if host != t {
		return errors.New("another test has begun")
	}
	var events []testEvent
	for line := range strings.Lines(ndjson) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		event, err := readEvent(line)
		if err != nil {
			return err
		}
		event.offset, event.watermark = t.offset, t.watermark
		t.offset++
		if !subscribed(event.kind) {
			continue
		}
		events = append(events, event)
		to := t.watermark
		if registered.Tick > 0 {
			t.newest = max(t.newest, event.time)
			to = (t.newest - Time(registered.AllowedLateness)).Floor(registered.Tick)
		}
		if len(events) == t.options.Batch || to != t.watermark {
			t.fold(events)
			events = nil
		}
		if to != t.watermark {
			if err := t.moveWatermark(to); err != nil {
				return err
			}
		}
	}
	t.fold(events)
	return t.wrong
}

func readEvent(line string) (testEvent, error) {
	var event testEvent
	attributes := map[string]*string{
		"type": &event.kind, "id": &event.id, "source": &event.source, "subject": &event.subject, "tenant": &event.tenant,
	}
	event.data = "null"
	time := ""
	attributes["time"] = &time
	err := eachMember(line, func(name, value string) {
		if name == "data" {
			event.data = value
		} else if to := attributes[name]; to != nil {
			*to, _ = (&reader{text: value}).string()
		}
	})
	var ok bool
	if event.time, ok = parseTime(time); err != nil || !ok || event.kind == "" {
		return event, fmt.Errorf("this line is not an event with a type and a time: %s", line)
	}
	return event, nil
}

// eachMember calls `pass` with the name and the JSON of each member of an object.
func eachMember(object string, pass func(name, value string)) error {
	r := &reader{text: object}
	return r.members(func(name string) error {
		value, err := r.value()
		if err == nil {
			pass(name, value)
		}
		return err
	})
}

func subscribed(kind string) bool {
	for _, pattern := range registered.Subscribes {
		prefix, any := strings.CutSuffix(pattern, "*")
		if pattern == kind || any && strings.HasPrefix(kind, prefix) {
			return true
		}
	}
	return false
}

// ---- Calls --------------------------------------------------------------------------------------

// fold applies events. If an event fails, fold parks it and applies the others.
func (t *Test) fold(events []testEvent) {
	if len(events) == 0 {
		return
	}
	failed := t.call(batchOfEvents(events, nil, t.watermark))
	if failed == nil {
		rejected := t.rejected
		for _, each := range rejected {
			t.parked = append(t.parked, TestParked{events[each.index].id, each.reason})
		}
		if len(rejected) > 0 && registered.OnFailure != ParkEvent {
			// The call ended at the rejected event, so the events after it need another call.
			t.fold(events[rejected[0].index+1:])
		}
		return
	}
	if len(events) == 1 {
		t.parked = append(t.parked, TestParked{events[0].id, failed.message})
		return
	}
	t.fold(events[:failed.cause])
	t.fold(events[failed.cause : failed.cause+1])
	t.fold(events[failed.cause+1:])
}

// call calls the projection, and undoes everything if the call fails.
func (t *Test) call(given *batch) *failure {
	timers, emitted := maps.Clone(t.timers), len(t.emitted)
	// A timer that fires is no longer set, unless the call sets it again.
	for _, due := range given.timers {
		delete(t.timers, due.key)
	}
	t.running, t.rejected, t.journal = given, nil, t.journal[:0]
	failed := apply(given)
	t.running = nil
	if failed != nil {
		t.timers, t.emitted, t.rejected = timers, t.emitted[:emitted], nil
		for _, each := range slices.Backward(t.journal) {
			if each.existed {
				t.tables[each.table][each.key] = each.before
			} else {
				delete(t.tables[each.table], each.key)
			}
		}
	}
	if failed != nil || t.options.Drop {
		if message := setup(t.options.Parameters); message != "" && t.wrong == nil {
			t.wrong = fmt.Errorf("setup fails the second time: %s", message)
		}
	}
	return failed
}

func (t *Test) moveWatermark(to Time) error {
	t.watermark = to
	var due []dueTimer
	for key, timer := range t.timers {
		if timer.due <= to {
			due = append(due, dueTimer{timer.at, key, timer.offset})
		}
	}
	if len(due) == 0 {
		return nil
	}
	sort.Slice(due, func(a, b int) bool {
		left, right := t.timers[due[a].key].due, t.timers[due[b].key].due
		return left < right || left == right && due[a].key < due[b].key
	})
	if failed := t.call(batchOfEvents(nil, due, to)); failed != nil {
		return fmt.Errorf("the timer %q failed: %s", due[failed.cause].key, failed.message)
	}
	return nil
}

func batchOfEvents(events []testEvent, due []dueTimer, watermark Time) *batch {
	made := &batch{timers: due, watermark: watermark}
	wanted := registered.attributes()
	add := func(to *column, want Attributes, text string) {
		if wanted&want == 0 {
			return
		}
		to.bytes += text
		to.ends = append(to.ends, uint32(len(to.bytes)))
	}
	for i, event := range events {
		made.offsets = append(made.offsets, event.offset)
		made.times = append(made.times, int64(event.time))
		made.watermarks = append(made.watermarks, int64(event.watermark))
		made.typeNames = append(made.typeNames, event.kind)
		made.types = append(made.types, uint16(i))
		add(&made.id, ID, event.id)
		add(&made.source, Source, event.source)
		add(&made.subject, Subject, event.subject)
		add(&made.tenant, Tenant, event.tenant)
		add(&made.data, Data, event.data)
	}
	for _, member := range registered.Members {
		name, kind := member.describe()
		made.members = append(made.members, decodeMember(events, name, kind))
	}
	return made
}

func decodeMember(events []testEvent, name string, of kind) memberColumn {
	made := memberColumn{
		validity: make([]byte, len(events)/8+1), booleans: make([]byte, len(events)/8+1),
		integers: make([]int64, len(events)), numbers: make([]float64, len(events)),
	}
	for i, event := range events {
		value, times := "", 0
		err := eachMember(event.data, func(found, json string) {
			if found == name {
				value, times = json, times+1
			}
		})
		absent := err == nil && (times == 0 || times == 1 && value == "null")
		valid := err == nil && times == 1 && value != "null"
		r := &reader{text: value}
		switch {
		case !valid:
		case of == kindInteger:
			made.integers[i], valid = r.integer()
		case of == kindNumber:
			made.numbers[i], valid = r.double()
		case of == kindBoolean:
			valid = value == "true" || value == "false"
			if value == "true" {
				made.booleans[i/8] |= 1 << (i % 8)
			}
		case of == kindTimestamp:
			var text string
			var time Time
			if text, valid = r.string(); valid {
				time, valid = parseTime(text)
			}
			made.integers[i] = int64(time)
		case of == kindText:
			var text string
			text, valid = r.string()
			made.texts.bytes += text
		case of == kindJSON:
			made.texts.bytes += value
		}
		made.texts.ends = append(made.texts.ends, uint32(len(made.texts.bytes)))
		if valid {
			made.validity[i/8] |= 1 << (i % 8)
		} else if !absent {
			made.mismatched = append(made.mismatched, uint32(i))
		}
	}
	return made
}

// ---- Results --------------------------------------------------------------------------------------

func (t *Test) table(name string) map[string]string {
	for i, table := range registered.Tables {
		if table.describe().name == name {
			return t.tables[i]
		}
	}
	return nil
}

// Row returns a row of a table as it is stored, and whether there is one.
func (t *Test) Row(table, key string) (string, bool) {
	row, found := t.table(table)[key]
	return row, found
}

// Rows returns the rows of a table, in the order of their keys.
func (t *Test) Rows(table string) []TestRow {
	var rows []TestRow
	for key, value := range t.table(table) {
		rows = append(rows, TestRow{key, value})
	}
	sort.Slice(rows, func(a, b int) bool { return rows[a].Key < rows[b].Key })
	return rows
}

// Emitted returns the events that were emitted.
func (t *Test) Emitted() []TestEvent { return t.emitted }

// Parked returns the events that could not be applied, with the reasons.
func (t *Test) Parked() []TestParked { return t.parked }

// ---- What the host offers -----------------------------------------------------------------------------

// breach notes that this package has violated the contract with the host. The first violation ends
// the test.
func (t *Test) breach(format string, values ...any) {
	if t.wrong == nil {
		t.wrong = fmt.Errorf(format, values...)
	}
}

// wrote checks the event or timer `cause` that a write names: it must be in the batch, and must not
// be rejected.
func (t *Test) wrote(cause uint32) {
	count := uint32(len(t.running.timers))
	if cause >= count+uint32(len(t.running.times)) {
		t.breach("the cause %d is outside of the batch", cause)
		return
	}
	for _, rejected := range t.rejected {
		if cause >= count && int(cause-count) == rejected.index {
			t.breach("the event %d of the batch is rejected, and is the cause of a write", rejected.index)
		}
	}
}

// change notes that a row is about to change.
func (t *Test) change(cause, table uint32, key string) {
	t.wrote(cause)
	before, existed := t.tables[table][key]
	t.journal = append(t.journal, change{table, key, before, existed})
}

func hostGet(table uint32, key string, found func(stored string)) {
	if row, there := host.tables[table][key]; there {
		found(row)
	}
}

func hostGetMany(table uint32, keys []string, found func(i int, stored string)) {
	for i, key := range keys {
		hostGet(table, key, func(stored string) { found(i, stored) })
	}
}

func hostPutMany(table uint32, rows *writes) {
	keys, values := column{rows.keyEnds, string(rows.keys)}, column{rows.valueEnds, string(rows.values)}
	for i, cause := range rows.causes {
		host.change(cause, table, keys.text(i))
		host.tables[table][keys.text(i)] = values.text(i)
	}
}

func hostDeleteMany(table uint32, rows *writes) {
	keys := column{rows.keyEnds, string(rows.keys)}
	for i, cause := range rows.causes {
		host.change(cause, table, keys.text(i))
		delete(host.tables[table], keys.view(i))
	}
}

func hostScan(table uint32, start, end string, limit uint32, reverse bool, found func(key, stored string)) {
	var keys []string
	for key := range host.tables[table] {
		if key >= start && (end == "" || key < end) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	if reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys[:min(len(keys), int(limit))] {
		found(key, host.tables[table][key])
	}
}

func hostSetTimer(cause uint32, at Time, key string) {
	host.wrote(cause)
	if before, set := host.timers[key]; set && before.at == at {
		return
	}
	count := len(host.running.timers)
	timer := setTimer{due: at, at: at}
	from := host.running.watermark
	if int(cause) < count {
		timer.offset = host.running.timers[cause].offset
	} else {
		timer.offset = host.running.offsets[int(cause)-count]
		from = Time(host.running.watermarks[int(cause)-count])
	}
	if from != math.MinInt64 && at <= from {
		timer.due = from + 1
	}
	host.timers[key] = timer
}

func hostCancelTimer(cause uint32, key string) {
	host.wrote(cause)
	delete(host.timers, key)
}

func hostEmit(events []newEvent) {
	for _, event := range events {
		host.wrote(event.cause)
		host.emitted = append(host.emitted, TestEvent{event.kind, event.subject, event.time, event.data})
	}
}

func hostReject(cause uint32, message string) {
	index := int(cause) - len(host.running.timers)
	if index < 0 {
		host.breach("a timer was rejected")
		return
	}
	host.rejected = append(host.rejected, rejection{index, message})
}

func hostLog(cause uint32, level Level, message string) {
	fmt.Fprintf(os.Stderr, "log: %s\n", message)
}
