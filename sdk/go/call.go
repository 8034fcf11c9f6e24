package lantern

import (
	"fmt"
	"math"
	"runtime"
	"strings"
)

// problem is the reason why an event cannot be applied.
type problem struct {
	message string
	// fault is set if the reason may be something other than the event in progress, or if the
	// changes of this event cannot be undone. The whole call then fails.
	fault bool
}

// callState is the state of the host's call in progress.
type callState struct {
	batch *batch
	// cause is the index of the timer or event in progress.
	cause uint32
	// inEvent is whether Apply is running.
	inEvent bool
	// inSetup is whether Setup is running.
	inSetup bool
	// tenant is the tenant of the timer or event in progress; empty if it has none.
	tenant     string
	failed     *problem
	parameters string
	// sent is whether rows that the event in progress has changed were already sent to the host.
	sent bool
	// touched has the tables with rows that the event in progress has changed.
	touched []AnyTable
	timers  []timerChange
	// emitted are the events that go to the host at the end of the call.
	emitted []newEvent
}

var call callState

// fail notes why the event in progress cannot be applied. Only the first reason is kept.
func fail(format string, values ...any) {
	if call.failed == nil {
		call.failed = &problem{message: fmt.Sprintf(format, values...)}
	}
}

func fault(format string, values ...any) {
	if call.failed == nil {
		call.failed = &problem{message: fmt.Sprintf(format, values...), fault: true}
	}
}

// Fail rejects the event in progress, like an error that Apply returns. Only the first reason
// is kept. In OnTimer and Prepare, Fail makes the whole call fail.
func Fail(message string) {
	if call.failed == nil {
		call.failed = &problem{message: message}
	}
}

// Failed is whether the event in progress has failed: the projection has called Fail, or a function
// of this package has failed.
func Failed() bool { return call.failed != nil }

// Add returns a + b. The event fails if the sum is outside of the range of integers.
func Add(a, b int64) int64 {
	sum := a + b
	if (a^sum)&(b^sum) < 0 {
		fail("a sum is outside of the range of integers")
		return 0
	}
	return sum
}

// Multiply returns a · b. The event fails if the product is outside of the range of integers.
func Multiply(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	product := a * b
	if product/b != a || (a == -1 && b == math.MinInt64) || (b == -1 && a == math.MinInt64) {
		fail("a product is outside of the range of integers")
		return 0
	}
	return product
}

// Level is how important an entry of the log is.
type Level uint8

// Levels of the log.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)

// Log writes an entry to the plugin's log, which belongs to the event in progress.
func Log(level Level, message string) { hostLog(call.cause, level, message) }

// guarded runs a function of the projection: an error and a panic become the reason why the
// event fails.
func guarded(run func() error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			call.failed = &problem{message: fmt.Sprintf("panic: %v%s", panicked, place()), fault: true}
		}
	}()
	if err := run(); err != nil {
		Fail(err.Error())
	}
}

// place returns where a panic began: the first function on the stack that belongs neither to the
// runtime nor to this package.
func place() string {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers[:])])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") && !strings.HasPrefix(frame.Function, "lantern.") {
			file := frame.File[strings.LastIndexByte(frame.File, '/')+1:]
			if frame.Line > 0 {
				return fmt.Sprintf(" at %s:%d", file, frame.Line)
			}
			return ""
		}
		if !more {
			return ""
		}
	}
}

// setup readies this instance. It returns why it cannot, or an empty text.
func setup(parameters string) string {
	if registered == nil {
		return "no projection is registered: call lantern.Register in an init function"
	}
	call = callState{inSetup: true, parameters: parameters}
	for i, table := range registered.Tables {
		if err := table.open(uint32(i)); err != nil {
			return err.Error()
		}
	}
	for i, member := range registered.Members {
		if err := member.declare(i); err != nil {
			return err.Error()
		}
	}
	if registered.Apply == nil {
		return "the projection has no Apply"
	}
	if registered.Setup != nil {
		guarded(registered.Setup)
	}
	call.inSetup = false
	if call.failed != nil {
		return call.failed.message
	}
	return ""
}

// failure is why a call failed.
type failure struct {
	cause   uint32
	message string
}

// apply folds a batch. It returns nil, or the reason why the call failed.
func apply(given *batch) *failure {
	call = callState{batch: given, emitted: call.emitted[:0], touched: call.touched[:0], timers: call.timers[:0]}
	if !fire(given) {
		return &failure{call.cause, call.failed.message}
	}
	if len(given.times) > 0 && registered.Prepare != nil {
		call.cause = uint32(len(given.timers))
		events := make([]Event, len(given.times))
		for i := range events {
			events[i] = Event{batch: given, index: i}
		}
		guarded(func() error { return registered.Prepare(events) })
	}
	goesOn := call.failed == nil
	for i := 0; i < len(given.times) && goesOn; i++ {
		goesOn = applyEvent(given, i) || (call.failed == nil && registered.OnFailure == ParkEvent)
	}
	if call.failed == nil {
		flush()
	}
	if call.failed != nil {
		// Rows in memory may differ from the rows of the host. So the host drops the instance.
		return &failure{call.cause, call.failed.message}
	}
	hostEmit(call.emitted)
	return nil
}

func fire(given *batch) bool {
	for i, due := range given.timers {
		tenant, rest, _ := splitTenant(due.key)
		call.cause = uint32(i)
		call.tenant = tenant
		timer := Timer{Key: rest, Tenant: tenant, At: due.at, Watermark: given.watermark, Offset: due.offset, fullKey: due.key}
		if registered.OnTimer != nil {
			guarded(func() error { return registered.OnTimer(&timer) })
		}
		settle()
		if call.failed != nil {
			return false
		}
	}
	return true
}

// applyEvent returns whether the event was applied, rather than rejected.
func applyEvent(given *batch, i int) bool {
	event := Event{batch: given, index: i}
	emittedBefore := len(call.emitted)
	call.cause = uint32(len(given.timers) + i)
	call.tenant = given.tenant.view(i)
	call.inEvent = true
	call.timers = call.timers[:0]
	guarded(func() error { return registered.Apply(&event) })
	settle()
	call.inEvent = false
	if call.failed != nil {
		if call.failed.fault || call.sent {
			return false
		}
		for _, table := range call.touched {
			table.undo()
		}
		call.touched = call.touched[:0]
		call.emitted = call.emitted[:emittedBefore]
		hostReject(call.cause, call.failed.message)
		call.failed = nil
		return false
	}
	for _, change := range call.timers {
		change.send()
	}
	for _, table := range call.touched {
		table.accept()
	}
	call.touched = call.touched[:0]
	call.sent = false
	makeRoom()
	return true
}

// settle checks the rows that the event or timer in progress has changed.
func settle() {
	for _, table := range call.touched {
		if call.failed == nil {
			table.check()
		}
	}
	if !call.inEvent && call.failed == nil {
		for _, table := range call.touched {
			table.accept()
		}
		call.touched = call.touched[:0]
		makeRoom()
	}
}

// flush passes all changed rows to the host.
func flush() {
	for _, table := range registered.Tables {
		table.flush()
	}
}

// rowsMax is how many rows all tables together keep in memory.
const rowsMax = 16384

// makeRoom drops rows from memory if there are too many.
func makeRoom() {
	rows := 0
	for _, table := range registered.Tables {
		rows += table.size()
	}
	if rows <= rowsMax {
		return
	}
	flush()
	for _, table := range registered.Tables {
		table.forget()
	}
}
