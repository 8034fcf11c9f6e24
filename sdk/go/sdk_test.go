package lantern

import (
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
)

func equal[T comparable](t *testing.T, found, wanted T) {
	t.Helper()
	if found != wanted {
		t.Errorf("%v, and should be %v", found, wanted)
	}
}

func TestNumbersAreWrittenAsInRows(t *testing.T) {
	for value, wanted := range map[float64]string{
		1: "1.0", 0.00001: "0.00001", 1e15: "1000000000000000.0", 9999999999999998: "9999999999999998.0",
		1e16: "1e+16", 123456789012345680: "1.2345678901234568e+17", 1e-6: "1e-6", 5e-324: "5e-324",
		-1.5: "-1.5", 0.1: "0.1", 123.456: "123.456", -2e-10: "-2e-10", 1.7976931348623157e308: "1.7976931348623157e+308",
	} {
		equal(t, string(appendNumber(nil, value)), wanted)
	}
	equal(t, string(appendNumber(nil, math.Copysign(0, -1))), "-0.0")
}

func TestJSONIsBroughtIntoTheFormOfRows(t *testing.T) {
	for given, wanted := range map[string]string{
		` { "b" : 1 , "a" : [ 1.50 , 1E2 , -0 ] } `: `{"a":[1.5,100.0,-0.0],"b":1}`,
		`18446744073709551615`:                      `18446744073709551615`,
		`18446744073709551616`:                      `1.8446744073709552e+19`,
		`-9223372036854775809`:                      `-9.223372036854776e+18`,
		`{"a":1,"a":2}`:                             `{"a":2}`,
		`"\u00e9\ud83d\ude00\/\u001f\u007f"`:        "\"é😀/\\u001f\u007f\"",
		`[]`:                                        `[]`, `{}`: `{}`, `null`: `null`, `[true,false]`: `[true,false]`,
	} {
		found, err := canonicalJSON(given)
		if err != nil {
			t.Errorf("%s: %s", given, err)
		}
		equal(t, found, wanted)
	}
	for _, broken := range []string{
		``, `{`, `[1,]`, `{"a"}`, `{"a":1,}`, `01`, `1.`, `-`, `.5`, `1e`, `"\ud800"`, `"\udc00\ud800"`, "\"\x01\"",
		`"a`, `tru`, `1 2`, `{1:2}`, "\"\xff\"", `1e400`, strings.Repeat("[", 65) + strings.Repeat("]", 65),
	} {
		if found, err := canonicalJSON(broken); err == nil {
			t.Errorf("%q is taken for JSON: %s", broken, found)
		}
	}
	if _, err := canonicalJSON(strings.Repeat("[", 64) + strings.Repeat("]", 64)); err != nil {
		t.Error(err)
	}
}

func TestTimesAreReadAsTheyAreWritten(t *testing.T) {
	for _, text := range []string{
		"1970-01-01T00:00:00Z", "2026-03-01T12:07:00.500Z", "0001-01-01T00:00:00Z", "2024-02-29T23:59:59.000001Z",
		"9999-12-30T21:59:59.999999Z",
	} {
		time, ok := parseTime(text)
		equal(t, ok, true)
		equal(t, time.String(), text)
	}
	time, _ := parseTime("2026-03-01T12:00:00+02:30")
	equal(t, time.String(), "2026-03-01T09:30:00Z")
	for _, broken := range []string{"2026-02-30T00:00:00Z", "2026-03-01", "2026-03-01T12:00:00", "2026-13-01T00:00:00Z", "2026-03-01T12:00:00Zx"} {
		if _, ok := parseTime(broken); ok {
			t.Errorf("%q is taken for a time", broken)
		}
	}
	equal(t, Time(-1).Floor(Minute), -Time(Minute))
	equal(t, Time(math.MinInt64).Floor(Minute), math.MinInt64)
}

