use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::network::{FleetFiles, Network};
use super::super::posts::{Post, Posts};
use super::budget;
use super::measure::Measure;
use super::record::{FleetRecord, texts};
use super::step::{Event, Facts, step};
use super::waves::{concerned, waves};
use crate::model::ObjectName;

const NETWORK: &str = "asn: 4242420998\n\
    prefixes: {ipv4: 172.23.105.0/26, ipv6: 'fd48:4242:420::/48'}\n\
    rollout: {waves: [[jp1], 50%], observe: 10m}\n\
    budgets: {outPerRegion: 1, exits: 2}\n\
    regions: {asia: {}, europe: {}}\n";

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn names(all: &[&str]) -> Vec<ObjectName> {
    all.iter().map(|text| name(text)).collect()
}

/// Four routers, two in each region.
fn files(network: &str) -> FleetFiles {
    let router = |id: u8, region: &str| format!("{{id: {id}, region: {region}, token: abc{id}}}");
    FleetFiles::from_iter([
        ("network.yaml".to_owned(), network.to_owned()),
        ("routers/de1.yaml".to_owned(), router(1, "europe")),
        ("routers/de2.yaml".to_owned(), router(2, "europe")),
        ("routers/jp1.yaml".to_owned(), router(3, "asia")),
        ("routers/jp2.yaml".to_owned(), router(4, "asia")),
    ])
}

fn changed() -> FleetFiles {
    files(&format!("{NETWORK}policy: {{hostPolicy: x}}\n"))
}

fn network(files: &FleetFiles) -> Network {
    Network::read(files).unwrap()
}

fn posts(at: Timestamp, established: bool, routes: u64) -> Posts {
    let state = if established { "established" } else { "down" };
    let post = |body| {
        Some(Post {
            received_at: at,
            body,
        })
    };
    Posts {
        heartbeat: post(json!({"version": "1", "uptime": 1})),
        report: post(json!({"sessions": [{
            "uuid": "s", "state": state, "rtt_ms": 10.0, "routes_imported": routes, "routes_exported": routes
        }]})),
        ..Posts::default()
    }
}

/// The ids of all routers.
fn ids() -> BTreeSet<u16> {
    (1..=4).collect()
}

/// A fleet whose time the test sets.
struct Fleet {
    record: FleetRecord,
    files: FleetFiles,
    measures: BTreeMap<ObjectName, Measure>,
    now: Timestamp,
}

impl Fleet {
    /// A network that is accepted, whose routers report.
    fn new() -> Self {
        let mut fleet = Self {
            record: FleetRecord::default(),
            files: files(NETWORK),
            measures: BTreeMap::new(),
            now: "2026-11-28T09:00:00Z".parse().unwrap(),
        };
        fleet.report_all(100);
        assert_eq!(fleet.step(), None);
        fleet.files = changed();
        fleet
    }

    fn report(&mut self, router: &str, routes: u64) {
        let measure = Measure::of(&posts(self.now, true, routes), &ids());
        self.measures.insert(name(router), measure);
    }

    fn report_all(&mut self, routes: u64) {
        for router in ["de1", "de2", "jp1", "jp2"] {
            self.report(router, routes);
        }
    }

    fn pass(&mut self, minutes: i64) {
        self.now += SignedDuration::from_mins(minutes);
    }

    fn step(&mut self) -> Option<Event> {
        let newest = network(&self.files);
        let before = self.record.accepted.clone();
        let concerned = || match &before {
            Some(before) => {
                let texts = before
                    .iter()
                    .map(|(path, text)| (path.as_str(), text.as_str()));
                concerned(&network(&texts.collect()), &newest)
            }
            None => BTreeSet::new(),
        };
        let facts = Facts {
            texts: &texts(&self.files),
            spec: newest.rollout().unwrap(),
            concerned: &concerned,
            measures: &self.measures,
            now: self.now,
        };
        step(&mut self.record, &facts)
    }

    fn with_change(&self) -> Vec<&str> {
        let all = ["de1", "de2", "jp1", "jp2"].into_iter();
        all.filter(|router| self.record.has_change(&name(router)))
            .collect()
    }
}

#[test]
fn waves_are_names_then_shares_then_all_others() {
    let newest = network(&changed());
    let all = concerned(&network(&files(NETWORK)), &newest);
    let waves = waves(newest.rollout().unwrap(), &all);
    assert_eq!(
        waves,
        [names(&["jp1"]), names(&["de1"]), names(&["de2", "jp2"])]
    );
}

#[test]
fn change_of_one_router_concerns_only_that_router() {
    let mut after = files(NETWORK);
    after.insert(
        "routers/de1.yaml",
        "{id: 1, region: asia, token: abc1, bandwidth: 1G}",
    );
    let all = concerned(&network(&files(NETWORK)), &network(&after));
    assert_eq!(Vec::from_iter(all), names(&["de1"]));
    // A token concerns no answer.
    after.insert("routers/de1.yaml", "{id: 1, region: europe, token: other}");
    let all = concerned(&network(&files(NETWORK)), &network(&after));
    assert!(all.is_empty(), "{all:?}");
}

