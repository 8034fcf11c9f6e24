//! Tests the format of chunks: random events are encoded and decoded, and damage is detected.

use lantern_core::{Chunk, Offsets};
use proptest::prelude::*;

use super::*;
use crate::Compression;
use crate::embedded::codec::{self, CodecError, Encoder, ToEncode};

fn encode(compression: Compression, events: &Events, range: std::ops::Range<usize>) -> Vec<u8> {
    let appended: Vec<_> = range.clone().map(append_time).collect();
    encode_appended(compression, events, range, &appended)
}

fn encode_appended(
    compression: Compression,
    events: &Events,
    range: std::ops::Range<usize>,
    appended: &[Timestamp],
) -> Vec<u8> {
    let (partition, first) = (PartitionId(3), Offset(77));
    let chunk = ToEncode { events, range, partition, first, appended };
    Encoder::new(compression).encode(&chunk).bytes
}

/// Returns the append time of the event at `index`. The times rise, but the clock is set back once.
fn append_time(index: usize) -> Timestamp {
    let seconds = i64::try_from(index / 3).unwrap();
    Timestamp(if index == 7 { -1 } else { seconds * 1_000_000 })
}

fn decode(bytes: &[u8]) -> Result<Chunk, CodecError> {
    codec::decode(bytes, PartitionId(3), Offset(77)).map(|(_, chunk)| chunk)
}

const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fn any_event() -> impl Strategy<Value = Event> {
    let text = || {
        prop_oneof![
            3 => Just(String::new()),
            3 => Just("same".to_owned()),
            2 => "[ab]{3}",
            2 => "\\PC{0,12}",
            1 => "x{250,300}",
        ]
    };
    let time = prop_oneof![
        4 => (0_i64..100).prop_map(|s| s * 1_000_000),
        4 => 0_i64..100_000,
        1 => any::<i64>(),
    ];
    let data = proptest::collection::vec(any::<u8>(), 0..40);
    ((text(), text(), "[a-c]{1,2}", text(), time), (text(), text(), text(), text(), data)).prop_map(
        |((id, source, kind, subject, time), (tenant, schema, media, extensions, data))| Event {
            id,
            source,
            kind,
            subject,
            time: Timestamp(time),
            tenant,
            dataschema: schema,
            datacontenttype: media,
            extensions,
            data,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_of_random_events_come_back(
        all in proptest::collection::vec(any_event(), 1..60),
        cut in any::<(u8, u8)>(),
        compression in prop::sample::select(&ALL[..]),
    ) {
        let events = columns(&all);
        let start = usize::from(cut.0) % all.len();
        let end = start + 1 + usize::from(cut.1) % (all.len() - start);
        let bytes = encode(compression, &events, start..end);
        let (header, chunk) = codec::decode(&bytes, PartitionId(3), Offset(77)).unwrap();
        prop_assert_eq!(&chunk.offsets, &Offsets::Dense { first: Offset(77) });
        prop_assert_eq!(&chunk.events, &columns(&all[start..end]));
        let appended: Vec<_> = (start..end).map(append_time).collect();
        prop_assert_eq!(&chunk.appended, &appended);
        prop_assert_eq!(header.appended_min, *appended.iter().min().unwrap());
        prop_assert_eq!(header.appended_max, *appended.iter().max().unwrap());
        prop_assert_eq!(header.count as usize, end - start);
        prop_assert_eq!(header.time_max, all[start..end].iter().map(|e| e.time).max().unwrap());
    }

    #[test]
    fn random_bytes_with_a_right_checksum_never_panic(
        content in proptest::collection::vec(any::<u8>(), 0..200),
        body_bytes in 0_u32..400,
        count in 0_u32..20,
        compression in 0_u32..4,
    ) {
        let mut bytes = encode(Compression::None, &columns(&numbered(0..2)), 0..2);
        bytes.truncate(56);
        bytes.extend(content);
        bytes[8..12].copy_from_slice(&compression.to_le_bytes());
        bytes[24..28].copy_from_slice(&count.to_le_bytes());
        bytes[28..32].copy_from_slice(&body_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[8..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        let _ = decode(&bytes);
    }
}

#[test]
fn a_chunk_with_any_byte_flipped_or_cut_off_is_refused() {
    for compression in ALL {
        let bytes = encode(compression, &columns(&numbered(0..40)), 0..40);
        assert!(decode(&bytes).is_ok());
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[index] ^= 1 << bit;
                assert!(decode(&flipped).is_err(), "{compression:?}: bit {bit} of byte {index}");
            }
            assert!(decode(&bytes[..index]).is_err(), "{compression:?}: cut to {index}");
        }
        let elsewhere = codec::decode(&bytes, PartitionId(3), Offset(78)).unwrap_err();
        assert_eq!(elsewhere, CodecError::Elsewhere { partition: 3, first: 77 });
        let mut longer = bytes;
        longer.push(0);
        assert!(decode(&longer).is_err());
    }
}

#[test]
fn constant_columns_cost_next_to_nothing() {
    let events: Vec<_> =
        (0..1_000).map(|_| Event { time: Timestamp(1), ..event("", "t", "s", 1) }).collect();
    let appended = [Timestamp(1); 1_000];
    let bytes = encode_appended(Compression::None, &columns(&events), 0..1_000, &appended);
    assert!(bytes.len() < 160);
}

fn stored(hex: &str) -> Vec<u8> {
    let (pairs, _) = hex.trim().as_bytes().as_chunks::<2>();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

/// Decodes a chunk as the first release has written it. Files of every release must stay readable.
#[test]
fn a_chunk_of_the_first_release_is_read() {
    let chunk = decode(&stored(include_str!("chunk-2.hex"))).unwrap();
    assert_eq!(chunk.events, columns(&of_the_first_release()));
    assert_eq!(chunk.appended, (0..5).map(append_time).collect::<Vec<_>>());
}

#[test]
fn a_chunk_without_append_times_is_refused() {
    let chunk = decode(&stored(include_str!("chunk-1.hex")));
    assert_eq!(chunk.unwrap_err(), CodecError::Mark);
}

fn of_the_first_release() -> Vec<Event> {
    let mut all = numbered(0..5);
    all[1].kind = "u".into();
    all[2].tenant = "é".into();
    all[3].extensions = r#"{"k":"v"}"#.into();
    all[4].data = vec![0; 300];
    all
}

#[test]
#[ignore = "writes the file that the test above reads; for a new format only"]
fn write_a_chunk_of_this_release() {
    let bytes = encode(Compression::Lz4, &columns(&of_the_first_release()), 0..5);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{hex}");
}
