package lantern

import (
	"errors"
	"math"
	"sort"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// depthMax is how deep JSON in a row may be nested.
const depthMax = 64

var (
	errJSON  = errors.New("this is not JSON")
	errDepth = errors.New("JSON is nested more than 64 deep")
	errRange = errors.New("a number of the JSON is outside of the range of doubles")
)

// ---- Writing --------------------------------------------------------------------------------

func appendText(out []byte, text string) []byte {
	const hex = "0123456789abcdef"
	out = append(out, '"')
	start := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		out = append(out, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\b':
			out = append(out, '\\', 'b')
		case '\t':
			out = append(out, '\\', 't')
		case '\n':
			out = append(out, '\\', 'n')
		case '\f':
			out = append(out, '\\', 'f')
		case '\r':
			out = append(out, '\\', 'r')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	out = append(out, text[start:]...)
	return append(out, '"')
}

// appendNumber writes a finite double.
func appendNumber(out []byte, value float64) []byte {
	var buffer [32]byte
	shortest := strconv.AppendFloat(buffer[:0], value, 'e', -1, 64)
	if shortest[0] == '-' {
		out = append(out, '-')
		shortest = shortest[1:]
	}
	// D.DDDe±XX
	mark := len(shortest) - 1
	for shortest[mark] != 'e' {
		mark--
	}
	power, _ := strconv.Atoi(string(shortest[mark+1:]))
	digits := append(make([]byte, 0, 24), shortest[0])
	if mark > 2 {
		digits = append(digits, shortest[2:mark]...)
	}
	absolute := math.Abs(value)
	if absolute == 0 {
		return append(out, "0.0"...)
	}
	if absolute >= 1e-5 && absolute < 1e16 {
		if power < 0 {
			out = append(out, "0."...)
			for i := -1; i > power; i-- {
				out = append(out, '0')
			}
		}
		for i := 0; i < len(digits) || i <= power; i++ {
			if i < len(digits) {
				out = append(out, digits[i])
			} else {
				out = append(out, '0')
			}
			if i == power {
				out = append(out, '.')
			}
		}
		if power >= len(digits)-1 {
			out = append(out, '0')
		}
		return out
	}
	out = append(out, digits[0])
	if len(digits) > 1 {
		out = append(append(out, '.'), digits[1:]...)
	}
	out = append(out, 'e', '+')
	if power < 0 {
		out[len(out)-1] = '-'
		power = -power
	}
	return strconv.AppendInt(out, int64(power), 10)
}

// ---- Reading --------------------------------------------------------------------------------

// reader reads JSON text.
type reader struct {
	text string
	at   int
}

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return
		}
	}
}

// next passes over white space and returns the character after it, or 0 at the end.
func (r *reader) next() byte {
	r.space()
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *reader) expect(word string) bool {
	if len(r.text)-r.at < len(word) || r.text[r.at:r.at+len(word)] != word {
		return false
	}
	r.at += len(word)
	return true
}

// null passes over `null`, if it is there.
func (r *reader) null() bool { return r.expect("null") }

// string reads text. The result is part of the input if it has no escapes.
func (r *reader) string() (string, bool) {
	if !r.expect(`"`) {
		return "", false
	}
	start := r.at
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			text := r.text[start : r.at-1]
			return text, utf8.ValidString(text)
		case c == '\\':
			return r.escaped(start)
		case c < 0x20:
			return "", false
		}
		r.at++
	}
	return "", false
}

