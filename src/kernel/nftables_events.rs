//! nftables events: a table of a name may have changed, never how.

use std::io;

use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::sync::mpsc;
use tracing::warn;

use crate::intervals::NFTABLES_EVENTS_PAUSE;

/// `NETLINK_NETFILTER` (linux/netlink.h).
const NETFILTER: isize = 12;
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// `ENOBUFS`: the kernel had more events than the socket could hold.
const ENOBUFS: i32 = 105;

/// Reports each transaction that names this table, or one whose name continues it with `_`, until the receiver is
/// dropped. Opens its socket
/// before it returns. Several transactions may become one event. Must be called within a tokio runtime.
///
/// # Errors
/// When there is no such socket: a kernel without nftables.
pub fn nftables_events(table: &'static str) -> io::Result<mpsc::Receiver<()>> {
    let socket = subscribe()?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(listen(socket, table, sender));
    Ok(receiver)
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(GROUP)?;
    Ok(socket)
}

async fn listen(mut socket: TokioSocket, table: &str, sender: mpsc::Sender<()>) {
    loop {
        let message = tokio::select! {
            () = sender.closed() => return,
            message = socket.recv_from_full() => message,
        };
        let concerns = match message {
            Ok((bytes, _)) => names(&bytes, table),
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => true,
            Err(error) => {
                warn!(%error, "the socket for nftables' events failed; opening another one");
                tokio::time::sleep(NFTABLES_EVENTS_PAUSE).await;
                match subscribe() {
                    Ok(fresh) => socket = fresh,
                    Err(error) => {
                        warn!(%error, "cannot listen for changes of nftables; trying again")
                    }
                }
                true
            }
        };
        // A full channel already holds an event.
        if concerns {
            let _ = sender.try_send(());
        }
    }
}

/// Returns whether a message holds this name as a whole netlink string, or continued with `_`. Every message about a
/// table, or about
/// an object in one, carries the table's name; most are about foreign tables.
fn names(message: &[u8], table: &str) -> bool {
    let is_name = |window: &[u8]| {
        let rest = window.strip_prefix(table.as_bytes());
        matches!(rest, Some([0 | b'_']))
    };
    message.windows(table.len() + 1).any(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_name_counts() {
        assert!(names(b"\x0c\0\x01\0moenet_agent\0\0", "moenet_agent"));
        assert!(!names(b"\x0c\0\x01\0moenet_agent2\0", "moenet_agent"));
        assert!(names(b"\x0c\0\x01\0moenet_agent_4f1c\0", "moenet_agent"));
        assert!(!names(b"", "moenet_agent"));
    }
}