#[test]
fn change_reaches_all_routers_wave_by_wave() {
    let mut fleet = Fleet::new();
    let wave = |at, routers: &[&str]| Some(Event::Wave(at, 3, names(routers)));
    assert_eq!(fleet.step(), wave(1, &["jp1"]));
    assert_eq!(fleet.with_change(), ["jp1"]);
    fleet.pass(4);
    // It has not reported since.
    assert_eq!(fleet.step(), None);
    // It may not have fetched the change yet.
    fleet.report("jp1", 99);
    fleet.pass(3);
    fleet.report("jp2", 100);
    assert_eq!(fleet.step(), None);
    fleet.pass(4);
    fleet.report_all(99);
    assert_eq!(fleet.step(), wave(2, &["de1"]));
    fleet.pass(11);
    fleet.report_all(99);
    assert_eq!(fleet.step(), wave(3, &["de2", "jp2"]));
    assert_eq!(fleet.with_change(), ["de1", "de2", "jp1", "jp2"]);
    fleet.pass(11);
    fleet.report_all(100);
    assert_eq!(fleet.step(), Some(Event::Complete));
    assert_eq!(fleet.record.accepted, Some(texts(&changed())));
    assert_eq!(fleet.step(), None);
}

#[test]
fn lost_prefixes_in_two_reports_take_the_change_back() {
    let mut fleet = Fleet::new();
    fleet.step();
    fleet.pass(1);
    fleet.report("jp1", 70);
    assert_eq!(fleet.step(), None);
    // The same report does not count twice.
    assert_eq!(fleet.step(), None);
    fleet.pass(1);
    fleet.report("jp1", 70);
    let why = "jp1: 70 imported routes of 100 before".to_owned();
    assert_eq!(fleet.step(), Some(Event::TakenBack(why)));
    assert!(fleet.with_change().is_empty());
    fleet.pass(60);
    // It is not tried again, until the description changes.
    assert_eq!(fleet.step(), None);
    fleet.files = files(&format!("{NETWORK}policy: {{hostPolicy: y}}\n"));
    assert!(matches!(fleet.step(), Some(Event::Wave(1, 3, _))));
}

#[test]
fn better_report_clears_a_bad_one() {
    let mut fleet = Fleet::new();
    fleet.step();
    for routes in [70, 100, 70, 100] {
        fleet.pass(3);
        fleet.report("jp1", routes);
        assert!(!matches!(fleet.step(), Some(Event::TakenBack(_))));
    }
    assert_eq!(fleet.with_change(), ["de1", "jp1"]);
}

#[test]
fn router_that_falls_silent_takes_the_change_back() {
    let mut fleet = Fleet::new();
    fleet.step();
    fleet.pass(12);
    let event = fleet.step();
    assert!(
        matches!(&event, Some(Event::TakenBack(why)) if why.starts_with("jp1: no report")),
        "{event:?}"
    );
}

#[test]
fn router_that_falls_silent_after_a_report_takes_it_back() {
    let mut fleet = Fleet::new();
    fleet.step();
    fleet.pass(6);
    fleet.report("jp1", 100);
    assert_eq!(fleet.step(), None);
    fleet.pass(6);
    assert!(matches!(fleet.step(), Some(Event::TakenBack(_))));
}

#[test]
fn loss_by_an_earlier_change_is_no_measure() {
    let comment = |fleet: &mut Fleet, text: &str| {
        fleet.files = files(&format!("{NETWORK}policy: {{hostPolicy: x}} # {text}\n"));
        assert!(matches!(fleet.step(), Some(Event::Wave(1, ..))));
    };
    let lost = |fleet: &mut Fleet| {
        fleet.pass(1);
        fleet.report("jp1", 10);
        fleet.step()
    };
    let mut fleet = Fleet::new();
    fleet.step();
    assert_eq!(lost(&mut fleet), None);
    // An edit in between, and one after the change was taken back.
    comment(&mut fleet, "one");
    assert_eq!(lost(&mut fleet), None);
    assert!(matches!(lost(&mut fleet), Some(Event::TakenBack(_))));
    comment(&mut fleet, "two");
    assert_eq!(lost(&mut fleet), None);
    assert!(matches!(lost(&mut fleet), Some(Event::TakenBack(_))));
}

#[test]
fn wave_of_silent_routers_shows_nothing() {
    let mut fleet = Fleet::new();
    fleet.pass(30);
    for router in ["de1", "de2", "jp2"] {
        fleet.report(router, 100);
    }
    assert!(matches!(fleet.step(), Some(Event::Wave(1, ..))));
    fleet.pass(60);
    assert_eq!(fleet.step(), None);
    assert_eq!(fleet.with_change(), ["jp1"]);
}

