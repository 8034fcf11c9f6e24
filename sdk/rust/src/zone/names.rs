//! Finds the data of a zone by its name. The macro that includes only one zone uses this module
//! too.

/// Returns the data of the zone `name` in the table `zones`; `None` if the table has no such zone.
pub(super) fn find<'a>(zones: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut remaining = zones;
    let mut found = None;
    loop {
        let (length, after) = remaining.split_first()?;
        if *length == 0 {
            let (start, end) = found?;
            return after.get(start..end);
        }
        let (entry, after) = after.split_at_checked(usize::from(*length) + 4)?;
        let (its_name, range) = entry.split_at(usize::from(*length));
        if its_name == name.as_bytes() {
            let number = |at: usize| usize::from(u16::from_be_bytes([range[at], range[at + 1]]));
            found = Some((number(0), number(0) + number(2)));
        }
        remaining = after;
    }
}
