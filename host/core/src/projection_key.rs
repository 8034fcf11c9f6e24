//! Defines the key that identifies a projection, made of its tenant and its name.

use sha2::{Digest, Sha256};

/// The maximum length of an escaped tenant in a key, in bytes. The key of a longer tenant contains
/// a hash instead.
const TENANT_BYTES_MAX: usize = 80;

/// Returns the key of the projection `name` of `tenant`. The key identifies the projection in the
/// catalogue, in the names of state folders, in the sources and ids of emitted events, and in the
/// labels of metrics. Without a tenant the key is the name.
///
/// No two pairs of tenant and name have the same key:
///
/// * A name contains only `a-z`, `0-9`, `-` and `_`, so it ends before the first dot of a key.
/// * In a tenant, every character other than `a-z`, `0-9` and `-` is escaped, also a dot: each byte
///   of the character becomes `_` and two hexadecimal digits.
/// * If an escaped tenant is longer than 80 bytes, the key contains the tenant's hash instead,
///   after two dots. So it never equals a key with an escaped tenant.
#[must_use]
pub fn projection_key(tenant: &str, name: &str) -> String {
    if tenant.is_empty() {
        return name.to_owned();
    }
    let mut escaped = String::with_capacity(tenant.len());
    for byte in tenant.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("_{byte:02x}")),
        }
    }
    if escaped.len() <= TENANT_BYTES_MAX {
        return format!("{name}.{escaped}");
    }
    let hash: [u8; 32] = Sha256::digest(tenant).into();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}..{hash}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_two_tenants_and_names_have_one_key() {
        let long = "x".repeat(81);
        let tenants = ["", "a", "A", "a_41", "_41", "a.b", "a_2eb", ".", "ä", "a/b", "a b", &long];
        let names = ["a", "b", "a_41", "a-b", "a_2eb"];
        let mut seen = BTreeMap::new();
        for tenant in tenants {
            for name in names {
                let key = projection_key(tenant, name);
                let plain =
                    |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
                assert!(key.len() <= 160 && key.bytes().all(plain), "{key}");
                assert_eq!(seen.insert(key.clone(), (tenant, name)), None, "{key}");
            }
        }
        assert_eq!(projection_key("", "orders"), "orders");
        assert_eq!(projection_key("Acme Co", "orders"), "orders._41cme_20_43o");
    }
}
