package lantern

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"
)

// The sketches of docs/sketches.md.

const (
	exactMax        = 512
	registers       = 4096
	denseBytes      = 2560
	rankMax         = 29
	bucketMin       = -3712
	bucketMax       = 3711
	estimateMax     = 1 << 40
	distinctExact   = 1
	distinctDense   = 2
	percentilesMark = 3
)

// sketchBytes reads the member `sketch` of the JSON object at the reader, which must have the
// members that this package writes. It skips the other members.
func sketchBytes(r *reader) ([]byte, bool) {
	var bytes []byte
	err := r.members(func(name string) error {
		if name != "sketch" {
			return r.pass(0)
		}
		text, ok := r.string()
		if !ok {
			return errJSON
		}
		var err error
		bytes, err = base64.StdEncoding.Strict().DecodeString(text)
		return err
	})
	return bytes, err == nil && len(bytes) > 0
}

func appendSketch(out, bytes []byte) []byte {
	out = append(out, `,"sketch":"`...)
	out = base64.StdEncoding.AppendEncode(out, bytes)
	return append(out, `"}`...)
}

// ---- Distinct ---------------------------------------------------------------------------------

// Distinct is a field of a row that counts different values, in bounded memory. Its zero value has
// counted no values.
type Distinct struct {
	// entries are sorted, if there are no registers.
	entries   []uint64
	registers []uint8
}

// Add adds a text.
func (d *Distinct) Add(value string) { d.add(xxh64(value) >> 24) }

// AddInteger adds an integer, which is the same value as its decimal text.
func (d *Distinct) AddInteger(value int64) { d.Add(strconv.FormatInt(value, 10)) }

func (d *Distinct) unshare() {
	d.entries = slices.Clone(d.entries)
	d.registers = slices.Clone(d.registers)
}

func (d *Distinct) add(entry uint64) {
	if d.registers != nil {
		d.raise(entry)
		return
	}
	at, found := slices.BinarySearch(d.entries, entry)
	if found {
		return
	}
	d.entries = slices.Insert(d.entries, at, entry)
	if len(d.entries) <= exactMax {
		return
	}
	d.registers = make([]uint8, registers)
	for _, each := range d.entries {
		d.raise(each)
	}
	d.entries = nil
}

func (d *Distinct) raise(entry uint64) {
	rank := uint8(bits.LeadingZeros32(uint32(entry&(1<<28-1))) - 4 + 1)
	if register := &d.registers[entry>>28]; *register < rank {
		*register = rank
	}
}

// Estimate returns about how many different values were added: exactly, up to 512.
func (d *Distinct) Estimate() uint64 {
	if d.registers == nil {
		return uint64(len(d.entries))
	}
	var counts [rankMax + 1]uint64
	for _, rank := range d.registers {
		counts[rank]++
	}
	one := u128{0, 1 << 60}
	sum := u128{0, registers}.mul(tau(one.sub(u128{0, counts[rankMax]}.shl(48)))).shr(28)
	for rank := 1; rank < rankMax; rank++ {
		sum = sum.add(u128{0, counts[rank]}.mul(one.shr(uint(rank))))
	}
	sum = sum.add(u128{0, registers}.mul(sigma(u128{0, counts[0]}.shl(48))))
	if sum == (u128{}) {
		return estimateMax
	}
	estimate := u128{0, 6653256548922161246}.shl(21).add(sum.shr(1)).div(sum)
	if estimate.high > 0 || estimate.low > estimateMax {
		return estimateMax
	}
	return estimate.low
}

func sigma(x u128) u128 {
	sum, weight := x, u128{0, 1}
	for {
		x = x.mul(x).shr(60)
		if x == (u128{}) {
			return sum
		}
		sum = sum.add(x.mul(weight))
		weight = weight.shl(1)
	}
}

func tau(x u128) u128 {
	one := u128{0, 1 << 60}
	if x == (u128{}) || x == one {
		return u128{}
	}
	sum := one.sub(x)
	for k := uint(1); ; k++ {
		x = x.shl(60).sqrt()
		rest := one.sub(x)
		change := rest.mul(rest).shr(60).shr(k)
		if change == (u128{}) {
			return sum.div(u128{0, 3})
		}
		sum = sum.sub(change)
	}
}

func (d *Distinct) append(out []byte) []byte {
	out = append(out, `{"estimate":`...)
	out = strconv.AppendUint(out, d.Estimate(), 10)
	var bytes []byte
	if d.registers == nil {
		bytes = append(make([]byte, 0, 1+5*len(d.entries)), distinctExact)
		for _, entry := range d.entries {
			bytes = append(bytes, byte(entry>>32), byte(entry>>24), byte(entry>>16), byte(entry>>8), byte(entry))
		}
	} else {
		bytes = append(make([]byte, 0, 1+denseBytes), distinctDense)
		held, count := uint32(0), 0
		for _, rank := range d.registers {
			held, count = held<<5|uint32(rank), count+5
			for count >= 8 {
				count -= 8
				bytes = append(bytes, byte(held>>count))
			}
		}
	}
	return appendSketch(out, bytes)
}

