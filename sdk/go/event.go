package lantern

import (
	"errors"
	"strings"
)

// column is a column of byte strings, end to end.
type column struct {
	ends  []uint32
	bytes string
}

// view returns value i without a copy: it is valid until the end of the call.
func (c column) view(i int) string {
	if i >= len(c.ends) {
		return ""
	}
	start := uint32(0)
	if i > 0 {
		start = c.ends[i-1]
	}
	return c.bytes[start:c.ends[i]]
}

// text returns a copy of value i.
func (c column) text(i int) string { return strings.Clone(c.view(i)) }

// memberColumn has the values of one member of the data, for all events of a batch. Only the
// list for the member's kind is filled. JSON is in texts, and timestamps are in integers.
type memberColumn struct {
	validity   []byte
	integers   []int64
	numbers    []float64
	booleans   []byte
	texts      column
	mismatched []uint32
}

// dueTimer is a timer as the host passes it.
type dueTimer struct {
	at     Time
	key    string
	offset uint64
}

// batch is what the host passes to a call.
type batch struct {
	timers                                                                     []dueTimer
	watermark                                                                  Time
	offsets                                                                    []uint64
	times, watermarks                                                          []int64
	typeNames                                                                  []string
	types                                                                      []uint16
	id, source, subject, tenant, dataSchema, dataContentType, extensions, data column
	members                                                                    []memberColumn
}

// Event is an event of the log. Attributes that the projection does not ask for are empty.
type Event struct {
	batch *batch
	index int
}

// Type returns the event's type.
func (e *Event) Type() string { return e.batch.typeNames[e.batch.types[e.index]] }

// Time returns the event's time.
func (e *Event) Time() Time { return Time(e.batch.times[e.index]) }

// Watermark returns the watermark before this event moves it. Before the first event it is
// the smallest Time.
func (e *Event) Watermark() Time { return Time(e.batch.watermarks[e.index]) }

// Offset returns the event's place in its partition of the log.
func (e *Event) Offset() uint64 { return e.batch.offsets[e.index] }

// ID returns the event's id.
func (e *Event) ID() string { return e.batch.id.text(e.index) }

// Source returns the event's source.
func (e *Event) Source() string { return e.batch.source.text(e.index) }

// Subject returns the event's subject.
func (e *Event) Subject() string { return e.batch.subject.text(e.index) }

// Tenant returns the event's tenant.
func (e *Event) Tenant() string { return e.batch.tenant.text(e.index) }

// DataSchema returns the event's dataschema.
func (e *Event) DataSchema() string { return e.batch.dataSchema.text(e.index) }

// DataContentType returns the event's datacontenttype.
func (e *Event) DataContentType() string { return e.batch.dataContentType.text(e.index) }

// Extensions returns the other extension attributes: a JSON object.
func (e *Event) Extensions() JSON { return JSON(e.batch.extensions.text(e.index)) }

// Data returns the payload as it was sent.
func (e *Event) Data() JSON { return JSON(e.batch.data.text(e.index)) }

// JSON is JSON text. A field of a row with this type is brought into canonical form.
type JSON string

// Value is a type that a member of events' data can have.
type Value interface {
	int64 | float64 | string | bool | Time | JSON
}

// Member is a member of the data of events that the host decodes:
//
//	var cents = lantern.Member[int64]{Name: "cents"}
//
// Its type is the kind of its values. List it in Projection.Members.
type Member[T Value] struct {
	Name string
	// index is its place in Projection.Members, from 1.
	index int
}

// AnyMember is a pointer to a [Member].
type AnyMember interface {
	declare(index int) error
	describe() (name string, of kind)
}

func (m *Member[T]) declare(index int) error {
	if m.Name == "" {
		return errors.New("a member has no name")
	}
	m.index = index + 1
	return nil
}

func (m *Member[T]) describe() (string, kind) { return m.Name, kindOf[T]() }

func kindOf[T Value]() kind {
	var none T
	switch any(none).(type) {
	case int64:
		return kindInteger
	case float64:
		return kindNumber
	case bool:
		return kindBoolean
	case Time:
		return kindTimestamp
	case JSON:
		return kindJSON
	}
	return kindText
}

// Get returns the value of the event, and whether the event has one. A value of another kind fails
// the event.
func (m *Member[T]) Get(event *Event) (T, bool) {
	var value T
	if m.index == 0 || m.index > len(event.batch.members) {
		fail("the member %q is read, but not listed in Members", m.Name)
		return value, false
	}
	column := &event.batch.members[m.index-1]
	i := event.index
	if !bit(column.validity, i) {
		for _, wrong := range column.mismatched {
			if int(wrong) == i {
				fail("the member %q is of another kind, or present more than once, or the data are not a JSON object", m.Name)
			}
		}
		return value, false
	}
	switch to := any(&value).(type) {
	case *int64:
		*to = column.integers[i]
	case *Time:
		*to = Time(column.integers[i])
	case *float64:
		*to = column.numbers[i]
	case *bool:
		*to = bit(column.booleans, i)
	case *string:
		*to = column.texts.text(i)
	case *JSON:
		*to = JSON(column.texts.text(i))
	}
	return value, true
}

// Of returns the value of the event. If the event has no value, or one of another kind, it fails.
func (m *Member[T]) Of(event *Event) T {
	value, found := m.Get(event)
	if !found {
		fail("the member %q is missing or null", m.Name)
	}
	return value
}

// Maybe returns the value as a Maybe, which is empty if the event has no value. Fields of
// rows can have this type.
func (m *Member[T]) Maybe(event *Event) Maybe[T] {
	value, found := m.Get(event)
	return Maybe[T]{Value: value, Set: found}
}

func bit(bits []byte, i int) bool { return bits[i/8]>>(i%8)&1 == 1 }

// Maybe is a value that may be missing.
type Maybe[T Value] struct {
	Value T
	Set   bool
}

// Some returns a value that is not missing.
func Some[T Value](value T) Maybe[T] { return Maybe[T]{Value: value, Set: true} }
