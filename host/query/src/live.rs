//! Keeps roll-ups up to date with the changes of a table. Their groups always equal those that a
//! query of the same rows returns.
//!
//! A change removes a row from its group and adds it to the group where it belongs now. Counts and
//! sums are exact, so each change updates them. Each other aggregate is updated too, if the change
//! alone decides the new result. Otherwise the group is *stale* until the rows are read again.

use std::collections::BTreeMap;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use lantern_core::{
    FieldSpans, FieldSpec, KeyRange, RequestError, RollUp as LiveRollUp, RollUpError,
    RollUpRequest, RollUps, RowFields, RowSource, TableChanges, TableSpec,
};

use crate::aggregate::Accumulator;
use crate::fill::fill;
use crate::follow::RowAt;
use crate::group_value::GroupValue;
use crate::plan::{RollUp, Shape};
use crate::request::{AggregateRequest, ConditionRequest, QueryRequest};
use crate::roll_up::{Group, GroupKeys, RowPlace, group_bytes};
use crate::{Budget, Plan, QueryConfig, QueryError};

/// Creates roll-ups within the limits of queries.
#[derive(Clone, Debug)]
pub struct LiveRollUps {
    config: QueryConfig,
}

impl LiveRollUps {
    /// Roll-ups within the limits of `config`.
    #[must_use]
    pub fn new(config: QueryConfig) -> Self {
        Self { config }
    }
}

impl RollUps for LiveRollUps {
    fn roll_up(
        &self,
        table: &TableSpec,
        request: &RollUpRequest,
    ) -> Result<Box<dyn LiveRollUp>, RequestError> {
        let request = query(request)?;
        if !request.is_roll_up() {
            let detail = "it has no groups: name `bucket`, `by` or `agg`";
            return Err(RequestError::new("rollup", detail));
        }
        let plan = Plan::new(table, &request)?;
        let keys = GroupKeys::new(plan.zone.clone());
        Ok(Box::new(LiveGroups {
            plan,
            config: self.config.clone(),
            keys,
            groups: HashMap::default(),
            stale: 0,
            touched: BTreeMap::new(),
            published: BTreeMap::new(),
            memory_bytes: 0,
            spans: Default::default(),
        }))
    }
}

/// The query with the same groups.
fn query(request: &RollUpRequest) -> Result<QueryRequest, RequestError> {
    let conditions = request.conditions.iter().cloned();
    let aggregates = request.aggregates.iter().map(|(name, call)| {
        let (function, field) = match call.as_slice() {
            [function] => (function, None),
            [function, field] => (function, Some(field.clone())),
            _ => {
                let detail = format!(
                    "`{name}` must be a function and at most one field, such as `[\"sum\", \"cents\"]`"
                );
                return Err(RequestError::new("agg", detail));
            }
        };
        Ok(AggregateRequest { name: Some(name.clone()), function: function.clone(), field })
    });
    let aggregates = aggregates.collect::<Result<_, _>>()?;
    let RollUpRequest { time, start, end, bucket, by, fill, tz, .. } = request.clone();
    let condition = |(field, operator, value)| ConditionRequest::Json { field, operator, value };
    let conditions = conditions.map(condition).collect();
    let (columns, order) = (None, None);
    Ok(QueryRequest {
        conditions,
        columns,
        order,
        time,
        start,
        end,
        bucket,
        by,
        aggregates,
        fill,
        tz,
    })
}

/// A group that follows its rows.
struct LiveGroup {
    group: Group,
    /// Its key in the feed.
    name: String,
    /// The number of its rows.
    rows: u64,
    /// Whether its aggregates are unknown.
    stale: bool,
}

type GroupsByKey = HashMap<Box<[u8]>, LiveGroup, RandomState>;

