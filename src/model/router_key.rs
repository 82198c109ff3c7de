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
    /// The private key cannot be read. Existing tunnels keep the key that the kernel has, and no
    /// tunnel is created.
    Missing {
        /// The public half of the last key, if known.
        last: Option<PublicKey>,
        /// The reason, and how to correct it.
        why: String,
        /// This user may not read it.
        denied: bool,
    },
}

impl RouterKey {
    /// Returns the public key that neighbours know, also while the private key is missing.
    pub fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Available { public, .. } => Some(*public),
            Self::Missing { last, .. } => *last,
        }
    }

    /// Returns whether this user may not read the private key.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Missing { denied: true, .. })
    }

    /// Returns the reason why the private key is missing, and how to correct it.
    pub fn missing(&self) -> Option<&str> {
        match self {
            Self::Available { .. } => None,
            Self::Missing { why, .. } => Some(why),
        }
    }
}
