//! One look at many userspace WireGuards, each of which has a control socket.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use super::keys::LastKey;
use super::uapi::{GET, LONGEST_ANSWER, cut_short, parse, utf8};
use crate::intervals::USERSPACE_PROMPT;
use crate::observed::kernel::WireGuard;

/// Number of processes that are asked before the first answer is read.
const TOGETHER: usize = 64;
/// Share of the files that the agent may open which connections may take.
const FILES: u64 = 4;

/// Connections that are kept from one look to the next: to open and close one costs more than to use it. A process that ends
/// closes its own.
#[derive(Debug, Default)]
pub(super) struct KeptSockets(Mutex<BTreeMap<PathBuf, Socket>>);

impl KeptSockets {
    /// Reads the configurations behind these sockets, not in the runtime: a thousand sockets in its event queue cost half as much
    /// again. Once a process does not answer at once, the others that have not answered either are `None`: `uapi::get` waits
    /// for them. Keeps no connections but those of this look. Blocks.
    pub(super) fn get_prompt(
        &self,
        sockets: &[PathBuf],
        last_key: &LastKey,
    ) -> Vec<Option<io::Result<WireGuard>>> {
        let (mut kept, most) = (std::mem::take(&mut *self.0.lock()), most_kept());
        let (mut next, mut answers) = (BTreeMap::new(), Vec::with_capacity(sockets.len()));
        let (mut patience, mut text) = (USERSPACE_PROMPT, Vec::new());
        for some in sockets.chunks(TOGETHER) {
            let asked: Vec<_> = some
                .iter()
                .map(|path| (!patience.is_zero()).then(|| ask(path, kept.remove(path))))
                .collect();
            let mut read = |(path, asked): (&PathBuf, Option<io::Result<Asked>>)| {
                let answer = asked.map(|asked| {
                    let socket = listen(path, asked?, patience, &mut text)?;
                    if next.len() < most {
                        next.insert(path.clone(), socket);
                    }
                    parse(utf8(&text)?, last_key)
                });
                let answer = answer.filter(|answer| !answer.as_ref().is_err_and(is_late));
                if answer.is_none() {
                    patience = Duration::ZERO;
                }
                answer
            };
            // Once the process that was asked last has answered, the others mostly have too, so this thread waits once and not
            // for each.
            let mut read: Vec<_> = some.iter().zip(asked).rev().map(&mut read).collect();
            read.reverse();
            answers.extend(read);
        }
        *self.0.lock() = next;
        answers
    }
}

/// Returns the largest number of connections to keep.
fn most_kept() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / FILES).unwrap_or(usize::MAX)
}

/// A process that was asked for its configuration.
struct Asked {
    socket: Socket,
    was_kept: bool,
}

/// Sends the request for a configuration, through the kept connection unless its process has ended.
fn ask(path: &Path, kept: Option<Socket>) -> io::Result<Asked> {
    if let Some(socket) = kept
        && (&socket).write_all(GET.as_bytes()).is_ok()
    {
        let was_kept = true;
        return Ok(Asked { socket, was_kept });
    }
    let socket = ask_newly(path)?;
    let was_kept = false;
    Ok(Asked { socket, was_kept })
}

/// Sends the request through a new connection. A process without a place in its queue is late.
fn ask_newly(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    (&socket).write_all(GET.as_bytes())?;
    Ok(socket)
}

/// Reads the answer, and returns the connection that it came through. A kept one may have been closed, as boringtun does after
/// each answer.
fn listen(
    path: &Path,
    asked: Asked,
    patience: Duration,
    answer: &mut Vec<u8>,
) -> io::Result<Socket> {
    match read(&asked.socket, patience, answer) {
        Err(error) if asked.was_kept && !is_late(&error) => {
            let socket = ask_newly(path)?;
            read(&socket, patience, answer)?;
            Ok(socket)
        }
        read => read.map(|()| asked.socket),
    }
}

