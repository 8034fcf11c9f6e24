//! Counts departures, cancellations and delays of flights, by carrier, by origin and by hour,
//! together with the weather of the hour.
//!
//! Rows have sums and counts, which can be added over partitions, but no means, which
//! cannot: a mean is `delay_min_sum / delays_known`. A departure with an unknown delay
//! counts as a departure, but not in `delays_known`.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use serde::Deserialize;

#[derive(Tables)]
struct FlightDelays {
    /// Flights by airline.
    by_carrier: Table<Carrier>,
    /// Flights by airport of origin.
    by_origin: Table<Origin>,
    /// Flights by the UTC hour of departure.
    by_hour: Table<Hour>,
    /// Flights by the UTC hour of departure and airline.
    by_carrier_hour: Table<CarrierHour>,
    /// Flights by the UTC hour of departure and airport, with the weather there.
    by_origin_hour: Table<OriginHour>,
    /// The weather of every airport and hour, for flights that follow.
    #[table(private)]
    weather: Table<Weather>,
}

/// A row of departures, and what it describes.
macro_rules! departures {
    ($name:ident { $($key:ident: $type:ty),* } $($extra:tt)*) => {
        #[derive(Row, Default)]
        struct $name {
            $($key: $type,)*
            #[row(merge = sum)]
            departures: u64,
            #[row(merge = sum)]
            cancellations: u64,
            #[row(merge = sum)]
            delays_known: u64,
            #[row(unit = "min", merge = sum)]
            delay_min_sum: i64,
            $($extra)*
        }

        impl Departures for $name {
            fn count(&mut self, flight: Departure) {
                match flight {
                    Departure::Cancelled => self.cancellations += 1,
                    Departure::Departed(delay_min) => {
                        self.departures += 1;
                        self.delays_known += u64::from(delay_min.is_some());
                        self.delay_min_sum += delay_min.unwrap_or_default();
                    }
                }
            }
        }
    };
}

/// A planned departure of a flight.
#[derive(Clone, Copy)]
enum Departure {
    Cancelled,
    /// It departed, with its delay in minutes, if known.
    Departed(Option<i64>),
}

trait Departures {
    fn count(&mut self, flight: Departure);
}

departures!(Carrier { carrier: String }
    #[row(merge = sum)]
    landings: u64,
    #[row(merge = sum)]
    arrival_delays_known: u64,
    #[row(unit = "min", merge = sum)]
    arrival_delay_min_sum: i64,
);
departures!(Origin { origin: String });
departures!(Hour { hour: Timestamp });
departures!(CarrierHour { hour: Timestamp, carrier: String });
departures!(OriginHour { hour: Timestamp, origin: String }
    #[row(unit = "°F")]
    temp: Option<f64>,
    #[row(unit = "mph")]
    wind_speed: Option<f64>,
    #[row(unit = "mi")]
    visib: Option<f64>,
    #[row(unit = "in")]
    precip: Option<f64>,
);

#[derive(Row, Default, Clone, Deserialize)]
#[serde(default)]
struct Weather {
    temp: Option<f64>,
    wind_speed: Option<f64>,
    visib: Option<f64>,
    precip: Option<f64>,
}

#[derive(Deserialize)]
struct Flight<'a> {
    #[serde(borrow)]
    carrier: Cow<'a, str>,
    #[serde(borrow)]
    origin: Cow<'a, str>,
    #[serde(default)]
    delay_min: Option<i64>,
}

impl Projection for FlightDelays {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["flight.departed", "flight.landed", "flight.cancelled", "weather.observed"])
            .attributes([Attribute::Subject])
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let hour = event.time().hour();
        match event.kind() {
            "weather.observed" => self.observe(hour, event.subject()?, event.data()?),
            "flight.landed" => self.land(&event.data()?),
            "flight.cancelled" => self.depart(hour, &event.data()?, Departure::Cancelled),
            _ => {
                let flight: Flight<'_> = event.data()?;
                self.depart(hour, &flight, Departure::Departed(flight.delay_min))
            }
        }
    }
}

