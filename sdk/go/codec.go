package lantern

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// kind is the kind of a field, by the numbers of the contract.
type kind uint8

const (
	kindInteger kind = iota
	kindNumber
	kindText
	kindBoolean
	kindTimestamp
	kindJSON
	kindDistinct
	kindPercentiles
)

// merges are the ways to combine values of several partitions, by the numbers of the contract.
var merges = [...]string{"same", "sum", "min", "max", "newest", "sketch"}

const mergeSketch = 5

// Bytes is the row type of private tables whose rows are any bytes.
type Bytes string

// field describes a member of the struct of a table's rows.
type field struct {
	name  string
	kind  kind
	merge uint8
	unit  string
	// at is the offset of the value in the struct.
	at uintptr
	// maybe is whether the field is a Maybe, whose value may be missing; set is then the offset
	// of its member Set.
	maybe bool
	set   uintptr
}

// plan is how rows of a struct are written and read.
type plan struct {
	fields []field
	// raw is whether a row is not a struct but Bytes.
	raw bool
	// sketches is whether a field is a sketch, whose memory rows cannot share.
	sketches bool
}

var kinds = map[reflect.Type]kind{
	reflect.TypeFor[int64]():       kindInteger,
	reflect.TypeFor[float64]():     kindNumber,
	reflect.TypeFor[string]():      kindText,
	reflect.TypeFor[bool]():        kindBoolean,
	reflect.TypeFor[Time]():        kindTimestamp,
	reflect.TypeFor[JSON]():        kindJSON,
	reflect.TypeFor[Distinct]():    kindDistinct,
	reflect.TypeFor[Percentiles](): kindPercentiles,
}

// planOf reads the fields and tags of a struct.
func planOf(row reflect.Type) (*plan, error) {
	if row == reflect.TypeFor[Bytes]() {
		return &plan{raw: true}, nil
	}
	if row.Kind() != reflect.Struct {
		return nil, fmt.Errorf("a row is %s, which is neither a struct nor lantern.Bytes", row)
	}
	made := &plan{}
	for i := range row.NumField() {
		member := row.Field(i)
		tag, tagged := member.Tag.Lookup("lantern")
		if tag == "-" || !member.IsExported() && !tagged {
			continue
		}
		one, err := fieldOf(member, tag)
		if err != nil {
			return nil, fmt.Errorf("the field %s: %w", member.Name, err)
		}
		made.sketches = made.sketches || one.merge == mergeSketch
		made.fields = append(made.fields, one)
	}
	if len(made.fields) == 0 {
		return nil, errors.New("a row has no fields")
	}
	return made, nil
}

func fieldOf(member reflect.StructField, tag string) (field, error) {
	one := field{at: member.Offset}
	of := member.Type
	if of.Kind() == reflect.Struct && of.NumField() == 2 && of.Field(1).Name == "Set" {
		one.maybe = true
		one.set = member.Offset + of.Field(1).Offset
		of = of.Field(0).Type
	}
	known, ok := kinds[of]
	if !ok {
		return one, fmt.Errorf("%s is not a type that a row can hold", of)
	}
	one.kind = known
	parts := strings.Split(tag, ",")
	one.name = parts[0]
	if one.name == "" {
		return one, errors.New("it needs a name: `lantern:\"name\"`")
	}
	if known == kindDistinct || known == kindPercentiles {
		one.merge = mergeSketch
	}
	for _, part := range parts[1:] {
		if unit, found := strings.CutPrefix(part, "unit="); found {
			one.unit = unit
			continue
		}
		at := -1
		for merge, name := range merges[:mergeSketch] {
			if name == part {
				at = merge
			}
		}
		if at < 0 || one.merge == mergeSketch {
			return one, fmt.Errorf("%q is not one of same, sum, min, max, newest and unit=…", part)
		}
		one.merge = uint8(at)
	}
	return one, nil
}

func pointer[T any](row unsafe.Pointer, at uintptr) *T { return (*T)(unsafe.Add(row, at)) }

