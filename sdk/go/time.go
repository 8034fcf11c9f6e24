package lantern

import "math"

// Time is a moment: microseconds since 1970-01-01T00:00:00Z.
type Time int64

// Duration is a length of time in microseconds.
type Duration int64

// Lengths of time.
const (
	Microsecond Duration = 1
	Millisecond          = 1000 * Microsecond
	Second               = 1000 * Millisecond
	Minute               = 60 * Second
	Hour                 = 60 * Minute
	Day                  = 24 * Hour
)

// minTime is the watermark before the first event.
const minTime Time = math.MinInt64

// The times that a row can hold: 0001-01-01T00:00:00Z up to before 9999-12-30T22:00:00Z.
const (
	rowTimeMin Time = -62_135_596_800_000_000
	rowTimeEnd Time = 253_402_207_200_000_000
)

// Add returns the moment that is later by `by`. The event fails if there is no such Time.
func (t Time) Add(by Duration) Time { return Time(Add(int64(t), int64(by))) }

// Floor returns the last multiple of `step` since 1970 at or before t: the start of the
// minute, for example.
func (t Time) Floor(step Duration) Time {
	past := int64(t) % int64(step)
	if past < 0 {
		past += int64(step)
	}
	if int64(t) < math.MinInt64+past {
		return minTime
	}
	return t - Time(past)
}

// String returns the time in UTC as in rows: `2026-03-01T12:07:00Z`, with three or six digits
// of a fraction if there is one.
func (t Time) String() string { return string(appendTime(make([]byte, 0, 32), t)) }

func appendDigits(out []byte, value int64, width int) []byte {
	var digits [20]byte
	for i := width - 1; i >= 0; i-- {
		digits[i] = byte('0' + value%10)
		value /= 10
	}
	return append(out, digits[:width]...)
}

func appendTime(out []byte, t Time) []byte {
	seconds := floorDiv(int64(t), int64(Second))
	micros := int64(t) - seconds*int64(Second)
	days := floorDiv(seconds, 86400)
	second := seconds - days*86400
	year, month, date := dateOf(days)
	switch {
	case year >= 0 && year <= 9999:
		out = appendDigits(out, year, 4)
	case year < 0:
		out = appendDigits(append(out, '-'), -year, 6)
	default:
		out = appendDigits(append(out, '+'), year, 6)
	}
	for i, part := range [...]int64{month, date, second / 3600, second / 60 % 60, second % 60} {
		out = appendDigits(append(out, "--T::"[i]), part, 2)
	}
	if micros != 0 {
		out = append(out, '.')
		if micros%1000 == 0 {
			out = appendDigits(out, micros/1000, 3)
		} else {
			out = appendDigits(out, micros, 6)
		}
	}
	return append(out, 'Z')
}

// parseTime reads RFC 3339 text.
func parseTime(text string) (Time, bool) {
	ok := true
	number := func(at, width int) int64 {
		var value int64
		if at+width > len(text) {
			ok = false
			return 0
		}
		for _, digit := range []byte(text[at : at+width]) {
			if digit < '0' || digit > '9' {
				ok = false
			}
			value = value*10 + int64(digit) - '0'
		}
		return value
	}
	if len(text) < 20 || text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':' {
		return 0, false
	}
	year, month, date := number(0, 4), number(5, 2), number(8, 2)
	hour, minute, second := number(11, 2), number(14, 2), number(17, 2)
	if !ok || month < 1 || month > 12 || date < 1 || date > 31 || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	at, micros, place := 19, int64(0), int64(100_000)
	if text[at] == '.' {
		for at++; at < len(text) && text[at] >= '0' && text[at] <= '9'; at++ {
			micros += place * int64(text[at]-'0')
			place /= 10
		}
	}
	if at >= len(text) {
		return 0, false
	}
	offset := int64(0)
	switch text[at] {
	case 'Z', 'z':
		ok = at+1 == len(text)
	case '+', '-':
		offset = number(at+1, 2)*3600 + number(at+4, 2)*60
		ok = ok && at+6 == len(text)
		if text[at] == '-' {
			offset = -offset
		}
	default:
		return 0, false
	}
	day := dayOf(year, month, date)
	if _, _, back := dateOf(day); back != date {
		return 0, false
	}
	if second == 60 {
		second = 59
	}
	return Time((day*86400+hour*3600+minute*60+second-offset)*int64(Second) + micros), ok
}

func floorDiv(value, by int64) int64 {
	quotient := value / by
	if value%by < 0 {
		quotient--
	}
	return quotient
}

// dateOf returns the date of a day since 1970-01-01.
func dateOf(day int64) (year, month, date int64) {
	day += 719468
	era := floorDiv(day, 146097)
	rest := day - era*146097
	ofEra := (rest - rest/1460 + rest/36524 - rest/146096) / 365
	rest -= 365*ofEra + ofEra/4 - ofEra/100
	fromMarch := (5*rest + 2) / 153
	date = rest - (153*fromMarch+2)/5 + 1
	month = fromMarch + 3
	if month > 12 {
		month -= 12
	}
	year = ofEra + era*400
	if month <= 2 {
		year++
	}
	return year, month, date
}

// dayOf returns the day since 1970-01-01 of a date.
func dayOf(year, month, date int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	ofEra := year - era*400
	day := (153*(month-3)+2)/5 + date - 1
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + day - 719468
}
