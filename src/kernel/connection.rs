//! A netlink connection that is kept, and answers that are complete or fail.

use std::io;
use std::pin::pin;
use std::sync::LazyLock;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use rtnetlink::packet_core::{NLM_F_DUMP_INTR, NetlinkMessage, NetlinkPayload};
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::intervals::NETLINK_REQUEST;
use crate::util::task::on_runtime;

/// How often a dump is restarted when its content changed while it ran.
const DUMP_ATTEMPTS: usize = 5;

/// Opens a connection and starts its task, on the thread for connections.
type Open<H> = fn(&'static Runtime) -> io::Result<(H, AbortHandle)>;

/// The thread of the connections, and of all changes. The kernel works on a request while it is sent, and waits then for
/// links that are being deleted: 0.1 s each. No other task of the agent waits with it.
static THREAD: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("netlink");
    builder.enable_all().build()
});

/// Makes changes on the thread of the connections: an answer wakes no other thread, and what needs the lock of the kernel's
/// links never competes for it with another change. The kernel retries a write of a sysctl that does not get that lock at
/// once (`rtnl_trylock`, `restart_syscall`), which keeps a processor busy.
pub(super) async fn on_thread<T: Send + 'static>(
    changes: impl Future<Output = T> + Send + 'static,
) -> T {
    match &*THREAD {
        Ok(runtime) => on_runtime(runtime, changes).await,
        // Each request fails with the reason.
        Err(_) => changes.await,
    }
}

/// A connection that is opened with the first request and again after it has failed.
pub(super) struct Connection<H> {
    open: Open<H>,
    live: Mutex<Option<(H, AbortHandle)>>,
}

impl<H: Clone> Connection<H> {
    /// Returns a connection that is opened by the first request.
    pub(super) fn new(open: Open<H>) -> Self {
        Self {
            open,
            live: Mutex::new(None),
        }
    }

    /// Makes one request within the deadline. The kernel's refusal leaves the connection intact; after any other error
    /// it is not reused.
    pub(super) async fn exchange<T, F: Future<Output = io::Result<T>>>(
        &self,
        converse: impl FnOnce(H) -> F,
    ) -> io::Result<T> {
        let handle = self.handle()?;
        let answer = tokio::time::timeout(NETLINK_REQUEST, converse(handle)).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        if answer
            .as_ref()
            .is_err_and(|error| error.raw_os_error().is_none())
        {
            self.disconnect();
        }
        answer
    }

    pub(super) fn handle(&self) -> io::Result<H> {
        let mut live = self.live.lock();
        if let Some((handle, task)) = &*live
            && !task.is_finished()
        {
            return Ok(handle.clone());
        }
        let runtime = match &*THREAD {
            Ok(runtime) => runtime,
            Err(error) => return Err(error.kind().into()),
        };
        let _entered = runtime.enter();
        let (handle, task) = (self.open)(runtime)?;
        *live = Some((handle.clone(), task));
        Ok(handle)
    }

    pub(super) fn disconnect(&self) {
        if let Some((_, task)) = self.live.lock().take() {
            task.abort();
        }
    }

    /// Ends the connection's task, as a failure would.
    #[cfg(test)]
    pub(super) fn abort(&self) {
        if let Some((_, task)) = &*self.live.lock() {
            task.abort();
            while !task.is_finished() {
                std::thread::yield_now();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.live.lock().is_some()
    }
}

/// The messages received before the acknowledgement.
#[derive(Debug)]
pub(super) struct Reply<M> {
    pub(super) messages: Vec<M>,
    /// The content changed meanwhile (`NLM_F_DUMP_INTR`): entries may be missing or duplicated.
    interrupted: bool,
}

impl<M> Reply<M> {
    pub(super) fn map<T>(self, of: impl Fn(M) -> T) -> Reply<T> {
        Reply {
            messages: self.messages.into_iter().map(of).collect(),
            interrupted: self.interrupted,
        }
    }
}

/// Collects an answer, up to the acknowledgement or the end of the dump.
///
/// # Errors
/// The kernel's refusal, and an answer that ends too early.
pub(super) async fn collect<M>(
    answers: impl Stream<Item = io::Result<NetlinkMessage<M>>>,
) -> io::Result<Reply<M>> {
    let mut answers = pin!(answers);
    let mut reply = Reply {
        messages: Vec::new(),
        interrupted: false,
    };
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        reply.interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => reply.messages.push(message),
            other if answered(&other)? => return Ok(reply),
            _ => {}
        }
    }
    Err(ended())
}

/// Repeats a dump until it is not interrupted. If its content changes faster than that, all attempts
/// together are the answer: older kernels may skip an entry in an interrupted dump, hardly in
/// five. A removed entry may then still be listed, which costs a refused change; an existing
/// link that is missing could cost its tunnel.
pub(super) async fn dump<M, F>(attempt: impl Fn() -> F) -> io::Result<Vec<M>>
where
    F: Future<Output = io::Result<Reply<M>>>,
{
    let mut seen = Vec::new();
    for _ in 0..DUMP_ATTEMPTS {
        let reply = attempt().await?;
        if !reply.interrupted {
            return Ok(reply.messages);
        }
        seen.extend(reply.messages);
    }
    Ok(seen)
}

/// Returns whether a message ends an answer.
///
/// # Errors
/// The kernel's refusal; a dump that fails midway reports it in its last message.
fn answered<M>(payload: &NetlinkPayload<M>) -> io::Result<bool> {
    match payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::Done(done) if done.code != 0 => {
            Err(io::Error::from_raw_os_error(done.code.abs()))
        }
        NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => Ok(true),
        NetlinkPayload::Overrun(_) => Err(io::Error::other("the netlink socket overran")),
        _ => Ok(false),
    }
}

/// Returns the error of an answer that ends too early.
pub(super) fn ended() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the netlink connection ended before the answer",
    )
}

fn late() -> io::Error {
    let seconds = NETLINK_REQUEST.as_secs();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the kernel did not answer within {seconds} s"),
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rtnetlink::packet_core::{DoneMessage, NetlinkHeader};
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    type Message = NetlinkMessage<RouteNetlinkMessage>;

    /// An answer with one link and its end, with these flags on the end.
    fn answer(flags: u16) -> Vec<io::Result<Message>> {
        let mut header = NetlinkHeader::default();
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        let link = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(link));
        header.flags = flags;
        let done = NetlinkPayload::Done(DoneMessage::default());
        vec![Ok(link), Ok(NetlinkMessage::new(header, done))]
    }

    /// Runs a dump of which the first attempts are interrupted. Returns the number of attempts and of messages.
    async fn dumped(interrupted: usize) -> (usize, usize) {
        let attempts = Cell::new(0);
        let attempt = || {
            let flags = if attempts.get() < interrupted {
                NLM_F_DUMP_INTR
            } else {
                0
            };
            attempts.set(attempts.get() + 1);
            collect(futures::stream::iter(answer(flags)))
        };
        let messages = dump(attempt).await.unwrap();
        (attempts.get(), messages.len())
    }

    #[tokio::test]
    async fn interrupted_dump_is_repeated() {
        assert_eq!(dumped(0).await, (1, 1));
        assert_eq!(dumped(2).await, (3, 1));
    }

    #[tokio::test]
    async fn dump_that_is_always_interrupted_keeps_all_it_saw() {
        assert_eq!(dumped(9).await, (DUMP_ATTEMPTS, DUMP_ATTEMPTS));
    }

    #[tokio::test]
    async fn answer_without_an_end_is_an_error() {
        let mut cut = answer(0);
        cut.pop();
        let error = collect(futures::stream::iter(cut)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
