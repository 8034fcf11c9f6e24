//! Keeps the N largest values of each group.
//!
//! All groups are in one private table. For each group, this table has one row with the group's N
//! largest items in order. Every other item of the group has two rows. The row under the item's
//! name contains its value. The row under its value gives the order of the items: if one of the N
//! largest shrinks or is removed, these rows show the next largest item.

use std::cmp::Ordering;

use crate::error::{Error, FlushError, RowError};
use crate::key::{Key, Narrow};
use crate::row::Stored;
use crate::table::{Scan, Table, TableField};
use crate::table_spec::TableSpec;

/// Keeps the N largest values of each group. They are exact even if values grow, shrink and are
/// removed.
///
/// Values are integers; keep amounts in their smallest unit. If values are equal, the item whose
/// key comes first in the order of bytes ranks first. So the ranking depends only on the values,
/// and not on the order of events.
///
/// A `TopN` is a private table of its own. Copy the items that readers should see to a public
/// table whenever [`TopN::add`], [`TopN::set`] or [`TopN::remove`] returns that the N largest
/// have changed:
///
/// ```
/// use lantern_sdk::prelude::*;
/// use lantern_sdk::Narrow;
/// use serde::Deserialize;
///
/// #[derive(Row, Default)]
/// struct Best {
///     product: String,
///     #[row(unit = "cent")]
///     cents: i64,
/// }
///
/// #[derive(Tables)]
/// struct BestSellers {
///     /// The three best products of each day, by day and rank.
///     best: Table<Best>,
///     #[table(private)]
///     ranking: TopN<3>,
/// }
///
/// #[derive(Deserialize)]
/// struct Order {
///     product: String,
///     cents: i64,
/// }
///
/// impl Projection for BestSellers {
///     fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
///         Ok(lantern_sdk::manifest!().subscribe(["order.placed"]))
///     }
///
///     fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
///         let order: Order = event.data()?;
///         let day = event.time().day();
///         if self.ranking.add(day, &order.product, order.cents)? {
///             for (rank, sold) in (1..).zip(self.ranking.largest(day)?) {
///                 let row = Best { product: sold.item.clone(), cents: sold.value };
///                 self.best.put((day, Narrow(rank)), row)?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// # lantern_sdk::export!(BestSellers);
/// use lantern_sdk::testing::{Harness, TestEvent};
///
/// let mut shop = Harness::<BestSellers>::new();
/// for (product, cents) in [("cup", 300), ("lamp", 900), ("pen", 200), ("cup", 700), ("mat", 250)] {
///     let data = serde_json::json!({ "product": product, "cents": cents });
///     shop.feed([TestEvent::new("order.placed").json(&data).at("2026-03-01T12:00:00Z")]);
/// }
/// let best: Vec<_> = shop.typed_rows::<Best>("best").into_values().collect();
/// let best: Vec<_> = best.iter().map(|row| (row.product.as_str(), row.cents)).collect();
/// assert_eq!(best, [("cup", 1_000), ("lamp", 900), ("mat", 250)]);
/// ```
///
/// A change reads its group's row, and usually the item's own row. The table is scanned only if one
/// of the N largest shrinks or is removed. All items of a group are kept. So remove a group that is
/// no longer needed, such as a past day, with [`TopN::clear`]. A `retention` is refused, because it
/// would remove single items.
///
/// Each partition of the log has a ranking of its own, and rankings of several partitions cannot be
/// merged. If the log has several partitions, either partition it by the group, or show each
/// partition's ranking under keys of its own: public rows of two partitions must not have the same
/// key. To separate the items of tenants, make the tenant part of the group: `(tenant, group)`.
#[derive(Debug)]
pub struct TopN<const N: usize> {
    table: Table<RetainedKeys>,
    spec: &'static TableSpec,
}

/// An item among the N largest of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// The key of the item.
    pub item: String,
    /// The value of the item.
    pub value: i64,
}

