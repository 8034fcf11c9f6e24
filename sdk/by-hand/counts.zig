//! Counts events by type, for the contract without an SDK. docs/guide/by-hand.md explains it.

const std = @import("std");

/// Text, bytes and lists: an address and a number of elements.
fn List(Element: type) type {
    return extern struct { at: [*]const Element, count: usize };
}
const Text = List(u8);
/// Byte strings, end to end: string `i` ends at `ends[i]`.
const Column = extern struct { ends: List(u32), bytes: List(u8) };

fn text(comptime string: []const u8) Text {
    return .{ .at = string.ptr, .count = string.len };
}

/// The address of an empty list must be within the memory and aligned as well.
fn none(Element: type) List(Element) {
    return .{ .at = @ptrFromInt(8), .count = 0 };
}

// ---- What the host offers -----------------------------------------------------------------

/// `option<list<u8>>`: whether there is a value, then the value.
const OptionBytes = extern struct { is_some: u8, value: Text };

extern "lantern:projection/tables@0.2.0" fn get(table: u32, key: [*]const u8, key_count: usize, found: *OptionBytes) void;
extern "lantern:projection/tables@0.2.0" fn put(cause: u32, table: u32, key: [*]const u8, key_count: usize, value: [*]const u8, value_count: usize) void;

// ---- The records of the contract, in its order ----------------------------------------------

const OptionText = extern struct { is_some: u8 = 0, value: Text = none(u8) };
const OptionU32 = extern struct { is_some: u8 = 0, value: u32 = 0 };
const OptionU64 = extern struct { is_some: u8 = 0, value: u64 = 0 };
const OptionEventTime = extern struct { is_some: u8 = 0, allowed_lateness: u64 = 0, tick: u64 = 0 };
const Field = extern struct { name: Text, kind: u8, unit: Text, merge: u8 };
const Table = extern struct {
    name: Text,
    description: Text,
    public: bool,
    per_tenant: bool,
    fields: List(Field),
    newest_by: OptionText = .{},
    retention: OptionU64 = .{},
    options: List([2]Text) = none([2]Text),
};
const Manifest = extern struct {
    name: Text,
    version: Text,
    description: Text,
    subscribes: List(Text),
    attributes: u8 = 0,
    members: List(u8) = none(u8),
    tables: List(Table),
    emits: List(Text) = none(Text),
    cycle_depth_max: OptionU32 = .{},
    event_time: OptionEventTime = .{},
    on_failure: u8,
    parameters: OptionText = .{},
    options: List([2]Text) = none([2]Text),
};
const Batch = extern struct {
    partition: u32,
    timers: List(u8),
    watermark: i64,
    offsets: List(u64),
    times: List(i64),
    watermarks: List(i64),
    type_names: List(Text),
    types: List(u16),
    id: Column,
    source: Column,
    subject: Column,
    tenant: Column,
    dataschema: Column,
    datacontenttype: Column,
    extensions: Column,
    data: Column,
    members: List(u8),
};
/// `result<manifest, string>`.
const SetupResult = extern struct { is_error: u8, value: extern union { manifest: Manifest, message: Text } };
/// `result<_, failure>`.
const ApplyResult = extern struct { is_error: u8 = 0, cause: OptionU32 = .{}, message: Text = none(u8) };

comptime {
    std.debug.assert(@sizeOf(Manifest) == 120 and @sizeOf(Batch) == 200 and @sizeOf(Table) == 64);
}

// ---- Memory ---------------------------------------------------------------------------------------

/// What the host passes to a call. It is released after the call.
var memory = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);

export fn cabi_realloc(old: [*]u8, old_bytes: usize, alignment: usize, bytes: usize) [*]u8 {
    _ = alignment;
    const fresh = memory.allocator().alignedAlloc(u8, .@"8", @max(bytes, 1)) catch @trap();
    @memcpy(fresh[0..old_bytes], old[0..old_bytes]);
    return fresh.ptr;
}

// ---- What the plugin exports ------------------------------------------------------------------------

const fields = [_]Field{.{ .name = text("events"), .kind = 0, .unit = text(""), .merge = 1 }};
const tables = [_]Table{.{
    .name = text("by_type"),
    .description = text("Events by type."),
    .public = true,
    .per_tenant = false,
    .fields = .{ .at = &fields, .count = fields.len },
}};
const subscribes = [_]Text{text("*")};

var setup_result: SetupResult = undefined;
var apply_result: ApplyResult = undefined;

export fn @"lantern:projection/projector@0.2.0#setup"(parameters: [*]const u8, count: usize) *SetupResult {
    if (count > 0 and !std.mem.eql(u8, parameters[0..count], "{}")) {
        setup_result = .{ .is_error = 1, .value = .{ .message = text("this projection takes no parameters") } };
    } else {
        setup_result = .{ .is_error = 0, .value = .{ .manifest = .{
            .name = text("counts"),
            .version = text("0.1.0"),
            .description = text("Events by type"),
            .subscribes = .{ .at = &subscribes, .count = subscribes.len },
            .tables = .{ .at = &tables, .count = tables.len },
            .on_failure = 1,
        } } };
    }
    return &setup_result;
}

export fn @"lantern:projection/projector@0.2.0#apply"(batch: *const Batch) *ApplyResult {
    apply_result = .{};
    for (0..batch.type_names.count) |kind| {
        var events: u64 = 0;
        var cause: u32 = 0;
        for (0..batch.types.count) |index| {
            if (batch.types.at[index] == kind) {
                events += 1;
                // The number of timers comes first; this projection sets none.
                cause = @intCast(index);
            }
        }
        if (events > 0) count_more(cause, batch.type_names.at[kind], events);
    }
    return &apply_result;
}

/// Adds to the row of a type. All state is in the table: the instance keeps nothing.
fn count_more(cause: u32, kind: Text, events: u64) void {
    const prefix = "{\"events\":";
    var found: OptionBytes = undefined;
    get(0, kind.at, kind.count, &found);
    var total = events;
    if (found.is_some == 1) {
        for (found.value.at[prefix.len .. found.value.count - 1], 0..) |digit, index| {
            if (index == 0) total = 0;
            total = total * 10 + (digit - '0');
        }
        total += events;
    }
    var row: [40]u8 = undefined;
    const written = std.fmt.bufPrint(&row, "{s}{d}}}", .{ prefix, total }) catch @trap();
    put(cause, 0, kind.at, kind.count, written.ptr, written.len);
}

/// Called when the host has read the result.
export fn @"cabi_post_lantern:projection/projector@0.2.0#apply"(_: *ApplyResult) void {
    _ = memory.reset(.retain_capacity);
}