#[test]
fn description_of_before_withdraws_a_change() {
    let mut fleet = Fleet::new();
    fleet.step();
    fleet.files = files(NETWORK);
    assert_eq!(fleet.step(), Some(Event::Withdrawn));
    assert!(fleet.with_change().is_empty());
}

#[test]
fn newer_change_begins_with_the_first_wave() {
    let mut fleet = Fleet::new();
    fleet.step();
    fleet.pass(11);
    fleet.report("jp1", 100);
    fleet.step();
    assert_eq!(fleet.with_change(), ["de1", "jp1"]);
    fleet.files = files(&format!("{NETWORK}policy: {{hostPolicy: y}}\n"));
    assert!(matches!(fleet.step(), Some(Event::Wave(1, ..))));
    assert_eq!(fleet.with_change(), ["jp1"]);
}

#[test]
fn tunnel_to_a_removed_router_is_no_loss() {
    let before = posts(Timestamp::UNIX_EPOCH, true, 100);
    let with = |uuid: &str| {
        let mut posts = before.clone();
        let body = &mut posts.report.as_mut().unwrap().body;
        let mut tunnel = body["sessions"][0].clone();
        tunnel["uuid"] = json!(uuid);
        body["sessions"].as_array_mut().unwrap().push(tunnel);
        Measure::of(&posts, &ids())
    };
    assert_eq!(with("mesh-3-9"), Measure::of(&before, &ids()));
    assert_eq!(with("mesh-3-4").established, 2);
}

#[test]
fn each_gate_is_told_in_words() {
    let now = Timestamp::UNIX_EPOCH;
    let spec = network(&files(NETWORK)).rollout().unwrap().clone();
    let before = Measure::of(&posts(now, true, 100), &ids());
    let broken = |change: &dyn Fn(&mut Measure)| {
        let mut measure = before.clone();
        change(&mut measure);
        measure.broken_gate(&before, &spec.gates)
    };
    assert_eq!(broken(&|_| {}), None);
    assert_eq!(broken(&|it| it.rtt_ms = None), None);
    let texts = [
        broken(&|it| it.established = 0),
        broken(&|it| it.exported = 79),
        broken(&|it| it.rtt_ms = Some(61.0)),
        broken(&|it| it.held = 1),
    ];
    let texts: Vec<String> = texts.into_iter().flatten().collect();
    assert_eq!(
        texts,
        [
            "0 Established sessions of 1 before",
            "79 exported routes of 100 before",
            "round-trip time of 61 ms, 10 ms before",
            "1 held changes, 0 before; `moenet-agent plan` on the router shows them",
        ]
    );
}

#[test]
fn drain_keeps_both_budgets() {
    let mut fleet = Fleet::new();
    let refusal = |fleet: &Fleet, router: &str| {
        let newest = network(&fleet.files);
        budget::refusal(
            &newest,
            &name(router),
            &fleet.record,
            &fleet.measures,
            fleet.now,
        )
    };
    assert_eq!(refusal(&fleet, "jp1"), None);
    fleet.record.permit(&name("jp1"), fleet.now);
    let region = |why: &str| format!("jp1 is {why} in region asia, and budgets.outPerRegion is 1");
    let permitted = region("permitted to drain");
    assert_eq!(refusal(&fleet, "jp2"), Some(permitted));
    assert_eq!(refusal(&fleet, "de1"), None);
    fleet.record.permit(&name("de1"), fleet.now);
    // The router that asks again does not count against itself.
    fleet.record.drains.remove(&name("de1"));
    fleet.measures.insert(
        name("de2"),
        Measure::of(&posts(fleet.now, false, 100), &ids()),
    );
    let exits = "the own prefixes would keep jp2, and budgets.exits is 2";
    assert_eq!(refusal(&fleet, "de1").as_deref(), Some(exits));
    // A router that does not post is out of service.
    fleet.pass(6);
    for router in ["de1", "de2", "jp2"] {
        fleet.report(router, 100);
    }
    fleet.record.forget_drains(fleet.now);
    assert!(fleet.record.drains.is_empty());
    assert_eq!(refusal(&fleet, "jp2"), Some(region("silent")));
}

#[test]
fn permission_is_renewed_before_it_ends() {
    let mut fleet = Fleet::new();
    fleet.record.permit(&name("jp1"), fleet.now);
    let permitted = |fleet: &Fleet| fleet.record.is_permitted(&name("jp1"), fleet.now);
    fleet.pass(2);
    assert!(permitted(&fleet));
    fleet.pass(1);
    assert!(!permitted(&fleet));
    fleet.record.forget_drains(fleet.now);
    assert_eq!(fleet.record.drains.len(), 1);
}
