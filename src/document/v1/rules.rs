//! Validates values without a type of their own. The schema has the same rules in `#[schemars(...)]`, and a test
//! compares both: the agent refuses exactly the values that an editor marks as wrong.

use std::fmt::Display;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::Kind;

/// Accepts a whole number from 1.
pub(crate) fn positive<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let number = T::deserialize(deserializer)?;
    if number == T::default() {
        Err(D::Error::custom("must be at least 1, not 0"))
    } else {
        Ok(number)
    }
}

/// Accepts a whole number from 1, or no value.
pub(crate) fn positive_or_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let number = Option::<T>::deserialize(deserializer)?;
    if number == Some(T::default()) {
        return Err(D::Error::custom(
            "must be at least 1, not 0; omit the field for the default",
        ));
    }
    Ok(number)
}

/// Accepts the number of hops to a neighbour that is not on the link.
pub(crate) fn hops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    in_range(deserializer, 2..=255, "use 2..255 hops")
}

/// Accepts a country's number in ISO 3166-1.
pub(crate) fn country<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    in_range(deserializer, 1..=999, "use an ISO 3166-1 number, 1..999")
}

fn in_range<'de, D, T>(
    deserializer: D,
    range: std::ops::RangeInclusive<T>,
    rule: &str,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let number = Option::<T>::deserialize(deserializer)?;
    match number {
        Some(number) if !range.contains(&number) => {
            Err(D::Error::custom(format!("invalid value {number}: {rule}")))
        }
        number => Ok(number),
    }
}

/// Accepts a text that is not blank.
pub(super) fn not_blank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        Err(D::Error::custom("must not be empty"))
    } else {
        Ok(text)
    }
}

/// Accepts a time in RFC 3339; the error shows an example.
pub(super) fn moment<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let shown = crate::model::shown(&text);
        D::Error::custom(format!(
            "invalid time {shown}: use RFC 3339, e.g. 2027-01-31T00:00:00Z"
        ))
    })
}

/// Accepts a kind that has overrides.
pub(super) fn overridable<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Kind>, D::Error> {
    let kind = Option::<Kind>::deserialize(deserializer)?;
    match kind {
        Some(kind @ (Kind::Maintenance | Kind::Override)) => {
            Err(D::Error::custom(format!("a {kind} has no overrides")))
        }
        kind => Ok(kind),
    }
}

/// Accepts the name of a file in `secrets/`. No path outside that folder is possible.
pub(super) fn secret_file<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let path = Option::<String>::deserialize(deserializer)?;
    if let Some(path) = &path {
        let name = path.strip_prefix("secrets/").unwrap_or_default();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if name.is_empty() || name.starts_with(['.', '-']) || !name.bytes().all(allowed) {
            // The text written here may be the secret itself, so the error does not quote it.
            return Err(D::Error::custom(
                "a secret belongs in its own file: write it to secrets/<name>, mode 0600, and put \
                 secrets/<name> here",
            ));
        }
    }
    Ok(path)
}
