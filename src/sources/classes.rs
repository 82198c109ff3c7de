//! The measured classes of links. They survive a restart of the agent, so that a restart neither
//! forgets a class, which would be announced to the whole network, nor changes a class before its
//! hour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::probe::{Probe, Prober, Target};
use crate::intervals::CLASSES_APART;
use crate::model::ObjectName;
use crate::render::{Hysteresis, Measure, Measured};
use crate::store::Store;
use crate::telemetry::chain;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// File with the classes, below the state directory.
const FILE: &str = "classes.json";

/// The classes of every link, with their hysteresis.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    links: Mutex<BTreeMap<ObjectName, Link>>,
    published: Mutex<Published>,
    /// Whether the file lacks a change of the classes in use.
    is_unsaved: AtomicBool,
}

/// The classes that the desired state uses. Each change of them is a reload of BIRD, so they change together.
#[derive(Debug)]
struct Published {
    classes: BTreeMap<ObjectName, Measured>,
    /// The time of the last change, or of the start.
    at: Instant,
    /// Whether they changed since the start.
    is_changed: bool,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            at: Instant::now(),
            is_changed: false,
        }
    }
}

impl Published {
    /// Takes new classes: at first once all links were probed, later at most once in [`CLASSES_APART`]. Returns whether it
    /// took them.
    fn take(&mut self, classes: BTreeMap<ObjectName, Measured>, all_probed: bool) -> bool {
        let is_first = !self.is_changed && all_probed;
        let takes = self.classes != classes && (is_first || self.at.elapsed() >= CLASSES_APART);
        if takes {
            (self.classes, self.at, self.is_changed) = (classes, Instant::now(), true);
        }
        takes
    }
}

/// The classes of one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Link {
    latency: Hysteresis,
    loss: Hysteresis,
}

impl Link {
    fn classes(&self) -> Measured {
        Measured {
            latency: self.latency.class,
            loss: self.loss.class,
        }
    }

    /// A peer that answers no echo may ignore them, which is not loss; if the link were dead, BGP would report it.
    fn take(&mut self, probe: &Probe) {
        self.latency
            .update(Measure::Latency, probe.at, probe.rtt_ms);
        let loss = probe.rtt_ms.map(|_| f64::from(probe.loss));
        self.loss.update(Measure::Loss, probe.at, loss);
    }
}

impl Classes {
    /// Loads the stored classes. With an invalid file all classes are measured again.
    pub(crate) fn kept(store: &Store) -> Self {
        let read = || -> Result<_, Box<dyn std::error::Error>> {
            Ok(store
                .kept(FILE)?
                .map(|text| serde_json::from_str(&text))
                .transpose()?
                .unwrap_or_default())
        };
        let links = read().unwrap_or_else(|error| {
            warn!(file = FILE, error = %chain(&*error), "latency classes not readable; measuring \
                                                         them again");
            BTreeMap::new()
        });
        let classes = Self {
            links: Mutex::new(links),
            published: Mutex::default(),
            is_unsaved: AtomicBool::new(false),
        };
        classes.published.lock().classes = classes.measured();
        classes
    }

    /// The class of every link, as the desired state uses it.
    pub(crate) fn published(&self) -> BTreeMap<ObjectName, Measured> {
        self.published.lock().classes.clone()
    }

    /// The current classes of the links that have any.
    fn measured(&self) -> BTreeMap<ObjectName, Measured> {
        let links = self.links.lock();
        let classes = links
            .iter()
            .map(|(name, link)| (name.clone(), link.classes()));
        classes
            .filter(|(_, classes)| *classes != Measured::default())
            .sorted_map()
    }

