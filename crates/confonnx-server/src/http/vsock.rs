//! Connections by vsock, for enclaves that have no network: whoever started the enclave passes on what arrives (socat, or the
//! cloud's proxy for it). It sees ciphertext, as any network would.

use std::{io, net::TcpStream as StdStream, thread};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::TcpStream,
    sync::{Mutex, mpsc},
};

/// A bound port. A thread of its own accepts: no runtime knows this family of sockets.
pub(super) struct Vsock(Mutex<mpsc::Receiver<io::Result<StdStream>>>);

impl Vsock {
    /// Binds `port`, for whoever reaches this machine or enclave.
    ///
    /// # Errors
    /// When the port is taken, or the system has no vsock or no more threads.
    pub(super) fn bind(port: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        socket.bind(&SockAddr::vsock(ANY, port))?;
        Self::listen(socket)
    }

    fn listen(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        let (accepted, waiting) = mpsc::channel(1);
        // It ends when a connection arrives and nobody takes it, or with the process.
        thread::Builder::new().name("vsock".into()).spawn(move || {
            while accepted.blocking_send(socket.accept().map(|(stream, _)| stream.into())).is_ok() {}
        })?;
        Ok(Self(Mutex::new(waiting)))
    }

    /// The next connection. Its type says TCP, of which nothing is used but that it is a stream.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        let accepted = self.0.lock().await.recv().await;
        let stream = accepted.ok_or(io::ErrorKind::BrokenPipe)??;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

/// Any context id (vsock(7)).
const ANY: u32 = u32::MAX;
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        thread,
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Linux has vsock between machines alone, unless a module is loaded: a socket of another family stands in for it here.
    #[tokio::test]
    async fn what_is_accepted_is_a_stream_whatever_its_family() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        let vsock = Vsock::listen(socket).unwrap();
        let client = thread::spawn(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"question").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let mut stream = vsock.accept().await.unwrap();
        let mut question = [0; 8];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        stream.write_all(b"answer").await.unwrap();
        drop(stream);
        assert_eq!(client.join().unwrap(), "answer");
    }
}
