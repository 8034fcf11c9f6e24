package lantern

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unsafe"
)

// Table is a table whose rows are the struct T:
//
//	type product struct {
//		Product string `lantern:"product"`
//		Cents   int64  `lantern:"cents,sum,unit=cent"`
//	}
//
//	var byProduct = lantern.Table[product]{Name: "by_product", Description: "Revenue by product."}
//
// List a pointer to it in Projection.Tables. Fields have the types int64, float64, string,
// bool, [Time], [JSON], [Maybe] of one of them, [Distinct] and [Percentiles]. The tag has the
// name, how the values of several partitions are combined (same, sum, min, max, newest), and
// the unit.
type Table[T any] struct {
	Name        string
	Description string
	// Private tables cannot be seen by readers. With the row type [Bytes] their rows are any
	// bytes.
	Private bool
	// PerTenant is set if every row belongs to a tenant. [InTenant] then creates the keys.
	PerTenant bool
	// NewestBy is the timestamp field that decides between values with the merge `newest`.
	NewestBy string
	// Retention is how long a row is kept after its last change; 0 is for ever.
	Retention Duration

	id   uint32
	plan *plan
	rows map[string]*entry[T]
	// changed are the rows that the host does not have yet.
	changed []*entry[T]
	// touched are the rows that the event in progress has changed.
	touched []*entry[T]
}

// AnyTable is a pointer to a [Table].
type AnyTable interface {
	describe() tableInfo
	open(id uint32) error
	check()
	undo()
	accept()
	flush()
	forget()
	size() int
}

// tableInfo describes a table to the host.
type tableInfo struct {
	name, description string
	public, perTenant bool
	fields            []field
	newestBy          string
	retention         Duration
}

// state is a row in memory.
type state[T any] struct {
	row    T
	exists bool
	// listed is whether it is in `changed`.
	listed bool
	// cause is what changed it last.
	cause uint32
}

type entry[T any] struct {
	key string
	now state[T]
	// touched is whether the event in progress has changed the row; before is the row as it was
	// before this change.
	touched bool
	before  state[T]
}

// Found is a row that a scan has found. Do not change it.
type Found[T any] struct {
	Key string
	Row *T
}

func (t *Table[T]) describe() tableInfo {
	info := tableInfo{t.Name, t.Description, !t.Private, t.PerTenant, nil, t.NewestBy, t.Retention}
	if !t.Private && t.plan != nil {
		info.fields = t.plan.fields
	}
	return info
}

func (t *Table[T]) open(id uint32) error {
	t.id = id
	t.rows = make(map[string]*entry[T])
	t.changed, t.touched = nil, nil
	if t.plan != nil {
		return nil
	}
	made, err := planOf(reflect.TypeFor[T]())
	if err != nil {
		return fmt.Errorf("the table %q: %w", t.Name, err)
	}
	if made.raw && !t.Private {
		return fmt.Errorf("the table %q: rows of bytes need Private", t.Name)
	}
	t.plan = made
	return nil
}

func (t *Table[T]) fits(key string) bool {
	if call.inSetup || call.batch == nil {
		fail("the table %q: tables cannot be used outside of a call", t.Name)
		return false
	}
	if t.plan == nil {
		fail("the table %q is used, but not listed in Tables", t.Name)
		return false
	}
	tenant, rest, ok := splitTenant(key)
	why := ""
	switch {
	case rest == "":
		why = "a key cannot be empty"
	case !ok || !t.PerTenant && tenant != "":
		why = "U+0000 cannot be part of a key"
	case t.PerTenant && tenant == "":
		why = "the table is per tenant: make the key by InTenant"
	case len(key) > keyBytesMax:
		why = fmt.Sprintf("a key has %d bytes, and the limit is %d", len(key), keyBytesMax)
	default:
		return true
	}
	fail("the table %q: %s", t.Name, why)
	return false
}

// find returns the row under a key, which it reads from the host if it is not in memory.
func (t *Table[T]) find(key string) *entry[T] {
	if found := t.rows[key]; found != nil {
		return found
	}
	key = strings.Clone(key)
	made := &entry[T]{key: key}
	hostGet(t.id, key, func(stored string) {
		made.now.exists = true
		t.decode(key, stored, &made.now.row)
	})
	t.rows[key] = made
	return made
}

func (t *Table[T]) decode(key, stored string, row *T) {
	if !t.plan.decode(stored, unsafe.Pointer(row)) {
		fault("the table %q: the stored row of the key %q is not what this plugin writes", t.Name, key)
	}
}

// touch notes that the event in progress changes a row.
func (t *Table[T]) touch(e *entry[T]) {
	if !e.touched {
		if len(t.touched) == 0 {
			call.touched = append(call.touched, t)
		}
		t.touched = append(t.touched, e)
		e.touched = true
		e.before = e.now
		t.plan.share(unsafe.Pointer(&e.before.row))
	}
	if !e.now.listed {
		e.now.listed = true
		t.changed = append(t.changed, e)
	}
	e.now.cause = call.cause
}

// Get returns the row under a key, or nil if there is none. The row is valid until the end of the
// event. Do not change it; [Table.Row] returns a row that you may change.
func (t *Table[T]) Get(key string) *T {
	if !t.fits(key) {
		return nil
	}
	if found := t.find(key); found.now.exists {
		return &found.now.row
	}
	return nil
}

// Row returns the row under a key, or a new row if there is none, for the caller to change. It
// is never nil, and is valid until the end of the event.
func (t *Table[T]) Row(key string) *T {
	row, _ := t.RowOrNew(key)
	return row
}

