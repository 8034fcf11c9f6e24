//! Writes and reads the JSON form of sketches in rows. It contains the numbers for people, and the
//! sketch itself so that it can be merged.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{DecodeError, Distinct, Percentiles};

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistinctForm<'a> {
    estimate: u64,
    #[serde(borrow)]
    sketch: Cow<'a, str>,
}

/// The JSON of percentiles. If there are no values, all numbers except the count are null.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PercentilesForm<'a> {
    count: u64,
    min: Option<i64>,
    p50: Option<i64>,
    p75: Option<i64>,
    p90: Option<i64>,
    p95: Option<i64>,
    p99: Option<i64>,
    max: Option<i64>,
    #[serde(borrow)]
    sketch: Cow<'a, str>,
}

impl Distinct {
    fn form(&self) -> DistinctForm<'static> {
        DistinctForm { estimate: self.estimate(), sketch: to_base64(&self.encode()) }
    }
}

impl Percentiles {
    fn form(&self) -> PercentilesForm<'static> {
        PercentilesForm {
            count: self.count(),
            min: self.min(),
            p50: self.percentile(50),
            p75: self.percentile(75),
            p90: self.percentile(90),
            p95: self.percentile(95),
            p99: self.percentile(99),
            max: self.max(),
            sketch: to_base64(&self.encode()),
        }
    }
}

fn to_base64(bytes: &[u8]) -> Cow<'static, str> {
    Cow::Owned(STANDARD.encode(bytes))
}

fn from_base64(text: &str) -> Result<Vec<u8>, DecodeError> {
    STANDARD.decode(text).map_err(|_| DecodeError::Base64)
}

macro_rules! json {
    ($sketch:ident, $form:ident) => {
        impl $sketch {
            /// Returns the bytes of [`Self::encode`], as base64.
            #[must_use]
            pub fn to_base64(&self) -> String {
                to_base64(&self.encode()).into_owned()
            }

            /// Reads a sketch from the text that [`Self::to_base64`] has written.
            ///
            /// # Errors
            /// Returns [`DecodeError`] if `text` is not that of a sketch.
            pub fn from_base64(text: &str) -> Result<Self, DecodeError> {
                Self::decode(&from_base64(text)?)
            }
        }

        /// Writes the form that a sketch has in a row: an object with the numbers and the sketch.
        impl Serialize for $sketch {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.form().serialize(serializer)
            }
        }

        /// Reads an object with exactly these members. The numbers must be the ones that the sketch
        /// gives.
        impl<'de> Deserialize<'de> for $sketch {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let form = $form::deserialize(deserializer)?;
                let sketch = Self::from_base64(&form.sketch).map_err(de::Error::custom)?;
                if sketch.form() != form {
                    return Err(de::Error::custom(DecodeError::Summary));
                }
                Ok(sketch)
            }
        }
    };
}

json!(Distinct, DistinctForm);
json!(Percentiles, PercentilesForm);
