/// Reason why no BIRD text was rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A template does not parse, or does not render: the file, the line and what to do.
    #[error("template {template}, line {line}: {message}")]
    Template {
        /// Name of the template, as a path below the folder of templates.
        template: String,
        /// The line, from 1; 0 where it is not known.
        line: usize,
        /// The error. Never holds a rendered value, since that may be a password.
        message: String,
    },
    /// An override without a built-in template of the same name.
    #[error("template {template}: there is no such template to override{hint}")]
    UnknownTemplate {
        /// Name of the override.
        template: String,
        /// The nearest built-in name, or how to add a part.
        hint: String,
    },
    /// A template of the operator that leaves out a definition of the built-in one.
    #[error(
        "template {template}: it does not define {missing}, which the built-in template defines; \
         an empty or half-saved file?"
    )]
    Incomplete {
        template: String,
        /// The missing definition, as `protocol ebgp_wg_1`.
        missing: String,
    },
    /// A template whose output is too large.
    #[error(
        "template {template}: it renders to more than {limit} bytes; is there an endless loop?"
    )]
    TooLarge {
        template: String,
        /// The maximum size of its output.
        limit: usize,
    },
    /// A value that cannot be rendered into a configuration.
    #[error("{field}: {reason}")]
    Input {
        /// The field, as `spec.prefixes.ipv4`.
        field: String,
        /// The error, and what to do.
        reason: String,
    },
}

impl RenderError {
    /// Creates an error about a field of the input.
    pub(crate) fn input(field: &str, reason: impl Into<String>) -> Self {
        Self::Input {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}

impl From<minijinja::Error> for RenderError {
    /// Keeps name, line and message, and drops the rest: minijinja's own error can print the values
    /// of variables.
    fn from(error: minijinja::Error) -> Self {
        let deepest = deepest(&error);
        let message = match deepest.detail() {
            _ if deepest.kind() == minijinja::ErrorKind::OutOfFuel => {
                "rendering takes too long; is there an endless loop?".to_owned()
            }
            Some(detail) => format!("{}: {detail}", deepest.kind()),
            None => deepest.kind().to_string(),
        };
        Self::Template {
            template: deepest.name().or(error.name()).unwrap_or("?").to_owned(),
            line: deepest.line().or(error.line()).unwrap_or(0),
            message,
        }
    }
}

/// Returns the error at the bottom of the chain of includes: it names the file that has the fault.
fn deepest(error: &minijinja::Error) -> &minijinja::Error {
    let mut at = error;
    while let Some(next) =
        std::error::Error::source(at).and_then(|source| source.downcast_ref::<minijinja::Error>())
    {
        at = next;
    }
    at
}
