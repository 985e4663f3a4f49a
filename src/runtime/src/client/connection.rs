//! One HTTP/1.1 connection for writes. Whoever holds it drives it: dropping it closes the socket
//! at once, and with it whatever has not left the machine yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connect::{BoxError, Wire};

/// How long name lookup, TCP and TLS may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Body = Full<Bytes>;
type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Body>;

/// An idle or busy connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<Body>,
    driver: Pin<Box<Driver>>,
    /// The generation of credentials that it was made with.
    pub(crate) generation: u64,
}

/// An exchange that failed.
pub(crate) enum Broken {
    /// The connection was gone before anything was sent.
    Unsent(BoxError),
    /// Something may have been sent.
    Sent(BoxError),
}

impl Connection {
    /// Connects. `unacknowledged` is how long the kernel keeps sending to a peer that does not
    /// answer.
    pub(crate) async fn open(wire: &Wire, unacknowledged: Duration) -> Result<Self, BoxError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, Self::connect(wire, unacknowledged)).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no connection to {} within {CONNECT_TIMEOUT:?}", wire.authority()).into()),
        }
    }

    async fn connect(wire: &Wire, unacknowledged: Duration) -> Result<Self, BoxError> {
        let tcp = TcpStream::connect((wire.host.as_str(), wire.port)).await?;
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        // A close discards what is still queued and resets the connection, so that a write that was
        // given up is not delivered later on.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_user_timeout(Some(unacknowledged))?;
        let stream: Box<dyn Stream> = match &wire.tls {
            None => Box::new(tcp),
            Some(tls) => {
                let mut tls = tls.clone();
                tls.alpn_protocols = vec![b"http/1.1".to_vec()];
                Box::new(TlsConnector::from(Arc::new(tls)).connect(wire.server_name.clone(), tcp).await?)
            }
        };
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Box::pin(driver), generation: wire.generation })
    }

    /// Whether a request can be sent at once: looks at what the socket has got since the last use,
    /// without waiting.
    pub(crate) async fn is_ready(&mut self) -> bool {
        let Self { sender, driver, .. } = self;
        std::future::poll_fn(|cx| {
            if driver.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            Poll::Ready(matches!(sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Sends a request and reads the whole answer. Not to be used again after an error, nor if this
    /// future was dropped.
    pub(crate) async fn exchange(&mut self, request: Request<Body>) -> Result<Response<Bytes>, Broken> {
        let Self { sender, driver, .. } = self;
        let answer = async {
            let answer = sender.try_send_request(request).await.map_err(|mut error| {
                let unsent = error.take_message().is_some();
                let error = error.into_error().into();
                if unsent { Broken::Unsent(error) } else { Broken::Sent(error) }
            })?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| Broken::Sent(error.into()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        let mut driving = true;
        std::future::poll_fn(|cx| {
            // The driver may end before the answer has been taken out of it.
            if driving && driver.as_mut().poll(cx).is_ready() {
                driving = false;
            }
            answer.as_mut().poll(cx)
        })
        .await
    }
}
