// Package lantern is the SDK for projections in Go. README.md describes it.
//
// A projection is a package main that calls [Register] in an init function:
//
//	func init() {
//		lantern.Register(lantern.Projection{
//			Name: "revenue", Version: "0.1.0", Description: "Revenue by product",
//			Subscribes: []string{"order.placed"},
//			Members:    []lantern.AnyMember{&product, &cents},
//			Tables:     []lantern.AnyTable{&byProduct},
//			OnFailure:  lantern.ParkEvent,
//			Apply:      apply,
//		})
//	}
//
// Call the functions of this package only from the functions in [Projection], such as Apply. Do not
// call them from goroutines that these functions start.
package lantern

// OnFailure says what the host does with an event that cannot be applied.
type OnFailure uint8

// What the host does with an event that cannot be applied.
const (
	// ParkSubject parks the event, and all later events of its subject behind it.
	ParkSubject OnFailure = iota
	// ParkEvent parks the event alone: right only where order does not matter.
	ParkEvent
	// Halt stops the projection until a person acts.
	Halt
)

// Attributes of events that a projection requests. The type and the time are always present.
type Attributes uint8

// Attributes that a projection can ask for.
const (
	ID Attributes = 1 << iota
	Source
	Subject
	Tenant
	DataSchema
	DataContentType
	Extensions
	// Data is the payload as it was sent.
	Data
)

// Projection is the definition of a projection: its manifest and its functions.
type Projection struct {
	// Name has lower-case letters, digits and hyphens.
	Name string
	// Version is a semantic version.
	Version     string
	Description string
	// Subscribes lists event types: exact (`order.placed`), by prefix (`order.*`) or all
	// (`*`).
	Subscribes []string
	Attributes Attributes
	// Members are the members of events' data that the host decodes.
	Members []AnyMember
	Tables  []AnyTable
	// Emits lists the types of the events that it may emit.
	Emits []string
	// AllowedLateness is how much older than the newest event an event may be without being
	// late, in microseconds.
	AllowedLateness Duration
	// Tick is the step in which the watermark moves, in microseconds. Timers and windows
	// need it. With 0 there is no event time.
	Tick      Duration
	OnFailure OnFailure
	// Parameters is the JSON Schema of the parameters; empty if it takes none.
	Parameters string
	// Setup reads the parameters, and fails if they are wrong. It may be nil.
	Setup func() error
	// Apply folds an event into the tables. An error rejects the event: it is parked with the
	// error's text, and the changes that Apply made for it are undone.
	Apply func(event *Event) error
	// OnTimer is called for each timer that fires. It may be nil. After an error the host
	// stops the projection.
	OnTimer func(timer *Timer) error
	// Prepare gets all events of a batch before the first one is applied. Call Prefetch here. It
	// may be nil.
	Prepare func(events []Event) error
}

// registered is the projection of this program.
var registered *Projection

// Register says which projection this program is. Call it once, in an init function.
func Register(projection Projection) {
	registered = &projection
}

// attributes returns the attributes that the projection needs.
func (p *Projection) attributes() Attributes {
	all := p.Attributes
	for _, table := range p.Tables {
		if table.describe().perTenant {
			all |= Tenant
		}
	}
	return all
}
