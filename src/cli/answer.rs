//! `answer`: a verb that only reads, for a member of the read group. The agent starts it for a client of its read socket
//! (`agent::read_socket`), whose words are not trusted.

use std::process::ExitCode;

use clap::{Args, Parser as _};

use super::{Arguments, Verb, output, usage};

/// How much later than others such a process runs.
const NICE: i32 = 10;

/// A verb of another user.
#[derive(Debug, Args)]
pub struct Answer {
    #[arg(last = true)]
    words: Vec<String>,
}

/// A verb that changes something.
#[derive(Debug, thiserror::Error)]
#[error("members of the read group may read only; to change something, try again with sudo")]
struct ReadOnly;

impl Answer {
    /// Returns the arguments of the verb, with the agent's own configuration.
    pub(super) fn arguments(&self, own: &Arguments) -> Result<Arguments, ExitCode> {
        let words = std::iter::once("moenet-agent").chain(self.words.iter().map(String::as_str));
        let parsed = Arguments::try_parse_from(words).map_err(|error| usage(&error))?;
        give_way();
        if !parsed.verb.reads() {
            output::choose(parsed.output);
            output::error(&ReadOnly.into(), None);
            return Err(ExitCode::FAILURE);
        }
        Ok(Arguments {
            config: own.config.clone(),
            ..parsed
        })
    }
}

/// Lets the router's own work come first, and the kernel end this process before BIRD when memory is short. Best effort.
fn give_way() {
    let _ = rustix::process::setpriority_process(None, NICE);
    let _ = crate::util::fs::write("/proc/self/oom_score_adj", "500");
}

impl Verb {
    /// Returns whether members of the read group may run the verb: it changes nothing, prints no secret and reads no
    /// file that its arguments name.
    pub(super) fn reads(&self) -> bool {
        matches!(
            self,
            Self::Get(_)
                | Self::Describe(_)
                | Self::Status
                | Self::Plan(_)
                | Self::Events(_)
                | Self::History(_)
                | Self::Explain(_)
                | Self::Wait(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(words: &[&str]) -> Result<Arguments, ExitCode> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let own =
            Arguments::try_parse_from(["moenet-agent", "--config", "/own", "status"]).unwrap();
        Answer { words }.arguments(&own)
    }

    #[test]
    fn read_verbs_get_the_agents_configuration() {
        for words in [
            &["get", "-o", "json"][..],
            &["--config", "/etc/shadow", "get"],
            &["history", "--commit", "HEAD"],
        ] {
            let arguments = answered(words).unwrap();
            assert_eq!(
                arguments.config.unwrap().to_str(),
                Some("/own"),
                "{words:?}"
            );
        }
    }

    #[test]
    fn verbs_that_change_or_show_secrets_are_refused() {
        for words in [
            &["override", "x", "a=b", "--reason", "r"][..],
            &["apply", "-f", "/etc/shadow"],
            &["render", "x"],
            &["validate", "/etc/shadow"],
            &["maintenance", "start"],
            &["restart", "x"],
            &["run"],
            &["answer", "--", "get"],
            &["no-such-verb"],
            &[],
        ] {
            assert!(answered(words).is_err(), "{words:?}");
        }
    }
}
