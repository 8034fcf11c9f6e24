//! Encodes the keys and values of timers and of expiring rows.

use lantern_core::{Offset, TableId, Timer, Timestamp};

/// Returns the value with which a timer is stored in [`lantern_core::Space::TimersByTime`], under
/// the key [`timer_key`].
pub(crate) fn timer_value(at: Timestamp, offset: Offset, depth: u32) -> [u8; 20] {
    let mut value = [0; 20];
    value[..8].copy_from_slice(&at.0.to_be_bytes());
    value[8..16].copy_from_slice(&offset.0.to_be_bytes());
    value[16..].copy_from_slice(&depth.to_be_bytes());
    value
}

/// Decodes the timer that is stored as `value` under `key`, with its due time; `None` if
/// the bytes are damaged.
pub(crate) fn decode_timer(key: &[u8], value: &[u8]) -> Option<(Timestamp, Timer)> {
    let (due, key) = key.split_first_chunk::<8>()?;
    let key = String::from_utf8(key.to_vec()).ok()?;
    let (at, offset) = value.split_first_chunk::<8>()?;
    let at = Timestamp(i64::from_be_bytes(*at));
    let (offset, depth) = offset.split_first_chunk::<8>()?;
    let offset = Offset(u64::from_be_bytes(*offset));
    let depth = u32::from_be_bytes(depth.try_into().ok()?);
    Some((key_time(*due), Timer { at, key, offset, depth }))
}

/// Encodes a time in eight bytes that sort like the times.
pub(crate) fn time_key(time: Timestamp) -> [u8; 8] {
    (time.0 as u64 ^ (1 << 63)).to_be_bytes()
}

/// Decodes the bytes that [`time_key`] has encoded.
pub(crate) fn key_time(bytes: [u8; 8]) -> Timestamp {
    Timestamp((u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

/// Returns the key of a row in [`lantern_core::Space::Expiry`] that sorts by time.
pub(crate) fn expiry_by_time(at: [u8; 8], table: TableId, key: &[u8]) -> Vec<u8> {
    [&[0], at.as_slice(), &table.0.to_be_bytes(), key].concat()
}

/// Returns the key of a row in [`lantern_core::Space::Expiry`] that sorts by table and key.
pub(crate) fn expiry_by_row(table: TableId, key: &[u8]) -> Vec<u8> {
    [&[1], table.0.to_be_bytes().as_slice(), key].concat()
}

/// Returns the key of a timer in [`lantern_core::Space::TimersByTime`].
pub(crate) fn timer_key(due: Timestamp, key: &str) -> Vec<u8> {
    let mut bytes = time_key(due).to_vec();
    bytes.extend_from_slice(key.as_bytes());
    bytes
}
