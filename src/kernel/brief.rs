//! Link messages with only the attributes that the agent reads. A complete one is 46 kB as typed message (measured), which
//! would be most of the agent's memory at a thousand links.

use rtnetlink::packet_core::{
    DecodeError, NLA_ALIGNTO, NetlinkDeserializable, NetlinkHeader, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

/// `RTM_NEWLINK` (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
/// Size of the message's header (`struct ifinfomsg`).
const HEADER: usize = 16;
/// `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_LINKINFO`, `IFLA_IFALIAS` and `IFLA_AF_SPEC` (linux/if_link.h): what
/// [`super::link_message::parse`] uses.
const READ: [u16; 5] = [3, 4, 18, 20, 26];

/// A message of rtnetlink; a received link is brief.
#[derive(Debug, Clone)]
pub(super) struct Brief(pub(super) RouteNetlinkMessage);

impl NetlinkDeserializable for Brief {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let message = match payload.split_at_checked(HEADER) {
            Some((link, attributes)) if header.message_type == NEW_LINK => {
                let brief = [link, &needed(attributes)?].concat();
                RouteNetlinkMessage::deserialize(header, &brief)
            }
            _ => RouteNetlinkMessage::deserialize(header, payload),
        };
        message.map(Self)
    }
}

/// Returns the bytes of the attributes that are read.
fn needed(attributes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut kept = Vec::new();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        if READ.contains(&attribute.kind()) {
            let length = usize::from(attribute.length());
            kept.extend(&attribute.into_inner()[..length]);
            kept.resize(kept.len().next_multiple_of(NLA_ALIGNTO), 0);
        }
    }
    Ok(kept)
}

impl NetlinkSerializable for Brief {
    fn message_type(&self) -> u16 {
        self.0.message_type()
    }

    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.0.serialize(buffer);
    }
}

impl From<Brief> for NetlinkPayload<Brief> {
    fn from(message: Brief) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn received(attributes: Vec<LinkAttribute>) -> Result<Vec<LinkAttribute>, DecodeError> {
        let mut link = LinkMessage::default();
        link.attributes = attributes;
        let sent = RouteNetlinkMessage::NewLink(link);
        let mut bytes = vec![0; sent.buffer_len()];
        sent.serialize(&mut bytes);
        let mut header = NetlinkHeader::default();
        header.message_type = NEW_LINK;
        match Brief::deserialize(&header, &bytes)?.0 {
            RouteNetlinkMessage::NewLink(link) => Ok(link.attributes),
            other => panic!("{other:?} is no link"),
        }
    }

    #[test]
    fn link_has_only_the_attributes_that_are_read() {
        let read = [
            LinkAttribute::IfName("wg_12".to_owned()),
            LinkAttribute::Mtu(1420),
            LinkAttribute::IfAlias("odd length".to_owned()),
        ];
        let sent = [&read[..], &[LinkAttribute::Qdisc("noqueue".to_owned())]].concat();
        assert_eq!(received(sent).unwrap(), read);
    }

    #[test]
    fn cut_attribute_is_an_error() {
        assert!(needed(&[9, 0, 3, 0, b'w']).is_err());
    }
}
