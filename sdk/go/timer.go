package lantern

import (
	"slices"
	"strconv"
)

// Timer is a timer that fires.
type Timer struct {
	// Key is without the tenant.
	Key string
	// Tenant is empty if it has none.
	Tenant string
	// At is the time for which the timer was set.
	At Time
	// Watermark is the watermark at which it fires.
	Watermark Time
	// Offset is the offset of the event that set the timer.
	Offset uint64

	fullKey string
}

// FullKey returns the key with the tenant, as it was set.
func (t *Timer) FullKey() string { return t.fullKey }

// ownTimer is the first character of the keys of timers that the windows of this package set.
const ownTimer = "\x01"

type timerChange struct {
	cancels bool
	at      Time
	key     string
}

func (c timerChange) send() {
	if c.cancels {
		hostCancelTimer(call.cause, c.key)
	} else {
		hostSetTimer(call.cause, c.at, c.key)
	}
}

// newEvent is an event to append to the log.
type newEvent struct {
	cause         uint32
	kind, subject string
	time          Time
	data          JSON
}

// SetTimer sets the timer of a key, or changes its time. It fires when the watermark reaches `at`.
// A key from [InTenant] belongs to the tenant, which must be the tenant of the event.
func SetTimer(at Time, key string) {
	if timerFits(key) {
		changeTimer(timerChange{at: at, key: key})
	}
}

// CancelTimer removes the timer of a key, if there is one.
func CancelTimer(key string) {
	if timerFits(key) {
		changeTimer(timerChange{cancels: true, key: key})
	}
}

func timerFits(key string) bool {
	tenant, rest, ok := splitTenant(key)
	switch {
	case registered.Tick == 0:
		fail("timers need event time: set Tick in the projection")
	case !ok:
		fail("U+0000 cannot be part of a timer's key")
	case tenant != "" && tenant != call.tenant:
		fail("a timer's tenant is not that of the event or timer that sets it")
	case rest == "":
		fail("a timer's key cannot be empty")
	case rest[0] == ownTimer[0]:
		fail("keys that begin with U+0001 are those of this package's windows")
	case len(key) > keyBytesMax:
		fail("a timer's key has %d bytes, and the limit is %d", len(key), keyBytesMax)
	default:
		return true
	}
	return false
}

func changeTimer(change timerChange) {
	if call.inEvent {
		call.timers = append(call.timers, change)
	} else if call.failed == nil {
		change.send()
	}
}

// setOwnTimer sets a timer of the windows of a table.
func setOwnTimer(table uint32, at Time, tenant, rest string) {
	if registered.Tick == 0 {
		fail("windows need event time: set Tick in the projection")
		return
	}
	key := ownPrefix(table) + rest
	if tenant != "" {
		key = InTenant(tenant, key)
	}
	changeTimer(timerChange{at: at, key: key})
}

func ownPrefix(table uint32) string {
	return ownTimer + strconv.FormatUint(uint64(table), 10) + "/"
}

// IsOwn is whether the timer was set by the windows of this package and not by [SetTimer].
func (t *Timer) IsOwn() bool { return len(t.Key) > 0 && t.Key[0] == ownTimer[0] }

// Emit appends an event to the log, when the call has succeeded. The event's tenant is the tenant
// of the event or timer in progress.
func Emit(eventType, subject string, time Time, data JSON) {
	if !slices.Contains(registered.Emits, eventType) {
		fail("the event type %q is not in Emits", eventType)
		return
	}
	call.emitted = append(call.emitted, newEvent{call.cause, eventType, subject, time, data})
}