impl Ranked {
    /// Returns whether `value` of `item` ranks before this one.
    fn is_behind(&self, item: &str, value: i64) -> bool {
        value.cmp(&self.value).then_with(|| (*self.item).cmp(item)) == Ordering::Greater
    }
}

/// A row of the private table.
#[derive(Debug)]
enum RetainedKeys {
    /// The row of a group: its N largest items in order, and the number of its other items.
    Group { largest: Vec<Ranked>, others: u64 },
    /// The row of an item that is not among the N largest, under the item's name. Contains its
    /// value.
    Value(i64),
    /// The row of an item that is not among the N largest, under its value.
    Place,
}

impl Stored for RetainedKeys {
    const FALLIBLE: bool = false;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        match self {
            Self::Group { largest, others } => {
                out.push(b'g');
                out.extend_from_slice(&others.to_le_bytes());
                for Ranked { item, value } in largest {
                    out.extend_from_slice(&value.to_le_bytes());
                    out.extend_from_slice(&(item.len() as u64).to_le_bytes());
                    out.extend_from_slice(item.as_bytes());
                }
            }
            Self::Value(value) => {
                out.push(b'v');
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Place => out.push(b'p'),
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        const MALFORMED: RowError = RowError::Malformed("no row of a `TopN` has these bytes");
        let (tag, mut rest) = bytes.split_first().ok_or(MALFORMED)?;
        let number = |rest: &mut &[u8]| -> Result<[u8; 8], RowError> {
            let (bytes, more) = rest.split_first_chunk().ok_or(MALFORMED)?;
            *rest = more;
            Ok(*bytes)
        };
        let kept = match tag {
            b'g' => {
                let others = u64::from_le_bytes(number(&mut rest)?);
                let mut largest = Vec::new();
                while !rest.is_empty() {
                    let value = i64::from_le_bytes(number(&mut rest)?);
                    let length = u64::from_le_bytes(number(&mut rest)?);
                    let length = usize::try_from(length).map_err(|_| MALFORMED)?;
                    let (item, more) = rest.split_at_checked(length).ok_or(MALFORMED)?;
                    let item = std::str::from_utf8(item).map_err(|_| MALFORMED)?.to_owned();
                    largest.push(Ranked { item, value });
                    rest = more;
                }
                Self::Group { largest, others }
            }
            b'v' => Self::Value(i64::from_le_bytes(number(&mut rest)?)),
            b'p' => Self::Place,
            _ => return Err(MALFORMED),
        };
        if rest.is_empty() { Ok(kept) } else { Err(MALFORMED) }
    }
}

impl<const N: usize> TableField for TopN<N> {
    fn open(spec: &'static TableSpec) -> Self {
        const { assert!(N > 0, "`TopN<0>` keeps nothing") };
        Self { table: Table::open(spec), spec }
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        self.table.flush()
    }

    fn check(&mut self) -> Result<(), Error> {
        self.table.check()
    }
}

impl<const N: usize> TopN<N> {
    /// Adds `amount`, which may be negative, to the value of `item`. A new item begins at 0.
    /// Returns whether the N largest have changed.
    ///
    /// # Errors
    /// Returns [`Error::Plugin`] if the sum does not fit 64 bits, and the errors of [`Table::get`].
    pub fn add(&mut self, group: impl Key, item: impl Key, amount: i64) -> Result<bool, Error> {
        let item = item.to_key();
        let sum = |value: Option<i64>| match value.unwrap_or_default().checked_add(amount) {
            Some(sum) => Ok(Some(sum)),
            None => Err(Error::new(format!("the value of {item:?} leaves the range of 64 bits"))),
        };
        self.change(&group.to_key(), &item, sum)
    }

    /// Sets the value of `item` to `value`. Returns whether the N largest have changed.
    ///
    /// # Errors
    /// Returns the errors of [`Table::get`].
    pub fn set(&mut self, group: impl Key, item: impl Key, value: i64) -> Result<bool, Error> {
        self.change(&group.to_key(), &item.to_key(), |_| Ok(Some(value)))
    }