// The vectors of docs/sketches.md.
func TestSketchesGiveTheVectorsOfTheirPage(t *testing.T) {
	distinct := func(n int) *Distinct {
		made := &Distinct{}
		for i := 1; i <= n; i++ {
			made.AddInteger(int64(i))
		}
		return made
	}
	equal(t, string(distinct(0).append(nil)), `{"estimate":0,"sketch":"AQ=="}`)
	equal(t, string(distinct(3).append(nil)), `{"estimate":3,"sketch":"ASYWfCr1YCG1Yha3tBJ2Ng=="}`)
	for _, vector := range []struct {
		n        int
		estimate uint64
		hash     uint64
	}{
		{512, 512, 0x88ea476863efd049}, {513, 520, 0x856a5bdfbc2eea05}, {10_000, 9_767, 0x7cef205d879016b2},
		{100_000, 100_105, 0xe32a3e3ec53236aa}, {1_000_000, 967_830, 0x65a1b5335f02e2ce},
	} {
		sketch := distinct(vector.n)
		equal(t, sketch.Estimate(), vector.estimate)
		bytes, ok := sketchBytes(&reader{text: string(sketch.append(nil))})
		equal(t, ok, true)
		equal(t, xxh64(string(bytes)), vector.hash)
		var read Distinct
		equal(t, read.read(&reader{text: string(sketch.append(nil))}), true)
		equal(t, string(read.append(nil)), string(sketch.append(nil)))
	}
	percentiles := func(values ...int64) string {
		made := &Percentiles{}
		for _, value := range values {
			made.Add(value)
		}
		written := string(made.append(nil))
		var read Percentiles
		equal(t, read.read(&reader{text: written}), true)
		equal(t, string(read.append(nil)), written)
		return written
	}
	equal(t, percentiles(), `{"count":0,"min":null,"p50":null,"p75":null,"p90":null,"p95":null,"p99":null,"max":null,"sketch":"Aw=="}`)
	equal(t, percentiles(3, 1, 2), `{"count":3,"min":1,"p50":2,"p75":3,"p90":3,"p95":3,"p99":3,"max":3,"sketch":"AwIGgR0BAAEAAQ=="}`)
	equal(t, percentiles(math.MinInt64, -1000, -1, 0, 1000, 1000000, math.MaxInt64),
		`{"count":7,"min":-9223372036854775808,"p50":0,"p75":1003519,"p90":9187343239835811839,"p95":9187343239835811839,"p99":9187343239835811839,"max":9223372036854775807,"sketch":"A////////////wH+//////////8BAAHCGgG7AgEAAbwCAfwEAcQVAQ=="}`)
	squares := &Percentiles{}
	for i := int64(1); i <= 1000; i++ {
		squares.Add(i * i)
	}
	for percent, wanted := range map[uint]int64{50: 250879, 75: 561151, 90: 806911, 95: 905215, 99: 978943} {
		equal(t, squares.Percentile(percent), wanted)
	}
}

func TestTheTableOfTimeZonesIsThatOfTheRustSDK(t *testing.T) {
	shared, err := os.ReadFile("../rust/zones.bin")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, string(zonesTable) == string(shared), true)
}

func TestKeysEscapeWhatSeparatesTheirParts(t *testing.T) {
	equal(t, Key("a/b", "50%", ""), "a%2Fb/50%25/")
	equal(t, InTenant("t", "k"), "t\x00k")
	for key, wanted := range map[string]bool{"k": true, "t\x00k": true, "\x00k": false, "t\x00k\x00": false} {
		_, _, ok := splitTenant(key)
		equal(t, ok, wanted)
	}
}

func TestSumsAndProductsBeyondTheRangeFail(t *testing.T) {
	for _, check := range []struct {
		a, b         int64
		sum, product bool
	}{
		{1, 2, true, true}, {math.MaxInt64, 1, false, true}, {math.MinInt64, -1, false, false},
		{math.MaxInt64, 2, false, false}, {-1, math.MinInt64, false, false}, {1 << 32, 1 << 31, true, false},
		{math.MinInt64, 0, true, true},
	} {
		call = callState{}
		Add(check.a, check.b)
		equal(t, !Failed(), check.sum)
		call = callState{}
		Multiply(check.a, check.b)
		equal(t, !Failed(), check.product)
	}
	call = callState{}
}

// ---- A projection that fails in many ways ------------------------------------------------------

type failing struct {
	Events int64    `lantern:"events,sum"`
	Number float64  `lantern:"number"`
	Users  Distinct `lantern:"users"`
}

var (
	failingRows = Table[failing]{Name: "rows"}
	how         = Member[string]{Name: "how"}
	undeclared  = Member[int64]{Name: "undeclared"}
)

func failingProjection(onFailure OnFailure) Projection {
	return Projection{
		Name: "failing", Version: "1.0.0", Subscribes: []string{"f"}, Members: []AnyMember{&how},
		Tables: []AnyTable{&failingRows}, Emits: []string{"out"}, OnFailure: onFailure, Tick: Second,
		Apply: func(event *Event) error {
			row := failingRows.Row("k")
			row.Events++
			row.Users.Add(event.Time().String())
			failingRows.Row(event.Time().String()).Events++
			Emit("out", "s", event.Time(), "{}")
			switch how.Of(event) {
			case "error":
				return errors.New("refused")
			case "panic":
				var none []int
				row.Events = int64(none[0])
			case "nan":
				row.Number = math.NaN()
			case "key":
				failingRows.Row("")
			case "emit":
				Emit("other", "s", event.Time(), "{}")
			case "timer":
				SetTimer(0, "")
			case "undeclared":
				undeclared.Get(event)
			case "overflow":
				Add(math.MaxInt64, 1)
			case "scan":
				failingRows.Scan("", "", 10, false)
				return errors.New("after a scan")
			case "deleted":
				failingRows.Delete("k")
				return errors.New("after a delete")
			}
			return nil
		},
	}
}

