//! Tracks the timer or event that the projection is processing now. This timer or event is the
//! cause of each write, and the projection may change only rows of its tenant.

use std::cell::{Cell, RefCell};

thread_local! {
    static CAUSE: Cell<u32> = const { Cell::new(0) };
    static TENANT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Sets the current timer or event. `cause` is its index in the batch.
#[inline]
pub(crate) fn enter(cause: u32) {
    CAUSE.set(cause);
}

/// Sets the tenant whose rows may be changed; `None` for a timer that belongs to no tenant.
pub(crate) fn enter_tenant(tenant: Option<&str>) {
    TENANT.with_borrow_mut(|current| match (current, tenant) {
        (Some(current), Some(tenant)) => {
            if current != tenant {
                current.clear();
                current.push_str(tenant);
            }
        }
        (current, tenant) => *current = tenant.map(str::to_owned),
    });
}

/// Returns the index in the batch of the current timer or event.
#[inline]
pub(crate) fn cause() -> u32 {
    CAUSE.get()
}

/// Returns whether the projection may now change rows of the tenant at the beginning of `key`.
pub(crate) fn may_change(key: &str) -> bool {
    let tenant = key.split_once('\0').map(|(tenant, _)| tenant);
    tenant.is_some() && TENANT.with_borrow(|current| current.as_deref() == tenant)
}