impl FlightDelays {
    fn depart(
        &mut self,
        hour: Timestamp,
        flight: &Flight<'_>,
        departure: Departure,
    ) -> Result<(), Error> {
        let (carrier, origin) = (&flight.carrier, &flight.origin);
        self.carrier(flight)?.count(departure);
        let row = self
            .by_origin
            .row_or(origin, || Origin { origin: origin.to_string(), ..Origin::default() })?;
        row.count(departure);
        let row = self.by_hour.row(hour)?;
        row.hour = hour;
        row.count(departure);
        let row = self.by_carrier_hour.row_or((hour, carrier), || CarrierHour {
            hour,
            carrier: carrier.to_string(),
            ..CarrierHour::default()
        })?;
        row.count(departure);

        let key = (hour, origin);
        let weather = self.weather.get(key)?;
        let row = self.by_origin_hour.row_or(key, || {
            let row = OriginHour { hour, origin: origin.to_string(), ..OriginHour::default() };
            row.in_weather(weather)
        })?;
        row.count(departure);
        Ok(())
    }

    fn land(&mut self, flight: &Flight<'_>) -> Result<(), Error> {
        let row = self.carrier(flight)?;
        row.landings += 1;
        row.arrival_delays_known += u64::from(flight.delay_min.is_some());
        row.arrival_delay_min_sum += flight.delay_min.unwrap_or_default();
        Ok(())
    }

    fn carrier(&mut self, flight: &Flight<'_>) -> Result<&mut Carrier, Error> {
        self.by_carrier.row_or(&flight.carrier, || Carrier {
            carrier: flight.carrier.to_string(),
            ..Carrier::default()
        })
    }

    /// Weather usually arrives before the hour's flights, but not always.
    fn observe(&mut self, hour: Timestamp, airport: &str, weather: Weather) -> Result<(), Error> {
        let key = (hour, airport);
        if let Some(row) = self.by_origin_hour.get_mut(key)? {
            let without = std::mem::take(row);
            *row = without.in_weather(Some(&weather));
        }
        self.weather.put(key, weather)
    }
}

impl OriginHour {
    fn in_weather(self, weather: Option<&Weather>) -> Self {
        let Weather { temp, wind_speed, visib, precip } = weather.cloned().unwrap_or_default();
        Self { temp, wind_speed, visib, precip, ..self }
    }
}

