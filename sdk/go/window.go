package lantern

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Window is the time from Start up to but not including End.
type Window struct{ Start, End Time }

// WindowsOf returns the windows of `size` that begin every `hop` since 1970 and contain `time`,
// oldest first. For tumbling windows, the hop is equal to the size.
func WindowsOf(size, hop Duration, time Time) []Window {
	newest := time.Floor(hop)
	var windows []Window
	for start := newest; start > time-Time(size); start -= Time(hop) {
		windows = append(windows, Window{start, start + Time(size)})
	}
	slices.Reverse(windows)
	return windows
}

// sortable writes a time as text that sorts by time.
func sortable(time Time) string {
	digits := strconv.FormatUint(uint64(time)^1<<63, 16)
	return strings.Repeat("0", 16-len(digits)) + digits
}

func parseSortable(text string) (Time, bool) {
	if len(text) < 16 {
		return 0, false
	}
	bits, err := strconv.ParseUint(text[:16], 16, 64)
	return Time(bits ^ 1<<63), err == nil
}

// splitWindowKey splits a key into tenant and rest. Keys of private tables cannot have U+0000,
// so the tenant becomes a part of the key.
func splitWindowKey(key string) (tenant, rest string, ok bool) {
	tenant, rest, ok = splitTenant(key)
	if !ok {
		fail("U+0000 cannot be part of the key %q of a window", key)
	}
	return tenant, rest, ok
}

func rowPrefix(end Time, tenant string) string { return Key(sortable(end), tenant, "") }

// FinalWindows collects values of tumbling or hopping windows, until the watermark has reached the
// end of the window. Open is a private table with the values collected so far; list it in
// Projection.Tables.
type FinalWindows[T any] struct{ Open Table[T] }

// Row returns the row of a window and a key, for the caller to change. It returns nil if the window
// is closed, because the event is then late.
func (w *FinalWindows[T]) Row(event *Event, window Window, key string) *T {
	if window.End <= event.Watermark() {
		return nil
	}
	tenant, rest, ok := splitWindowKey(key)
	if !ok {
		return new(T)
	}
	row, isNew := w.Open.RowOrNew(rowPrefix(window.End, tenant) + sortable(window.Start) + "/" + rest)
	if isNew {
		// Setting a timer again to the same time has no effect.
		setOwnTimer(w.Open.id, window.End, tenant, sortable(window.End))
	}
	return row
}

// Closed is a window that is over.
type Closed[T any] struct {
	Window      Window
	Tenant, Key string
	Row         *T
}

// Close returns the windows that end with this timer, and deletes them from the table. It returns
// none if the timer belongs to other windows.
func (w *FinalWindows[T]) Close(timer *Timer) []Closed[T] {
	rest, own := strings.CutPrefix(timer.Key, ownPrefix(w.Open.id))
	end, ok := parseSortable(rest)
	if !own || !ok {
		return nil
	}
	prefix := rowPrefix(end, timer.Tenant)
	// All keys with this prefix: `0` is the character after `/`.
	after := prefix[:len(prefix)-1] + "0"
	var closed []Closed[T]
	for _, found := range w.Open.Scan(prefix, after, math.MaxInt32, false) {
		key := found.Key[len(prefix):]
		start, _ := parseSortable(key)
		closed = append(closed, Closed[T]{Window{start, end}, timer.Tenant, key[17:], found.Row})
		w.Open.Delete(found.Key)
	}
	return closed
}

// rowOf returns the key of the row that has all values of a tenant's key.
func rowOf(tenant, rest string) string { return Key(tenant, "") + rest }

// integersOf returns the numbers in a row of bytes.
func integersOf(bytes Bytes) []int64 {
	values := make([]int64, 0, len(bytes)/8+4)
	for ; len(bytes) >= 8; bytes = bytes[8:] {
		values = append(values, int64(binary.LittleEndian.Uint64([]byte(bytes[:8]))))
	}
	return values
}

func bytesOf(values ...int64) []byte {
	out := make([]byte, 0, 8*len(values))
	for _, value := range values {
		out = binary.LittleEndian.AppendUint64(out, uint64(value))
	}
	return out
}

// ---- Sessions -----------------------------------------------------------------------------------