func (r *reader) escaped(start int) (string, bool) {
	out := []byte(r.text[start:r.at])
	for r.at < len(r.text) {
		c := r.text[r.at]
		r.at++
		switch {
		case c == '"':
			return string(out), utf8.Valid(out)
		case c < 0x20:
			return "", false
		case c != '\\':
			out = append(out, c)
			continue
		}
		if r.at == len(r.text) {
			return "", false
		}
		c = r.text[r.at]
		r.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			letter, ok := r.hex()
			if ok && utf16.IsSurrogate(letter) {
				low := rune(0)
				if ok = r.expect(`\u`); ok {
					low, ok = r.hex()
				}
				letter = utf16.DecodeRune(letter, low)
				ok = ok && letter != utf8.RuneError
			}
			if !ok {
				return "", false
			}
			out = utf8.AppendRune(out, letter)
		default:
			return "", false
		}
	}
	return "", false
}

func (r *reader) hex() (rune, bool) {
	if len(r.text)-r.at < 4 {
		return 0, false
	}
	value, err := strconv.ParseUint(r.text[r.at:r.at+4], 16, 32)
	r.at += 4
	return rune(value), err == nil
}

// number reads a number: its text, and whether it has neither fraction nor exponent.
func (r *reader) number() (text string, whole, ok bool) {
	start := r.at
	digits := func() bool {
		before := r.at
		for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
			r.at++
		}
		return r.at > before
	}
	r.expect("-")
	if !r.expect("0") && !digits() {
		return "", false, false
	}
	whole = true
	if r.expect(".") {
		whole = false
		if !digits() {
			return "", false, false
		}
	}
	if r.expect("e") || r.expect("E") {
		whole = false
		if !r.expect("+") {
			r.expect("-")
		}
		if !digits() {
			return "", false, false
		}
	}
	return r.text[start:r.at], whole, true
}

// integer reads an integer of 64 bits with a sign.
func (r *reader) integer() (int64, bool) {
	text, whole, ok := r.number()
	if !ok || !whole || text == "-0" {
		return 0, false
	}
	value, err := strconv.ParseInt(text, 10, 64)
	return value, err == nil
}

func (r *reader) double() (float64, bool) {
	text, _, ok := r.number()
	if !ok {
		return 0, false
	}
	value, err := strconv.ParseFloat(text, 64)
	return value, err == nil
}

// value passes over a value and returns its text.
func (r *reader) value() (string, error) {
	r.space()
	start := r.at
	err := r.pass(0)
	return r.text[start:r.at], err
}

func (r *reader) pass(depth int) error {
	_, err := canonical(nil, r, depth, false)
	return err
}

// members reads an object. It calls `read` at the value of each member; `read` must read this value
// to its end.
func (r *reader) members(read func(name string) error) error {
	if r.next() != '{' {
		return errJSON
	}
	r.at++
	for n := 0; ; n++ {
		if r.next() == '}' && n == 0 {
			break
		}
		name, ok := r.string()
		if !ok || r.next() != ':' {
			return errJSON
		}
		r.at++
		r.space()
		if err := read(name); err != nil {
			return err
		}
		if r.next() == '}' {
			break
		}
		if !r.expect(",") {
			return errJSON
		}
		r.space()
	}
	r.at++
	return nil
}

// canonicalJSON returns JSON in the canonical form in which rows are stored.
func canonicalJSON(text string) (string, error) {
	r := &reader{text: text}
	out, err := canonical(make([]byte, 0, len(text)+8), r, 0, true)
	if err == nil && r.next() != 0 {
		err = errJSON
	}
	return string(out), err
}

// canonical reads a value and, if `write` is set, appends it in canonical form.
func canonical(out []byte, r *reader, depth int, write bool) ([]byte, error) {
	first := r.next()
	switch {
	case first == '{' || first == '[':
		if depth == depthMax {
			return out, errDepth
		}
		if first == '[' {
			return canonicalArray(out, r, depth, write)
		}
		return canonicalObject(out, r, depth, write)
	case first == '"':
		text, ok := r.string()
		if !ok {
			return out, errJSON
		}
		if write {
			out = appendText(out, text)
		}
		return out, nil
	case first == '-' || first >= '0' && first <= '9':
		return canonicalNumber(out, r, write)
	}
	for _, word := range [...]string{"null", "true", "false"} {
		if r.expect(word) {
			if write {
				out = append(out, word...)
			}
			return out, nil
		}
	}
	return out, errJSON
}