// RowOrNew returns the same as Row, and whether the row is new.
func (t *Table[T]) RowOrNew(key string) (row *T, isNew bool) {
	if !t.fits(key) {
		return new(T), true
	}
	found := t.find(key)
	t.touch(found)
	isNew = !found.now.exists
	found.now.exists = true
	return &found.now.row, isNew
}

// Put sets the row under a key.
func (t *Table[T]) Put(key string, row T) {
	*t.Row(key) = row
}

// Delete deletes the row under a key, if there is one.
func (t *Table[T]) Delete(key string) {
	if !t.fits(key) {
		return
	}
	found := t.find(key)
	if !found.now.exists {
		return
	}
	t.touch(found)
	found.now.exists = false
	found.now.row = *new(T)
}

// Prefetch reads the rows of many keys in one call of the host, so that later reads of these rows
// need no call. Use it in Prepare, if a table has many more rows than fit in memory.
func (t *Table[T]) Prefetch(keys ...string) {
	wanted := keys[:0:0]
	for _, key := range keys {
		if !t.fits(key) {
			return
		}
		if t.rows[key] == nil {
			t.rows[key] = &entry[T]{key: key}
			wanted = append(wanted, key)
		}
	}
	if len(wanted) == 0 {
		return
	}
	hostGetMany(t.id, wanted, func(i int, stored string) {
		made := t.rows[wanted[i]]
		made.now.exists = true
		t.decode(wanted[i], stored, &made.now.row)
	})
}

// scanPage is how many rows one call of the host returns.
const scanPage = 1000

// Scan returns at most `limit` rows with keys from `start` up to but not including `end` (empty: no
// bound). The rows are in the order of the bytes of their keys, or in reverse order if `reverse` is
// set. Scan sees the writes of this call. The rows are copies.
func (t *Table[T]) Scan(start, end string, limit int, reverse bool) []Found[T] {
	if call.failed != nil {
		return nil
	}
	if t.plan == nil || call.batch == nil {
		fail("the table %q is used, but not listed in Tables", t.Name)
		return nil
	}
	t.check()
	if call.failed != nil {
		return nil
	}
	if call.inEvent && len(t.touched) > 0 {
		call.sent = true
	}
	t.flush()
	var found []Found[T]
	for len(found) < limit && call.failed == nil {
		wanted := min(limit-len(found), scanPage)
		length := 0
		hostScan(t.id, start, end, uint32(wanted), reverse, func(key, stored string) {
			length++
			row := Found[T]{strings.Clone(key), new(T)}
			t.decode(row.Key, stored, row.Row)
			found = append(found, row)
		})
		if length < wanted {
			break
		}
		last := found[len(found)-1].Key
		if reverse {
			end = last
		} else {
			start = last + "\x00"
		}
	}
	return found
}

// check fails the event if it has left a value in a row that cannot be stored.
func (t *Table[T]) check() {
	for _, e := range t.touched {
		if !e.now.exists {
			continue
		}
		if err := t.plan.check(unsafe.Pointer(&e.now.row)); err != nil {
			fail("the table %q, the key %q: %s", t.Name, e.key, err)
			return
		}
	}
}

// undo restores the rows that the event in progress has changed.
func (t *Table[T]) undo() {
	// unlist removes a row from the end of the list of changed rows. So the row that was changed
	// last is undone first.
	for _, e := range slices.Backward(t.touched) {
		e.now = e.before
		if !e.now.listed {
			t.unlist(e)
		}
	}
	t.accept()
}

// unlist removes a row from the list of changed rows. It searches from the end, where the rows
// of the event in progress are.
func (t *Table[T]) unlist(e *entry[T]) {
	for i := len(t.changed) - 1; i >= 0; i-- {
		if t.changed[i] == e {
			t.changed = append(t.changed[:i], t.changed[i+1:]...)
			return
		}
	}
}

// accept ends the event in progress.
func (t *Table[T]) accept() {
	for _, e := range t.touched {
		e.touched, e.before = false, state[T]{}
	}
	t.touched = t.touched[:0]
}

// flush passes the changed rows to the host.
func (t *Table[T]) flush() {
	if len(t.changed) == 0 || call.failed != nil {
		return
	}
	var puts, deletes writes
	for _, e := range t.changed {
		e.now.listed = false
		if !e.now.exists {
			deletes.add(e.now.cause, e.key)
			continue
		}
		puts.add(e.now.cause, e.key)
		puts.values = t.plan.encode(puts.values, unsafe.Pointer(&e.now.row))
		puts.valueEnds = append(puts.valueEnds, uint32(len(puts.values)))
	}
	clear(t.changed)
	t.changed = t.changed[:0]
	if len(puts.causes) > 0 {
		hostPutMany(t.id, &puts)
	}
	if len(deletes.causes) > 0 {
		hostDeleteMany(t.id, &deletes)
	}
}

// forget drops all rows from memory. Call flush before.
func (t *Table[T]) forget() { t.rows = make(map[string]*entry[T]) }

func (t *Table[T]) size() int { return len(t.rows) }

// writes are the rows that a call passes to the host, in columns.
type writes struct {
	causes, keyEnds, valueEnds []uint32
	keys, values               []byte
}

func (w *writes) add(cause uint32, key string) {
	w.causes = append(w.causes, cause)
	w.keys = append(w.keys, key...)
	w.keyEnds = append(w.keyEnds, uint32(len(w.keys)))
}
