//! BIRD's last error of a BGP session (its classes: docs/contract/bird.md#errors-of-a-session).

/// The last error of a session, by its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionError {
    /// The neighbour expects another AS number of this router.
    OurAsRejected,
    /// The neighbour has another AS number than this router expects.
    TheirAsRejected,
    /// The neighbour's operator shut the session down.
    ShutDownByNeighbour,
    /// The neighbour sent another notification.
    RejectedByNeighbour,
    /// Nothing listens at the neighbour's address.
    ConnectionRefused,
    /// The neighbour closed the connection.
    ConnectionClosed,
    Other,
}

impl SessionError {
    /// Reads the text of `show protocols all`.
    pub fn parse(text: &str) -> Self {
        match text.split_once(": ") {
            Some(("Received", "Bad peer AS")) => Self::OurAsRejected,
            Some(("Received", words)) if words.starts_with("Administrative shutdown") => {
                Self::ShutDownByNeighbour
            }
            Some(("Received", _)) => Self::RejectedByNeighbour,
            Some(("BGP Error" | "Error", "Bad peer AS")) => Self::TheirAsRejected,
            Some(("Socket", words)) if words.contains("refused") => Self::ConnectionRefused,
            Some(("Socket", words)) if words.contains("closed") || words.contains("reset") => {
                Self::ConnectionClosed
            }
            _ => Self::Other,
        }
    }
}
