//! Questions on a terminal.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::values::Values;
use crate::util::fs;

/// Limit of an answer, in bytes.
const LONGEST: u64 = 4096;

/// Returns whether a person can answer.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for what a router needs and has no value yet.
///
/// # Errors
/// When the terminal cannot be read.
pub(super) fn for_missing(values: &mut Values) -> io::Result<()> {
    if !values.has("node.name") {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim().split('.').next().unwrap_or_default().to_owned();
        let name = answer(&format!("Name of this router [{host}]"))?;
        values.set("node.name", if name.is_empty() { host } else { name });
    }
    let is_alone = !values.has("controlPlane.url") && !values.has("node.id");
    if is_alone {
        let url = answer("URL of the Control Plane (empty: none)")?;
        values.set("controlPlane.url", some(url));
    }
    if values.has("controlPlane.url") {
        return token(values);
    }
    for (path, question) in [
        ("node.id", "Number of this router in its network, from 1"),
        ("node.asn", "AS number of your network"),
    ] {
        while !values.has(path) {
            match answer(question)?.parse::<u32>() {
                Ok(number) => values.set(path, number),
                Err(_) => write("a number, please\n")?,
            }
        }
    }
    for (path, question) in [
        ("node.loopbackIpv4", "Loopback IPv4 address (empty: none)"),
        ("node.loopbackIpv6", "Loopback IPv6 address (empty: none)"),
    ] {
        if !values.has(path) {
            values.set(path, some(answer(question)?));
        }
    }
    Ok(())
}

fn token(values: &mut Values) -> io::Result<()> {
    if values.has("controlPlane.token") || values.has("controlPlane.tokenFile") {
        return Ok(());
    }
    let file = answer("File with its token (empty: type the token)")?;
    if !file.is_empty() {
        values.set("controlPlane.tokenFile", file);
        return Ok(());
    }
    let hidden = Hidden::begin();
    let token = answer("Token (not shown)");
    drop(hidden);
    write("\n")?;
    values.set("controlPlane.token", some(token?));
    Ok(())
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn write(text: &str) -> io::Result<()> {
    let mut terminal = io::stderr();
    terminal.write_all(text.as_bytes())?;
    terminal.flush()
}

fn answer(question: &str) -> io::Result<String> {
    write(&format!("{question}: "))?;
    let mut line = Vec::new();
    // Byte by byte: what is behind the line belongs to the next question.
    for byte in io::stdin().lock().take(LONGEST).bytes() {
        match byte? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim().to_owned()),
            byte => line.push(byte),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else {
            return Self(None);
        };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let set = tcsetattr(io::stdin(), OptionalActions::Now, &hidden);
        Self(set.is_ok().then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
