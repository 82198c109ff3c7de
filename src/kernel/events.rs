//! Kernel events: which link may have changed, never how.

use std::collections::HashMap;
use std::io;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tracing::warn;

use super::netlink::{Netlink, name_of};
use crate::intervals::KERNEL_EVENTS_PAUSE;
use crate::model::InterfaceName;

const GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// Number of events that may wait for the reader; more become one event for all links.
const WAITING: usize = 1024;

/// A change of a link or of one of its addresses.
///
/// Not every change is announced, so periodic observation remains necessary: WireGuard's own settings
/// never are (measured, Linux 6.12), and an alias only while the link is up (measured, Linux 6.18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelEvent {
    /// The link; `None` when events were lost and all links must be read.
    pub interface: Option<InterfaceName>,
}

/// Listens for changes of links and addresses until the receiver is dropped. Opens its socket
/// before it returns, so that later changes are announced. Events are not coalesced.
/// Must be called within a tokio runtime.
pub fn events() -> io::Result<mpsc::Receiver<KernelEvent>> {
    let socket = subscribe()?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(listen(
        Listener {
            names: HashMap::new(),
            netlink: Netlink::default(),
            sender,
        },
        socket,
    ));
    Ok(receiver)
}

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// The connection task ends when its socket fails; its channel of messages ends with it.
struct Socket {
    messages: Messages,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn subscribe() -> io::Result<Socket> {
    let (connection, _, messages) = new_multicast_connection(&GROUPS)?;
    Ok(Socket {
        messages,
        task: tokio::spawn(connection),
    })
}

struct Listener {
    /// Names by index: events of addresses carry only the index.
    names: HashMap<u32, InterfaceName>,
    netlink: Netlink,
    sender: mpsc::Sender<KernelEvent>,
}

/// The reader was dropped.
struct Closed;

async fn listen(mut listener: Listener, mut socket: Socket) {
    loop {
        if listener.relay(&mut socket.messages).await.is_err() {
            return;
        }
        warn!("the netlink socket for events ended; opening another one");
        socket = loop {
            tokio::time::sleep(KERNEL_EVENTS_PAUSE).await;
            match subscribe() {
                Ok(socket) => break socket,
                Err(error) => warn!(%error, "cannot listen for changes of links; trying again"),
            }
        };
        listener.names.clear();
        if listener.tell_all(&mut socket.messages).await.is_err() {
            return;
        }
    }
}

impl Listener {
    /// Forwards events until the socket ends.
    async fn relay(&mut self, messages: &mut Messages) -> Result<(), Closed> {
        loop {
            let message = tokio::select! {
                () = self.sender.closed() => return Err(Closed),
                message = messages.next() => message,
            };
            let Some((message, _)) = message else {
                return Ok(());
            };
            let fit = match message.payload {
                NetlinkPayload::InnerMessage(message) => self.tell(message).await?,
                // ENOBUFS: the kernel had more events than the socket could hold.
                NetlinkPayload::Overrun(_) => false,
                _ => true,
            };
            if !fit {
                self.tell_all(messages).await?;
            }
        }
    }

    /// Sends the links of a message to the reader; returns `false` when the reader is too far behind.
    async fn tell(&mut self, message: RouteNetlinkMessage) -> Result<bool, Closed> {
        let mut fits = true;
        for interface in self.about(message).await {
            fits &= match self.sender.try_send(KernelEvent {
                interface: Some(interface),
            }) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => false,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(Closed),
            };
        }
        Ok(fits)
    }

    /// Replaces all waiting events by one event for all links.
    async fn tell_all(&mut self, messages: &mut Messages) -> Result<(), Closed> {
        let place = self.sender.reserve().await.map_err(|_| Closed)?;
        while messages.try_recv().is_ok() {}
        self.names.clear();
        place.send(KernelEvent { interface: None });
        Ok(())
    }

    /// Returns the links of a message: two for a renamed link, none for a link with an invalid name.
    async fn about(&mut self, message: RouteNetlinkMessage) -> Vec<InterfaceName> {
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                let name = valid_name(&link);
                let before = match &name {
                    Some(name) => self.names.insert(link.header.index, name.clone()),
                    None => self.names.remove(&link.header.index),
                };
                let before = before.filter(|before| Some(before) != name.as_ref());
                name.into_iter().chain(before).collect()
            }
            RouteNetlinkMessage::DelLink(link) => {
                let known = self.names.remove(&link.header.index);
                valid_name(&link).or(known).into_iter().collect()
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                self.name_at(address.header.index)
                    .await
                    .into_iter()
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the name of a link by its index. A link that is gone was announced as such.
    async fn name_at(&mut self, index: u32) -> Option<InterfaceName> {
        if let Some(name) = self.names.get(&index) {
            return Some(name.clone());
        }
        let name = valid_name(&self.netlink.link_at(index).await.ok()??)?;
        self.names.insert(index, name.clone());
        Some(name)
    }
}

fn valid_name(message: &LinkMessage) -> Option<InterfaceName> {
    name_of(message)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rtnetlink::LinkDummy;

    use super::*;

    fn listener(waiting: usize) -> (Listener, mpsc::Receiver<KernelEvent>) {
        let (sender, receiver) = mpsc::channel(waiting);
        (
            Listener {
                names: HashMap::new(),
                netlink: Netlink::default(),
                sender,
            },
            receiver,
        )
    }

    fn link(name: &str) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewLink(LinkDummy::new(name).index(7).build())
    }

    async fn next(receiver: &mut mpsc::Receiver<KernelEvent>) -> Option<String> {
        receiver
            .recv()
            .await
            .unwrap()
            .interface
            .map(|name| name.to_string())
    }

    #[tokio::test]
    async fn a_renamed_link_is_news_of_both_names() {
        let (mut listener, _receiver) = listener(1);
        assert_eq!(listener.about(link("a")).await.len(), 1);
        let names: Vec<_> = listener
            .about(link("b"))
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[tokio::test]
    async fn lost_news_become_one_event_about_everything() {
        let (mut listener, mut receiver) = listener(4);
        let (sender, mut messages) = futures::channel::mpsc::unbounded();
        let send = |payload| {
            let message = NetlinkMessage::new(Default::default(), payload);
            sender
                .unbounded_send((message, SocketAddr::new(0, 0)))
                .unwrap();
        };
        send(NetlinkPayload::InnerMessage(link("a")));
        send(NetlinkPayload::Overrun(Vec::new()));
        send(NetlinkPayload::InnerMessage(link("b")));
        drop(sender);
        assert!(listener.relay(&mut messages).await.is_ok());
        drop(listener);
        assert_eq!(next(&mut receiver).await.as_deref(), Some("a"));
        assert_eq!(next(&mut receiver).await, None);
        assert!(
            receiver.recv().await.is_none(),
            "what waited behind the loss is part of everything"
        );
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_to_look_at_everything() {
        let (mut listener, mut receiver) = listener(1);
        assert!(listener.tell(link("a")).await.is_ok_and(|fit| fit));
        assert!(listener.tell(link("a")).await.is_ok_and(|fit| !fit));
        receiver.recv().await.unwrap();
        let (_sender, mut messages) = futures::channel::mpsc::unbounded();
        assert!(listener.tell_all(&mut messages).await.is_ok());
        assert_eq!(next(&mut receiver).await, None);
    }
}
