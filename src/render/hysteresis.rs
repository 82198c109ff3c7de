use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::class::{latency_class, latency_range};

/// The least time between two changes of class.
const HOLD: SignedDuration = SignedDuration::from_hours(1);

/// How far beyond an edge the average must lie before the class follows it, as a share of the edge.
const MARGIN: f64 = 0.1;

/// In what time an old measurement fades to a third.
const FADING: SignedDuration = SignedDuration::from_mins(30);

/// A latency class that does not flap: every change of it makes the whole network update its routes.
///
/// Measurements are averaged, the average must leave the class by a tenth, and the class changes at
/// most once an hour. Time is an input, and the state can be kept over a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hysteresis {
    /// The class in force.
    pub class: Option<u8>,
    /// Since when it is.
    pub since: Option<Timestamp>,
    average: Option<(Timestamp, f64)>,
}

impl Hysteresis {
    /// Takes a round-trip time in milliseconds and gives the class that is in force now. Without a
    /// measurement, or with one that is no time, the class stays as it is.
    pub fn update(&mut self, now: Timestamp, milliseconds: Option<f64>) -> Option<u8> {
        if let Some(measured) = milliseconds.filter(|ms| ms.is_finite() && *ms >= 0.0) {
            let average = self.averaged(now, measured);
            self.average = Some((now, average));
            if self.may_change(now, average) {
                self.class = latency_class(average);
                self.since = Some(now);
            }
        }
        self.class
    }

    fn averaged(&self, now: Timestamp, measured: f64) -> f64 {
        let Some((then, average)) = self.average else { return measured };
        let passed = now.duration_since(then).as_secs_f64().max(0.0);
        let weight = 1.0 - (-passed / FADING.as_secs_f64()).exp();
        average + weight * (measured - average)
    }

    fn may_change(&self, now: Timestamp, average: f64) -> bool {
        let (Some(class), Some(since)) = (self.class, self.since) else { return true };
        let (low, high) = latency_range(class);
        let beyond = average > high * (1.0 + MARGIN) || average < low * (1.0 - MARGIN);
        beyond && now.duration_since(since) >= HOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_first_measurement_counts_at_once() {
        let mut link = Hysteresis::default();
        assert_eq!(link.update(at(0), None), None);
        assert_eq!(link.update(at(1), Some(19.0)), Some(3));
    }

    #[test]
    fn a_lasting_change_is_followed_after_the_hour() {
        let mut link = Hysteresis::default();
        link.update(at(0), Some(10.0));
        let mut followed = None;
        for second in (300..20_000).step_by(300) {
            if link.update(at(second), Some(200.0)) == Some(6) {
                followed = followed.or(Some(second));
            }
        }
        assert_eq!(link.class, Some(6));
        assert!((3600..14_400).contains(&followed.unwrap()), "{followed:?}");
    }

    #[test]
    fn silence_changes_nothing() {
        let mut link = Hysteresis::default();
        link.update(at(0), Some(10.0));
        assert_eq!(link.update(at(1_000_000), None), Some(3));
        assert_eq!(link.update(at(1_000_001), Some(f64::NAN)), Some(3));
    }

    #[test]
    fn a_restart_goes_on_from_what_was_kept() {
        let mut link = Hysteresis::default();
        link.update(at(0), Some(10.0));
        let kept: Hysteresis = serde_json::from_str(&serde_json::to_string(&link).unwrap()).unwrap();
        assert_eq!(kept, link);
    }

    #[test]
    fn noise_at_an_edge_changes_nothing() {
        let mut link = Hysteresis::default();
        link.update(at(0), Some(20.0));
        for second in (60..100_000).step_by(60) {
            let noise = if second % 120 == 0 { 18.5 } else { 21.5 };
            assert_eq!(link.update(at(second), Some(noise)), Some(3));
        }
    }

    proptest! {
        #[test]
        fn there_is_at_most_one_change_an_hour(samples in prop::collection::vec((1i64..600, 0.0f64..4000.0), 1..300)) {
            let mut link = Hysteresis::default();
            let (mut now, mut last, mut class) = (0, None, None);
            for (wait, milliseconds) in samples {
                now += wait;
                let new = link.update(at(now), Some(milliseconds));
                if class.is_some() && new != class {
                    prop_assert!(last.is_none_or(|last| now - last >= 3600));
                    last = Some(now);
                } else if class.is_none() {
                    last = Some(now);
                }
                class = new;
            }
        }
    }
}