// Sessions are sessions of a key, which end after a gap without events. Open is a private table
// of [Bytes]; list it in Projection.Tables.
type Sessions struct {
	Open Table[Bytes]
	Gap  Duration
}

// Session is a session with the number of its events and the sum of their values.
type Session struct {
	Window      Window
	Tenant, Key string
	Events, Sum int64
}

// Add adds an event to the session of a key. It returns false if the event is late.
func (s *Sessions) Add(event *Event, key string, value int64) bool {
	tenant, rest, ok := splitWindowKey(key)
	if !ok {
		return true
	}
	row := rowOf(tenant, rest)
	armed, sessions := s.read(row)
	time, gap := event.Time(), Time(s.Gap)
	own := Session{Window: Window{time, time + gap}, Events: 1, Sum: value}
	if own.Window.End <= event.Watermark() {
		within := false
		for _, each := range sessions {
			within = within || each.Window.Start <= time && time < each.Window.End
		}
		if !within {
			return false
		}
	}
	first, after := 0, 0
	for first < len(sessions) && sessions[first].Window.End <= time {
		first++
	}
	for after < len(sessions) && sessions[after].Window.Start < time+gap {
		after++
	}
	after = max(first, after)
	for _, each := range sessions[first:after] {
		own.Window.Start = min(own.Window.Start, each.Window.Start)
		own.Window.End = max(own.Window.End, each.Window.End)
		own.Events = Add(own.Events, each.Events)
		own.Sum = Add(own.Sum, each.Sum)
	}
	sessions = append(sessions[:first:first], append([]Session{own}, sessions[after:]...)...)
	if own.Window.End < armed {
		armed = own.Window.End
		setOwnTimer(s.Open.id, armed, tenant, rest)
	}
	s.write(row, armed, sessions)
	return true
}

func (s *Sessions) read(row string) (armed Time, sessions []Session) {
	stored := s.Open.Get(row)
	if stored == nil {
		return math.MaxInt64, nil
	}
	values := integersOf(*stored)
	for at := 1; at+4 <= len(values); at += 4 {
		sessions = append(sessions, Session{
			Window: Window{Time(values[at]), Time(values[at+1])}, Events: values[at+2], Sum: values[at+3],
		})
	}
	return Time(values[0]), sessions
}

func (s *Sessions) write(row string, armed Time, sessions []Session) {
	out := bytesOf(int64(armed))
	for _, each := range sessions {
		out = append(out, bytesOf(int64(each.Window.Start), int64(each.Window.End), each.Events, each.Sum)...)
	}
	s.Open.Put(row, Bytes(out))
}

// Close returns the sessions that end with this timer, and deletes them from the table. It returns
// none if the timer belongs to other windows.
func (s *Sessions) Close(timer *Timer) []Session {
	rest, own := strings.CutPrefix(timer.Key, ownPrefix(s.Open.id))
	if !own {
		return nil
	}
	row := rowOf(timer.Tenant, rest)
	_, sessions := s.read(row)
	if sessions == nil {
		return nil
	}
	over := 0
	for ; over < len(sessions) && sessions[over].Window.End <= timer.Watermark; over++ {
		sessions[over].Tenant, sessions[over].Key = timer.Tenant, rest
	}
	if over == len(sessions) {
		s.Open.Delete(row)
		return sessions
	}
	armed := sessions[over].Window.End
	changeTimer(timerChange{at: armed, key: timer.fullKey})
	s.write(row, armed, sessions[over:])
	return sessions[:over]
}

// ---- Sliding windows ------------------------------------------------------------------------------

// recentMax is how many values a key can have in a sliding window.
const recentMax = 16384

// Sliding are sliding windows of a key. A window has the values of the last period of length Size.
// Recent is a private table of [Bytes]; list it in Projection.Tables.
type Sliding struct {
	Recent Table[Bytes]
	Size   Duration
}

// Slide is a sliding window.
type Slide struct {
	// At is the last moment of the window.
	At          Time
	Events, Sum int64
}

// Advanced are the windows of a key after the watermark has moved.
type Advanced struct {
	Tenant, Key string
	// Current is the window at the watermark or, if that is later, at the newest value.
	Current Slide
	// Settled are windows that can no longer change, each once.
	Settled []Slide
}