/// The groups of a table.
struct LiveGroups {
    plan: Plan,
    config: QueryConfig,
    keys: GroupKeys,
    /// The groups by the bytes of their keys.
    groups: GroupsByKey,
    /// The number of stale groups: those that must be computed again from the rows of the table.
    stale: usize,
    /// The groups that changed since the last `publish`. Each has the bytes of its key, and its key
    /// in the feed.
    touched: BTreeMap<Box<[u8]>, String>,
    /// The groups as of the last `publish`, as rows by their keys.
    published: BTreeMap<String, Vec<u8>>,
    memory_bytes: usize,
    /// The places of the fields in a row before and after its change.
    spans: [FieldSpans; 2],
}

impl LiveRollUp for LiveGroups {
    fn columns(&self) -> Vec<FieldSpec> {
        let column = |column: &crate::OutputColumn| FieldSpec {
            name: column.name.clone(),
            kind: column.kind,
            unit: column.unit.clone(),
            ..FieldSpec::default()
        };
        self.plan.columns().iter().map(column).collect()
    }

    fn restart(&mut self, rows: &dyn RowSource) -> Result<(), RollUpError> {
        // All groups may have changed. Groups that no longer exist are deleted.
        self.touched.extend(self.groups.drain().map(|(key, live)| (key, live.name)));
        let published = self.published.iter();
        let published = published.map(|(name, row)| published_bytes(name, row));
        (self.stale, self.memory_bytes) = (0, published.sum());
        self.read(rows, |_| true)
    }

    fn change(&mut self, before: Option<&[u8]>, after: Option<&[u8]>) -> Result<(), RollUpError> {
        let config = self.config.clone();
        let mut budget = Budget::resumed(&config, self.memory_bytes);
        let followed = self.follow(before, after, &mut budget);
        self.memory_bytes = budget.memory_bytes();
        Ok(followed?)
    }

    fn is_stale(&self) -> bool {
        self.stale > 0
    }

    fn read_stale(&mut self, rows: &dyn RowSource) -> Result<(), RollUpError> {
        let Shape::Groups(roll_up) = &self.plan.shape else { return Ok(()) };
        for live in self.groups.values_mut().filter(|live| live.stale) {
            self.memory_bytes = self.memory_bytes.saturating_sub(live.heap_bytes());
            let fresh = roll_up.accumulators.iter().map(|spec| Accumulator::new(*spec));
            live.group.accumulators = fresh.collect();
            live.rows = 0;
        }
        self.read(rows, |live| live.stale)?;
        self.groups.values_mut().for_each(|live| live.stale = false);
        self.stale = 0;
        Ok(())
    }

    fn publish(&mut self) -> Result<TableChanges, RollUpError> {
        let roll_up = self.roll_up();
        // Two kinds of roll-ups publish all groups: with `fill`, a change of one group can change
        // buckets without rows; and without `bucket` and `by`, the one group always exists.
        let all = roll_up.fill.is_some() || roll_up.is_one_group();
        Ok(if all { self.publish_all()? } else { self.publish_touched()? })
    }

    fn groups(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.published
    }

    fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

impl LiveGroups {
    /// Reads all rows. Adds each row to its group if `wanted` holds for the group.
    fn read(
        &mut self,
        rows: &dyn RowSource,
        wanted: impl Fn(&LiveGroup) -> bool,
    ) -> Result<(), RollUpError> {
        let Self { plan, config, keys, groups, touched, memory_bytes, .. } = self;
        let Shape::Groups(roll_up) = &plan.shape else { return Ok(()) };
        let mut budget = Budget::resumed(config, *memory_bytes);
        let read = plan.each_match(rows, &KeyRange::all(), &mut budget, |_, row, budget| {
            let place = keys.find(roll_up, row);
            let create = || LiveGroup::new(plan, roll_up, place, row);
            let live = find_or_create(groups, &keys.key, roll_up, budget, create)?;
            if wanted(live) {
                if live.rows == 0 {
                    touched.insert(keys.key.as_slice().into(), live.name.clone());
                }
                live.rows += 1;
                live.group.add(roll_up, row, place.time, budget)?;
            }
            Ok(true)
        });
        *memory_bytes = budget.memory_bytes();
        Ok(read?)
    }

