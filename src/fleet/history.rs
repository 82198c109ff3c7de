//! Which lists each router was served, from which commit, and which of them became documents there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::commit::FleetCommit;
use super::posts::Post;
use crate::model::ObjectName;
use crate::util::notices::Notices;
use crate::wire::Call;
use crate::wire::reference::endpoint;

/// Most lists that are kept for a router.
const MOST: usize = 20;

/// A list that a router was served, once for each change of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ServedList {
    /// The endpoint of the list.
    #[schemars(example = &"sessions")]
    pub(crate) list: String,
    /// Identifies the content, without the statuses that the router posted.
    pub(crate) content: String,
    /// When the router fetched it first.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(crate) at: Timestamp,
    /// The arrival of the heartbeat that shows that it became documents of the router; absent before, and from an agent that
    /// does not say so.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) written: Option<Timestamp>,
    /// The commit that it is from; absent over a store without commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<FleetCommit>,
}

impl ServedList {
    /// Reads the lists of a router as they are stored.
    pub(super) fn all(stored: Post) -> Vec<Self> {
        serde_json::from_value(stored.body).unwrap_or_default()
    }
}

/// What a router was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct RouterHistory {
    /// The router.
    pub(crate) router: ObjectName,
    /// The lists, the newest last.
    pub(crate) served: Vec<ServedList>,
}

/// The newest list of a router and call.
struct Newest {
    answer: Arc<Map<String, Value>>,
    content: String,
    is_written: bool,
}

/// The newest lists, so that a fetch without a change costs no look at the store.
#[derive(Default)]
pub(super) struct History {
    newest: Mutex<HashMap<ObjectName, BTreeMap<Call, Newest>>>,
    pub(super) errors: Notices,
}

impl History {
    /// Returns the content of a list that was served before.
    pub(super) fn known(
        &self,
        router: &ObjectName,
        call: Call,
        answer: &Arc<Map<String, Value>>,
    ) -> Option<String> {
        let all = self.newest.lock();
        let newest = all.get(router)?.get(&call)?;
        Arc::ptr_eq(&newest.answer, answer).then(|| newest.content.clone())
    }

    pub(super) fn keep(
        &self,
        router: &ObjectName,
        call: Call,
        answer: &Arc<Map<String, Value>>,
        served: &ServedList,
    ) {
        let newest = Newest {
            answer: Arc::clone(answer),
            content: served.content.clone(),
            is_written: served.written.is_some(),
        };
        let mut all = self.newest.lock();
        all.entry(router.clone()).or_default().insert(call, newest);
    }

    /// Returns whether a heartbeat shows a list that was not written before.
    pub(super) fn is_new(&self, router: &ObjectName, written: &BTreeMap<String, String>) -> bool {
        let all = self.newest.lock();
        let Some(newest) = all.get(router) else {
            // After a restart, the first fetch decides.
            return false;
        };
        let is_new = |(call, newest): (&Call, &Newest)| {
            !newest.is_written && written.get(endpoint(*call)) == Some(&newest.content)
        };
        newest.iter().any(is_new)
    }

    /// Records that lists became documents of a router.
    pub(super) fn written(&self, router: &ObjectName, written: &BTreeMap<String, String>) {
        let mut all = self.newest.lock();
        for (call, newest) in all.get_mut(router).into_iter().flatten() {
            newest.is_written |= written.get(endpoint(*call)) == Some(&newest.content);
        }
    }
}

/// Returns the newest version of a list.
pub(super) fn newest(served: &[ServedList], call: Call) -> Option<&ServedList> {
    let mut newest = served.iter().rev();
    newest.find(|it| it.list == endpoint(call))
}

/// Adds a list to those of a router, of which the oldest are dropped.
pub(super) fn add(served: &mut Vec<ServedList>, list: ServedList) {
    served.push(list);
    let surplus = served.len().saturating_sub(MOST);
    served.drain(..surplus);
}

/// Marks the newest version of each list that a heartbeat names as written.
pub(super) fn mark(served: &mut [ServedList], written: &BTreeMap<String, String>, now: Timestamp) {
    for (list, content) in written {
        let newest = served.iter_mut().rev().find(|it| it.list == *list);
        if let Some(newest) = newest.filter(|it| it.content == *content) {
            newest.written.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str, content: &str) -> ServedList {
        ServedList {
            list: name.to_owned(),
            content: content.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            written: None,
            commit: None,
        }
    }

    #[test]
    fn heartbeat_marks_the_newest_version_only() {
        let mut served = vec![list("mesh", "a"), list("sessions", "b"), list("mesh", "c")];
        let now = Timestamp::from_second(5).unwrap();
        let lists = |content: &str| BTreeMap::from([("mesh".to_owned(), content.to_owned())]);
        mark(&mut served, &lists("a"), now);
        assert!(served.iter().all(|it| it.written.is_none()));
        mark(&mut served, &lists("c"), now);
        mark(&mut served, &lists("c"), Timestamp::UNIX_EPOCH);
        let written: Vec<_> = served.iter().map(|it| it.written).collect();
        assert_eq!(written, [None, None, Some(now)]);
    }

    #[test]
    fn oldest_lists_are_dropped() {
        let mut served = Vec::new();
        for content in 0..=MOST {
            add(&mut served, list("mesh", &content.to_string()));
        }
        assert_eq!((served.len(), &*served[0].content), (MOST, "1"));
        assert_eq!(
            newest(&served, Call::Mesh).unwrap().content,
            MOST.to_string()
        );
        assert_eq!(newest(&served, Call::Config), None);
    }
}
