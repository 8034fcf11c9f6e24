//! A sample of live batches is folded a second time, by a fresh instance over
//! the same state, before the first result is merged. A plugin that is honest
//! during the check of its upload and not later is noticed that way, while
//! nothing of the second fold is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use lantern_core::{ApplyError, Batch, FoldDifference, Space, TableId, Timestamp, TrapKind};

use crate::apply::CallError;
use crate::call::Call;
use crate::shard::{Shard, Stop};

/// The bytes of a key or value that are shown.
const SHOWN_BYTES_MAX: usize = 200;

impl Shard {
    /// Whether the batch at `offset` is one of the sample: a function of the offset,
    /// so that the same batches are not chosen by when they come.
    pub(crate) fn is_sampled(&self, offset: u64) -> bool {
        let every = self.config.second_fold_every;
        // Folds of checks and verifications are second folds themselves.
        self.is_live() && every > 0 && mixed(offset).is_multiple_of(every)
    }

    /// Folds `batch` again and compares with `first`. What it finds is kept with the
    /// state, and told.
    pub(crate) fn fold_again(
        &mut self,
        batch: &Arc<Batch>,
        dues: &[Timestamp],
        offset: u64,
        first: &Call,
    ) -> Result<(), CallError> {
        // A shortage of the machine says nothing of the plugin.
        let Ok(mut instance) = self.plugin.instantiate() else { return Ok(()) };
        let call = self.begin_call(batch, dues);
        // A fresh instance reads again what the other one knew.
        let applied = instance.apply(batch, Box::new(call), self.config.fuel_event);
        let call = applied.host.into_any().downcast::<Call>().map_err(|_| {
            CallError::Stop(Stop::Fault("the plugin host gave back another call".into()))
        })?;
        let second = *call;
        let difference = match applied.result {
            Ok(()) => self.difference(offset, first, &second),
            Err(ApplyError::Fault(_) | ApplyError::Trapped { kind: TrapKind::Fuel, .. }) => None,
            Err(error) => Some(FoldDifference {
                offset,
                what: "outcome of the call".into(),
                key: String::new(),
                first: Some("it succeeded".into()),
                second: Some(error.to_string()),
            }),
        };
        self.overlay = second.applied;
        self.meta.second_folds.batches += 1;
        let Some(difference) = difference else { return Ok(()) };
        tracing::error!(
            projection = %self.id.projection, version = %self.id.version,
            partition = %self.id.partition, offset, what = difference.what,
            key = difference.key, code = "LAN-0222",
            "a batch that was folded a second time came to something else: the plugin is not deterministic"
        );
        let reason = format!(
            "the plugin is not deterministic: folded a second time, the batch at offset {offset} gives another {} under key `{}` (`engine.second_fold_halts`)",
            difference.what, difference.key
        );
        self.meta.second_folds.differences += 1;
        self.meta.second_folds.last = Some(difference);
        if self.config.second_fold_halts {
            return Err(CallError::Stop(Stop::Halt(reason)));
        }
        Ok(())
    }

    fn difference(&self, offset: u64, first: &Call, second: &Call) -> Option<FoldDifference> {
        let (left, right) = (first.written.all(), second.written.all());
        let differing = left
            .iter()
            .find(|(key, value)| right.get(*key) != Some(value))
            .map(|(key, _)| key)
            .or_else(|| right.keys().find(|key| !left.contains_key(*key)));
        if let Some((space, key)) = differing {
            let place = (*space, key.clone());
            return Some(FoldDifference {
                offset,
                what: self.name_of(*space),
                key: shown(key),
                first: written(&left, &place),
                second: written(&right, &place),
            });
        }
        if first.emitted == second.emitted {
            return None;
        }
        let place = first.emitted.iter().zip(&second.emitted).position(|(l, r)| l != r);
        let place = place.unwrap_or(first.emitted.len().min(second.emitted.len()));
        let event = |call: &Call| call.emitted.get(place).map(|event| shown(&event.data));
        Some(FoldDifference {
            offset,
            what: "emitted event".into(),
            key: place.to_string(),
            first: event(first),
            second: event(second),
        })
    }

    fn name_of(&self, space: Space) -> String {
        match space {
            Space::Table(TableId(table)) => {
                let declared = self.manifest.tables.get(table as usize);
                format!("row in table `{}`", declared.map_or("?", |table| table.name.as_str()))
            }
            Space::TimersByTime | Space::TimersByKey => "timer".into(),
            _ => "entry of the state".into(),
        }
    }
}

type Written = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

/// What a fold wrote at `place`; `None` if nothing.
fn written(all: &Written, place: &(Space, Vec<u8>)) -> Option<String> {
    let value = all.get(place)?;
    Some(value.as_deref().map_or_else(|| "deleted".to_owned(), shown))
}

fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    String::from_utf8_lossy(cut).escape_debug().to_string().replace("\\\"", "\"")
}

/// SplitMix64's finisher (Steele et al. 2014): neighbouring offsets are not chosen
/// together.
fn mixed(offset: u64) -> u64 {
    let mut z = offset.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
