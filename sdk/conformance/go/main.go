// The conformance projection in Go; ../README.md defines it.
package main

import (
	"errors"
	"fmt"
	"lantern"
)

const emitted = "conformance.out"

// ---- Tables -----------------------------------------------------------------------------------

type sum struct {
	Key      string               `lantern:"key"`
	Events   int64                `lantern:"events,sum"`
	Total    int64                `lantern:"total,sum"`
	Least    lantern.Maybe[int64] `lantern:"least,min"`
	Greatest lantern.Maybe[int64] `lantern:"greatest,max"`
	Last     lantern.Time         `lantern:"last,newest"`
}

type valueRow struct {
	ID string                      `lantern:"id"`
	N  lantern.Maybe[int64]        `lantern:"n"`
	X  lantern.Maybe[float64]      `lantern:"x"`
	S  lantern.Maybe[string]       `lantern:"s"`
	B  lantern.Maybe[bool]         `lantern:"b"`
	T  lantern.Maybe[lantern.Time] `lantern:"t"`
	J  lantern.JSON                `lantern:"j"`
}

type scanned struct {
	ID    string       `lantern:"id"`
	Count int64        `lantern:"count"`
	Keys  lantern.JSON `lantern:"keys"`
	Total int64        `lantern:"total"`
}

type firedRow struct {
	Key       string       `lantern:"key"`
	At        lantern.Time `lantern:"at"`
	Watermark lantern.Time `lantern:"watermark"`
	Times     int64        `lantern:"times,sum"`
}

type tenantRow struct {
	Subject string `lantern:"subject"`
	Events  int64  `lantern:"events,sum"`
	Closed  int64  `lantern:"closed,sum"`
}

type minute struct {
	Start  lantern.Time `lantern:"start"`
	User   string       `lantern:"user"`
	Events int64        `lantern:"events,sum"`
}

type hop struct {
	Start lantern.Time `lantern:"start"`
	End   lantern.Time `lantern:"end"`
	User  string       `lantern:"user"`
	Total int64        `lantern:"total,sum"`
}

type sessionRow struct {
	Start  lantern.Time `lantern:"start"`
	End    lantern.Time `lantern:"end"`
	User   string       `lantern:"user"`
	Events int64        `lantern:"events,sum"`
}

type slidingRow struct {
	User   string `lantern:"user"`
	Events int64  `lantern:"events"`
	Total  int64  `lantern:"total"`
}

type settledRow struct {
	At    lantern.Time `lantern:"at"`
	User  string       `lantern:"user"`
	Total int64        `lantern:"total"`
}

type lateRow struct {
	User     string `lantern:"user"`
	Hops     int64  `lantern:"hops,sum"`
	Sessions int64  `lantern:"sessions,sum"`
	Sliding  int64  `lantern:"sliding,sum"`
}

type day struct {
	Day    string       `lantern:"day"`
	Start  lantern.Time `lantern:"start"`
	End    lantern.Time `lantern:"end"`
	Events int64        `lantern:"events,sum"`
}

type hour struct {
	Start  lantern.Time `lantern:"start"`
	End    lantern.Time `lantern:"end"`
	Events int64        `lantern:"events,sum"`
}

type sketched struct {
	Key    string              `lantern:"key"`
	Texts  lantern.Distinct    `lantern:"texts"`
	Values lantern.Percentiles `lantern:"values"`
	Scaled lantern.Percentiles `lantern:"scaled"`
}

type total struct {
	Total int64 `lantern:"total"`
}

var (
	sums     = lantern.Table[sum]{Name: "sums", Description: "Sums by key.", NewestBy: "last"}
	values   = lantern.Table[valueRow]{Name: "values", Description: "The members of `c.value` events."}
	scans    = lantern.Table[scanned]{Name: "scans", Description: "The results of scans."}
	fired    = lantern.Table[firedRow]{Name: "fired", Description: "Timers that fired."}
	tenants  = lantern.Table[tenantRow]{Name: "tenants", Description: "Events by tenant and subject.", PerTenant: true}
	minutes  = lantern.Table[minute]{Name: "minutes", Description: "Visits by minute and user."}
	hops     = lantern.Table[hop]{Name: "hops", Description: "Closed hopping windows."}
	sessions = lantern.Table[sessionRow]{Name: "sessions", Description: "Closed sessions."}
	sliding  = lantern.Table[slidingRow]{Name: "sliding", Description: "The sliding window of each user."}
	settled  = lantern.Table[settledRow]{Name: "settled", Description: "Sliding windows that can no longer change."}
	late     = lantern.Table[lateRow]{Name: "late", Description: "Late visits by user."}
	days     = lantern.Table[day]{Name: "days", Description: "Days of a time zone."}
	hours    = lantern.Table[hour]{Name: "hours", Description: "Hours of a time zone."}
	sketches = lantern.Table[sketched]{Name: "sketches", Description: "Sketches by key."}

	seen         = lantern.Table[lantern.Bytes]{Name: "seen", Private: true}
	openHops     = lantern.FinalWindows[total]{Open: lantern.Table[total]{Name: "open_hops", Private: true}}
	openSessions = lantern.Sessions{Open: lantern.Table[lantern.Bytes]{Name: "open_sessions", Private: true}, Gap: 30 * lantern.Second}
	recent       = lantern.Sliding{Recent: lantern.Table[lantern.Bytes]{Name: "recent", Private: true}, Size: 60 * lantern.Second}
)

