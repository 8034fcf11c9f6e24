//! Keeps the subjects that have parked events. Later events of such a subject (and tenant) wait
//! until the parked events are retried or dropped.

use std::collections::BTreeMap;

use lantern_core::{KeyRange, ReadStore, Space, StoreError};

/// The number of parked events for each tenant and subject.
#[derive(Debug, Default)]
pub(crate) struct BlockedSubjects {
    /// The subjects and the numbers of their parked events (at least 1), by tenant.
    tenants: BTreeMap<String, BTreeMap<String, u64>>,
    subjects: usize,
}

impl BlockedSubjects {
    /// Reads the subjects with parked events from `store`.
    pub(crate) fn open(store: &dyn ReadStore) -> Result<Self, StoreError> {
        let mut blocked = Self::default();
        for (key, value) in
            store.scan(Space::ParkedSubjects, &KeyRange::all(), usize::MAX, false)?
        {
            let entry = decode_key(&key).zip(value.try_into().ok().map(u64::from_be_bytes));
            let ((tenant, subject), count) =
                entry.ok_or_else(|| StoreError::Damaged("a parked subject".into()))?;
            blocked.set(&tenant, &subject, count);
        }
        Ok(blocked)
    }

    /// Returns whether events of this tenant and subject have to wait.
    pub(crate) fn contains(&self, tenant: &str, subject: &str) -> bool {
        self.count(tenant, subject) > 0
    }

    /// Returns how many events of this tenant and subject are parked.
    pub(crate) fn count(&self, tenant: &str, subject: &str) -> u64 {
        let subjects = self.tenants.get(tenant);
        subjects.and_then(|subjects| subjects.get(subject)).copied().unwrap_or_default()
    }

    /// Sets the number of parked events of a subject. With 0, later events of the subject are
    /// applied again.
    pub(crate) fn set(&mut self, tenant: &str, subject: &str, count: u64) {
        let known = self.contains(tenant, subject);
        if count > 0 {
            let subjects = self.tenants.entry(tenant.to_owned()).or_default();
            subjects.insert(subject.to_owned(), count);
            self.subjects += usize::from(!known);
        } else if known && let Some(subjects) = self.tenants.get_mut(tenant) {
            subjects.remove(subject);
            self.subjects -= 1;
            if subjects.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// Returns the number of subjects with parked events.
    pub(crate) fn len(&self) -> usize {
        self.subjects
    }

    /// Returns whether no subject has parked events.
    pub(crate) fn is_empty(&self) -> bool {
        self.subjects == 0
    }
}

/// Returns the key of a subject in [`Space::ParkedSubjects`]: the length of the tenant, the tenant,
/// the subject. Because of the length, different pairs of tenant and subject have different keys.
pub(crate) fn key(tenant: &str, subject: &str) -> Vec<u8> {
    let length = u32::try_from(tenant.len()).expect("attributes are shorter than 4 GiB");
    [length.to_be_bytes().as_slice(), tenant.as_bytes(), subject.as_bytes()].concat()
}

fn decode_key(key: &[u8]) -> Option<(String, String)> {
    let (length, names) = key.split_first_chunk::<4>()?;
    let (tenant, subject) = names.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((String::from_utf8(tenant.into()).ok()?, String::from_utf8(subject.into()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_of_one_tenant_never_blocks_that_of_another() {
        let mut blocked = BlockedSubjects::default();
        blocked.set("a", "u1", 2);
        blocked.set("a", "u1", 1);
        assert!(blocked.contains("a", "u1"));
        assert!(!blocked.contains("", "u1") && !blocked.contains("a", ""));
        assert!(!blocked.contains("au", "1"));
        assert_eq!(blocked.len(), 1);
        blocked.set("a", "u1", 0);
        blocked.set("b", "u1", 0);
        assert!(blocked.is_empty() && blocked.tenants.is_empty());
        for (tenant, subject) in [("", "u"), ("t", ""), ("ä", "b/c"), ("t\0", "x")] {
            let pair = (tenant.to_owned(), subject.to_owned());
            assert_eq!(decode_key(&key(tenant, subject)), Some(pair));
        }
        assert_ne!(key("a", "bc"), key("ab", "c"));
    }
}
