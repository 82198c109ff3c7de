/// What an error means for a retry and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// An operator or the Control Plane has to change the input; a retry with the same input fails again.
    Invalid,
    /// The same attempt may succeed later although no input changes: a full disk, a daemon that is down.
    Transient,
    /// Another owner has the object; the attempt succeeds once that owner gives it up.
    Conflict,
    /// A fault of the agent itself.
    Bug,
}

impl ErrorClass {
    /// Returns the word for labels of metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Transient => "transient",
            Self::Conflict => "conflict",
            Self::Bug => "bug",
        }
    }

    /// Returns whether all further work on the same resource would fail too, so that it ends here.
    pub fn stops_others(self) -> bool {
        self == Self::Transient
    }
}