// ---- Members and parameters ------------------------------------------------------------------------

var (
	key     = lantern.Member[string]{Name: "key"}
	n       = lantern.Member[int64]{Name: "n"}
	x       = lantern.Member[float64]{Name: "x"}
	s       = lantern.Member[string]{Name: "s"}
	b       = lantern.Member[bool]{Name: "b"}
	t       = lantern.Member[lantern.Time]{Name: "t"}
	j       = lantern.Member[lantern.JSON]{Name: "j"}
	start   = lantern.Member[string]{Name: "start"}
	end     = lantern.Member[string]{Name: "end"}
	limit   = lantern.Member[int64]{Name: "limit"}
	reverse = lantern.Member[bool]{Name: "reverse"}
	seconds = lantern.Member[int64]{Name: "seconds"}
	fails   = lantern.Member[bool]{Name: "fail"}
)

var (
	zone   *lantern.Zone
	factor int64
)

func setup() error {
	parameters, err := lantern.ReadParameters("zone", "factor")
	if err != nil {
		return err
	}
	name, err := parameters.Text("zone", "Europe/Berlin")
	if err != nil {
		return err
	}
	if zone = lantern.ZoneNamed(name); zone == nil {
		return fmt.Errorf("there is no time zone %q", name)
	}
	factor, err = parameters.Integer("factor", 1)
	return err
}

// ---- Events -----------------------------------------------------------------------------------------

func count(event *lantern.Event, key string, n lantern.Maybe[int64]) {
	row := sums.Row(key)
	row.Key = key
	row.Events++
	row.Last = event.Time()
	if !n.Set {
		return
	}
	value := lantern.Multiply(n.Value, factor)
	row.Total = lantern.Add(row.Total, value)
	if !row.Least.Set || value < row.Least.Value {
		row.Least = lantern.Some(value)
	}
	if !row.Greatest.Set || value > row.Greatest.Value {
		row.Greatest = lantern.Some(value)
	}
}

var none lantern.Maybe[int64]

func once(event *lantern.Event) {
	key := key.Of(event)
	if seen.Get(key) != nil {
		return
	}
	seen.Put(key, "")
	count(event, key, none)
}

func putValue(event *lantern.Event) {
	json, _ := j.Get(event)
	values.Put(event.ID(), valueRow{
		event.ID(), n.Maybe(event), x.Maybe(event), s.Maybe(event), b.Maybe(event), t.Maybe(event), json,
	})
}

func scan(event *lantern.Event) error {
	limit := limit.Of(event)
	if limit < 0 || limit > 1000 {
		return errors.New("limit is not from 0 to 1,000")
	}
	last, _ := reverse.Get(event)
	row := scanned{ID: event.ID()}
	var keys []string
	for _, found := range sums.Scan(start.Of(event), end.Of(event), int(limit), last) {
		keys = append(keys, found.Key)
		row.Total = lantern.Add(row.Total, found.Row.Total)
	}
	row.Count = int64(len(keys))
	row.Keys = lantern.Texts(keys)
	scans.Put(row.ID, row)
	return nil
}

func remind(event *lantern.Event) {
	key := key.Of(event)
	if after, set := seconds.Get(event); set {
		after = lantern.Multiply(after, int64(lantern.Second))
		lantern.SetTimer(event.Time().Add(lantern.Duration(after)), key)
	} else {
		lantern.CancelTimer(key)
	}
}

func emit(event *lantern.Event, key string, number int64) {
	for i := range number {
		data := lantern.NewObject().Text("key", key).Integer("i", i).JSON()
		lantern.Emit(emitted, event.Subject(), event.Time(), data)
	}
}

func fail(event *lantern.Event) error {
	key := key.Of(event)
	fail, _ := fails.Get(event)
	count(event, key, none)
	sums.Delete("gone")
	emit(event, key, 1)
	lantern.SetTimer(event.Time().Add(5*lantern.Second), key)
	if fail {
		return errors.New("asked to fail")
	}
	return nil
}

func ofTenant(event *lantern.Event) {
	if event.Tenant() == "" || event.Subject() == "" {
		return
	}
	key := lantern.InTenant(event.Tenant(), event.Subject())
	row := tenants.Row(key)
	row.Subject = event.Subject()
	row.Events++
	lantern.SetTimer(event.Time().Add(10*lantern.Second), key)
}

func putSliding(user string, slide lantern.Slide) {
	sliding.Put(user, slidingRow{user, slide.Events, slide.Sum})
}

