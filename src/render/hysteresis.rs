use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::class::{latency_class, latency_range, loss_class, loss_range};
use crate::intervals::{CLASS_HOLD, LATENCY_FADING, LOSS_FADING};

/// How far beyond an edge the average must be before the class changes, as a share of the edge.
const MARGIN: f64 = 0.1;

/// A measured property of a link, reported in classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Round-trip time in milliseconds.
    Latency,
    /// The share of lost packets, 0.0..1.0.
    Loss,
}

impl Measure {
    /// Returns the class of a value; `None` for an invalid value.
    fn class(self, value: f64) -> Option<u8> {
        match self {
            Self::Latency => latency_class(value),
            Self::Loss => loss_class(value),
        }
    }

    /// Returns the range of values of a class.
    fn range(self, class: u8) -> (f64, f64) {
        match self {
            Self::Latency => latency_range(class),
            Self::Loss => loss_range(class),
        }
    }

    /// Returns the time in which the weight of an old measurement drops to a third. Losses are averaged over a
    /// longer time.
    fn fading(self) -> SignedDuration {
        match self {
            Self::Latency => LATENCY_FADING,
            Self::Loss => LOSS_FADING,
        }
    }
}

/// A damped class that does not flap: every change of it makes the whole network update its routes.
///
/// Measurements are averaged, the average must leave the class by a tenth, and the class changes at
/// most once an hour. Time is an input, and the state can be kept over a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hysteresis {
    pub class: Option<u8>,
    /// When it took effect.
    pub since: Option<Timestamp>,
    average: Option<(Timestamp, f64)>,
}

impl Hysteresis {
    /// Adds a measurement and returns the class in effect. Without a measurement, or with an invalid one,
    /// the class does not change.
    pub fn update(
        &mut self,
        measure: Measure,
        now: Timestamp,
        measured: Option<f64>,
    ) -> Option<u8> {
        if let Some(measured) = measured.filter(|value| measure.class(*value).is_some()) {
            let average = self.averaged(measure, now, measured);
            self.average = Some((now, average));
            if self.may_change(measure, now, average) {
                self.class = measure.class(average);
                self.since = Some(now);
            }
        }
        self.class
    }

    fn averaged(&self, measure: Measure, now: Timestamp, measured: f64) -> f64 {
        let Some((then, average)) = self.average else {
            return measured;
        };
        let passed = now.duration_since(then).as_secs_f64().max(0.0);
        let weight = 1.0 - (-passed / measure.fading().as_secs_f64()).exp();
        average + weight * (measured - average)
    }

    fn may_change(&self, measure: Measure, now: Timestamp, average: f64) -> bool {
        let (Some(class), Some(since)) = (self.class, self.since) else {
            return true;
        };
        let (low, high) = measure.range(class);
        let beyond = average > high * (1.0 + MARGIN) || average < low * (1.0 - MARGIN);
        beyond && now.duration_since(since) >= CLASS_HOLD
    }
}

/// Measurements of a link by probes, in DN42's classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Latency, 1 to 9.
    pub latency: Option<u8>,
    /// Loss, 91 to 94.
    pub loss: Option<u8>,
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
        assert_eq!(link.update(Measure::Latency, at(0), None), None);
        assert_eq!(link.update(Measure::Latency, at(1), Some(19.0)), Some(3));
    }

    #[test]
    fn a_lasting_change_is_followed_after_the_hour() {
        let mut link = Hysteresis::default();
        link.update(Measure::Latency, at(0), Some(10.0));
        let mut followed = None;
        for second in (300..20_000).step_by(300) {
            if link.update(Measure::Latency, at(second), Some(200.0)) == Some(6) {
                followed = followed.or(Some(second));
            }
        }
        assert_eq!(link.class, Some(6));
        assert!((3600..14_400).contains(&followed.unwrap()), "{followed:?}");
    }

    #[test]
    fn silence_changes_nothing() {
        let mut link = Hysteresis::default();
        link.update(Measure::Latency, at(0), Some(10.0));
        assert_eq!(link.update(Measure::Latency, at(1_000_000), None), Some(3));
        assert_eq!(
            link.update(Measure::Latency, at(1_000_001), Some(f64::NAN)),
            Some(3)
        );
    }

    #[test]
    fn a_restart_goes_on_from_what_was_kept() {
        let mut link = Hysteresis::default();
        link.update(Measure::Latency, at(0), Some(10.0));
        let kept: Hysteresis =
            serde_json::from_str(&serde_json::to_string(&link).unwrap()).unwrap();
        assert_eq!(kept, link);
    }

    #[test]
    fn noise_at_an_edge_changes_nothing() {
        let mut link = Hysteresis::default();
        link.update(Measure::Latency, at(0), Some(20.0));
        for second in (60..100_000).step_by(60) {
            let noise = if second % 120 == 0 { 18.5 } else { 21.5 };
            assert_eq!(
                link.update(Measure::Latency, at(second), Some(noise)),
                Some(3)
            );
        }
    }

    #[test]
    fn one_lost_packet_makes_no_lossy_link() {
        let mut link = Hysteresis::default();
        link.update(Measure::Loss, at(0), Some(0.0));
        for probe in 1..300 {
            // One packet of 1200 is lost, four at a time.
            let lost = if probe == 150 { 0.25 } else { 0.0 };
            let class = link.update(Measure::Loss, at(probe * 300), Some(lost));
            assert!(class == Some(91) || class == Some(92), "{probe}: {class:?}");
        }
        assert_eq!(link.update(Measure::Loss, at(200_000), Some(0.0)), Some(91));
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let mut link = Hysteresis::default();
        link.update(Measure::Latency, at(100_000), Some(10.0));
        assert_eq!(link.update(Measure::Latency, at(0), Some(3000.0)), Some(3));
    }

    proptest! {
        /// Noise around any edge of either table, at any pace.
        #[test]
        fn edge_noise_changes_the_class_once_an_hour_at_most(
            measure in prop::sample::select(vec![Measure::Latency, Measure::Loss]),
            edge in 0usize..8,
            noise in prop::collection::vec((1i64..900, 0.5f64..2.0), 1..300),
        ) {
            let edges: &[f64] = match measure {
                Measure::Latency => &[2.7, 7.3, 20.0, 55.0, 148.0, 403.0, 1097.0, 2981.0],
                Measure::Loss => &[0.001, 0.01, 0.05],
            };
            let edge = edges[edge % edges.len()];
            let mut link = Hysteresis::default();
            let (mut now, mut changed, mut class) = (0, None, None);
            for (wait, factor) in noise {
                now += wait;
                let new = link.update(measure, at(now), Some(edge * factor));
                if class.is_some() && new != class {
                    prop_assert!(changed.is_none_or(|changed| now - changed >= 3600), "{measure:?} at {now}");
                    changed = Some(now);
                }
                changed = changed.or(Some(now));
                class = new;
            }
        }

        #[test]
        fn there_is_at_most_one_change_an_hour(samples in prop::collection::vec((1i64..600, 0.0f64..4000.0), 1..300)) {
            let mut link = Hysteresis::default();
            let (mut now, mut last, mut class) = (0, None, None);
            for (wait, milliseconds) in samples {
                now += wait;
                let new = link.update(Measure::Latency, at(now), Some(milliseconds));
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
