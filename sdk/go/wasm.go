//go:build wasip1

package lantern

import (
	"runtime/debug"
	"strings"
	"structs"
	"unsafe"
)

// The contract's functions in WebAssembly, by the canonical ABI of components.
// docs/guide/by-hand.md explains the layout. In WebAssembly, addresses have 32 bits, but Go's
// pointers have 64 bits on this platform. So addresses are integers here.

// memoryBytes is the memory above which the garbage collector runs more often. It is below the
// host's default limit for an instance, 64 MiB.
const memoryBytes = 40 << 20

func init() {
	debug.SetMemoryLimit(memoryBytes)
}

type (
	address = uint32

	witText struct {
		_         structs.HostLayout
		at, count uint32
	}
	witList   = witText
	witColumn struct {
		_           structs.HostLayout
		ends, bytes witList
	}
)

// pointerTo returns the pointer to an address that came from the host, or from Go's own memory.
func pointerTo(at address) unsafe.Pointer {
	word := uintptr(at)
	return *(*unsafe.Pointer)(unsafe.Pointer(&word))
}

func addressOf(at unsafe.Pointer) address { return address(uintptr(at)) }

func sliceOf[T any](list witList) []T {
	if list.count == 0 {
		return nil
	}
	return unsafe.Slice((*T)(pointerTo(list.at)), list.count)
}

// stringOf returns text that the host has written, without a copy.
func stringOf(text witText) string {
	if text.count == 0 {
		return ""
	}
	return unsafe.String((*byte)(pointerTo(text.at)), text.count)
}

// nothing is the address of empty lists. The address of a list must be aligned and within the
// memory, even if the list is empty.
var nothing uint64

func textOf(text string) witText {
	if text == "" {
		return witText{at: addressOf(unsafe.Pointer(&nothing))}
	}
	return witText{at: addressOf(unsafe.Pointer(unsafe.StringData(text))), count: uint32(len(text))}
}

func listOf[T any](list []T) witList {
	if len(list) == 0 {
		return witText{at: addressOf(unsafe.Pointer(&nothing))}
	}
	return witText{at: addressOf(unsafe.Pointer(unsafe.SliceData(list))), count: uint32(len(list))}
}

// ---- Memory that the host writes to ---------------------------------------------------------

// arena is memory that the host asks for and writes to. The collector never moves or frees it
// while it is listed here. It is released at the end of the call.
var arena struct {
	chunks [][]uint64
	// used is the number of words in use in the last chunk.
	used int
}

// chunkWords is the size of a chunk: 128 KiB.
const chunkWords = 16 << 10

//go:wasmexport cabi_realloc
func cabiRealloc(old address, before, alignment, bytes uint32) address {
	if bytes == 0 {
		return addressOf(unsafe.Pointer(&nothing))
	}
	words := int(bytes+7) / 8
	last := len(arena.chunks) - 1
	if last < 0 || len(arena.chunks[last])-arena.used < words {
		arena.chunks = append(arena.chunks, make([]uint64, max(words, chunkWords)))
		arena.used = 0
		last++
	}
	at := unsafe.Pointer(&arena.chunks[last][arena.used])
	arena.used += words
	if before > 0 {
		copy(unsafe.Slice((*byte)(at), bytes), unsafe.Slice((*byte)(pointerTo(old)), before))
	}
	return addressOf(at)
}

// mark returns the end of the arena. release frees the memory after this end.
func mark() (chunks, used int) { return len(arena.chunks), arena.used }

func release(chunks, used int) {
	if len(arena.chunks) == chunks {
		arena.used = used
		return
	}
	// The rest of the marked chunk was too small for an allocation. So the first chunk after the
	// mark is kept instead.
	clear(arena.chunks[chunks+1:])
	arena.chunks = arena.chunks[:chunks+1]
	arena.used = 0
}

func releaseAll() {
	if len(arena.chunks) == 0 {
		return
	}
	clear(arena.chunks[1:])
	arena.chunks = arena.chunks[:1]
	arena.used = 0
	if len(arena.chunks[0]) > chunkWords {
		arena.chunks = nil
	}
}

//go:wasmexport cabi_post_lantern:projection/projector@0.2.0#setup
func afterSetup(answer address) { releaseAll() }

//go:wasmexport cabi_post_lantern:projection/projector@0.2.0#apply
func afterApply(answer address) { releaseAll() }

// ---- What the host offers ---------------------------------------------------------------------

//go:wasmimport lantern:projection/tables@0.2.0 get
func witGet(table uint32, key address, keyBytes uint32, to address)

