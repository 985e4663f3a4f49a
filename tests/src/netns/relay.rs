//! A way out of a machine that has no link to this one: to a server here, such as a kube-apiserver.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

use super::Machine;

/// Has connections to `server`, made inside the machine, reach the server of that address out here. It is up to
/// the machine's own loopback: no link of the machine is needed. Its threads end with the process.
///
/// # Errors
/// When the port is taken inside.
pub fn relay(machine: &Machine, server: SocketAddr) -> Result<()> {
    let listener = machine.inside(|| TcpListener::bind(server).with_context(|| format!("listening on {server}")))?;
    // This thread is not inside: whoever starts others, those are where it is.
    std::thread::spawn(move || {
        for inner in listener.incoming().flatten() {
            std::thread::spawn(move || carry(&inner, server));
        }
    });
    Ok(())
}

fn carry(inner: &TcpStream, server: SocketAddr) {
    let Ok(outer) = TcpStream::connect(server) else { return };
    // A way that holds small messages back would be measured as part of what is at its end.
    let _ = inner.set_nodelay(true).and_then(|()| outer.set_nodelay(true));
    std::thread::scope(|scope| {
        scope.spawn(|| pass(inner, &outer));
        pass(&outer, inner);
    });
}

/// Passes bytes on until one side ends, and then ends the other.
fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // What is broken in one direction is of no use in the other.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
