//! The sockets between the key holder and a box, and the memory files whose descriptors go through them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};

use crate::memory::retry;

/// Two ends of a channel that keeps messages apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Messages are numbers, so that nothing has to be parsed.
pub(super) type Message = [u64; WORDS];
pub(super) const WORDS: usize = 5;
const BYTES: usize = WORDS * 8;
/// Descriptors with a message.
const MOST_FDS: usize = 5;

/// Sends `message`, and never waits: threads that serve others tell boxes to stop.
///
/// # Errors
/// When the peer is gone, or reads nothing of hundreds of messages.
pub(super) fn tell(socket: impl AsFd, message: Message) -> io::Result<()> {
    let bytes = to_bytes(message);
    // A peer that is gone is an error, not a signal.
    retry(|| send(&socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)).map(drop)
}

/// Sends `message` with copies of `fds`.
pub(super) fn tell_with(socket: impl AsFd, message: Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = to_bytes(message);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    retry(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// Waits for a message, as long as the socket's timeout says.
///
/// # Errors
/// `UnexpectedEof` when the other end is closed, `InvalidData` for a message of another length, `WouldBlock` after the
/// timeout.
pub(super) fn hear(socket: impl AsFd) -> io::Result<Message> {
    let mut bytes = [0; BYTES];
    let (_, len) = retry(|| recv(&socket, &mut bytes, RecvFlags::TRUNC))?;
    from_bytes(&bytes, len)
}

/// As [`hear`], with descriptors that came along. For boxes alone: a key holder takes none.
pub(super) fn hear_with(socket: impl AsFd) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut bytes = [0; BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((from_bytes(&bytes, received.bytes)?, fds))
}

fn to_bytes(message: Message) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (to, word) in bytes.chunks_exact_mut(8).zip(message) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8; BYTES], len: usize) -> io::Result<Message> {
    match len {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        BYTES => {
            let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
            Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{read, sealed, write_all};

    #[test]
    fn messages_and_descriptors_arrive_as_they_were_sent() {
        let (ours, theirs) = pair().unwrap();
        let file = sealed("test", &[b"ab", b"cd"]).unwrap();
        tell_with(&ours, [1, 2, 3, 4, 5], &[file.as_fd()]).unwrap();
        let (message, fds) = hear_with(&theirs).unwrap();
        assert_eq!((message, fds.len()), ([1, 2, 3, 4, 5], 1));
        assert_eq!(read(&fds[0], 4, 0).unwrap(), b"abcd");
        assert!(write_all(&fds[0], &[b"x"], 0).is_err(), "it is sealed");
        drop(theirs);
        assert_eq!(hear(&ours).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(tell(&ours, [0; WORDS]).is_err());
    }

    #[test]
    fn nobody_waits_for_a_peer_that_does_not_read() {
        let (ours, _theirs) = pair().unwrap();
        let refused = (0..100_000).find_map(|_| tell(&ours, [0; WORDS]).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn messages_of_another_length_are_none() {
        let (ours, theirs) = pair().unwrap();
        for len in [1, BYTES - 1, BYTES + 1] {
            send(&theirs, &vec![0; len], SendFlags::empty()).unwrap();
            assert_eq!(hear(&ours).unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
        }
    }
}
