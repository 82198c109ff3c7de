//! What `init` asks on a terminal.

use std::io;

use super::values::Values;
use crate::cli::terminal::{answer, secret, write};
use crate::util::fs;

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
    let token = secret("Token (not shown)")?;
    values.set("controlPlane.token", some(token));
    Ok(())
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
