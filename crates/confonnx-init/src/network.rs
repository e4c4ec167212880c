//! The machine's one address.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::{self, Answer, Kind};
use crate::netlink::Netlink;

/// What the network's DHCP server gave.
pub(crate) struct Lease {
    interface: String,
    address: Ipv4Addr,
    prefix: u8,
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The machine has no network interface.
    #[error("expected an Ethernet interface, found none: give the machine a virtio network card")]
    NoInterface,
    /// The kernel refuses.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was asked of the kernel.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No DHCP server answers.
    #[error("expected a DHCP server to answer within {} s, found none", PATIENCE.as_secs())]
    NoAnswer,
}

/// Switches the interfaces on and asks for an address.
pub(crate) fn start() -> Result<Lease, NetworkError> {
    let mut netlink = Netlink::open().map_err(failed("open netlink"))?;
    if let Some(index) = number("lo", "ifindex") {
        netlink.up(index).map_err(failed("switch the loopback on"))?;
    }
    let interface = ethernet().ok_or(NetworkError::NoInterface)?;
    let index = number(&interface, "ifindex").ok_or(NetworkError::NoInterface)?;
    netlink.up(index).map_err(failed("switch the interface on"))?;
    let answer = ask(&interface)?;
    let prefix = answer.prefix();
    netlink.address(index, answer.address, prefix).map_err(failed("set the address"))?;
    if let Some(gateway) = answer.router {
        netlink.default_route(index, gateway).map_err(failed("set the route"))?;
    }
    let servers = answer.name_servers.iter().map(|server| format!("nameserver {server}\n"));
    fs::write("/etc/resolv.conf", servers.collect::<String>()).map_err(kernel("name the name servers"))?;
    Ok(Lease { interface, address: answer.address, prefix })
}

/// Asks until somebody gives an address (RFC 2131): discover, offer, request, acknowledgement.
fn ask(interface: &str) -> Result<Answer, NetworkError> {
    let socket = open(interface).map_err(kernel("open a socket for DHCP"))?;
    let mac = mac(interface).ok_or(NetworkError::NoInterface)?;
    // Tells this machine's answers from others'; its hardware address does, too.
    let id = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
    let start = Instant::now();
    let mut offer: Option<Answer> = None;
    while start.elapsed() < PATIENCE {
        let message = match &offer {
            None => dhcp::discover(id, &mac),
            Some(offer) => dhcp::request(id, &mac, offer),
        };
        // Refused while the link comes up: the next try will tell.
        let _ = socket.send_to(&message, (Ipv4Addr::BROADCAST, dhcp::SERVER_PORT));
        let mut packet = [0; 1500];
        let Ok(length) = socket.recv(&mut packet) else {
            offer = None;
            continue;
        };
        match packet.get(..length).and_then(|packet| dhcp::parse(packet, id)) {
            Some((Kind::Offer, answer)) if offer.is_none() => offer = Some(answer),
            Some((Kind::Acknowledgement, answer)) if offer.is_some() => return Ok(answer),
            Some((Kind::Refusal, _)) => offer = None,
            _ => {}
        }
    }
    Err(NetworkError::NoAnswer)
}

fn open(interface: &str) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, dhcp::CLIENT_PORT)).into())?;
    socket.set_read_timeout(Some(ROUND))?;
    Ok(socket.into())
}

/// The first Ethernet interface, by name.
fn ethernet() -> Option<String> {
    let names = fs::read_dir("/sys/class/net").ok()?;
    let mut names: Vec<String> =
        names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().find(|name| number(name, "type") == Some(ARPHRD_ETHER) && name != "lo")
}

fn number(interface: &str, what: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{interface}/{what}")).ok()?.trim().parse().ok()
}

fn mac(interface: &str) -> Option<[u8; 6]> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address")).ok()?;
    let bytes: Vec<u8> =
        text.trim().split(':').map(|digits| u8::from_str_radix(digits, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> NetworkError {
    move |errno| NetworkError::Kernel { what, source: errno.into() }
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Kernel { what, source }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {}/{}", self.interface, self.address, self.prefix)
    }
}

const ARPHRD_ETHER: u32 = 1;
const PATIENCE: Duration = Duration::from_secs(60);
const ROUND: Duration = Duration::from_secs(2);