func failingEvents() (lines string, bad []string) {
	for i, how := range []string{
		"", "error", "", "panic", "nan", "", "key", "emit", "", "timer", "undeclared", "overflow", "scan", "", "deleted", "",
	} {
		id := strconv.Itoa(i)
		lines += `{"id":"` + id + `","type":"f","time":"2026-03-01T12:00:` + strconv.Itoa(10+i) + `Z","data":{"how":"` + how + "\"}}\n"
		if how != "" {
			bad = append(bad, id)
		}
	}
	return lines, bad
}

func TestAFailingEventLeavesNothingBehind(t *testing.T) {
	for _, onFailure := range []OnFailure{ParkEvent, ParkSubject} {
		for _, options := range []TestOptions{{Batch: 1}, {Batch: 5}, {Batch: 5, Drop: true}, {}} {
			Register(failingProjection(onFailure))
			test, err := NewTest(options)
			if err != nil {
				t.Fatal(err)
			}
			lines, bad := failingEvents()
			if err := test.Feed(lines); err != nil {
				t.Fatal(err)
			}
			var parked []string
			for _, event := range test.Parked() {
				parked = append(parked, event.ID)
			}
			equal(t, strings.Join(parked, " "), strings.Join(bad, " "))
			row, _ := test.Row("rows", "k")
			equal(t, strings.HasPrefix(row, `{"events":6,"number":0.0,"users":{"estimate":6,`), true)
			equal(t, len(test.Rows("rows")), 7)
			equal(t, len(test.Emitted()), 6)
		}
	}
}

func TestAPanicIsTheReasonOfItsEvent(t *testing.T) {
	Register(failingProjection(ParkEvent))
	test, err := NewTest(TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := test.Feed(`{"id":"1","type":"f","time":"2026-03-01T12:00:00Z","data":{"how":"panic"}}`); err != nil {
		t.Fatal(err)
	}
	reason := test.Parked()[0].Reason
	if !strings.Contains(reason, "index out of range") {
		t.Error(reason)
	}
}

func TestRowsThatCannotBeStoredAreNamed(t *testing.T) {
	type unsupported struct {
		A int32 `lantern:"a"`
	}
	type unnamed struct{ A int64 }
	type unknown struct {
		A int64 `lantern:"a,total"`
	}
	for _, check := range []struct {
		table AnyTable
		words string
	}{
		{&Table[unsupported]{Name: "t"}, "int32"}, {&Table[unnamed]{Name: "t"}, "needs a name"},
		{&Table[unknown]{Name: "t"}, `"total"`}, {&Table[int64]{Name: "t"}, "neither a struct"},
		{&Table[Bytes]{Name: "t"}, "Private"}, {&Table[struct{}]{Name: "t"}, "no fields"},
	} {
		err := check.table.open(0)
		if err == nil || !strings.Contains(err.Error(), check.words) {
			t.Errorf("%v does not say %s", err, check.words)
		}
	}
}

func TestParametersAreCheckedByNameAndKind(t *testing.T) {
	call.parameters = `{"zone":"Europe/Berlin","days":7,"rate":0.5,"on":true,"none":null}`
	read, err := ReadParameters("zone", "days", "rate", "on", "none")
	if err != nil {
		t.Fatal(err)
	}
	zone, _ := read.Text("zone", "")
	days, _ := read.Integer("days", 1)
	rate, _ := read.Number("rate", 1)
	on, _ := read.Boolean("on", false)
	none, _ := read.Integer("none", 3)
	equal(t, zone, "Europe/Berlin")
	equal(t, days, 7)
	equal(t, rate, 0.5)
	equal(t, on, true)
	equal(t, none, 3)
	if _, err := read.Integer("zone", 1); err == nil {
		t.Error("text is taken for an integer")
	}
	for _, wrong := range []string{`{"other":1}`, `[]`, `{"zone":}`, `{"zone":"a","zone":"b"}`, `{"zone"`} {
		call.parameters = wrong
		if _, err := ReadParameters("zone"); err == nil {
			t.Errorf("%s is taken for parameters", wrong)
		}
	}
	call.parameters = ""
}