func (d *Distinct) read(r *reader) bool {
	bytes, ok := sketchBytes(r)
	*d = Distinct{}
	if !ok {
		return false
	}
	switch mark, bytes := bytes[0], bytes[1:]; mark {
	case distinctExact:
		if len(bytes)%5 != 0 || len(bytes)/5 > exactMax {
			return false
		}
		for i := 0; i < len(bytes); i += 5 {
			d.entries = append(d.entries, uint64(bytes[i])<<32|uint64(binary.BigEndian.Uint32(bytes[i+1:])))
		}
		return slices.IsSorted(d.entries)
	case distinctDense:
		if len(bytes) != denseBytes {
			return false
		}
		d.registers = make([]uint8, 0, registers)
		held, count := uint32(0), 0
		for _, each := range bytes {
			held, count = held<<8|uint32(each), count+8
			for count >= 5 {
				count -= 5
				rank := uint8(held >> count & 31)
				if rank > rankMax {
					return false
				}
				d.registers = append(d.registers, rank)
			}
		}
		return true
	}
	return false
}

const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5
)

func lane(value, word uint64) uint64 { return bits.RotateLeft64(value+word*prime2, 31) * prime1 }

// xxh64 is XXH64 with seed 0.
func xxh64(text string) uint64 {
	at := []byte(text)
	hash := prime5
	if len(at) >= 32 {
		lanes := [4]uint64{0, prime2, 0, 0}
		lanes[0] += prime1
		lanes[0] += prime2
		lanes[3] -= prime1
		for ; len(at) >= 32; at = at[32:] {
			for i := range lanes {
				lanes[i] = lane(lanes[i], binary.LittleEndian.Uint64(at[8*i:]))
			}
		}
		hash = bits.RotateLeft64(lanes[0], 1) + bits.RotateLeft64(lanes[1], 7) +
			bits.RotateLeft64(lanes[2], 12) + bits.RotateLeft64(lanes[3], 18)
		for _, each := range lanes {
			hash = (hash^lane(0, each))*prime1 + prime4
		}
	}
	hash += uint64(len(text))
	for ; len(at) >= 8; at = at[8:] {
		hash = bits.RotateLeft64(hash^lane(0, binary.LittleEndian.Uint64(at)), 27)*prime1 + prime4
	}
	if len(at) >= 4 {
		hash = bits.RotateLeft64(hash^uint64(binary.LittleEndian.Uint32(at))*prime1, 23)*prime2 + prime3
		at = at[4:]
	}
	for _, each := range at {
		hash = bits.RotateLeft64(hash^uint64(each)*prime5, 11) * prime1
	}
	hash = (hash ^ hash>>33) * prime2
	hash = (hash ^ hash>>29) * prime3
	return hash ^ hash>>32
}

// ---- Percentiles --------------------------------------------------------------------------------

type bucket struct {
	bucket int32
	count  uint64
}

// Percentiles is a field of a row that computes percentiles, in bounded memory. Values are
// integers: choose a unit in which they are whole. Its zero value has no values.
type Percentiles struct {
	buckets  []bucket
	min, max int64
}

func (p *Percentiles) unshare() { p.buckets = slices.Clone(p.buckets) }

func bucketOf(value int64) int32 {
	if value < 0 {
		return ^bucketOf(^value)
	}
	shift := max(0, bits.Len64(uint64(value))-7)
	return int32(64*shift) + int32(value>>shift)
}

func middleOf(bucket int32) int64 {
	if bucket < 0 {
		return ^middleOf(^bucket)
	}
	if bucket < 128 {
		return int64(bucket)
	}
	shift := bucket/64 - 1
	return int64(bucket-64*shift)<<shift + (int64(1)<<shift-1)/2
}

func saturated(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxUint64
}

// Add adds a value.
func (p *Percentiles) Add(value int64) {
	if len(p.buckets) == 0 {
		p.min, p.max = value, value
	}
	p.min, p.max = min(p.min, value), max(p.max, value)
	of := bucketOf(value)
	at, found := slices.BinarySearchFunc(p.buckets, of, func(b bucket, of int32) int { return int(b.bucket - of) })
	if !found {
		p.buckets = slices.Insert(p.buckets, at, bucket{of, 0})
	}
	p.buckets[at].count = saturated(p.buckets[at].count, 1)
}

// AddNumber adds `value` times `scale`, rounded. The event fails if the product is outside of
// the range of integers.
func (p *Percentiles) AddNumber(value float64, scale uint32) {
	scaled := value * float64(scale)
	if !(scaled >= -9223372036854775808.0 && scaled < 9223372036854775808.0) {
		fail("a number with its scale is outside of the range of integers")
		return
	}
	p.Add(int64(math.Round(scaled)))
}

// Count returns how many values were added.
func (p *Percentiles) Count() uint64 {
	var sum uint64
	for _, each := range p.buckets {
		sum = saturated(sum, each.count)
	}
	return sum
}