//go:wasmimport lantern:projection/tables@0.2.0 get-many
func witGetMany(table uint32, ends address, keys uint32, bytes address, length uint32, to address)

//go:wasmimport lantern:projection/tables@0.2.0 put-many
func witPutMany(causes address, causeCount, table uint32, keyEnds address, keys uint32, keyBytes address, keyLength uint32, ends address, count uint32, bytes address, length uint32)

//go:wasmimport lantern:projection/tables@0.2.0 delete-many
func witDeleteMany(causes address, causeCount, table uint32, keyEnds address, keys uint32, keyBytes address, keyLength uint32)

//go:wasmimport lantern:projection/tables@0.2.0 scan
func witScan(table uint32, start address, startBytes uint32, end address, endBytes, limit, reverse uint32, to address)

//go:wasmimport lantern:projection/timers@0.2.0 set
func witSetTimer(cause uint32, at int64, key address, keyBytes uint32)

//go:wasmimport lantern:projection/timers@0.2.0 cancel
func witCancelTimer(cause uint32, key address, keyBytes uint32)

//go:wasmimport lantern:projection/outbox@0.2.0 emit
func witEmit(events address, count uint32)

//go:wasmimport lantern:projection/rejections@0.2.0 reject
func witReject(cause uint32, message address, messageBytes uint32)

//go:wasmimport lantern:projection/logging@0.2.0 log
func witLog(cause, level uint32, message address, messageBytes uint32)

// These variables refer to the values whose addresses a call passes, so that the garbage collector
// does not free the values. The collector may run while the host allocates memory for its answer.
// The variables are global because the memory of a stack could move.
var (
	passed  [4]any
	results struct {
		_     structs.HostLayout
		words [8]uint32
	}
)

func resultAt() address { return addressOf(unsafe.Pointer(&results)) }

func hostGet(table uint32, key string, found func(stored string)) {
	chunks, used := mark()
	passed[0] = key
	at := textOf(key)
	witGet(table, at.at, at.count, resultAt())
	if results.words[0]&1 == 1 {
		found(stringOf(witText{at: results.words[1], count: results.words[2]}))
	}
	passed[0] = nil
	release(chunks, used)
}

func hostGetMany(table uint32, keys []string, found func(i int, stored string)) {
	chunks, used := mark()
	var asked writes
	for _, key := range keys {
		asked.add(0, key)
	}
	passed[0] = &asked
	ends, bytes := listOf(asked.keyEnds), listOf(asked.keys)
	witGetMany(table, ends.at, ends.count, bytes.at, bytes.count, resultAt())
	word := results.words
	there := sliceOf[uint8](witText{at: word[0], count: word[1]})
	values := columnOf(witColumn{ends: witText{at: word[2], count: word[3]}, bytes: witText{at: word[4], count: word[5]}})
	for i := range there {
		if there[i] != 0 {
			found(i, values.view(i))
		}
	}
	passed[0] = nil
	release(chunks, used)
}

func hostPutMany(table uint32, rows *writes) {
	passed[0] = rows
	causes, keyEnds, keys := listOf(rows.causes), listOf(rows.keyEnds), listOf(rows.keys)
	ends, values := listOf(rows.valueEnds), listOf(rows.values)
	witPutMany(causes.at, causes.count, table, keyEnds.at, keyEnds.count, keys.at, keys.count, ends.at, ends.count, values.at, values.count)
	passed[0] = nil
}

func hostDeleteMany(table uint32, rows *writes) {
	passed[0] = rows
	causes, keyEnds, keys := listOf(rows.causes), listOf(rows.keyEnds), listOf(rows.keys)
	witDeleteMany(causes.at, causes.count, table, keyEnds.at, keyEnds.count, keys.at, keys.count)
	passed[0] = nil
}

func hostScan(table uint32, start, end string, limit uint32, reverse bool, found func(key, stored string)) {
	chunks, used := mark()
	passed[0], passed[1] = start, end
	from, to := textOf(start), textOf(end)
	witScan(table, from.at, from.count, to.at, to.count, limit, uint32(b2i(reverse)), resultAt())
	type row struct {
		_          structs.HostLayout
		key, value witText
	}
	for _, each := range sliceOf[row](witText{at: results.words[0], count: results.words[1]}) {
		found(stringOf(each.key), stringOf(each.value))
	}
	passed[0], passed[1] = nil, nil
	release(chunks, used)
}

