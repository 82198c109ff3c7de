//! Conversion of system errors to messages for the operator.

use std::io;

use crate::model::InterfaceName;
use crate::observed::Mark;
use crate::ports::KernelError;

/// `ENODEV`, which has no kind in [`io::ErrorKind`].
pub(super) const ENODEV: i32 = 19;
/// `EACCES`, which [`io::ErrorKind::PermissionDenied`] does not distinguish from `EPERM`.
const EACCES: i32 = 13;

/// Reason of a failed change, without the change itself.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    NotOurs {
        interface: InterfaceName,
        found: String,
    },
    Unsupported(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    /// Creates an error with the agent's own text.
    pub(super) fn said(text: impl Into<String>) -> Self {
        Self::Io(io::Error::other(text.into()))
    }

    /// Creates the error for a foreign link, with the mark that it carries.
    pub(super) fn not_ours(interface: &InterfaceName, mark: &Mark) -> Self {
        Self::NotOurs {
            interface: interface.clone(),
            found: mark.to_string(),
        }
    }

    /// Adds the operation, for errors that leave this module.
    pub(super) fn at(self, operation: String) -> KernelError {
        match self {
            Self::Io(error) => KernelError::Request {
                reason: explain(&error),
                operation,
            },
            Self::NotOurs { interface, found } => KernelError::NotOurs { interface, found },
            Self::Unsupported(missing) => KernelError::Unsupported { operation, missing },
        }
    }
}

/// Returns the system's text for the error, and what to do about it.
fn explain(error: &io::Error) -> String {
    let advice = match error.kind() {
        // The agent's own text says it already.
        _ if error.raw_os_error().is_none() => None,
        // The kernel's answer to an IPv6 address while IPv6 is turned off (`inet6_addr_add`).
        io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(EACCES) => {
            Some("is IPv6 turned off for this link? See its sysctl disable_ipv6")
        }
        io::ErrorKind::PermissionDenied => {
            Some("run the agent as root, or give it CAP_NET_ADMIN in this network namespace")
        }
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "/proc/sys is mounted read-only here; under systemd set ProtectKernelTunables=no, and for a \
             container set it from outside, with conf/default for tunnels to come",
        ),
        io::ErrorKind::AddrInUse => {
            Some("another socket listens on this UDP port; choose another port")
        }
        io::ErrorKind::AlreadyExists => {
            Some("this name or address exists already; see `ip -details address`")
        }
        io::ErrorKind::Unsupported => Some(
            "the kernel has no driver for it; see whether its module can be loaded with modprobe",
        ),
        _ if error.raw_os_error() == Some(ENODEV) => Some("the link is gone"),
        _ => None,
    };
    match advice {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let fault = Fault::from(io::Error::from_raw_os_error(1));
        let text = fault
            .at("create WireGuard link wg_1".to_owned())
            .to_string();
        assert!(text.starts_with("create WireGuard link wg_1: "), "{text}");
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    }

    #[test]
    fn a_refusal_says_what_the_link_carries() {
        let interface: InterfaceName = "eth0".parse().unwrap();
        let error =
            Fault::not_ours(&interface, &Mark::Foreign("uplink".to_owned())).at(String::new());
        assert_eq!(
            error.to_string(),
            "interface eth0 belongs to another program (alias \"uplink\"); refusing to touch it"
        );
    }
}
