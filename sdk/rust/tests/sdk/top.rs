//! Tests the N largest values of each group by comparing them with a sort of all values.

use std::collections::BTreeMap;

use lantern_sdk::Narrow;
use lantern_sdk::prelude::*;
use lantern_sdk::testing::{Harness, TestEvent, check_determinism};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const N: usize = 3;

#[derive(Tables)]
struct Best {
    /// Values of the N largest, by group and rank.
    best: Table<Place>,
    #[table(private)]
    ranking: TopN<N>,
}

#[derive(Row, Default)]
struct Place {
    item: String,
    value: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Change {
    Add(String, String, i64),
    Set(String, String, i64),
    Remove(String, String),
    Clear(String),
}

impl Projection for Best {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["*"]))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let change: Change = event.data()?;
        let ranking = &mut self.ranking;
        let (group, changed) = match &change {
            Change::Add(group, item, by) => (group, ranking.add(group, item, *by)?),
            Change::Set(group, item, to) => (group, ranking.set(group, item, *to)?),
            Change::Remove(group, item) => (group, ranking.remove(group, item)?),
            Change::Clear(group) => {
                ranking.clear(group)?;
                (group, true)
            }
        };
        // The value of an item can be read whatever its rank is.
        if let Change::Set(group, item, to) = &change
            && self.ranking.value(group, item)? != Some(*to)
        {
            return Err(Error::new("the value is not the one that was set"));
        }
        if !changed {
            return Ok(());
        }
        let largest = self.ranking.largest(group)?;
        for rank in 0..N {
            let key = (group, Narrow(rank as i64));
            match largest.get(rank) {
                Some(ranked) => {
                    let (item, value) = (ranked.item.clone(), ranked.value);
                    self.best.put(key, Place { item, value })?;
                }
                None => self.best.delete(key)?,
            }
        }
        Ok(())
    }
}

/// Returns the N largest values of each group, calculated by sorting all values.
fn expected(changes: &[Change]) -> BTreeMap<(String, usize), (String, i64)> {
    let mut values: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for change in changes {
        match change {
            Change::Add(group, item, by) => *values.entry((group, item)).or_default() += by,
            Change::Set(group, item, to) => drop(values.insert((group, item), *to)),
            Change::Remove(group, item) => drop(values.remove(&(group.as_str(), item.as_str()))),
            Change::Clear(group) => values.retain(|(of, _), _| of != group),
        }
    }
    let mut all: Vec<_> = values.into_iter().collect();
    all.sort_by_key(|((group, item), value)| (*group, -value, *item));
    let mut ranked = BTreeMap::new();
    for ((group, item), value) in all {
        let rank = ranked.keys().filter(|(of, _): &&(String, usize)| of == group).count();
        if rank < N {
            ranked.insert((group.to_owned(), rank), (item.to_owned(), value));
        }
    }
    ranked
}

fn change() -> impl Strategy<Value = Change> {
    // There are few values, so equal values are frequent. Some keys need escapes, and some sort
    // differently if they are escaped.
    let group = prop_oneof![Just("a"), Just("a/b"), Just("")].prop_map(str::to_owned);
    let item = prop_oneof![
        Just("a"),
        Just("a."),
        Just("a/"),
        Just("a%"),
        Just("b"),
        Just("b/c"),
        Just("ü"),
        Just(""),
    ];
    let (item, value) = (item.prop_map(str::to_owned), -3..=3_i64);
    (group, item, value, 0..20).prop_map(|(group, item, value, kind)| match kind {
        0..8 => Change::Add(group, item, value),
        8..14 => Change::Set(group, item, value),
        14..19 => Change::Remove(group, item),
        _ => Change::Clear(group),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_n_largest_are_those_of_a_sort_whatever_the_changes_and_ties(
        changes in prop::collection::vec(change(), 1..80),
    ) {
        let event = |change: &Change| TestEvent::new("changed").json(change);
        let events: Vec<_> = changes.iter().map(event).collect();
        let outcome = check_determinism::<Best>("", &events);
        prop_assert_eq!(&outcome.parked, &[]);
        let mut host = Harness::<Best>::new();
        host.feed(events);
        let rows = host.typed_rows::<Place>("best");
        let found: BTreeMap<_, _> = rows.into_iter().map(|(key, place)| {
            let (group, rank) = key.rsplit_once('/').unwrap();
            let rank = Narrow::parse(rank).unwrap().0 as usize;
            let group = lantern_sdk::key_part(group).into_owned();
            ((group, rank), (place.item, place.value))
        }).collect();
        prop_assert_eq!(found, expected(&changes));
    }
}

#[test]
fn values_past_64_bits_park_their_event_and_a_cleared_group_leaves_no_rows() {
    let add = |by| Change::Add("g".into(), "i".into(), by);
    let mut host = Harness::<Best>::new();
    for change in [add(i64::MAX), add(1), add(-1)] {
        host.feed([TestEvent::new("changed").json(&change)]);
    }
    let [parked] = host.parked() else { panic!("{:?}", host.parked()) };
    assert_eq!(parked.offset, 1);
    assert!(parked.reason.contains("leaves the range of 64 bits"), "{}", parked.reason);
    assert_eq!(host.typed_rows::<Place>("best")["g/a0"].value, i64::MAX - 1);
    for item in 0..10 {
        let set = Change::Set("g".into(), format!("item {item}"), item);
        host.feed([TestEvent::new("changed").json(&set)]);
    }
    assert!(host.raw_rows("ranking").len() > 10);
    host.feed([TestEvent::new("changed").json(&Change::Clear("g".into()))]);
    assert_eq!((host.raw_rows("ranking").len(), host.raw_rows("best").len()), (0, 0));
}

#[derive(Tables)]
struct Expiring {
    #[table(private, retention = "1d")]
    ranking: TopN<1>,
}

impl Projection for Expiring {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!().subscribe(["*"]))
    }

    fn apply(&mut self, _: &Event<'_>) -> Result<(), Error> {
        self.ranking.add("group", "item", 1).map(drop)
    }
}

#[test]
fn a_ranking_whose_rows_would_expire_one_by_one_is_refused() {
    let mut host = Harness::<Expiring>::new();
    host.feed([TestEvent::new("changed")]);
    let reason = &host.parked()[0].reason;
    assert!(reason.contains("table `ranking`: a `TopN` cannot have a retention"), "{reason}");
}
