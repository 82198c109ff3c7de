//! The connection for links, addresses and routes.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures::StreamExt as _;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use super::brief::Brief;
use super::connection::{Connection, Reply, collect, dump, ended};
use super::error::ENODEV;
use super::route_message;
use crate::model::InterfaceName;
use crate::observed::kernel::SavedRoute;

type Handle = ConnectionHandle<Brief>;

/// The connection for links, addresses and routes.
pub(super) struct Netlink {
    connection: Connection<Handle>,
    /// The kernel answers EBUSY to a second dump on one socket while the first runs
    /// (`__netlink_dump_start`), so two passes that observe at once take turns.
    dumping: tokio::sync::Mutex<()>,
}

impl Default for Netlink {
    fn default() -> Self {
        Self {
            connection: Connection::new(open),
            dumping: tokio::sync::Mutex::default(),
        }
    }
}

fn open(runtime: &Runtime) -> io::Result<(Handle, AbortHandle)> {
    let (mut connection, handle, _) = proto::new_connection(NETLINK_ROUTE)?;
    // With strict checking (since Linux 4.20) the kernel itself selects the few requested routes;
    // a router with a full Internet table has a million others.
    let _ = connection
        .socket_mut()
        .socket_mut()
        .set_netlink_get_strict_chk(true);
    // Without these the end of an answer and the end of a failing connection look the same.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    Ok((handle, runtime.spawn(connection).abort_handle()))
}

/// The network namespace, as messages.
#[derive(Debug, Default)]
pub(super) struct Dump {
    pub(super) links: Vec<LinkMessage>,
    pub(super) addresses: Vec<AddressMessage>,
    pub(super) routes: Vec<RouteMessage>,
}

impl Netlink {
    /// Sends a change and waits for the kernel's acknowledgement.
    pub(super) async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK | flags).await.map(|_| ())
    }

    /// Creates a link. Returns it if the kernel answers with it (`NLM_F_ECHO`): only newer ones do.
    pub(super) async fn create(&self, message: LinkMessage) -> io::Result<Option<LinkMessage>> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
        let reply = self.exchange(RouteNetlinkMessage::NewLink(message), flags);
        Ok(reply.await?.messages.into_iter().find_map(new_link))
    }

    /// Reads one link by its name; `None` when it does not exist.
    pub(super) async fn link(&self, name: &InterfaceName) -> io::Result<Option<LinkMessage>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.as_str().to_owned()));
        // The kernel accepts alternative names for IFLA_IFNAME too (`__dev_get_by_name`): a link found by such a name
        // is another one.
        let bears = |link: &LinkMessage| name_of(link) == Some(name.as_str());
        Ok(self.get_link(message).await?.filter(bears))
    }

    /// Reads one link by its index; `None` when it does not exist.
    pub(super) async fn link_at(&self, index: u32) -> io::Result<Option<LinkMessage>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.get_link(message).await
    }

    async fn get_link(&self, mut message: LinkMessage) -> io::Result<Option<LinkMessage>> {
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self
            .exchange(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)
            .await
        {
            Ok(reply) => Ok(reply.messages.into_iter().find_map(new_link)),
            Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads all links, all addresses, the routes that the kernel created for them, and those of router advertisements, of
    /// the network namespace.
    pub(super) async fn dump(&self) -> io::Result<Dump> {
        let _turn = self.dumping.lock().await;
        let mut links = LinkMessage::default();
        links
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let links = self.dump_all(RouteNetlinkMessage::GetLink(links)).await?;
        let mut dump = Dump {
            links: links.into_iter().filter_map(new_link).collect(),
            ..Dump::default()
        };
        let routes = route_message::requests(0).into_iter();
        let routes = routes.chain([route_message::learnt_request(0)]);
        self.dump_addresses(0, routes, &mut dump).await?;
        Ok(dump)
    }

    /// Adds a link to a dump, with its addresses and the routes that the kernel created for them; those of router
    /// advertisements with a foreign link alone, since the agent's accept none.
    pub(super) async fn dump_link(
        &self,
        link: LinkMessage,
        is_foreign: bool,
        dump: &mut Dump,
    ) -> io::Result<()> {
        let _turn = self.dumping.lock().await;
        let index = link.header.index;
        dump.links.push(link);
        let learnt = is_foreign.then(|| route_message::learnt_request(index));
        let routes = route_message::requests(index).into_iter().chain(learnt);
        self.dump_addresses(index, routes, dump).await
    }

    /// Adds addresses, of one link or of all for index 0, and routes. A kernel without strict checking answers with all, and
    /// those of other links are ignored later.
    async fn dump_addresses(
        &self,
        index: u32,
        requests: impl Iterator<Item = RouteMessage>,
        dump: &mut Dump,
    ) -> io::Result<()> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let addresses = self
            .dump_all(RouteNetlinkMessage::GetAddress(request))
            .await?;
        let mut routes = Vec::new();
        for request in requests {
            routes.extend(
                self.dump_all(RouteNetlinkMessage::GetRoute(request))
                    .await?,
            );
        }
        let new_address = |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        };
        let new_route = |message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        };
        let addresses = addresses.into_iter().filter_map(new_address);
        dump.addresses.extend(addresses);
        dump.routes.extend(routes.into_iter().filter_map(new_route));
        Ok(())
    }

    /// Returns the gateways of the routes of an operator or of autoconfiguration, each with the index of the link that leads to
    /// it.
    pub(super) async fn gateways(&self) -> io::Result<BTreeSet<(u32, IpAddr)>> {
        let _turn = self.dumping.lock().await;
        let mut found = BTreeSet::new();
        for request in route_message::host_requests() {
            let routes = self
                .dump_all(RouteNetlinkMessage::GetRoute(request))
                .await?;
            for route in routes {
                if let RouteNetlinkMessage::NewRoute(route) = route {
                    found.extend(route_message::gateways(&route));
                }
            }
        }
        Ok(found)
    }

    /// Returns the routes that an operator made through a link.
    pub(super) async fn operators_routes(&self, index: u32) -> io::Result<BTreeSet<SavedRoute>> {
        let _turn = self.dumping.lock().await;
        let mut found = BTreeSet::new();
        for request in route_message::operators_requests(index) {
            let routes = self
                .dump_all(RouteNetlinkMessage::GetRoute(request))
                .await?;
            for route in routes {
                if let RouteNetlinkMessage::NewRoute(route) = route {
                    found.extend(route_message::save(route, index));
                }
            }
        }
        Ok(found)
    }

    async fn dump_all(&self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        dump(|| self.exchange(request.clone(), NLM_F_DUMP)).await
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Reply<RouteNetlinkMessage>> {
        let converse = |handle| converse(handle, message, flags);
        self.connection.exchange(converse).await
    }
}

