//! A request that is answered later, whose connection has no buffers meanwhile.
//!
//! hyper holds two buffers of 8 KB for each connection, and no option makes them smaller: ten thousand routers that wait
//! took 170 MB. So the connection of a request that begins to wait is taken apart. When the answer is there, the rest
//! of the stream is served again, as if the request were just read.

use std::future::{Future, pending};
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::HttpBody;
use axum::http::Request;
use axum::http::header::CONNECTION;
use axum::response::Response;
use futures::FutureExt as _;
use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, Chain, Join, ReadHalf, WriteHalf, join, split,
};

use super::seats::Seat;

/// The wait of a connection's request, from the handler to the connection. Both are of one task.
pub(super) type Begun = Arc<Mutex<Option<Wait>>>;

/// With it a handler answers later.
#[derive(Clone)]
pub(crate) struct LongPoll {
    seat: Seat,
    /// `None` for a request with a body, of which a part may be unread.
    begun: Option<(Begun, Vec<u8>)>,
}

impl LongPoll {
    pub(super) fn of(request: &Request<impl HttpBody>, seat: &Seat, begun: &Begun) -> Self {
        let is_whole = request.body().is_end_stream();
        Self {
            seat: seat.clone(),
            begun: is_whole.then(|| (Arc::clone(begun), head(request))),
        }
    }

    /// Returns the answer if it is there at once. If not, the connection waits for it, and this future never ends.
    pub(crate) async fn answer(
        self,
        answer: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        // Leaves this request out of the limit per address. The handler has its own limit, below that of the server.
        self.seat.begin_long_poll();
        let mut answer: Pin<Box<dyn Future<Output = Response> + Send>> = Box::pin(answer);
        if let Some(answer) = (&mut answer).now_or_never() {
            return answer;
        }
        let Some((begun, head)) = self.begun else {
            return answer.await;
        };
        *begun.lock() = Some(Wait { answer, head });
        pending().await
    }
}

/// Returns a head that hyper reads like that of the request: the answer ends the connection, or does not.
fn head<B>(request: &Request<B>) -> Vec<u8> {
    let line = format!("{} / {:?}\r\n", request.method(), request.version());
    let mut head = line.into_bytes();
    for value in request.headers().get_all(CONNECTION) {
        head.extend([b"connection: ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// A request that waits.
pub(super) struct Wait {
    answer: Pin<Box<dyn Future<Output = Response> + Send>>,
    head: Vec<u8>,
}

impl Wait {
    /// Returns the answer, and the stream with the head of its request. `None` if the client went away.
    pub(super) async fn ended<I>(mut self, mut stream: Stream<I>) -> Option<(Response, Stream<I>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut more = [0; 16];
        let answer = tokio::select! {
            answer = &mut self.answer => answer,
            read = stream.read.read(&mut more) => match read {
                Ok(length @ 1..) => {
                    stream.ahead.extend(&more[..length]);
                    self.answer.await
                }
                Ok(0) | Err(_) => return None,
            },
        };
        self.head.append(&mut stream.ahead);
        stream.ahead = self.head;
        Some((answer, stream))
    }
}

/// A client's bytes: those read ahead, and the rest.
pub(super) struct Stream<I> {
    ahead: Vec<u8>,
    read: ReadHalf<I>,
    write: WriteHalf<I>,
}

/// A stream as hyper reads it.
pub(super) type Whole<I> = Join<Chain<Cursor<Vec<u8>>, ReadHalf<I>>, WriteHalf<I>>;

impl<I: AsyncRead + AsyncWrite> Stream<I> {
    pub(super) fn new(io: I) -> Self {
        let (read, write) = split(io);
        let ahead = Vec::new();
        Self { ahead, read, write }
    }

    pub(super) fn whole(self) -> Whole<I> {
        join(Cursor::new(self.ahead).chain(self.read), self.write)
    }

    /// Returns the stream of a connection that was taken apart. What hyper has read ahead comes first.
    pub(super) fn rest(read_ahead: &Bytes, whole: Whole<I>) -> Self {
        let (chain, write) = whole.into_inner();
        let (first, read) = chain.into_inner();
        let position = usize::try_from(first.position()).unwrap_or(usize::MAX);
        let unread = first.get_ref().get(position..).unwrap_or_default();
        let ahead = [read_ahead, unread].concat();
        Self { ahead, read, write }
    }
}
