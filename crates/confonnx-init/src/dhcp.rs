//! DHCP messages (RFC 2131, RFC 2132). What arrives is the host's: nothing in it can do more than leave the machine
//! without a network.

use std::net::Ipv4Addr;

pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;

/// The kind of a server's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Offer,
    Acknowledgement,
    Refusal,
}

/// What a server gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) address: Ipv4Addr,
    mask: Ipv4Addr,
    pub(crate) router: Option<Ipv4Addr>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Answer {
    /// Length of the network's part of the address.
    pub(crate) fn prefix(&self) -> u8 {
        // A mask has at most 32 ones.
        u8::try_from(self.mask.to_bits().leading_ones()).unwrap_or(32)
    }
}

/// Asks who gives addresses.
pub(crate) fn discover(id: u32, mac: &[u8; 6]) -> Vec<u8> {
    message(id, mac, DISCOVER, &[])
}

/// Asks for what was offered.
pub(crate) fn request(id: u32, mac: &[u8; 6], offer: &Answer) -> Vec<u8> {
    let mut options = vec![REQUESTED_ADDRESS, 4];
    options.extend(offer.address.octets());
    if let Some(server) = offer.server {
        options.extend([SERVER_IDENTIFIER, 4]);
        options.extend(server.octets());
    }
    message(id, mac, REQUEST, &options)
}

/// Reads an answer to this machine. `None`: it is none.
pub(crate) fn parse(packet: &[u8], id: u32) -> Option<(Kind, Answer)> {
    let fixed: &[u8; FIXED] = packet.first_chunk()?;
    if fixed[0] != BOOTREPLY || fixed[4..8] != id.to_be_bytes() || packet.get(FIXED..FIXED + 4)? != COOKIE {
        return None;
    }
    let address = Ipv4Addr::from(*fixed[16..].first_chunk::<4>()?);
    let mut answer = Answer {
        address,
        mask: Ipv4Addr::new(255, 255, 255, 0),
        router: None,
        name_servers: Vec::new(),
        server: None,
    };
    let mut kind = None;
    let mut rest = packet.get(FIXED + 4..)?;
    loop {
        let (&code, after) = rest.split_first()?;
        match code {
            END => break,
            PAD => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let (&length, after) = after.split_first()?;
        let (value, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        let first = value.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
        match (code, first) {
            (MESSAGE_TYPE, _) => {
                kind = match value {
                    [2] => Some(Kind::Offer),
                    [5] => Some(Kind::Acknowledgement),
                    [6] => Some(Kind::Refusal),
                    _ => None,
                }
            }
            (SUBNET_MASK, Some(mask)) => answer.mask = mask,
            (ROUTER, router @ Some(_)) => answer.router = router,
            (SERVER_IDENTIFIER, server @ Some(_)) => answer.server = server,
            (NAME_SERVERS, _) => {
                let servers = value.chunks_exact(4).filter_map(|bytes| bytes.first_chunk::<4>());
                answer.name_servers = servers.take(3).map(|bytes| Ipv4Addr::from(*bytes)).collect();
            }
            _ => {}
        }
    }
    Some((kind?, answer))
}

fn message(id: u32, mac: &[u8; 6], kind: u8, options: &[u8]) -> Vec<u8> {
    let mut message = vec![1, ARPHRD_ETHER, 6, 0];
    message.extend(id.to_be_bytes());
    // The fields are seconds; the flag that asks for answers by broadcast, since there is no address yet; four
    // addresses.
    message.extend([0, 0, 0x80, 0]);
    message.extend([0; 16]);
    message.extend(mac);
    message.resize(FIXED, 0);
    message.extend(COOKIE);
    message.extend([MESSAGE_TYPE, 1, kind]);
    message.extend(options);
    message.extend([PARAMETERS, 3, SUBNET_MASK, ROUTER, NAME_SERVERS, END]);
    // Some relays drop shorter messages (RFC 1542, 2.1).
    message.resize(message.len().max(300), PAD);
    message
}

/// Up to the options.
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOTREPLY: u8 = 2;
const ARPHRD_ETHER: u8 = 1;
const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVERS: u8 = 6;
const REQUESTED_ADDRESS: u8 = 50;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const PARAMETERS: u8 = 55;
const END: u8 = 255;
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as QEMU's own server answers.
    fn reply(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![2, 1, 6, 0, 0, 0, 0, 7];
        packet.extend([0; 8]);
        packet.extend([10, 0, 2, 15]);
        packet.resize(FIXED, 0);
        packet.extend(COOKIE);
        packet.extend(options);
        packet
    }

    const OFFER: &[u8] = &[
        53, 1, 2, 0, 54, 4, 10, 0, 2, 2, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 8, 10, 0, 2, 3, 9, 9,
        9, 9, 255,
    ];

    #[test]
    fn what_a_server_gives_is_read() {
        let (kind, answer) = parse(&reply(OFFER), 7).unwrap();
        assert_eq!((kind, answer.address), (Kind::Offer, Ipv4Addr::new(10, 0, 2, 15)));
        assert_eq!((answer.prefix(), answer.router), (24, Some(Ipv4Addr::new(10, 0, 2, 2))));
        assert_eq!(answer.name_servers, [Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(9, 9, 9, 9)]);
        let request = request(7, &[2; 6], &answer);
        assert!(request.windows(6).any(|bytes| bytes == [50, 4, 10, 0, 2, 15]));
        assert!(request.windows(6).any(|bytes| bytes == [54, 4, 10, 0, 2, 2]));
    }

    #[test]
    fn what_is_cut_or_for_others_is_no_answer() {
        let whole = reply(OFFER);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], 7), None, "{length} bytes");
        }
        assert_eq!(parse(&whole, 8), None);
        let mut asked = whole.clone();
        asked[0] = 1;
        assert_eq!(parse(&asked, 7), None);
        assert_eq!(parse(&reply(&[53, 1, 9, 255]), 7), None, "an unknown kind");
        assert_eq!(parse(&reply(&[53, 200, 2, 255]), 7), None, "an option longer than the packet");
    }

    #[test]
    fn a_message_has_the_shape_that_servers_expect() {
        let message = discover(7, &[2, 3, 4, 5, 6, 7]);
        assert_eq!((message.len(), &message[28..34]), (300, &[2, 3, 4, 5, 6, 7][..]));
        assert_eq!(&message[FIXED..FIXED + 7], &[99, 130, 83, 99, 53, 1, 1]);
    }
}