// encode appends a row as it is stored.
func (p *plan) encode(out []byte, row unsafe.Pointer) []byte {
	if p.raw {
		return append(out, *(*Bytes)(row)...)
	}
	for i := range p.fields {
		f := &p.fields[i]
		out = append(out, ",{"[b2i(i == 0)])
		out = append(appendText(out, f.name), ':')
		if f.maybe && !*pointer[bool](row, f.set) {
			out = append(out, "null"...)
			continue
		}
		switch f.kind {
		case kindInteger:
			out = strconv.AppendInt(out, *pointer[int64](row, f.at), 10)
		case kindNumber:
			out = appendNumber(out, *pointer[float64](row, f.at))
		case kindText:
			out = appendText(out, *pointer[string](row, f.at))
		case kindBoolean:
			out = strconv.AppendBool(out, *pointer[bool](row, f.at))
		case kindTimestamp:
			out = append(appendTime(append(out, '"'), *pointer[Time](row, f.at)), '"')
		case kindJSON:
			if text := *pointer[string](row, f.at); text == "" {
				out = append(out, "null"...)
			} else {
				out = append(out, text...)
			}
		case kindDistinct:
			out = pointer[Distinct](row, f.at).append(out)
		case kindPercentiles:
			out = pointer[Percentiles](row, f.at).append(out)
		}
	}
	return append(out, '}')
}

func b2i(value bool) int {
	if value {
		return 1
	}
	return 0
}

// check returns an error if a value of the row cannot be stored. It also brings fields with
// JSON into canonical form.
func (p *plan) check(row unsafe.Pointer) error {
	for i := range p.fields {
		f := &p.fields[i]
		if f.maybe && !*pointer[bool](row, f.set) {
			continue
		}
		switch f.kind {
		case kindNumber:
			if value := *pointer[float64](row, f.at); math.IsNaN(value) || math.IsInf(value, 0) {
				return fmt.Errorf("the field %q is NaN or infinite: only finite numbers can be stored", f.name)
			}
		case kindTimestamp:
			if value := *pointer[Time](row, f.at); value < rowTimeMin || value >= rowTimeEnd {
				return fmt.Errorf("the field %q is outside of the range of timestamps", f.name)
			}
		case kindText:
			if !utf8.ValidString(*pointer[string](row, f.at)) {
				return fmt.Errorf("the field %q is not UTF-8", f.name)
			}
		case kindJSON:
			json := pointer[string](row, f.at)
			if *json == "" {
				continue
			}
			text, err := canonicalJSON(*json)
			if err != nil {
				return fmt.Errorf("the field %q: %w", f.name, err)
			}
			*json = text
		}
	}
	return nil
}

// share is called after a row was copied as a struct. It copies the memory of sketches too.
// Otherwise the two structs would use the same memory.
func (p *plan) share(row unsafe.Pointer) {
	if !p.sketches {
		return
	}
	for i := range p.fields {
		switch f := &p.fields[i]; f.kind {
		case kindDistinct:
			pointer[Distinct](row, f.at).unshare()
		case kindPercentiles:
			pointer[Percentiles](row, f.at).unshare()
		}
	}
}

// decode reads a stored row. It keeps no reference to the memory of `stored`.
func (p *plan) decode(stored string, row unsafe.Pointer) bool {
	if p.raw {
		*(*Bytes)(row) = Bytes(strings.Clone(stored))
		return true
	}
	r := &reader{text: stored}
	for i := range p.fields {
		f := &p.fields[i]
		if r.next() != ",{"[b2i(i == 0)] {
			return false
		}
		r.at++
		r.space()
		if name, ok := r.string(); !ok || name != f.name || r.next() != ':' {
			return false
		}
		r.at++
		r.space()
		if !f.decode(r, row) {
			return false
		}
	}
	if r.next() != '}' {
		return false
	}
	r.at++
	return r.next() == 0
}

func (f *field) decode(r *reader, row unsafe.Pointer) bool {
	if f.maybe || f.kind == kindJSON {
		if r.null() {
			return true
		}
		if f.maybe {
			*pointer[bool](row, f.set) = true
		}
	}
	ok := false
	switch f.kind {
	case kindInteger:
		*pointer[int64](row, f.at), ok = r.integer()
	case kindNumber:
		*pointer[float64](row, f.at), ok = r.double()
	case kindText:
		var text string
		text, ok = r.string()
		*pointer[string](row, f.at) = strings.Clone(text)
	case kindBoolean:
		value := r.expect("true")
		*pointer[bool](row, f.at), ok = value, value || r.expect("false")
	case kindTimestamp:
		var text string
		if text, ok = r.string(); ok {
			*pointer[Time](row, f.at), ok = parseTime(text)
		}
	case kindJSON:
		text, err := r.value()
		*pointer[string](row, f.at), ok = strings.Clone(text), err == nil
	case kindDistinct:
		ok = pointer[Distinct](row, f.at).read(r)
	case kindPercentiles:
		ok = pointer[Percentiles](row, f.at).read(r)
	}
	return ok
}
