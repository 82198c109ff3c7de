//! A router, its Control Plane and its neighbours, wired up.

use super::bird;
use super::control_plane::ControlPlane;
use super::neighbour::{FarEnd, Neighbour};
use super::router::{self, Router};
use super::{contains, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

/// What a neighbour speaks BGP with.
pub(crate) enum Speaker {
    /// BIRD, with these statements besides.
    Bird(String),
    Frr,
    GoBgp,
}

pub(crate) struct World {
    pub(crate) router: Router,
    pub(crate) control_plane: ControlPlane,
    pub(crate) neighbours: Vec<Neighbour>,
}

impl World {
    /// All but the agent runs; the Control Plane has the neighbours' sessions.
    pub(crate) fn new(neighbours: u32) -> Self {
        Self::with_bird(&bird::version(), neighbours)
    }

    pub(crate) fn with_bird(version: &str, neighbours: u32) -> Self {
        let speakers = (0..neighbours)
            .map(|_| Speaker::Bird(String::new()))
            .collect();
        Self::with_speakers(version, speakers)
    }

    /// As `with_bird`, with neighbours of these makes.
    pub(crate) fn with_speakers(version: &str, speakers: Vec<Speaker>) -> Self {
        let mut router = Router::new(version);
        let control_plane = ControlPlane::new(&router.inside);
        router.configure(&control_plane.url, 1);
        router.start_bird();
        let mut world = Self {
            router,
            control_plane,
            neighbours: vec![],
        };
        for (number, speaker) in (1..).zip(speakers) {
            world.add_neighbour(number, speaker);
        }
        world.control_plane.sessions(&world.sessions());
        world
    }

    /// As `new`, with the agent started and every session Established on both sides.
    pub(crate) fn converged(neighbours: u32) -> Self {
        let mut world = Self::new(neighbours);
        world.router.start_agent();
        world.wait_established();
        world.wait_measured();
        world
    }

    /// Waits until every link has its class of latency, which the first round trip gives it: from then on
    /// nothing changes by itself.
    #[track_caller]
    pub(crate) fn wait_measured(&self) {
        // A link that answers after all others is classified up to a minute and a half later.
        wait_until("every link is measured", 100, || {
            let sessions = self.router.bird.folder.join("moenet/sessions");
            let loaded = self.router.inside.try_shell(&format!(
                "grep -l 'moe_link(0,' {}/*.conf",
                sessions.display()
            ));
            match loaded {
                Err(_) => Ok(()),
                Ok(unmeasured) => Err(unmeasured),
            }
        });
        // What is on disk is loaded a moment later.
        wait_until("the agent is at rest", 40, || {
            self.router
                .inside
                .try_shell(&self.router.command("plan"))
                .map(drop)
        });
    }

    fn add_neighbour(&mut self, number: u32, speaker: Speaker) {
        self.join(
            Neighbour::new(number),
            number,
            |neighbour, far| match speaker {
                Speaker::Bird(says) => {
                    neighbour.says = says;
                    neighbour.start_bird(&bird::version(), far);
                }
                Speaker::Frr => neighbour.start_frr(far),
                Speaker::GoBgp => neighbour.start_gobgp(far),
            },
        );
    }

    /// Joins a neighbour, which `start` gives its tunnel and its daemon.
    pub(crate) fn join(
        &mut self,
        mut neighbour: Neighbour,
        number: u32,
        start: impl FnOnce(&mut Neighbour, &FarEnd),
    ) {
        let ours = format!("192.0.2.{}/29", 8 * number + 1);
        let theirs = [
            format!("192.0.2.{}/29", 8 * number + 2),
            format!("192.0.2.{}/29", 8 * number + 3),
        ];
        let device = format!("u{number}");
        self.router.inside.link(
            &device,
            &[&ours],
            &neighbour.inside,
            "u0",
            &[&theirs[0], &theirs[1]],
        );
        let far = self.far_end(number);
        start(&mut neighbour, &far);
        self.neighbours.push(neighbour);
    }

    /// The router as a neighbour sees it.
    fn far_end(&self, number: u32) -> FarEnd {
        FarEnd {
            asn: router::ASN,
            address: router::ADDRESS.into(),
            public: self.router.keys.public.clone(),
            endpoint: format!("192.0.2.{}:{}", 8 * number + 1, 21_000 + number),
        }
    }

    /// The sessions as the Control Plane lists them.
    pub(crate) fn sessions(&self) -> Vec<Value> {
        (1..)
            .zip(&self.neighbours)
            .map(|(number, neighbour)| session(number, neighbour))
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait_established(&self) {
        for neighbour in &self.neighbours {
            neighbour.wait_established(40);
        }
        wait_until(
            "every session is Established in the router's BIRD",
            20,
            || {
                let all = self
                    .router
                    .bird
                    .try_ask(&self.router.inside, "show protocols")?;
                let up = all
                    .lines()
                    .filter(|line| line.contains(" BGP ") && line.contains("Established"))
                    .count();
                if up == self.neighbours.len() {
                    Ok(())
                } else {
                    Err(all)
                }
            },
        );
    }

    /// Waits until the agent has fetched an endpoint `times` more often: what it does about an answer, it has done.
    #[track_caller]
    pub(crate) fn wait_polls(&self, endpoint: &str, times: usize) {
        let before = self.control_plane.asked(endpoint);
        wait_until(&format!("{endpoint} is fetched again"), 90, || {
            let asked = self.control_plane.asked(endpoint);
            if asked >= before + times {
                Ok(())
            } else {
                Err(format!("{} times", asked - before))
            }
        });
        std::thread::sleep(Duration::from_millis(500));
    }

    #[track_caller]
    pub(crate) fn wait_reported(&self, uuid: &str, status: u64, text: &str) {
        wait_until(
            &format!("{uuid} is reported {status} with {text:?}"),
            30,
            || match self.control_plane.reported(uuid) {
                Some((found, error)) if found == status => contains(&error, text),
                other => Err(format!("{other:?}")),
            },
        );
    }
}

impl World {
    /// Waits until a condition of an object has a status and a reason, and returns its message and next action.
    #[track_caller]
    pub(crate) fn wait_condition(
        &self,
        object: &str,
        about: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let mut message = String::new();
        wait_until(
            &format!("{object}: {about} is {status}, {reason}"),
            60,
            || {
                let found = self.status(object);
                let conditions = found["conditions"].as_array().ok_or("no conditions")?;
                let condition = conditions
                    .iter()
                    .find(|c| c["type"] == about)
                    .ok_or(format!("{found}"))?;
                let text = |field: &str| condition[field].as_str().unwrap_or_default();
                message = format!("{} → {}", text("message"), text("nextAction"));
                if condition["status"] == status && condition["reason"] == reason {
                    return Ok(());
                }
                Err(condition.to_string())
            },
        );
        message
    }
}

pub(crate) fn session(number: u32, neighbour: &Neighbour) -> Value {
    json!({
        "uuid": uuid(number), "asn": neighbour.asn, "status": 4, "ipv6LinkLocal": neighbour.address, "mtu": 1420,
        "interface": interface(number), "endpoint": format!("192.0.2.{}:{}", 8 * number + 2, Neighbour::PORT),
        "credential": {"publicKey": neighbour.keys.public}
    })
}

pub(crate) fn uuid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub(crate) fn interface(number: u32) -> String {
    format!("wg_{}", 4_242_421_000 + number)
}