    fn follow(
        &mut self,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
        budget: &mut Budget<'_>,
    ) -> Result<(), QueryError> {
        let Self { plan, keys, groups, touched, stale, spans, .. } = self;
        let Shape::Groups(roll_up) = &plan.shape else { return Ok(()) };
        let [before_spans, after_spans] = spans;
        let before = before.map(|row| plan.reader.read(row, before_spans));
        let after = after.map(|row| plan.reader.read(row, after_spans));
        let before = before.filter(|row| plan.filter.matches(row));
        let after = after.filter(|row| plan.filter.matches(row));
        let mut find = |row: &_| {
            let place = keys.find(roll_up, row);
            (place, Box::<[u8]>::from(keys.key.as_slice()))
        };
        let (from, to) = (before.as_ref().map(&mut find), after.as_ref().map(&mut find));
        let at = |row, place: RowPlace| RowAt { row, time: place.time };
        if let (Some((from_place, from_key)), Some((to_place, to_key))) = (&from, &to)
            && from_key == to_key
        {
            let rows = before.as_ref().zip(after.as_ref());
            let (Some(live), Some((before, after))) = (groups.get_mut(to_key), rows) else {
                return Ok(());
            };
            let rows = (Some(at(before, *from_place)), Some(at(after, *to_place)));
            live.follow(roll_up, rows, stale, budget)?;
            if !touched.contains_key(to_key) {
                touched.insert(to_key.clone(), live.name.clone());
            }
            return Ok(());
        }
        if let (Some((place, key)), Some(row)) = (from, &before)
            && let Some(live) = groups.get_mut(&key)
        {
            live.rows -= 1;
            touched.insert(key.clone(), live.name.clone());
            if live.rows == 0 {
                *stale -= usize::from(live.stale);
                budget.release(live.heap_bytes() + group_bytes(roll_up, key.len()));
                groups.remove(&key);
            } else {
                live.follow(roll_up, (Some(at(row, place)), None), stale, budget)?;
            }
        }
        if let (Some((place, key)), Some(row)) = (to, &after) {
            let create = || LiveGroup::new(plan, roll_up, place, row);
            let live = find_or_create(groups, &key, roll_up, budget, create)?;
            live.rows += 1;
            live.follow(roll_up, (None, Some(at(row, place))), stale, budget)?;
            touched.insert(key, live.name.clone());
        }
        Ok(())
    }

    /// Publishes the groups that changed.
    fn publish_touched(&mut self) -> Result<TableChanges, QueryError> {
        let mut changes = TableChanges::default();
        for (key, name) in std::mem::take(&mut self.touched) {
            let row = match self.groups.get(&key) {
                Some(live) => Some(self.written(&live.group.row(self.roll_up())?)),
                None => None,
            };
            self.show(name, row, &mut changes)?;
        }
        Ok(changes)
    }

    /// Compares all groups with those that were published before.
    fn publish_all(&mut self) -> Result<TableChanges, QueryError> {
        self.touched.clear();
        let config = self.config.clone();
        let mut budget = Budget::resumed(&config, self.memory_bytes);
        let roll_up = self.roll_up();
        let rows = self.groups.values().map(|live| live.group.row(roll_up));
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() && roll_up.is_one_group() {
            rows.push(Group::new(roll_up, None, None).row(roll_up)?);
        }
        let mut zone = self.plan.zone.clone();
        let rows = fill(roll_up, &mut zone, rows, &mut budget)?;
        let keys = roll_up.key_columns();
        let named = rows.iter().map(|row| (self.plan.group_key(&row[..keys]), self.written(row)));
        let all: BTreeMap<String, Vec<u8>> = named.collect();
        let gone = self.published.keys().filter(|name| !all.contains_key(*name));
        let gone: Vec<String> = gone.cloned().collect();
        let mut changes = TableChanges::default();
        for name in gone {
            self.show(name, None, &mut changes)?;
        }
        for (name, row) in all {
            self.show(name, Some(row), &mut changes)?;
        }
        Ok(changes)
    }

