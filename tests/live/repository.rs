//! A history that is broken, locked, missing or without git never holds up routing, and heals.

use crate::lab::cli::{commits, git, try_git};
use crate::lab::hands::{mtu_exception, override_of};
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use std::path::Path;

type Breakage = fn(&Path);

/// Has the Control Plane ask for another MTU, and waits until it is in force.
fn change(world: &World, mtu: u32) {
    let mut sessions = world.sessions();
    sessions[0]["mtu"] = mtu.into();
    world.control_plane.sessions(&sessions);
    wait_until(&format!("an MTU of {mtu}"), 40, || {
        let found = world
            .router
            .inside
            .try_shell(&format!("cat /sys/class/net/{}/mtu", interface(1)))?;
        if found.trim() == mtu.to_string() {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// Waits until what is in force by now is in the history, and no condition is left.
fn wait_recorded(world: &World, mtu: u32) {
    let path = format!("main:applied/sessions/{}.yaml", interface(1));
    wait_until(&format!("the MTU {mtu} is in the history"), 90, || {
        contains(
            &try_git(&world.router, &["show", &path])?,
            &format!("mtu: {mtu}"),
        )
    });
    wait_until("the condition is gone", 60, || {
        let (_, status) = world.router.api("", "/status");
        let node = std::fs::read_to_string(world.router.path("state/status/node.yaml"))
            .unwrap_or_default();
        if status.contains("history: ") {
            Err(status)
        } else {
            condition(&node, "True")
        }
    });
}

/// The agent's git may be writing there.
fn remove(folder: &Path) {
    wait_until("the folder can be removed", 10, || {
        std::fs::remove_dir_all(folder).map_err(|e| e.to_string())
    });
}

/// The condition `HistoryRecorded` of the node.
fn condition(node: &str, wanted: &str) -> Result<(), String> {
    let at = node.find("type: HistoryRecorded").ok_or(node)?;
    let text: String = node[at..].lines().take(2).collect();
    contains(&text.replace(['\'', '"'], ""), &format!("status: {wanted}"))
}

fn wait_condition(world: &World, words: &str) {
    wait_until("the condition is raised", 60, || {
        let (_, status) = world.router.api("", "/status");
        contains(&status, "history: ")?;
        contains(&status, words)?;
        let node = std::fs::read_to_string(world.router.path("state/status/node.yaml"))
            .unwrap_or_default();
        condition(&node, "False")?;
        contains(&node, words)
    });
}

#[test]
fn broken_or_locked_repository_blocks_nothing_and_recovers() {
    let world = World::converged(1);
    wait_recorded(&world, 1420);
    let repository = world.router.path("state/.git");
    let break_it: [(&str, Breakage); 7] = [
        ("HEAD", |git| std::fs::write(git.join("HEAD"), "").unwrap()),
        ("missing", remove),
        ("branch", |git| {
            std::fs::write(git.join("refs/heads/main"), "\0\0\0").unwrap()
        }),
        ("objects", |git| remove(&git.join("objects"))),
        ("garbage", |git| {
            remove(git);
            std::fs::write(git, "garbage").unwrap();
        }),
        ("another's", |git| {
            let chowned = std::process::Command::new("chown")
                .args(["-R", "4001003"])
                .arg(git)
                .status();
            assert!(chowned.unwrap().success());
        }),
        ("index locked", |git| {
            std::fs::write(git.join("index.lock"), "").unwrap()
        }),
    ];
    for (mtu, (what, break_it)) in (1300..).zip(break_it) {
        eprintln!("the repository: {what}");
        break_it(&repository);
        change(&world, mtu);
        wait_recorded(&world, mtu);
    }
    // A branch that is locked by a git that is gone: the condition says so, until the lock is stale.
    std::fs::write(repository.join("refs/heads/main.lock"), "").unwrap();
    change(&world, 1310);
    wait_condition(&world, "main.lock");
    wait_recorded(&world, 1310);
    assert_eq!(
        git(&world.router, &["fsck", "--strict", "--no-dangling"]),
        ""
    );
    let aside = world
        .router
        .inside
        .shell(&format!("ls -d {0} {0}.broken*", repository.display()));
    assert_eq!(
        aside.lines().count(),
        3,
        "only what had lost its objects, and garbage, is set aside:\n{aside}"
    );
}

#[test]
fn without_git_and_with_an_operators_settings_all_goes_on() {
    let mut world = World::new(1);
    // A machine without git: all other programs are there.
    let programs = world.router.path("programs");
    std::fs::create_dir(&programs).unwrap();
    let all = "for f in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do ln -sf $f/* .; done 2>/dev/null";
    world.router.inside.shell(&format!(
        "cd {} && {all}; rm -f git git-*",
        programs.display()
    ));
    let settings = world.router.path("gitconfig");
    let hooks = world.router.path("hooks");
    std::fs::create_dir(&hooks).unwrap();
    let hook = hooks.join("reference-transaction");
    std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
    world
        .router
        .inside
        .shell(&format!("chmod 755 {}", hook.display()));
    let hostile = format!(
        "[commit]\n gpgSign = true\n[core]\n hooksPath = {0}\n autocrlf = true\n fsmonitor = /bin/false\n\
         [init]\n templateDir = {0}\n defaultBranch = other\n[gpg]\n program = /bin/false\n\
         [user]\n useConfigOnly = true\n[gc]\n auto = 1\n",
        hooks.display()
    );
    std::fs::write(&settings, hostile).unwrap();
    let path = format!("PATH={}", programs.display());
    let home = format!("HOME={}", world.router.path("").display());
    let global = format!("GIT_CONFIG_GLOBAL={}", settings.display());
    std::fs::copy(&settings, world.router.path(".gitconfig")).unwrap();
    world.router.start_agent_with(&[
        &path,
        &home,
        &global,
        "GIT_DIR=/nowhere",
        "GIT_INDEX_FILE=/nowhere",
    ]);
    world.wait_established();
    wait_condition(&world, "install git");
    std::os::unix::fs::symlink("/usr/bin/git", programs.join("git")).unwrap();
    wait_recorded(&world, 1420);
    change(&world, 1400);
    wait_recorded(&world, 1400);
    assert!(
        commits(&world.router)
            .iter()
            .any(|line| line.starts_with("Control Plane|Sync"))
    );
    let text = git(
        &world.router,
        &["show", &format!("main:sessions/{}.yaml", interface(1))],
    );
    assert!(!text.contains('\r'));
}

#[test]
fn history_commits_as_soon_as_head_returns() {
    let mut world = World::converged(1);
    let file = override_of(1);
    let path = format!("main:{file}");
    world.write(&file, &mtu_exception(1, 1380));
    wait_until("the override is in the history", 60, || {
        try_git(&world.router, &["show", &path]).map(drop)
    });
    // A deletion while the agent was stopped is read from the tree, so its commit waits for the branch.
    world.router.kill_agent();
    world.remove(&file);
    let lock = world.router.path("state/.git/refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    world.router.start_agent();
    wait_condition(&world, "main.lock");
    git(&world.router, &["checkout", "-q", "--detach"]);
    std::fs::remove_file(&lock).unwrap();
    wait_condition(&world, "HEAD");
    // The sixth wait after a failure is 32 s: without a wake the next attempt is half a minute away.
    std::thread::sleep(std::time::Duration::from_secs(34));
    let recorded = || match try_git(&world.router, &["show", &path]) {
        Ok(text) => Err(text),
        Err(_) => Ok(()),
    };
    recorded().unwrap_err();
    git(&world.router, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    wait_until("the deletion is in the history", 15, recorded);
}
