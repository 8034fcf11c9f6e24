//! Defines the parameters.

use std::time::Duration;

use lantern_sdk::Error;
use serde::Deserialize;

/// The type of the events that this projection emits.
pub(crate) const ALERT_TYPE: &str = "alert.raised";

const WINDOW_S_MAX: u64 = 86_400;
const LOOKBACK_MAX: usize = 1_000;
const LATENESS_S_MAX: u64 = 86_400;

pub(crate) const SCHEMA: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "type": {
            "type": "string", "default": "order.placed",
            "description": "the type of the events to count"
        },
        "window_s": {
            "type": "integer", "minimum": 1, "maximum": 86400, "default": 60,
            "description": "the length of a window in seconds"
        },
        "lookback": {
            "type": "integer", "minimum": 2, "maximum": 1000, "default": 10,
            "description": "how many windows a window is compared with"
        },
        "drop_pct": {
            "type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 100, "default": 50,
            "description": "raise an alert when the rate is this many percent below the mean, or more; null: never"
        },
        "z": {
            "type": ["number", "null"], "exclusiveMinimum": 0, "default": 3,
            "description": "raise an alert when the rate is this many standard deviations off the mean, or more; null: never"
        },
        "lateness_s": {
            "type": "integer", "minimum": 0, "maximum": 86400, "default": 5,
            "description": "how many seconds an event may be older than the newest one without being late"
        },
        "clock": {
            "type": "array", "items": {"type": "string"}, "default": ["page.viewed"],
            "description": "other event types that move the watermark: if the counted events stop, these show that time advances"
        }
    }
}"#;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) window_s: u64,
    pub(crate) lookback: usize,
    pub(crate) drop_pct: Option<f64>,
    pub(crate) z: Option<f64>,
    pub(crate) lateness_s: u64,
    pub(crate) clock: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            event_type: "order.placed".to_owned(),
            window_s: 60,
            lookback: 10,
            drop_pct: Some(50.0),
            z: Some(3.0),
            lateness_s: 5,
            clock: vec!["page.viewed".to_owned()],
        }
    }
}

impl Settings {
    /// # Errors
    /// Returns the first value that is out of bounds, and the bounds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |name: &str, value: &dyn std::fmt::Display, wanted: &str| {
            Err(Error::new(format!("parameters: `{name}` is {value}; give {wanted}")))
        };
        for kind in self.clock.iter().chain([&self.event_type]) {
            if kind.is_empty() || kind.contains('*') {
                let value = format!("`{kind}`");
                return refuse("type", &value, "one exact event type, as `order.placed`");
            }
            if kind == ALERT_TYPE {
                return refuse("type", kind, "another type: alerts about alerts would never end");
            }
        }
        if !(1..=WINDOW_S_MAX).contains(&self.window_s) {
            return refuse("window_s", &self.window_s, "1 to 86400 seconds");
        }
        if !(2..=LOOKBACK_MAX).contains(&self.lookback) {
            return refuse("lookback", &self.lookback, "2 to 1000 windows");
        }
        if let Some(percent) = self.drop_pct
            && !(percent > 0.0 && percent <= 100.0)
        {
            return refuse("drop_pct", &percent, "more than 0 and at most 100, or null");
        }
        if let Some(z) = self.z
            && z <= 0.0
        {
            return refuse("z", &z, "more than 0, or null");
        }
        if self.drop_pct.is_none() && self.z.is_none() {
            return refuse("z", &"null as is `drop_pct`", "one of them, or nothing is ever raised");
        }
        if self.lateness_s > LATENESS_S_MAX {
            return refuse("lateness_s", &self.lateness_s, "at most 86400 seconds");
        }
        Ok(())
    }

    pub(crate) fn subscribes(&self) -> Vec<&str> {
        let mut types = vec![self.event_type.as_str()];
        for kind in &self.clock {
            if !types.contains(&kind.as_str()) {
                types.push(kind);
            }
        }
        types
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.window_s)
    }

    pub(crate) fn lateness(&self) -> Duration {
        Duration::from_secs(self.lateness_s)
    }

    /// Returns the tick: small enough that an alert comes soon after its window, but not smaller,
    /// because each tick costs time.
    pub(crate) fn tick(&self) -> Duration {
        Duration::from_secs((self.window_s / 12).max(1))
    }
}
