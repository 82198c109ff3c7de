//! Another git that changes the tree of the state directory.

use std::time::Duration;

use moenet_agent::document::{Kind, Metadata};
use moenet_agent::store::{AppliedBody, AppliedDocument};

use super::lab::Machine;

/// More writes than threads that work on the state directory at once.
const WRITES: u64 = 12;

#[tokio::test]
async fn writes_that_wait_for_git_delay_no_other_work() {
    let machine = Machine::new(1);
    let agent = machine.boot();
    let lock = machine.state().join(".git/index.lock");
    std::fs::create_dir(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "").unwrap();
    let writes: Vec<_> = (1..=WRITES)
        .map(|number| {
            let metadata = Metadata {
                name: format!("wg_{number}").parse().unwrap(),
                uid: None,
                generation: 1,
            };
            let record = AppliedDocument::new(Kind::BgpSession, metadata, AppliedBody::default());
            let context = agent.context.clone();
            tokio::spawn(async move {
                context
                    .write(move |store| store.write_applied(&record))
                    .await
            })
        })
        .collect();
    // The writes reach their wait.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let name = "wg_1".parse().unwrap();
    let read = agent
        .context
        .disk(move |store| Ok(store.read_applied(Kind::BgpSession, &name)));
    assert_eq!(read.await.unwrap(), None);
    assert!(writes.iter().all(|write| !write.is_finished()));
    std::fs::remove_file(&lock).unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(agent.applied() as u64, WRITES);
}
