//! The agent and its service manager: sd_notify(3) on a socket that the test holds.

use crate::lab::router::Router;
use crate::lab::world::World;
use crate::lab::{contains, wait_until};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// A service manager that takes messages.
struct Manager {
    socket: UnixDatagram,
    environment: String,
    messages: Vec<String>,
}

impl Manager {
    fn of(router: &Router) -> Self {
        let path = router.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self {
            socket,
            environment: format!("NOTIFY_SOCKET={}", path.display()),
            messages: Vec::new(),
        }
    }

    /// Takes the messages that have arrived; waits 100 ms for the first.
    fn take(&mut self) {
        let mut text = [0; 4096];
        while let Ok(size) = self.socket.recv(&mut text) {
            self.messages
                .push(String::from_utf8_lossy(&text[..size]).into_owned());
        }
    }

    /// Waits for a message after the first `from`, with all of these lines. Returns the number of messages up to it.
    fn wait(&mut self, from: usize, lines: &[&str]) -> usize {
        let mut end = 0;
        wait_until(&lines.join(" and "), 60, || {
            self.take();
            let has = |message: &String| {
                let all = lines.iter();
                all.copied()
                    .all(|line| message.lines().any(|it| it.starts_with(line)))
            };
            let found = self.messages.iter().skip(from).position(has);
            end = from + found.ok_or_else(|| self.messages.join("|"))? + 1;
            Ok(())
        });
        end
    }
}

#[test]
fn service_manager_hears_start_counts_reload_and_stop() {
    let mut world = World::new(1);
    let mut manager = Manager::of(&world.router);
    let environment = [manager.environment.clone(), "WATCHDOG_USEC=4000000".into()];
    let environment: Vec<_> = environment.iter().map(String::as_str).collect();
    world.router.start_agent_with(&environment);
    let ready = manager.wait(0, &["READY=1", "WATCHDOG=1", "STATUS="]);
    assert_eq!(ready, 1, "READY is the first: {:?}", manager.messages);
    manager.wait(0, &["STATUS=1 of 1 sessions Established"]);
    let mut seen = manager.messages.len();
    for _ in 0..2 {
        seen = manager.wait(seen, &["WATCHDOG=1"]);
    }
    world.router.signal_agent("-HUP");
    let reloading = manager.wait(seen, &["RELOADING=1", "MONOTONIC_USEC="]);
    manager.wait(reloading, &["READY=1"]);
    let ready = manager.messages.iter().filter(|it| it.contains("READY=1"));
    assert_eq!(ready.count(), 2, "{:?}", manager.messages);
    let seen = manager.messages.len();
    world.router.stop_agent();
    manager.wait(seen, &["STOPPING=1", "STATUS=stopping"]);
}

/// Twelve seconds are longer than a tick of the controller, which is progress.
#[test]
fn controller_that_hangs_starves_the_watchdog() {
    let mut world = World::new(1);
    let mut manager = Manager::of(&world.router);
    let environment = manager.environment.clone();
    world.router.spawn_agent(&[
        &environment,
        "WATCHDOG_USEC=1000000",
        "MOENET_AGENT_END_TASK=controller:hang",
    ]);
    wait_until("the controller hangs", 20, || {
        contains(&world.router.log(), "task hangs")
    });
    // A message about progress before that may be on its way.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        manager.take();
    }
    let seen = manager.messages.len();
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        manager.take();
    }
    let late = &manager.messages[seen..];
    assert!(!late.iter().any(|it| it.contains("WATCHDOG=1")), "{late:?}");
    assert!(world.router.agent_runs(), "only its controller hangs");
}

#[test]
fn lost_state_directory_is_ready_and_says_so() {
    let mut world = World::converged(0);
    world.router.stop_agent();
    let directory = world.router.path("state");
    std::fs::rename(&directory, world.router.path("elsewhere")).unwrap();
    let mut manager = Manager::of(&world.router);
    let environment = manager.environment.clone();
    world
        .router
        .spawn_agent(&[&environment, "WATCHDOG_USEC=1000000"]);
    let waits = "STATUS=waiting for the state directory";
    let first = manager.wait(0, &["READY=1", waits, "WATCHDOG=1"]);
    manager.wait(first, &["WATCHDOG=1"]);
    std::fs::rename(world.router.path("elsewhere"), &directory).unwrap();
    manager.wait(first, &["STATUS=0 of 0 sessions"]);
    let ready = manager.messages.iter().filter(|it| it.contains("READY=1"));
    assert_eq!(ready.count(), 1, "{:?}", manager.messages);
}
