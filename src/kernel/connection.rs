//! A netlink connection that is kept, and the end of an answer.

use std::io;
use std::sync::LazyLock;

use parking_lot::Mutex;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::intervals::NETLINK_REQUEST;

/// Opens a connection and starts its task, on the thread for connections.
type Open<H> = fn(&'static Runtime) -> io::Result<(H, AbortHandle)>;

/// The thread of the connections. The kernel works on a request while it is sent, and waits then for links that are
/// being deleted: 0.1 s each. No task of the agent waits with it.
static THREAD: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("netlink");
    builder.enable_io().build()
});

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

/// Returns whether a message ends an answer.
///
/// # Errors
/// The kernel's refusal; a dump that fails midway reports it in its last message.
pub(super) fn answered<M>(payload: &NetlinkPayload<M>) -> io::Result<bool> {
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