func visit(event *lantern.Event) error {
	user := key.Of(event)
	number, set := n.Get(event)
	if !set {
		number = 1
	}
	if user == "" {
		return errors.New("the key is empty")
	}
	start := event.Time().Floor(lantern.Minute)
	row := minutes.Row(lantern.Key(start.String(), user))
	row.Start, row.User = start, user
	row.Events++

	var missed lateRow
	for _, window := range lantern.WindowsOf(60*lantern.Second, 20*lantern.Second, event.Time()) {
		if open := openHops.Row(event, window, user); open != nil {
			open.Total = lantern.Add(open.Total, number)
		} else {
			missed.Hops++
		}
	}
	if !openSessions.Add(event, user, number) {
		missed.Sessions++
	}
	if slide, inTime := recent.Add(event, user, number); inTime {
		putSliding(user, slide)
	} else {
		missed.Sliding++
	}
	if missed == (lateRow{}) {
		return nil
	}
	counted := late.Row(user)
	counted.User = user
	counted.Hops += missed.Hops
	counted.Sessions += missed.Sessions
	counted.Sliding += missed.Sliding
	return nil
}

func dayAndHour(event *lantern.Event) {
	time, set := t.Get(event)
	if !set {
		time = event.Time()
	}
	date, window := zone.Date(time), zone.Day(time)
	ofDay := days.Row(date)
	ofDay.Day, ofDay.Start, ofDay.End = date, window.Start, window.End
	ofDay.Events++
	window = zone.Hour(time)
	ofHour := hours.Row(window.Start.String())
	ofHour.Start, ofHour.End = window.Start, window.End
	ofHour.Events++
}

func sketch(event *lantern.Event) {
	key := key.Of(event)
	row := sketches.Row(key)
	row.Key = key
	if value, set := s.Get(event); set {
		row.Texts.Add(value)
	}
	if value, set := n.Get(event); set {
		row.Values.Add(value)
	}
	if value, set := x.Get(event); set {
		row.Scaled.AddNumber(value, 1000)
	}
}

func apply(event *lantern.Event) error {
	switch event.Type() {
	case "c.add":
		count(event, key.Of(event), n.Maybe(event))
	case "c.delete":
		sums.Delete(key.Of(event))
	case "c.once":
		once(event)
	case "c.value":
		putValue(event)
	case "c.scan":
		return scan(event)
	case "c.remind":
		remind(event)
	case "c.emit":
		number := n.Of(event)
		if number > 100 {
			return errors.New("n is greater than 100")
		}
		emit(event, key.Of(event), number)
	case "c.fail":
		return fail(event)
	case "c.tenant":
		ofTenant(event)
	case "c.visit":
		return visit(event)
	case "c.day":
		dayAndHour(event)
	case "c.sketch":
		sketch(event)
	}
	return nil
}

// ---- Timers --------------------------------------------------------------------------------------------

func onTimer(timer *lantern.Timer) error {
	for _, closed := range openHops.Close(timer) {
		start := closed.Window.Start
		hops.Put(lantern.Key(start.String(), closed.Key), hop{start, closed.Window.End, closed.Key, closed.Row.Total})
	}
	for _, closed := range openSessions.Close(timer) {
		start := closed.Window.Start
		sessions.Put(lantern.Key(start.String(), closed.Key), sessionRow{start, closed.Window.End, closed.Key, closed.Events})
	}
	if user := recent.Advance(timer); user != nil {
		for _, slide := range user.Settled {
			settled.Put(lantern.Key(slide.At.String(), user.Key), settledRow{slide.At, user.Key, slide.Sum})
		}
		putSliding(user.Key, user.Current)
	}
	switch {
	case timer.Tenant != "":
		tenants.Row(timer.FullKey()).Closed++
	case !timer.IsOwn():
		row := fired.Row(timer.Key)
		row.Key, row.At, row.Watermark = timer.Key, timer.At, timer.Watermark
		row.Times++
		lantern.Emit(emitted, timer.Key, timer.At, lantern.NewObject().Text("timer", timer.Key).JSON())
	}
	return nil
}

func init() {
	lantern.Register(lantern.Projection{
		Name:        "conformance",
		Version:     "1.0.0",
		Description: "The conformance projection in Go",
		Subscribes:  []string{"c.*"},
		Attributes:  lantern.ID | lantern.Subject | lantern.Tenant,
		Members:     []lantern.AnyMember{&key, &n, &x, &s, &b, &t, &j, &start, &end, &limit, &reverse, &seconds, &fails},
		Tables: []lantern.AnyTable{
			&sums, &values, &scans, &fired, &tenants, &minutes, &hops, &sessions, &sliding, &settled, &late, &days, &hours,
			&sketches, &seen, &openHops.Open, &openSessions.Open, &recent.Recent,
		},
		Emits:           []string{emitted},
		AllowedLateness: 10 * lantern.Second,
		Tick:            5 * lantern.Second,
		OnFailure:       lantern.ParkEvent,
		Parameters:      `{"type":"object","additionalProperties":false,"properties":{"zone":{"type":"string","default":"Europe/Berlin"},"factor":{"type":"integer","default":1}}}`,
		Setup:           setup,
		Apply:           apply,
		OnTimer:         onTimer,
	})
}

func main() {}
