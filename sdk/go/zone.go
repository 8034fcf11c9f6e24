package lantern

import (
	_ "embed"
	"encoding/binary"
	"math"
	"sort"
)

// The table of time zones is the one of the Rust SDK (sdk/rust/zones.bin); a test compares
// the two files. sdk/rust/src/zone/table.rs describes its format.
//
//go:embed zones.bin
var zonesTable []byte

const (
	unitSeconds = 30
	listedUntil = 2101
)

// Zone is a time zone of the IANA database, since 1970.
type Zone struct {
	firstOffset int64
	changes     []zoneChange
	rule        *zoneRule
}

// zoneChange is a change of the clocks. Offsets are seconds ahead of UTC.
type zoneChange struct {
	start  Time
	offset int64
}

// zoneRule says when the clocks change in each year after the listed changes.
type zoneRule struct {
	standard, summer int64
	begins, ends     ruleDay
}

type ruleDay struct{ month, week, weekday, seconds int64 }

// span is a time without a change of the clocks.
type span struct {
	start, end Time
	offset     int64
}

// ZoneNamed returns a time zone, such as `Europe/Berlin`, or nil if there is none with this name.
// Call it in Setup and keep the zone in a variable.
func ZoneNamed(name string) *Zone {
	start := -1
	at := 0
	for zonesTable[at] != 0 {
		length := int(zonesTable[at])
		if string(zonesTable[at+1:at+1+length]) == name {
			start = int(zonesTable[at+1+length])<<8 | int(zonesTable[at+2+length])
		}
		at += length + 5
	}
	if start < 0 {
		return nil
	}
	return decodeZone(zonesTable[at+1+start:])
}

func decodeZone(bytes []byte) *Zone {
	natural := func() int64 {
		value, length := binary.Uvarint(bytes)
		bytes = bytes[length:]
		return int64(value)
	}
	signed := func() int64 {
		value, length := binary.Varint(bytes)
		bytes = bytes[length:]
		return value
	}
	offsets := make([]int64, natural())
	for i := range offsets {
		offsets[i] = signed()
	}
	zone := &Zone{firstOffset: offsets[0]}
	seconds := int64(0)
	for left := natural(); left > 0; left-- {
		change := natural()
		seconds += change / int64(len(offsets)) * unitSeconds
		zone.changes = append(zone.changes, zoneChange{Time(seconds) * Time(Second), offsets[change%int64(len(offsets))]})
	}
	if natural() != 1 {
		return zone
	}
	day := func() ruleDay { return ruleDay{natural(), natural(), natural(), signed()} }
	zone.rule = &zoneRule{standard: signed(), summer: signed()}
	zone.rule.begins, zone.rule.ends = day(), day()
	last := Time(0)
	if count := len(zone.changes); count > 0 {
		last = zone.changes[count-1].start
	}
	for year := yearOf(last); year < listedUntil; year++ {
		for _, change := range zone.rule.changes(year) {
			if change.start > last {
				zone.changes = append(zone.changes, change)
			}
		}
	}
	return zone
}

func yearOf(time Time) int64 {
	year, _, _ := dateOf(floorDiv(int64(time), int64(Day)))
	return year
}

// time returns the seconds since 1970, by the clock before the change.
func (d ruleDay) time(year int64) int64 {
	first := dayOf(year, d.month, 1)
	ahead := (d.weekday - (first + 4)) % 7
	if ahead < 0 {
		ahead += 7
	}
	for day := first + ahead + (d.week-1)*7; ; day -= 7 {
		if _, month, _ := dateOf(day); month == d.month {
			return day*86400 + d.seconds
		}
	}
}

func (r *zoneRule) changes(year int64) [2]zoneChange {
	begins := zoneChange{Time(r.begins.time(year)-r.standard) * Time(Second), r.summer}
	ends := zoneChange{Time(r.ends.time(year)-r.summer) * Time(Second), r.standard}
	if begins.start < ends.start {
		return [2]zoneChange{begins, ends}
	}
	return [2]zoneChange{ends, begins}
}

func (z *Zone) span(time Time) span {
	after := sort.Search(len(z.changes), func(i int) bool { return z.changes[i].start > time })
	found := span{math.MinInt64, math.MaxInt64, z.firstOffset}
	if after > 0 {
		found.start, found.offset = z.changes[after-1].start, z.changes[after-1].offset
	}
	if after < len(z.changes) {
		found.end = z.changes[after].start
	}
	if z.rule == nil || found.end != math.MaxInt64 {
		return found
	}
	last := found.start
	for year := yearOf(time) - 1; year <= yearOf(time)+1; year++ {
		for _, change := range z.rule.changes(year) {
			if change.start <= last {
				continue
			}
			if change.start > time {
				found.end = change.start
				return found
			}
			found = span{change.start, math.MaxInt64, change.offset}
		}
	}
	return found
}

// Offset returns by how much the zone's clocks are ahead of UTC.
func (z *Zone) Offset(time Time) Duration { return Duration(z.span(time).offset) * Second }

func (z *Zone) local(time Time) Time { return time + Time(z.Offset(time)) }

// Date returns the date on the zone's clocks: `2026-03-29`.
func (z *Zone) Date(time Time) string { return z.local(time).String()[:10] }

// Hour returns the hour of the zone's clocks that contains `time`. A change of the clocks ends
// an hour and begins another one.
func (z *Zone) Hour(time Time) Window {
	within := z.span(time)
	local := z.local(time)
	start := time - (local - local.Floor(Hour))
	return Window{max(start, within.start), min(start+Time(Hour), within.end)}
}

// midnight returns the first moment at which the clocks show the midnight at which a day
// begins, or a later time.
func (z *Zone) midnight(day int64) Time {
	local := Time(day) * Time(Day)
	for within := z.span(local - Time(Day)); ; within = z.span(within.end) {
		at := max(local-Time(within.offset)*Time(Second), within.start)
		if at < within.end || within.end == math.MaxInt64 {
			return at
		}
	}
}

// window returns the period that contains `time`. `first` returns the first day of the period that
// contains a day. A period has at most `days` days.
func (z *Zone) window(time Time, days int64, first func(day int64) int64) Window {
	today := floorDiv(int64(z.local(time)), int64(Day))
	day := first(first(today) + days)
	for z.midnight(day) > time {
		day = first(day - 1)
	}
	return Window{z.midnight(day), z.midnight(first(day + days))}
}

// Day returns the day that contains `time`.
func (z *Zone) Day(time Time) Window {
	return z.window(time, 1, func(day int64) int64 { return day })
}

// Week returns the week from Monday that contains `time`.
func (z *Zone) Week(time Time) Window {
	return z.window(time, 7, func(day int64) int64 { return day - ((day+3)%7+7)%7 })
}

// Month returns the month that contains `time`.
func (z *Zone) Month(time Time) Window {
	return z.window(time, 31, func(day int64) int64 {
		year, month, _ := dateOf(day)
		return dayOf(year, month, 1)
	})
}

// Year returns the year that contains `time`.
func (z *Zone) Year(time Time) Window {
	return z.window(time, 366, func(day int64) int64 {
		year, _, _ := dateOf(day)
		return dayOf(year, 1, 1)
	})
}