// Percentile returns a percentile of the values, or 0 if there are none.
func (p *Percentiles) Percentile(percent uint) int64 {
	rank := u128{0, p.Count()}.mul(u128{0, uint64(percent)}).add(u128{0, 99}).div(u128{0, 100})
	if rank == (u128{}) {
		rank.low = 1
	}
	var seen u128
	for i, each := range p.buckets {
		seen = seen.add(u128{0, each.count})
		if seen.less(rank) && i+1 < len(p.buckets) {
			continue
		}
		return max(p.min, min(p.max, middleOf(each.bucket)))
	}
	return 0
}

func (p *Percentiles) append(out []byte) []byte {
	out = append(out, `{"count":`...)
	out = strconv.AppendUint(out, p.Count(), 10)
	number := func(name string, value int64) {
		out = append(append(append(out, `,"`...), name...), `":`...)
		if len(p.buckets) == 0 {
			out = append(out, "null"...)
		} else {
			out = strconv.AppendInt(out, value, 10)
		}
	}
	number("min", p.min)
	for _, percent := range [...]uint{50, 75, 90, 95, 99} {
		number("p"+strconv.Itoa(int(percent)), p.Percentile(percent))
	}
	number("max", p.max)
	bytes := []byte{percentilesMark}
	if len(p.buckets) > 0 {
		bytes = binary.AppendVarint(bytes, p.min)
		bytes = binary.AppendVarint(bytes, p.max)
	}
	before := int32(bucketMin - 1)
	for _, each := range p.buckets {
		bytes = binary.AppendUvarint(bytes, uint64(each.bucket-before-1))
		bytes = binary.AppendUvarint(bytes, each.count)
		before = each.bucket
	}
	return appendSketch(out, bytes)
}

func (p *Percentiles) read(r *reader) bool {
	bytes, ok := sketchBytes(r)
	*p = Percentiles{}
	if !ok || bytes[0] != percentilesMark {
		return false
	}
	bytes = bytes[1:]
	if len(bytes) == 0 {
		return true
	}
	natural := func() uint64 {
		value, length := binary.Uvarint(bytes)
		if length <= 0 {
			ok = false
			bytes = nil
			return 0
		}
		bytes = bytes[length:]
		return value
	}
	least, greatest := natural(), natural()
	p.min = int64(least>>1) ^ -int64(least&1)
	p.max = int64(greatest>>1) ^ -int64(greatest&1)
	at := int64(bucketMin - 1)
	for ok && len(bytes) > 0 {
		skipped, count := natural(), natural()
		if skipped > bucketMax-bucketMin || count == 0 {
			return false
		}
		if at += int64(skipped) + 1; at > bucketMax {
			return false
		}
		p.buckets = append(p.buckets, bucket{int32(at), count})
	}
	return ok && len(p.buckets) > 0
}

// ---- Integers of 128 bits -------------------------------------------------------------------------

// u128 is an unsigned integer of 128 bits. If a result is larger, it wraps, as with Go's own
// integers.
type u128 struct{ high, low uint64 }

func (a u128) add(b u128) u128 {
	low, carry := bits.Add64(a.low, b.low, 0)
	high, _ := bits.Add64(a.high, b.high, carry)
	return u128{high, low}
}

func (a u128) sub(b u128) u128 {
	low, borrow := bits.Sub64(a.low, b.low, 0)
	high, _ := bits.Sub64(a.high, b.high, borrow)
	return u128{high, low}
}

func (a u128) mul(b u128) u128 {
	high, low := bits.Mul64(a.low, b.low)
	return u128{high + a.high*b.low + a.low*b.high, low}
}

func (a u128) shl(by uint) u128 {
	if by >= 64 {
		return u128{a.low << (by - 64), 0}
	}
	return u128{a.high<<by | a.low>>(64-by), a.low << by}
}

func (a u128) shr(by uint) u128 {
	if by >= 64 {
		return u128{0, a.high >> (by - 64)}
	}
	return u128{a.high >> by, a.low>>by | a.high<<(64-by)}
}

func (a u128) less(b u128) bool { return a.high < b.high || a.high == b.high && a.low < b.low }

func (a u128) length() int {
	if a.high > 0 {
		return 64 + bits.Len64(a.high)
	}
	return bits.Len64(a.low)
}

// div returns a / b, by long division.
func (a u128) div(b u128) u128 {
	var quotient u128
	for shift := a.length() - b.length(); shift >= 0; shift-- {
		if part := b.shl(uint(shift)); !a.less(part) {
			a = a.sub(part)
			quotient = quotient.add(u128{0, 1}.shl(uint(shift)))
		}
	}
	return quotient
}

// sqrt returns the square root, rounded down.
func (a u128) sqrt() u128 {
	var root u128
	for shift := a.length() / 2; shift >= 0; shift-- {
		next := root.add(u128{0, 1}.shl(uint(shift)))
		// With a root of at most 64 bits the square fits.
		if next.high == 0 && !a.less(next.mul(next)) {
			root = next
		}
	}
	return root
}
