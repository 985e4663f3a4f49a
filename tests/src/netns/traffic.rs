//! Who talks on the machines: servers that say who they are and who called, and callers.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::Machine;

/// How long an answer may take. Long: it ends only what would hang.
const LONG: Duration = Duration::from_secs(30);
/// How long silence has to last to count as such. What is refused answers sooner, or never.
const SILENCE: Duration = Duration::from_millis(1500);

/// A server of TCP and UDP at one port of a machine. To each call it says `<machine> <caller's address>`, and again to
/// each line of a conversation. Its threads end with the process.
pub struct Echo;

impl Echo {
    /// Starts it.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(machine: &Machine, port: u16) -> Result<()> {
        let name = machine.name().to_owned();
        let (tcp, udp) = machine.inside(|| {
            let address = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], port));
            Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?))
        })?;
        let speaker = name.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let name = speaker.clone();
                std::thread::spawn(move || answer(stream, &name));
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, caller)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(said(&name, caller).as_bytes(), caller);
            }
        });
        Ok(())
    }
}

fn said(name: &str, caller: SocketAddr) -> String {
    format!("{name} {}\n", caller.ip().to_canonical())
}

fn answer(mut stream: TcpStream, name: &str) {
    let Ok(caller) = stream.peer_addr() else { return };
    let Ok(reader) = stream.try_clone() else { return };
    let text = said(name, caller);
    if stream.write_all(text.as_bytes()).is_err() {
        return;
    }
    for _ in BufReader::new(reader).lines().map_while(std::result::Result::ok) {
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// A server of HTTP at one port of a machine, for people with a browser or curl. Its threads end with the process.
pub struct Page;

impl Page {
    /// Starts it.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(machine: &Machine, port: u16) -> Result<()> {
        let name = machine.name().to_owned();
        let listener = machine.inside(|| Ok(TcpListener::bind(("::", port))?))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                std::thread::spawn(move || show(stream, &name));
            }
        });
        Ok(())
    }
}

fn show(mut stream: TcpStream, name: &str) {
    let Ok(caller) = stream.peer_addr() else { return };
    let _ = stream.set_read_timeout(Some(LONG));
    let _ = stream.read(&mut [0; 4096]);
    let text = format!("{name} answers {}\n", caller.ip().to_canonical());
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
}

/// The health check of a machine, which answers as it is told.
pub struct Health(Arc<AtomicU16>);

impl Health {
    /// Starts it; well at first.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(machine: &Machine, port: u16) -> Result<Self> {
        let listener = machine.inside(|| Ok(TcpListener::bind(("::", port))?))?;
        let status = Arc::new(AtomicU16::new(200));
        let told = Arc::clone(&status);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(LONG));
                let _ = stream.read(&mut [0; 512]);
                let _ = write!(stream, "HTTP/1.1 {} -\r\n\r\n", told.load(Ordering::Relaxed));
            }
        });
        Ok(Self(status))
    }

    /// Sets the status that it answers with.
    pub fn answer(&self, status: u16) {
        self.0.store(status, Ordering::Relaxed);
    }
}

/// A connection that stays.
pub struct Conversation {
    stream: BufReader<TcpStream>,
    /// Who was called.
    pub callee: SocketAddr,
    /// Who answered.
    pub server: String,
    /// The caller's address, as the server saw it.
    pub seen: String,
}

impl Conversation {
    /// Sets how long an answer may take.
    ///
    /// # Errors
    /// When the socket refuses.
    pub fn wait_for(&self, patience: Duration) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(Some(patience))?)
    }

    /// Says something and hears who answers.
    ///
    /// # Errors
    /// When the connection is broken, or somebody else answers.
    pub fn again(&mut self) -> Result<()> {
        self.stream.get_mut().write_all(b"hello\n").context("saying something")?;
        let mut line = String::new();
        let heard = self.stream.read_line(&mut line).context("hearing the answer")?;
        let expected = format!("{} {}\n", self.server, self.seen);
        if heard == 0 || line != expected {
            bail!("{line:?} was heard, and not {expected:?}");
        }
        Ok(())
    }
}