lantern_sdk::export!(FlightDelays);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use lantern_sdk::testing::{Harness, TestEvent, check_determinism, read_ndjson};
    use serde_json::{Value, json};

    use super::*;

    /// Five hours of 16 January 2013.
    const EVENTS: &str = include_str!("../events.ndjson");

    fn flight(kind: &str, time: &str, delay_min: Option<i64>) -> TestEvent {
        let data = json!({"carrier": "UA", "origin": "EWR", "dest": "IAH", "delay_min": delay_min});
        TestEvent::new(kind).at(time).subject("UA1545").json(&data)
    }

    fn weather(time: &str) -> TestEvent {
        let data = json!({"temp": 39.02, "humid": 59.37, "wind_speed": null, "visib": 10});
        TestEvent::new("weather.observed").at(time).subject("EWR").json(&data)
    }

    #[test]
    fn a_departure_of_unknown_delay_counts_without_it() {
        let mut host = Harness::<FlightDelays>::new();
        host.feed([
            flight("flight.departed", "2013-01-01T10:05:00Z", Some(4)),
            flight("flight.departed", "2013-01-01T10:59:59Z", None),
            flight("flight.departed", "2013-01-01T11:00:00Z", Some(-1)),
            flight("flight.cancelled", "2013-01-01T11:00:00Z", None),
            flight("flight.landed", "2013-01-01T12:00:00Z", Some(7)),
        ]);
        let row = host.row("by_carrier", "UA").unwrap();
        assert_eq!((&row["departures"], &row["delays_known"]), (&json!(3), &json!(2)));
        assert_eq!(row["delay_min_sum"], 3);
        assert_eq!((&row["cancellations"], &row["landings"]), (&json!(1), &json!(1)));
        let arrivals = (&row["arrival_delays_known"], &row["arrival_delay_min_sum"]);
        assert_eq!(arrivals, (&json!(1), &json!(7)));
        let row = host.row("by_hour", "2013-01-01T10:00:00Z").unwrap();
        assert_eq!((&row["departures"], &row["delays_known"]), (&json!(2), &json!(1)));
        assert_eq!(row["delay_min_sum"], 4);
        assert_eq!(host.rows("by_hour").len(), 2);
    }

    #[test]
    fn the_weather_joins_in_whichever_comes_first() {
        let departure = || flight("flight.departed", "2013-01-01T10:05:00Z", Some(4));
        let observed = || weather("2013-01-01T10:00:00Z");
        let other_hour = || weather("2013-01-01T11:00:00Z");
        let fold = |events: Vec<TestEvent>| check_determinism::<FlightDelays>("", &events).tables;
        let before = fold(vec![observed(), other_hour(), departure()]);
        let after = fold(vec![departure(), other_hour(), observed()]);
        assert_eq!(before, after);
        let row: Value =
            serde_json::from_slice(&before["by_origin_hour"]["2013-01-01T10:00:00Z/EWR"]).unwrap();
        assert_eq!((&row["temp"], &row["wind_speed"]), (&json!(39.02), &Value::Null));
        assert_eq!(row["departures"], 1);
        assert_eq!(before["by_origin_hour"].len(), 1);
    }

    #[derive(Default)]
    struct Sums {
        departures: u64,
        cancellations: u64,
        delay_min: i64,
    }

    /// Compares the sums with plain maps over the text of the sample; every delay in it
    /// is known.
    #[test]
    fn the_sample_agrees_with_an_independent_computation() {
        let mut weather: BTreeMap<String, Value> = BTreeMap::new();
        let mut sums: [BTreeMap<String, Sums>; 5] = Default::default();
        let mut landings: BTreeMap<String, (u64, i64)> = BTreeMap::new();
        for line in EVENTS.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let hour = format!("{}:00:00Z", &event["time"].as_str().unwrap()[..13]);
            let data = &event["data"];
            let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
            let delay_min = data["delay_min"].as_i64().unwrap_or_default();
            match event["type"].as_str().unwrap() {
                "weather.observed" => {
                    let airport = event["subject"].as_str().unwrap();
                    weather.insert(format!("{hour}/{airport}"), data.clone());
                    continue;
                }
                "flight.landed" => {
                    let row = landings.entry(text("carrier")).or_default();
                    *row = (row.0 + 1, row.1 + delay_min);
                    continue;
                }
                kind => {
                    let (carrier, origin) = (text("carrier"), text("origin"));
                    let carrier_hour = format!("{hour}/{carrier}");
                    let origin_hour = format!("{hour}/{origin}");
                    let keys = [carrier, origin, hour, carrier_hour, origin_hour];
                    for (sums, key) in sums.iter_mut().zip(keys) {
                        let row = sums.entry(key).or_default();
                        row.departures += u64::from(kind == "flight.departed");
                        row.cancellations += u64::from(kind == "flight.cancelled");
                        row.delay_min += delay_min;
                    }
                }
            }
        }

        check_determinism::<FlightDelays>("", &read_ndjson(EVENTS));
        let mut host = Harness::<FlightDelays>::new();
        host.feed_ndjson(EVENTS);
        assert!(host.parked().is_empty());
        let tables = ["by_carrier", "by_origin", "by_hour", "by_carrier_hour", "by_origin_hour"];
        for (table, sums) in tables.into_iter().zip(&sums) {
            let rows = host.rows(table);
            let departures: u64 = sums.values().map(|row| row.departures).sum();
            assert!(departures > 200, "{departures}");
            for (key, row) in &rows {
                if table == "by_carrier" && !sums.contains_key(key) {
                    // Only landings.
                    assert_eq!(row["departures"], 0);
                    continue;
                }
                let expected = &sums[key];
                assert_eq!(row["departures"], expected.departures, "{table} {key}");
                assert_eq!(row["cancellations"], expected.cancellations, "{table} {key}");
                assert_eq!(row["delay_min_sum"], expected.delay_min, "{table} {key}");
                assert_eq!(row["delays_known"], expected.departures, "{table} {key}");
            }
            assert!(sums.keys().all(|key| rows.contains_key(key)), "{table}");
        }
        for (key, row) in host.rows("by_origin_hour") {
            for name in ["temp", "wind_speed", "visib", "precip"] {
                let expected = weather.get(&key).map_or(&Value::Null, |weather| &weather[name]);
                assert_eq!(row[name].as_f64(), expected.as_f64(), "{key} {name}");
            }
        }
        for (carrier, (count, delay_min)) in landings {
            let row = host.row("by_carrier", &carrier).unwrap();
            assert_eq!(
                (&row["landings"], &row["arrival_delay_min_sum"]),
                (&json!(count), &json!(delay_min))
            );
        }
    }
}