/// Sends one request and collects the answer.
async fn converse(
    handle: Handle,
    message: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Reply<RouteNetlinkMessage>> {
    let mut request = NetlinkMessage::from(Brief(message));
    request.header.flags = NLM_F_REQUEST | flags;
    let kernel = SocketAddr::new(0, 0);
    let answers = handle.request(request, kernel).map_err(|_| ended())?;
    let reply = collect(answers.map(Ok)).await?;
    Ok(reply.map(|Brief(message)| message))
}

fn new_link(message: RouteNetlinkMessage) -> Option<LinkMessage> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }
}

pub(super) fn name_of(message: &LinkMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reading links needs no privilege.

    #[tokio::test]
    async fn a_connection_that_died_is_opened_again() {
        let netlink = Netlink::default();
        assert!(!netlink.dump().await.unwrap().links.is_empty());
        netlink.connection.abort();
        tokio::task::yield_now().await;
        assert!(!netlink.dump().await.unwrap().links.is_empty());
    }

    #[tokio::test]
    async fn truncated_dump_is_an_error() {
        let netlink = Netlink::default();
        let handle = netlink.connection.handle().unwrap();
        netlink.connection.disconnect();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let error = converse(handle, request, NLM_F_DUMP).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn the_kernels_refusal_keeps_its_number() {
        let netlink = Netlink::default();
        let mut nowhere = LinkMessage::default();
        nowhere.header.index = 0x7fff_ffff;
        let reply = netlink
            .exchange(RouteNetlinkMessage::GetLink(nowhere), NLM_F_ACK)
            .await;
        assert_eq!(
            reply.err().and_then(|error| error.raw_os_error()),
            Some(ENODEV)
        );
        assert!(netlink.connection.is_open(), "the connection is kept");
    }
}