func hostSetTimer(cause uint32, at Time, key string) {
	passed[0] = key
	text := textOf(key)
	witSetTimer(cause, int64(at), text.at, text.count)
	passed[0] = nil
}

func hostCancelTimer(cause uint32, key string) {
	passed[0] = key
	text := textOf(key)
	witCancelTimer(cause, text.at, text.count)
	passed[0] = nil
}

func hostEmit(events []newEvent) {
	if len(events) == 0 {
		return
	}
	type emitted struct {
		_                     structs.HostLayout
		cause                 uint32
		kind, subject, tenant witText
		time                  int64
		data                  witText
	}
	list := make([]emitted, len(events))
	for i, each := range events {
		list[i] = emitted{
			cause: each.cause, kind: textOf(each.kind), subject: textOf(each.subject), tenant: textOf(""),
			time: int64(each.time), data: textOf(string(each.data)),
		}
	}
	passed[0], passed[1] = events, list
	at := listOf(list)
	witEmit(at.at, at.count)
	passed[0], passed[1] = nil, nil
}

func hostReject(cause uint32, message string) {
	passed[0] = message
	text := textOf(message)
	witReject(cause, text.at, text.count)
	passed[0] = nil
}

func hostLog(cause uint32, level Level, message string) {
	passed[0] = message
	text := textOf(message)
	witLog(cause, uint32(level), text.at, text.count)
	passed[0] = nil
}

// ---- setup ----------------------------------------------------------------------------------------

type (
	witOptionText struct {
		_     structs.HostLayout
		some  uint32
		value witText
	}
	witMember struct {
		_    structs.HostLayout
		name witText
		kind uint8
	}
	witField struct {
		_     structs.HostLayout
		name  witText
		kind  uint8
		unit  witText
		merge uint8
	}
	witTable struct {
		_                 structs.HostLayout
		name, description witText
		public, perTenant bool
		fields            witList
		newestBy          witOptionText
		retention         struct{ some, value uint64 }
		options           witList
	}
	witManifest struct {
		_                          structs.HostLayout
		name, version, description witText
		subscribes                 witList
		attributes                 uint8
		members, tables, emits     witList
		cycleDepthMax              struct{ some, value uint32 }
		eventTime                  struct{ some, allowedLateness, tick uint64 }
		onFailure                  uint8
		parameters                 witOptionText
		options                    witList
	}
)

// The sizes that the canonical ABI prescribes. If a type has another size, this does not compile.
var (
	_ [24]byte  = [unsafe.Sizeof(witField{})]byte{}
	_ [64]byte  = [unsafe.Sizeof(witTable{})]byte{}
	_ [12]byte  = [unsafe.Sizeof(witMember{})]byte{}
	_ [120]byte = [unsafe.Sizeof(witManifest{})]byte{}
	_ [200]byte = [unsafe.Sizeof(witBatch{})]byte{}
	_ [36]byte  = [unsafe.Sizeof(witMemberColumn{})]byte{}
	_ [24]byte  = [unsafe.Sizeof(witTimer{})]byte{}
)

// described keeps the values to which the manifest refers, so that they are not freed.
var described struct {
	texts []string
	lists []any
}

func keptText(text string) witText {
	described.texts = append(described.texts, text)
	return textOf(text)
}

func keptList[T any](list []T) witList {
	described.lists = append(described.lists, list)
	return listOf(list)
}

func keptTexts(list []string) witList {
	texts := make([]witText, len(list))
	for i, text := range list {
		texts[i] = keptText(text)
	}
	return keptList(texts)
}

func optional(text string) witOptionText {
	return witOptionText{some: uint32(b2i(text != "")), value: keptText(text)}
}

func describeTable(info tableInfo) witTable {
	fields := make([]witField, len(info.fields))
	for i, field := range info.fields {
		fields[i] = witField{name: keptText(field.name), kind: uint8(field.kind), unit: keptText(field.unit), merge: field.merge}
	}
	table := witTable{
		name: keptText(info.name), description: keptText(info.description), public: info.public,
		perTenant: info.perTenant, fields: keptList(fields), newestBy: optional(info.newestBy), options: textOf(""),
	}
	if info.retention > 0 {
		table.retention.some, table.retention.value = 1, uint64(info.retention)
	}
	return table
}