func canonicalNumber(out []byte, r *reader, write bool) ([]byte, error) {
	text, whole, ok := r.number()
	if !ok {
		return out, errJSON
	}
	if whole && text != "-0" {
		_, err := strconv.ParseInt(text, 10, 64)
		if err != nil && text[0] != '-' {
			_, err = strconv.ParseUint(text, 10, 64)
		}
		if err == nil {
			if write {
				out = append(out, text...)
			}
			return out, nil
		}
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return out, errRange
	}
	if write {
		out = appendNumber(out, value)
	}
	return out, nil
}

func canonicalArray(out []byte, r *reader, depth int, write bool) ([]byte, error) {
	r.at++
	if write {
		out = append(out, '[')
	}
	for n := 0; ; n++ {
		if r.next() == ']' && n == 0 {
			break
		}
		if n > 0 && write {
			out = append(out, ',')
		}
		var err error
		if out, err = canonical(out, r, depth+1, write); err != nil {
			return out, err
		}
		if r.next() == ']' {
			break
		}
		if !r.expect(",") {
			return out, errJSON
		}
	}
	r.at++
	if write {
		out = append(out, ']')
	}
	return out, nil
}

func canonicalObject(out []byte, r *reader, depth int, write bool) ([]byte, error) {
	type member struct {
		name  string
		value []byte
	}
	var members []member
	err := r.members(func(name string) error {
		value, err := canonical(nil, r, depth+1, write)
		if write {
			members = append(members, member{name, value})
		}
		return err
	})
	if err != nil || !write {
		return out, err
	}
	// The last one of members with the same name counts.
	sort.SliceStable(members, func(a, b int) bool { return members[a].name < members[b].name })
	out = append(out, '{')
	first := true
	for i, m := range members {
		if i+1 < len(members) && members[i+1].name == m.name {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(appendText(out, m.name), ':'), m.value...)
	}
	return append(out, '}'), nil
}

// ---- Building JSON ------------------------------------------------------------------------------

// Object builds a JSON object in canonical form:
//
//	lantern.NewObject().Text("key", key).Integer("i", 7).JSON()
type Object struct{ out []byte }

// NewObject returns an object without members.
func NewObject() *Object { return &Object{out: []byte{'{'}} }

func (o *Object) name(name string) {
	if len(o.out) > 1 {
		o.out = append(o.out, ',')
	}
	o.out = append(appendText(o.out, name), ':')
}

// Text adds a member with text.
func (o *Object) Text(name, value string) *Object {
	o.name(name)
	o.out = appendText(o.out, value)
	return o
}

// Integer adds a member with an integer.
func (o *Object) Integer(name string, value int64) *Object {
	o.name(name)
	o.out = strconv.AppendInt(o.out, value, 10)
	return o
}

// Number adds a member with a double. The event fails if it is not finite.
func (o *Object) Number(name string, value float64) *Object {
	o.name(name)
	if math.IsNaN(value) || math.IsInf(value, 0) {
		fail("a number is NaN or infinite: only finite numbers can be stored")
		value = 0
	}
	o.out = appendNumber(o.out, value)
	return o
}

// Boolean adds a member with true or false.
func (o *Object) Boolean(name string, value bool) *Object {
	o.name(name)
	o.out = strconv.AppendBool(o.out, value)
	return o
}

// Time adds a member with a time, as text.
func (o *Object) Time(name string, value Time) *Object {
	return o.Text(name, value.String())
}

// JSON returns the object's text.
func (o *Object) JSON() JSON { return JSON(string(o.out) + "}") }

// Texts returns a JSON array of texts.
func Texts(texts []string) JSON {
	out := []byte{'['}
	for i, text := range texts {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendText(out, text)
	}
	return JSON(append(out, ']'))
}