    /// Takes the last probes of all links into account, and forgets the other links. Writes the file only if the classes
    /// in use changed.
    pub(crate) async fn measure(
        &self,
        links: BTreeMap<ObjectName, Option<Target>>,
        prober: &Prober,
        store: &Arc<Store>,
    ) {
        for (name, target) in &links {
            if let Some(probe) = target.as_ref().and_then(|target| prober.current(target)) {
                self.take(name, &probe);
            }
        }
        let mut targets = links.values().flatten();
        let all_probed = targets.all(|target| prober.is_probed(target));
        let changed = self.published.lock().take(self.measured(), all_probed);
        let is_unsaved = self.is_unsaved.fetch_or(changed, Ordering::Relaxed) || changed;
        if !is_unsaved || !store.is_writable() {
            return;
        }
        let Some(text) = self.text(&links.keys().sorted_set()) else {
            return;
        };
        let store = Arc::clone(store);
        match blocking(move || store.keep(FILE, &text)).await {
            Ok(_) => self.is_unsaved.store(false, Ordering::Relaxed),
            Err(error) => {
                warn!(file = FILE, error = %chain(&error), "latency classes not saved");
            }
        }
    }

    /// Takes a probe into account. Returns whether a class changed.
    fn take(&self, name: &ObjectName, probe: &Probe) -> bool {
        let mut links = self.links.lock();
        let link = links.entry(name.clone()).or_default();
        let before = link.classes();
        link.take(probe);
        before != link.classes()
    }

    /// Returns the text of the file, for these links only.
    fn text(&self, names: &BTreeSet<&ObjectName>) -> Option<String> {
        let mut links = self.links.lock();
        links.retain(|name, _| names.contains(name));
        serde_json::to_string_pretty(&*links).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn probe(second: i64, rtt_ms: Option<f64>, loss: f32) -> Probe {
        Probe {
            rtt_ms,
            loss,
            at: Timestamp::from_second(1_700_000_000 + second).unwrap(),
        }
    }

    #[test]
    fn a_restart_goes_on_from_the_class_that_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (classes, name) = (Classes::kept(&store), "wg_1".parse().unwrap());
        assert!(classes.take(&name, &probe(0, Some(10.0), 0.0)));
        assert!(!classes.take(&name, &probe(300, Some(11.0), 0.0)));
        store
            .keep(FILE, &classes.text(&BTreeSet::from([&name])).unwrap())
            .unwrap();
        let after = Classes::kept(&store);
        assert_eq!(after.measured(), classes.measured());
        // A class changes after an hour, not after half an hour, even across a restart.
        assert!(!after.take(&name, &probe(1800, Some(2000.0), 0.0)));
        assert_eq!(
            after.measured()[&name],
            Measured {
                latency: Some(3),
                loss: Some(91)
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn classes_change_together_at_most_once_a_minute() {
        let mut published = Published::default();
        let class = |latency| Measured {
            latency: Some(latency),
            loss: None,
        };
        let one = BTreeMap::from([("wg_1".parse().unwrap(), class(1))]);
        let both: BTreeMap<_, _> = ["wg_1", "wg_2"]
            .map(|name| (name.parse().unwrap(), class(1)))
            .into();
        published.take(one.clone(), false);
        assert!(published.classes.is_empty(), "the other link is not probed");
        published.take(both.clone(), true);
        assert_eq!(published.classes, both);
        published.take(one.clone(), true);
        assert_eq!(published.classes, both, "within the minute");
        tokio::time::advance(CLASSES_APART).await;
        published.take(one.clone(), true);
        assert_eq!(published.classes, one);
        // A link that is never probed delays the others by no more than that time.
        let mut published = Published::default();
        tokio::time::advance(CLASSES_APART).await;
        published.take(one.clone(), false);
        assert_eq!(published.classes, one);
    }

    #[test]
    fn a_peer_that_is_deaf_to_echoes_has_no_classes() {
        let (classes, name) = (Classes::default(), "wg_1".parse().unwrap());
        assert!(!classes.take(&name, &probe(0, None, 1.0)));
        // Otherwise an answer that comes later would wait for the next change.
        assert!(classes.measured().is_empty());
    }

    #[test]
    fn foreign_class_file_is_ignored_and_gone_links_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.keep(FILE, "{").unwrap();
        let (classes, name) = (Classes::kept(&store), "wg_1".parse().unwrap());
        assert_eq!(classes.measured(), BTreeMap::new());
        classes.take(&name, &probe(0, Some(1.0), 0.0));
        assert_eq!(classes.text(&BTreeSet::new()).unwrap(), "{}");
    }
}
