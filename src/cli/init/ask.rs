//! What `init` asks on a terminal.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::values::Values;
use crate::cli::terminal::{answer, secret, write};
use crate::config::TokenSource;
use crate::util::fs;

/// Why an answer is not valid, for the person who gave it.
struct Refused(String);

/// Asks for what a router needs and has no value yet. An answer that the configuration could not have is asked for again.
///
/// # Errors
/// When the terminal cannot be read.
pub(super) fn for_missing(values: &mut Values) -> io::Result<()> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().split('.').next().unwrap_or_default().to_owned();
    let name = format!("Name of this router [{host}]");
    ask(values, "node.name", || {
        let name = answer(&name)?;
        Ok(Ok(if name.is_empty() { host.clone() } else { name }))
    })?;
    if !values.has("node.id") {
        ask(values, "controlPlane.url", || {
            let url = answer("URL of the Control Plane (empty: none)")?;
            Ok(Ok(some(url)))
        })?;
    }
    if values.has("controlPlane.url") {
        return token(values);
    }
    for (path, question) in [
        ("node.id", "Number of this router in its network, from 1"),
        ("node.asn", "AS number of your network"),
    ] {
        ask(values, path, || {
            let number = answer(question)?.parse::<u32>();
            Ok(number.map_err(|_| Refused("a number, please".to_owned())))
        })?;
    }
    for (path, question) in [
        ("node.loopbackIpv4", "Loopback IPv4 address (empty: none)"),
        ("node.loopbackIpv6", "Loopback IPv6 address (empty: none)"),
    ] {
        ask(values, path, || Ok(Ok(some(answer(question)?))))?;
    }
    Ok(())
}

/// Asks for a key without a value until the answer is valid, and says why one is not.
fn ask<T: Into<Value>>(
    values: &mut Values,
    path: &str,
    read: impl Fn() -> io::Result<Result<T, Refused>>,
) -> io::Result<()> {
    while !values.has(path) {
        let given = read()?.and_then(|given| {
            let given = given.into();
            let is_empty = given.is_null();
            let mut with = values.clone();
            with.set(path, given);
            match with.refusal(path) {
                Some(why) => Err(Refused(why)),
                None => Ok((with, is_empty)),
            }
        });
        match given {
            Ok((_, true)) => break,
            Ok((with, false)) => *values = with,
            Err(Refused(why)) => write(&format!("{why}\n"))?,
        }
    }
    Ok(())
}

fn token(values: &mut Values) -> io::Result<()> {
    if values.has("controlPlane.token") || values.has("controlPlane.tokenFile") {
        return Ok(());
    }
    ask(values, "controlPlane.tokenFile", || {
        let file = answer("File with its token (empty: type the token)")?;
        let problem = some(file.clone()).and_then(|file| {
            let source = TokenSource::new(None, Some(Path::new(&file)));
            source.problem().map(|error| Refused(error.to_string()))
        });
        Ok(problem.map_or_else(|| Ok(some(file)), Err))
    })?;
    if values.has("controlPlane.tokenFile") {
        return Ok(());
    }
    ask(values, "controlPlane.token", || {
        let token = secret("Token (not shown)")?;
        Ok(Ok(Some(token)))
    })
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