/// Reads an answer. The patience is for the whole answer: a process may send it byte by byte.
fn read(socket: &Socket, patience: Duration, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    let (deadline, mut part) = (Instant::now() + patience, [0; 4096]);
    while !answer.ends_with(b"\n\n") {
        match (&*socket).read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_readable(socket, deadline)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                let read = &part[..read?];
                answer.extend(read);
                if read.is_empty() || answer.len() as u64 > LONGEST_ANSWER {
                    return Err(cut_short());
                }
            }
        }
    }
    // An empty line left over from an earlier answer is no answer.
    let last = answer.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    let is_whole = last.is_some_and(|line| line.starts_with(b"errno="));
    is_whole.then_some(()).ok_or_else(cut_short)
}

/// Waits until a socket can be read.
fn wait_readable(socket: &Socket, deadline: Instant) -> io::Result<()> {
    let left = deadline.checked_duration_since(Instant::now());
    let left = left.ok_or(io::ErrorKind::WouldBlock)?;
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut events = [PollFd::new(socket, PollFlags::IN)];
    match retry_on_intr(|| poll(&mut events, Some(&left)))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

fn is_late(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::model::Port;

    type Answers = Vec<Option<io::Result<WireGuard>>>;

    fn look(kept: &KeptSockets, sockets: &[PathBuf]) -> Answers {
        kept.get_prompt(sockets, &LastKey::default())
    }

    /// Answers so many requests of one connection, and closes it.
    fn answer(mut stream: UnixStream, requests: usize) {
        for _ in 0..requests {
            if stream.read_exact(&mut [0; GET.len()]).is_err() {
                return;
            }
            stream.write_all(b"listen_port=7\n").unwrap();
            stream.write_all(b"errno=0\n\n").unwrap();
        }
    }

    /// Serves so many connections with so many requests each.
    fn serve(path: &Path, connections: usize, requests: usize) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(connections) {
                let stream = stream.unwrap();
                std::thread::spawn(move || answer(stream, requests));
            }
        });
    }

    fn are_read(answers: &[Option<io::Result<WireGuard>>]) -> bool {
        let is_read = |answer: &Option<io::Result<WireGuard>>| {
            let device = answer.as_ref().and_then(|answer| answer.as_ref().ok());
            device.is_some_and(|device| device.listen_port == Port::new(7))
        };
        answers.iter().all(is_read)
    }

    #[test]
    fn prompt_processes_are_read_and_a_late_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let [prompt, late, gone] = ["prompt", "late", "gone"].map(|name| folder.path().join(name));
        serve(&prompt, 2 * TOGETHER, 1);
        let _late = UnixListener::bind(&late).unwrap();
        let mut sockets = vec![prompt.clone(); TOGETHER];
        sockets.extend([gone, late, prompt.clone()]);
        sockets.resize(2 * TOGETHER, prompt.clone());
        sockets.push(prompt);
        let answers = look(&KeptSockets::default(), &sockets);
        let (first, others) = answers.split_at(TOGETHER);
        assert!(are_read(first), "{first:?}");
        let [gone, left, after @ .., last] = others else {
            panic!("{others:?}");
        };
        assert!(left.is_none() && last.is_none(), "late, and after it");
        let gone = gone.as_ref().unwrap().as_ref().unwrap_err();
        assert_eq!(
            gone.kind(),
            io::ErrorKind::NotFound,
            "asked with the late one"
        );
        assert!(are_read(after), "asked with the late one");
    }

    #[test]
    fn connection_is_used_again_and_opened_again_once_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg.sock");
        // The third request finds the first connection closed, and there is no third one.
        serve(&path, 2, 2);
        let kept = KeptSockets::default();
        for _ in 0..4 {
            let answers = look(&kept, std::slice::from_ref(&path));
            assert!(are_read(&answers), "{answers:?}");
        }
        assert_eq!(kept.0.lock().len(), 1);
        assert!(look(&kept, &[]).is_empty() && kept.0.lock().is_empty());
    }

    #[test]
    fn answer_byte_by_byte_is_late() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until the reader is gone.
            while stream.write_all(b"a").is_ok() {
                std::thread::sleep(USERSPACE_PROMPT / 10);
            }
        });
        let kept = KeptSockets::default();
        assert!(matches!(look(&kept, &[path])[..], [None]));
        assert!(kept.0.lock().is_empty());
    }
}