    /// Publishes the row of a group, or its deletion if the group no longer exists.
    fn show(
        &mut self,
        name: String,
        row: Option<Vec<u8>>,
        changes: &mut TableChanges,
    ) -> Result<(), QueryError> {
        let before = self.published.get(&name);
        if before == row.as_ref() {
            return Ok(());
        }
        let freed = before.map_or(0, |row| published_bytes(&name, row));
        let taken = row.as_ref().map_or(0, |row| published_bytes(&name, row));
        let mut budget = Budget::resumed(&self.config, self.memory_bytes);
        budget.release(freed);
        budget.take(taken)?;
        self.memory_bytes = budget.memory_bytes();
        match row {
            Some(row) => {
                self.published.insert(name.clone(), row.clone());
                changes.up.push((name, row));
            }
            None => {
                self.published.remove(&name);
                changes.del.push(name);
            }
        }
        Ok(())
    }

    fn written(&self, row: &[GroupValue]) -> Vec<u8> {
        let mut out = Vec::new();
        self.plan.write_group(row, &mut out);
        out
    }

    fn roll_up(&self) -> &RollUp {
        let Shape::Groups(roll_up) = &self.plan.shape else {
            unreachable!("the plan of a roll-up has groups")
        };
        roll_up
    }
}

/// The memory of a published group in addition to its key and its row.
const PUBLISHED_BYTES: usize = 96;

fn published_bytes(name: &str, row: &[u8]) -> usize {
    PUBLISHED_BYTES + name.len() + row.len()
}

/// Returns the group with the key `key`. If there is none, it is created with `create`.
fn find_or_create<'g>(
    groups: &'g mut GroupsByKey,
    key: &[u8],
    roll_up: &RollUp,
    budget: &mut Budget<'_>,
    create: impl FnOnce() -> LiveGroup,
) -> Result<&'g mut LiveGroup, QueryError> {
    let count = groups.len();
    Ok(match groups.entry_ref(key) {
        EntryRef::Occupied(group) => group.into_mut(),
        EntryRef::Vacant(place) => {
            budget.groups(count + 1)?;
            budget.take(group_bytes(roll_up, key.len()))?;
            place.insert_with_key(key.into(), create())
        }
    })
}

impl LiveGroup {
    fn new(plan: &Plan, roll_up: &RollUp, place: RowPlace, row: &RowFields<'_>) -> Self {
        let group = Group::new(roll_up, place.bucket, Some(row));
        let name = plan.group_key(&group.key);
        Self { group, name, rows: 0, stale: false }
    }

    fn heap_bytes(&self) -> usize {
        self.group.accumulators.iter().map(Accumulator::heap_bytes).sum()
    }

    /// Updates the groups for a changed row. If a group becomes stale (it must be computed again
    /// from its rows), counts it in `stale`.
    fn follow(
        &mut self,
        roll_up: &RollUp,
        (before, after): (Option<RowAt<'_>>, Option<RowAt<'_>>),
        stale: &mut usize,
        budget: &mut Budget<'_>,
    ) -> Result<(), QueryError> {
        let mut known = true;
        let specs = roll_up.accumulators.iter().enumerate();
        for (accumulator, (index, spec)) in self.group.accumulators.iter_mut().zip(specs) {
            let followed = accumulator.follow(*spec, before, after, budget);
            known &= followed.map_err(|error| roll_up.in_column(index, error))?;
        }
        if !known && !self.stale {
            self.stale = true;
            *stale += 1;
        }
        Ok(())
    }
}
