//! Which lists each router was served, from which commit, and which of them became documents there.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::commit::FleetCommit;
use super::version::Version;
use crate::model::ObjectName;
use crate::util::notices::Notices;
use crate::wire::Call;
use crate::wire::reference::endpoint;

/// Most lists that are kept for a router.
pub(super) const MOST: usize = 20;

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

/// What a router was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct RouterHistory {
    /// The router.
    pub(crate) router: ObjectName,
    /// The lists, the newest last.
    pub(crate) served: Vec<ServedList>,
}

/// The newest list of a router and call, without its items.
struct Newest {
    content: String,
    is_written: bool,
    /// The version of the last answer with this content, and its tag.
    answer: Option<(Version, String)>,
}

/// The newest lists, so that a fetch without a change costs no look at the store.
#[derive(Default)]
pub(super) struct History {
    newest: Mutex<HashMap<ObjectName, BTreeMap<Call, Newest>>>,
    pub(super) errors: Notices,
}

impl History {
    /// Returns the content and the tag of the last answer, if it has this version.
    pub(super) fn answer(
        &self,
        router: &ObjectName,
        call: Call,
        version: Version,
    ) -> Option<(String, String)> {
        let all = self.newest.lock();
        let newest = all.get(router)?.get(&call)?;
        let (of, tag) = newest.answer.as_ref()?;
        (*of == version).then(|| (newest.content.clone(), tag.clone()))
    }

    /// Remembers the tag of an answer whose list was recorded.
    pub(super) fn answered(
        &self,
        router: &ObjectName,
        call: Call,
        content: &str,
        answer: (Version, String),
    ) {
        let mut all = self.newest.lock();
        let newest = all.get_mut(router).and_then(|lists| lists.get_mut(&call));
        if let Some(newest) = newest.filter(|it| it.content == content) {
            newest.answer = Some(answer);
        }
    }

    /// Returns whether the newest list that was recorded has this content.
    pub(super) fn has(&self, router: &ObjectName, call: Call, content: &str) -> bool {
        let all = self.newest.lock();
        let newest = all.get(router).and_then(|lists| lists.get(&call));
        newest.is_some_and(|newest| newest.content == content)
    }

    pub(super) fn keep(&self, router: &ObjectName, call: Call, served: &ServedList) {
        let newest = Newest {
            content: served.content.clone(),
            is_written: served.written.is_some(),
            answer: None,
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

/// Stores lists of a router among those before: one of the same endpoint and time is replaced, and the oldest are dropped.
pub(super) fn store(served: &mut Vec<ServedList>, lists: &[ServedList]) {
    for list in lists {
        served.retain(|it| (&it.list, it.at) != (&list.list, list.at));
        served.push(list.clone());
    }
    served.sort_by_key(|it| it.at);
    let surplus = served.len().saturating_sub(MOST);
    served.drain(..surplus);
}

/// Returns the newest version of each list that a heartbeat is the first to name, as written.
pub(super) fn first_written(
    served: &[ServedList],
    written: &BTreeMap<String, String>,
    now: Timestamp,
) -> Vec<ServedList> {
    let first = |(list, content): (&String, &String)| {
        let newest = served.iter().rev().find(|it| it.list == *list)?;
        let is_first = newest.content == *content && newest.written.is_none();
        is_first.then(|| ServedList {
            written: Some(now),
            ..newest.clone()
        })
    };
    written.iter().filter_map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str, content: &str, at: usize) -> ServedList {
        ServedList {
            list: name.to_owned(),
            content: content.to_owned(),
            at: second(at),
            written: None,
            commit: None,
        }
    }

    fn second(second: usize) -> Timestamp {
        Timestamp::from_second(second.try_into().unwrap()).unwrap()
    }

    #[test]
    fn first_heartbeat_marks_the_newest_version_only() {
        let mut served = Vec::new();
        let lists = [
            list("mesh", "a", 1),
            list("sessions", "b", 2),
            list("mesh", "c", 3),
        ];
        store(&mut served, &lists);
        let lists = |content: &str| BTreeMap::from([("mesh".to_owned(), content.to_owned())]);
        assert_eq!(first_written(&served, &lists("a"), second(5)), []);
        let first = first_written(&served, &lists("c"), second(5));
        store(&mut served, &first);
        assert_eq!(first_written(&served, &lists("c"), second(6)), []);
        let written: Vec<_> = served.iter().map(|it| it.written).collect();
        assert_eq!(written, [None, None, Some(second(5))]);
    }

    #[test]
    fn oldest_lists_are_dropped() {
        let mut served = Vec::new();
        for content in 0..=MOST {
            store(&mut served, &[list("mesh", &content.to_string(), content)]);
        }
        assert_eq!((served.len(), &*served[0].content), (MOST, "1"));
        assert_eq!(
            newest(&served, Call::Mesh).unwrap().content,
            MOST.to_string()
        );
        assert_eq!(newest(&served, Call::Config), None);
    }
}
