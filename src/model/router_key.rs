use super::{PrivateKey, PublicKey};

/// The router's own WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterKey {
    /// Both halves are known.
    Available {
        /// The private key.
        private: PrivateKey,
        /// Its public half, which can be read back from the kernel.
        public: PublicKey,
    },
    /// The private key cannot be read. Tunnels keep the key that the kernel has, and none is created.
    Missing {
        /// The public half of the last key, where it is known.
        last: Option<PublicKey>,
        /// Why, and what to do.
        why: String,
    },
}

impl RouterKey {
    /// The public key that neighbours know: also while the private key is missing.
    pub fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Available { public, .. } => Some(*public),
            Self::Missing { last, .. } => *last,
        }
    }

    /// Why the private key is missing, and what to do.
    pub fn missing(&self) -> Option<&str> {
        match self {
            Self::Available { .. } => None,
            Self::Missing { why, .. } => Some(why),
        }
    }
}