    /// Removes `item`. Returns whether the N largest have changed.
    ///
    /// # Errors
    /// Returns the errors of [`Table::get`].
    pub fn remove(&mut self, group: impl Key, item: impl Key) -> Result<bool, Error> {
        self.change(&group.to_key(), &item.to_key(), |_| Ok(None))
    }

    /// Returns the N largest items of `group`, the largest first. There are fewer if the group has
    /// fewer items.
    ///
    /// # Errors
    /// Returns the errors of [`Table::get`].
    pub fn largest(&mut self, group: impl Key) -> Result<&[Ranked], Error> {
        match self.table.get(group_key(&group.to_key()))? {
            Some(RetainedKeys::Group { largest, .. }) => Ok(largest),
            _ => Ok(&[]),
        }
    }

    /// Returns the value of `item`, whether it is among the N largest or not.
    ///
    /// # Errors
    /// Returns the errors of [`Table::get`].
    pub fn value(&mut self, group: impl Key, item: impl Key) -> Result<Option<i64>, Error> {
        let (group, item) = (group.to_key(), item.to_key());
        let ranked = self.largest(&group)?.iter().find(|ranked| ranked.item == item);
        match ranked.map(|ranked| ranked.value) {
            Some(value) => Ok(Some(value)),
            None => self.other(&group, &item),
        }
    }

    /// Removes all items of `group`.
    ///
    /// # Errors
    /// Returns the errors of [`Table::scan`].
    pub fn clear(&mut self, group: impl Key) -> Result<(), Error> {
        let group = group.to_key();
        self.table.delete(group_key(&group))?;
        for prefix in [item_key(&group, ""), places_key(&group)] {
            for (key, _) in self.table.scan(&Scan::prefix(prefix))? {
                self.table.delete(key)?;
            }
        }
        Ok(())
    }

    /// Returns the value of an item that is not among the N largest.
    fn other(&mut self, group: &str, item: &str) -> Result<Option<i64>, Error> {
        match self.table.get(item_key(group, item))? {
            Some(RetainedKeys::Value(value)) => Ok(Some(*value)),
            _ => Ok(None),
        }
    }

    /// Sets the value of `item`. `value` is called with the current value and returns the new one.
    fn change(
        &mut self,
        group: &str,
        item: &str,
        value: impl FnOnce(Option<i64>) -> Result<Option<i64>, Error>,
    ) -> Result<bool, Error> {
        if self.spec.retention_us.is_some() {
            return Err(Error::new(format!(
                "table `{}`: a `TopN` cannot have a retention; clear groups instead",
                self.spec.name
            )));
        }
        let (largest, others) = match self.table.get(group_key(group))? {
            Some(RetainedKeys::Group { largest, others }) => (&largest[..], *others),
            _ => (&[][..], 0),
        };
        if let Some(place) = largest.iter().position(|ranked| ranked.item == item) {
            let before = largest[place].value;
            let after = value(Some(before))?;
            return match after {
                Some(after) if after == before => Ok(false),
                Some(after) => self.move_ranked(group, place, after).map(|()| true),
                None => self.remove_ranked(group, place).map(|()| true),
            };
        }
        let free = largest.len() < N;
        let last = largest.last().filter(|_| !free).cloned();
        let before = if others == 0 { None } else { self.other(group, item)? };
        let Some(after) = value(before)? else {
            if let Some(before) = before {
                self.remove_other(group, item, before)?;
            }
            return Ok(false);
        };
        if before == Some(after) {
            return Ok(false);
        }
        if let Some(before) = before {
            self.remove_other(group, item, before)?;
        }
        match last {
            Some(last) if !last.is_behind(item, after) => {
                self.put_other(group, item, after)?;
                return Ok(false);
            }
            Some(last) => {
                self.group(group)?.0.pop();
                self.put_other(group, &last.item, last.value)?;
            }
            None => {}
        }
        self.rank(group, Ranked { item: item.to_owned(), value: after })?;
        Ok(true)
    }

