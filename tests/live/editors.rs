//! The ways in which editors save a file: none of them can hurt, and each is in force.

use crate::lab::hands::{Untouched, document_of, exception, mtu_exception, override_of};
use crate::lab::wait_until;
use crate::lab::world::{World, interface};
use std::io::Write as _;
use std::process::{Child, Stdio};

/// Each saves the text in `$NEW` to the file `$F`, by the system calls of the program it is named after.
const SAVES: [(&str, &str); 9] = [
    (
        "vim: swap file, probe file, the old file renamed to a backup, a new one written",
        "S=$(dirname $F)/.$(basename $F).swp; : > $S; P=$(dirname $F)/4913; : > $P; rm $P; mv $F $F~; \
         sleep 0.1; cat $NEW > $F; sync $F; rm $F~; rm $S",
    ),
    (
        "vim with backupcopy: the old file copied, then written over",
        "cp $F $F~; cat $NEW > $F; rm $F~",
    ),
    (
        "nano: written over in place, emptied first",
        ": > $F; sleep 0.1; cat $NEW > $F",
    ),
    (
        "emacs: a lock that links nowhere, the old one renamed",
        "L=$(dirname $F)/.#x; ln -s me@here $L; \
         mv $F $F~; cat $NEW > $F; rm $L",
    ),
    (
        "sed -i and many others: a temporary file renamed over it",
        "T=$(dirname $F)/sedQ1x2; cat $NEW > $T; mv $T $F",
    ),
    ("cp", "cp $NEW $F"),
    ("install", "install -m 600 $NEW $F"),
    (
        "rsync: a hidden temporary file renamed over it",
        "T=$(dirname $F)/.x.yaml.Ab12; cat $NEW > $T; mv $T $F",
    ),
    ("rm and write again", "rm $F; sleep 0.1; cat $NEW > $F"),
];

/// Runs the save with `$F` and `$NEW`.
fn save(world: &World, file: &str, new: &str, script: &str) {
    std::fs::write(world.router.path("new"), new).unwrap();
    let new = world.router.path("new").display().to_string();
    world.in_state(&format!("F={file} NEW={new} && {script}"));
}

#[test]
fn override_takes_effect_with_every_way_of_saving() {
    let world = World::converged(1);
    let file = override_of(1);
    world.write(&file, &mtu_exception(1, 1300));
    world.wait_mtu(1, 1300);
    let ages = world.ages();
    let events = crate::lab::watch::NetlinkEvents::record(&world.router);
    for ((name, script), mtu) in SAVES.iter().zip(1301..) {
        save(&world, &file, &mtu_exception(1, mtu), script);
        wait_until(name, 40, || {
            let link = world
                .router
                .inside
                .try_shell(&format!("ip link show {}", interface(1)))?;
            crate::lab::contains(&link, &format!("mtu {mtu} "))
        });
    }
    // The real ones, where there are any.
    let edit = format!(
        "vim -Nu NONE -i NONE -es -c 'set backup writebackup backupcopy=no' -c 's/x/x/e' \
                        -c '%s/mtu: [0-9]*/mtu: 1330/' -c 'wq' {file}"
    );
    world.in_state(&format!(
        "if command -v vim; then {edit}; else sed -i 's/mtu: .*}}/mtu: 1330}}}}/' {file}; fi"
    ));
    world.wait_mtu(1, 1330);
    world.in_state(&format!(
        "sed -i 's/mtu: 1330/mtu: 1331/' {file}; rm -f {file}~"
    ));
    world.wait_mtu(1, 1331);
    assert_eq!(world.ages(), ages);
    let seen = events.seen();
    assert!(
        !seen.iter().any(|line| line.contains("mtu 1420")),
        "the Control Plane's value came through: {seen:?}"
    );
    let log = world.git(&format!("log --format=%s --diff-filter=D -- {file}"));
    assert_eq!(log, "", "no save reads as a removal");
}

#[test]
fn edit_is_kept_with_every_way_of_saving() {
    let world = World::converged(1);
    world.wait_polls("sessions", 2);
    let (file, synced, ages) = (document_of(1), world.read(&document_of(1)), world.ages());
    for ((name, script), mtu) in SAVES.iter().zip(1301..) {
        save(
            &world,
            &file,
            &synced.replace("mtu: 1420", &format!("mtu: {mtu}")),
            script,
        );
        wait_until(name, 40, || {
            let link = world
                .router
                .inside
                .try_shell(&format!("ip link show {}", interface(1)))?;
            crate::lab::contains(&link, &format!("mtu {mtu} "))
        });
        wait_until("it is put back", 20, || {
            crate::lab::contains(&world.read(&file), "mtu: 1420")
        });
    }
    assert_eq!(world.ages(), ages);
}