/// Calls a server by TCP and stays connected.
///
/// # Errors
/// When there is no answer.
pub fn dial(machine: &Machine, to: SocketAddr) -> Result<Conversation> {
    machine.inside(|| {
        let stream = TcpStream::connect_timeout(&to, LONG).with_context(|| format!("calling {to}"))?;
        converse(stream)
    })
}

/// The same from an address of several.
///
/// # Errors
/// When there is no answer.
pub fn dial_from(machine: &Machine, from: IpAddr, to: SocketAddr) -> Result<Conversation> {
    machine.inside(|| {
        use std::os::fd::AsRawFd as _;
        let family = if from.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("calling {to} from {from}"))?;
        converse(TcpStream::from(socket))
    })
}

fn converse(stream: TcpStream) -> Result<Conversation> {
    stream.set_read_timeout(Some(LONG))?;
    let callee = stream.peer_addr()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).context("hearing who answers")?;
    let (server, seen) = line.trim().split_once(' ').with_context(|| format!("{line:?} was heard"))?;
    let (server, seen) = (server.to_owned(), seen.to_owned());
    Ok(Conversation { stream, callee, server, seen })
}

/// A caller by UDP that stays at its port.
pub struct Flow {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Flow {
    /// A new flow.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(machine: &Machine, to: SocketAddr) -> Result<Self> {
        Self::patient(machine, to, SILENCE)
    }

    /// A new flow, whose answers may take so long.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn patient(machine: &Machine, to: SocketAddr, patience: Duration) -> Result<Self> {
        let any: IpAddr = if to.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let socket = machine.inside(|| Ok(UdpSocket::bind((any, 0))?))?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, to })
    }

    /// Sends a datagram and hears who answers.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self) -> Result<String> {
        self.socket.send_to(b"hello", self.to)?;
        let mut buffer = [0; 64];
        let (length, _) = self.socket.recv_from(&mut buffer).with_context(|| format!("hearing from {}", self.to))?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        Ok(text.split(' ').next().unwrap_or_default().to_owned())
    }
}

/// Whether a call by TCP is refused, or gets no answer.
///
/// # Errors
/// When it is answered.
pub fn refused(machine: &Machine, from: Option<IpAddr>, to: SocketAddr) -> Result<()> {
    machine.inside(|| {
        let Some(from) = from else {
            return match TcpStream::connect_timeout(&to, SILENCE) {
                Ok(_) => bail!("{to} answers"),
                Err(_) => Ok(()),
            };
        };
        // By UDP: a connection from a chosen address has no limit in time.
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send_to(b"hello", to)?;
        match socket.recv_from(&mut [0; 64]) {
            Ok(_) => bail!("{to} answers {from}"),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Sends a datagram from a fresh port and hears who answers, and who it took us for.
///
/// # Errors
/// When there is no answer.
pub fn datagram(machine: &Machine, to: SocketAddr) -> Result<(String, String)> {
    datagram_patient(machine, to, SILENCE)
}

/// The same with an answer that may take so long.
///
/// # Errors
/// When there is no answer.
pub fn datagram_patient(machine: &Machine, to: SocketAddr, patience: Duration) -> Result<(String, String)> {
    let any: IpAddr = if to.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
    exchange(machine, any, to, patience)
}

/// The same from an address of several.
///
/// # Errors
/// When there is no answer.
pub fn datagram_from(machine: &Machine, from: IpAddr, to: SocketAddr) -> Result<(String, String)> {
    exchange(machine, from, to, SILENCE)
}

fn exchange(machine: &Machine, from: IpAddr, to: SocketAddr, patience: Duration) -> Result<(String, String)> {
    machine.inside(|| {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(patience))?;
        socket.send_to(b"hello", to)?;
        let mut buffer = [0; 64];
        let (length, _) = socket.recv_from(&mut buffer).with_context(|| format!("hearing from {to}"))?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (server, seen) = text.trim().split_once(' ').with_context(|| format!("{text:?} was heard"))?;
        Ok((server.to_owned(), seen.to_owned()))
    })
}

/// Asks a server on the machine itself for a page and returns its body.
///
/// # Errors
/// When there is no answer.
pub fn get(machine: &Machine, port: u16, path: &str) -> Result<String> {
    machine.inside(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LONG))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{answer:?} was heard"))?;
        Ok(body.to_owned())
    })
}