    /// Returns the N largest items of a group and the number of its other items. The caller may
    /// change them.
    fn group(&mut self, group: &str) -> Result<(&mut Vec<Ranked>, &mut u64), Error> {
        let fresh = || RetainedKeys::Group { largest: Vec::new(), others: 0 };
        match self.table.row_or(group_key(group), fresh)? {
            RetainedKeys::Group { largest, others } => Ok((largest, others)),
            RetainedKeys::Value(_) | RetainedKeys::Place => {
                Err(Error::new("a group's row is of a different kind"))
            }
        }
    }

    /// Puts an item at its place among the N largest.
    fn rank(&mut self, group: &str, ranked: Ranked) -> Result<(), Error> {
        let (largest, _) = self.group(group)?;
        let place = largest.partition_point(|other| !other.is_behind(&ranked.item, ranked.value));
        largest.insert(place, ranked);
        Ok(())
    }

    /// Gives the item at `place` another value.
    fn move_ranked(&mut self, group: &str, place: usize, value: i64) -> Result<(), Error> {
        let (largest, others) = self.group(group)?;
        let mut ranked = largest.remove(place);
        let shrinks = value < ranked.value;
        ranked.value = value;
        // If the item still ranks before one of the N largest, it also ranks before all other
        // items.
        let last = largest.last().is_none_or(|last| !last.is_behind(&ranked.item, value));
        if shrinks && last && *others > 0 {
            self.put_other(group, &ranked.item, value)?;
            return self.promote(group);
        }
        self.rank(group, ranked)
    }

    fn remove_ranked(&mut self, group: &str, place: usize) -> Result<(), Error> {
        let (largest, others) = self.group(group)?;
        largest.remove(place);
        if *others > 0 {
            return self.promote(group);
        }
        if largest.is_empty() {
            self.table.delete(group_key(group))?;
        }
        Ok(())
    }

    /// Moves the first of the other items to the N largest.
    fn promote(&mut self, group: &str) -> Result<(), Error> {
        let prefix = places_key(group);
        let first = self.table.scan(&Scan::prefix(prefix.as_str()).limit(1))?;
        let Some((key, _)) = first.first() else { return Ok(()) };
        let place = key.strip_prefix(&prefix).and_then(|place| place.split_once('/'));
        let found = place.and_then(|(value, item)| Some((Narrow::parse(value)?, item)));
        let (Narrow(inverse), item) =
            found.ok_or_else(|| Error::new(format!("the key {key:?} is not a key of a `TopN`")))?;
        self.remove_other(group, item, !inverse)?;
        self.rank(group, Ranked { item: item.to_owned(), value: !inverse })
    }

    fn put_other(&mut self, group: &str, item: &str, value: i64) -> Result<(), Error> {
        self.table.put(item_key(group, item), RetainedKeys::Value(value))?;
        self.table.put(place_key(group, item, value), RetainedKeys::Place)?;
        *self.group(group)?.1 += 1;
        Ok(())
    }

    fn remove_other(&mut self, group: &str, item: &str, value: i64) -> Result<(), Error> {
        self.table.delete(item_key(group, item))?;
        self.table.delete(place_key(group, item, value))?;
        *self.group(group)?.1 -= 1;
        Ok(())
    }
}

fn group_key(group: &str) -> String {
    ("group", group).to_key()
}

/// Returns the key of the row that an item has under its name. The item is the last part of the key
/// and is not escaped, because escaping could change the order.
fn item_key(group: &str, item: &str) -> String {
    let mut key = ("item", group, "").to_key();
    key.push_str(item);
    key
}

fn places_key(group: &str) -> String {
    ("place", group, "").to_key()
}

/// Returns the key of the row that an item has under its value. These keys sort by descending value
/// and, for equal values, by item.
fn place_key(group: &str, item: &str, value: i64) -> String {
    let mut key = places_key(group);
    Narrow(!value).write(&mut key);
    key.push('/');
    key.push_str(item);
    key
}