/// Somebody who has a file open and writes it piece by piece.
struct SlowWriter(Child);

impl SlowWriter {
    fn begin(world: &World, file: &str, first: &str, rest: &str) -> Self {
        for (name, text) in [("first", first), ("rest", rest)] {
            std::fs::write(world.router.path(name), text).unwrap();
        }
        let folder = world.router.path("").display().to_string();
        let script =
            format!("cd {folder}; exec 3>state/{file}; cat first >&3; read _; cat rest >&3");
        let mut command = world.router.inside.command("sh");
        Self(
            command
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn finish(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn half_written_file_is_ignored_until_closed() {
    let world = World::converged(1);
    let file = override_of(1);
    world.write(&file, &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    let untouched = Untouched::since_now(&world);
    let text = exception(
        &interface(1),
        "reason: lab\nset:\n  tunnel:\n    mtu: 1340\n  description: whole",
    );
    let (first, rest) = text.split_at(text.find("  description").unwrap() - 2);
    let writer = SlowWriter::begin(&world, &file, first, rest);
    world.wait_polls("sessions", 3);
    untouched.assert(&world);
    assert_eq!(
        world.session_status(1)["phase"],
        "Established",
        "and it is no error either"
    );
    writer.finish();
    world.wait_mtu(1, 1340);
    wait_until(
        "the history has it whole, and never had half of it",
        20,
        || {
            crate::lab::contains(
                &world.git(&format!("log -p --format= -- {file}")),
                "description: whole",
            )
        },
    );
    let kept = world.git(&format!("log --format=%H -- {file}"));
    assert_eq!(kept.lines().count(), 2, "one commit for each save:\n{kept}");

    // The same in a document of the sync: nothing of a half is kept as an override.
    world.wait_polls("sessions", 2);
    let untouched = Untouched::since_now(&world);
    let synced = world.read(&document_of(1));
    let cut = synced.find("  bgp:").unwrap();
    let writer = SlowWriter::begin(&world, &document_of(1), &synced[..cut], &synced[cut..]);
    world.wait_polls("sessions", 3);
    writer.finish();
    world.wait_polls("sessions", 2);
    untouched.assert(&world);
    assert_eq!(world.read(&file), text);
}

#[test]
fn invalid_file_is_named_and_last_good_state_stays() {
    let world = World::converged(2);
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    let untouched = Untouched::since_now(&world);
    let good = [override_of(1), document_of(1)].map(|file| world.read(&file));
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    for (file, good) in [override_of(1), document_of(1)].iter().zip(&good) {
        let away = world.router.path("away").display().to_string();
        std::fs::write(&away, good).unwrap();
        for (make, reason) in [
            (": > $F".to_owned(), "0 bytes"),
            ("head -c 100 /dev/zero > $F".to_owned(), "NUL bytes"),
            ("printf 'kind: \\377\\376' > $F".to_owned(), "UTF-8"),
            ("head -c 60 $A > $F".to_owned(), ""),
            (
                "head -c 400000 /dev/zero | tr '\\0' ' ' > $F".to_owned(),
                "bytes long",
            ),
            ("rm $F; ln -s $A $F".to_owned(), "symbolic link"),
            ("ln -sf /nowhere $F".to_owned(), "symbolic link"),
            ("ln -sf /etc/passwd $F".to_owned(), "symbolic link"),
            ("rm $F; mkfifo $F".to_owned(), "no regular file"),
            ("mv $F fifo; ln -s $PWD/fifo $F".to_owned(), "symbolic link"),
            ("rm -f $F fifo; mkdir $F".to_owned(), "is a directory"),
            (
                "rmdir $F; cat $A > $F.x; chmod 0 $F.x; mv $F.x $F; printf '%s' '{' >> $F"
                    .to_owned(),
                "",
            ),
        ] {
            world.in_state(&format!("F={file}; A={away}; {make}"));
            world.wait_refused(1, &[file, reason]);
        }
        // What comes afterwards is good: a file renamed over whatever is there.
        world.in_state(&format!(
            "A={away}; cp $A x.tmp && rm -rf {file} && mv x.tmp {file}"
        ));
        world.wait_accepted(1);
    }
    untouched.assert(&world);
    assert_eq!(std::fs::read_to_string("/etc/passwd").unwrap(), passwd);
    let history = world.git("log -p --format=%s");
    assert!(
        !history.contains("root:x:0"),
        "what a link points to got into the history"
    );
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    assert_eq!(world.ages(), untouched.ages);
}