func describe() witManifest {
	described.texts, described.lists = nil, nil
	p := registered
	tables := make([]witTable, len(p.Tables))
	for i, table := range p.Tables {
		tables[i] = describeTable(table.describe())
	}
	members := make([]witMember, len(p.Members))
	for i, member := range p.Members {
		name, kind := member.describe()
		members[i] = witMember{name: keptText(name), kind: uint8(kind)}
	}
	manifest := witManifest{
		name: keptText(p.Name), version: keptText(p.Version), description: keptText(p.Description),
		subscribes: keptTexts(p.Subscribes), attributes: uint8(p.attributes()), members: keptList(members),
		tables: keptList(tables), emits: keptTexts(p.Emits), onFailure: uint8(p.OnFailure),
		parameters: optional(p.Parameters), options: textOf(""),
	}
	if p.Tick > 0 {
		manifest.eventTime.some = 1
		manifest.eventTime.allowedLateness, manifest.eventTime.tick = uint64(p.AllowedLateness), uint64(p.Tick)
	}
	return manifest
}

var setupAnswer struct {
	_        structs.HostLayout
	failed   uint64
	manifest witManifest
}

//go:wasmexport lantern:projection/projector@0.2.0#setup
func witSetup(parameters address, length uint32) address {
	given := strings.Clone(stringOf(witText{at: parameters, count: length}))
	setupAnswer.failed = 0
	if message := setup(given); message != "" {
		setupAnswer.failed = 1
		setupAnswer.manifest = witManifest{name: keptText(message)}
	} else {
		setupAnswer.manifest = describe()
	}
	return addressOf(unsafe.Pointer(&setupAnswer))
}

// ---- apply -------------------------------------------------------------------------------------------

type (
	witTimer struct {
		_      structs.HostLayout
		at     int64
		key    witText
		offset uint64
	}
	witMemberColumn struct {
		_        structs.HostLayout
		validity witList
		kind     uint8
		// values is the list of the values. For texts it has the end of each text, and `more` has the
		// bytes of all texts.
		values, more witList
		mismatched   witList
	}
	witBatch struct {
		_                                                                          structs.HostLayout
		partition                                                                  uint32
		timers                                                                     witList
		watermark                                                                  int64
		offsets, times, watermarks, typeNames, types                               witList
		id, source, subject, tenant, dataSchema, dataContentType, extensions, data witColumn
		members                                                                    witList
	}
)

func columnOf(given witColumn) column {
	return column{sliceOf[uint32](given.ends), stringOf(given.bytes)}
}

func memberOf(given witMemberColumn) memberColumn {
	member := memberColumn{validity: sliceOf[byte](given.validity), mismatched: sliceOf[uint32](given.mismatched)}
	switch given.kind {
	case 0, 1:
		member.integers = sliceOf[int64](given.values)
	case 2:
		member.numbers = sliceOf[float64](given.values)
	case 3:
		member.booleans = sliceOf[byte](given.values)
	default:
		member.texts = columnOf(witColumn{ends: given.values, bytes: given.more})
	}
	return member
}

func batchOf(given *witBatch) *batch {
	made := &batch{
		watermark: Time(given.watermark), offsets: sliceOf[uint64](given.offsets), times: sliceOf[int64](given.times),
		watermarks: sliceOf[int64](given.watermarks), types: sliceOf[uint16](given.types),
		id: columnOf(given.id), source: columnOf(given.source), subject: columnOf(given.subject),
		tenant: columnOf(given.tenant), dataSchema: columnOf(given.dataSchema),
		dataContentType: columnOf(given.dataContentType), extensions: columnOf(given.extensions), data: columnOf(given.data),
	}
	// The projection may keep these texts.
	for _, timer := range sliceOf[witTimer](given.timers) {
		made.timers = append(made.timers, dueTimer{Time(timer.at), strings.Clone(stringOf(timer.key)), timer.offset})
	}
	for _, name := range sliceOf[witText](given.typeNames) {
		made.typeNames = append(made.typeNames, strings.Clone(stringOf(name)))
	}
	for _, member := range sliceOf[witMemberColumn](given.members) {
		made.members = append(made.members, memberOf(member))
	}
	return made
}

var applyAnswer struct {
	_        structs.HostLayout
	failed   uint32
	hasCause uint32
	cause    uint32
	message  witText
}

var applyMessage string

//go:wasmexport lantern:projection/projector@0.2.0#apply
func witApply(given address) address {
	failed := apply(batchOf((*witBatch)(pointerTo(given))))
	applyAnswer.failed = 0
	if failed != nil {
		applyMessage = failed.message
		applyAnswer.failed, applyAnswer.hasCause, applyAnswer.cause = 1, 1, failed.cause
		applyAnswer.message = textOf(applyMessage)
	}
	return addressOf(unsafe.Pointer(&applyAnswer))
}