type recentValue struct {
	time  Time
	value int64
}

// recent are the values of a key.
type recent struct {
	armed   Time
	size    Duration
	settled int
	values  []recentValue
}

func (s *Sliding) read(row string) *recent {
	stored := s.Recent.Get(row)
	if stored == nil {
		return nil
	}
	numbers := integersOf(*stored)
	read := &recent{armed: Time(numbers[0]), size: Duration(numbers[1]), settled: int(numbers[2])}
	for at := 3; at+2 <= len(numbers); at += 2 {
		read.values = append(read.values, recentValue{Time(numbers[at]), numbers[at+1]})
	}
	return read
}

func (s *Sliding) write(row string, of *recent) {
	out := bytesOf(int64(of.armed), int64(of.size), int64(of.settled))
	for _, each := range of.values {
		out = append(out, bytesOf(int64(each.time), each.value)...)
	}
	s.Recent.Put(row, Bytes(out))
}

func (r *recent) at(time Time) Slide {
	slide := Slide{At: time}
	for _, each := range r.values {
		if each.time <= time-Time(r.size) || each.time > time {
			continue
		}
		slide.Events++
		slide.Sum = Add(slide.Sum, each.value)
	}
	return slide
}

// due is the next moment at which something changes without an event.
func (r *recent) due() Time {
	due := Time(math.MaxInt64)
	if r.settled < len(r.values) {
		due = r.values[r.settled].time + 1
	}
	if len(r.values) > 0 {
		due = min(due, r.values[0].time+Time(r.size))
	}
	return due
}

// Add adds a value of a key, and returns the window at the key's newest value. It returns false
// if the event is late.
func (s *Sliding) Add(event *Event, key string, value int64) (Slide, bool) {
	time := event.Time()
	if time+Time(s.Size) <= event.Watermark() {
		return Slide{At: time}, false
	}
	tenant, rest, ok := splitWindowKey(key)
	if !ok {
		return Slide{At: time}, true
	}
	row := rowOf(tenant, rest)
	of := s.read(row)
	if of == nil {
		of = &recent{armed: math.MaxInt64}
	}
	if len(of.values) >= recentMax {
		fail("the key %q has too many values in a sliding window: use hopping windows", rest)
		return Slide{At: time}, true
	}
	of.size = s.Size
	at := len(of.values)
	for at > 0 && of.values[at-1].time > time {
		at--
	}
	of.values = slices.Insert(of.values, at, recentValue{time, value})
	// All windows up to the watermark were returned.
	if time < event.Watermark() {
		of.settled++
	}
	if due := of.due(); due < of.armed {
		of.armed = due
		setOwnTimer(s.Recent.id, due, tenant, rest)
	}
	s.write(row, of)
	return of.at(of.values[len(of.values)-1].time), true
}

// Advance returns what has changed with this timer, or nil if the timer belongs to other windows.
func (s *Sliding) Advance(timer *Timer) *Advanced {
	rest, own := strings.CutPrefix(timer.Key, ownPrefix(s.Recent.id))
	if !own {
		return nil
	}
	row := rowOf(timer.Tenant, rest)
	of := s.read(row)
	if of == nil {
		return nil
	}
	advanced := &Advanced{Tenant: timer.Tenant, Key: rest}
	next := of.settled
	for ; next < len(of.values) && of.values[next].time < timer.Watermark; next++ {
		if next+1 == len(of.values) || of.values[next+1].time != of.values[next].time {
			advanced.Settled = append(advanced.Settled, of.at(of.values[next].time))
		}
	}
	newest := timer.Watermark
	if count := len(of.values); count > 0 {
		newest = max(newest, of.values[count-1].time)
	}
	advanced.Current = of.at(newest)
	gone := 0
	for gone < len(of.values) && of.values[gone].time+Time(of.size) <= timer.Watermark {
		gone++
	}
	of.settled = next - gone
	of.values = of.values[gone:]
	if len(of.values) == 0 {
		s.Recent.Delete(row)
		return advanced
	}
	of.armed = of.due()
	changeTimer(timerChange{at: of.armed, key: timer.fullKey})
	s.write(row, of)
	return advanced
}
