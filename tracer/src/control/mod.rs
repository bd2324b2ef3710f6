//! Talking to the running daemon: a unix socket that only root may use.
//!
//! One request, a line of JSON, gets one answer, another line; then the connection ends. docs/daemon.md
//! documents both.

mod client;
mod server;
mod status;
pub mod text;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::ask;
#[cfg(any(test, fuzzing))]
pub(crate) use server::request;
pub use server::{Ask, Reply, Server, Serving};
pub use status::{
    HookFields, IncidentFields, LossFields, NotifierFields, RecordingFields, ReloadFields,
    RuleFields, StateFields, Status, WaitingFields,
};

use crate::{
    incident::IncidentRecord,
    rules::Silence,
    top::sample::{RowId, Sample},
};

/// Where the daemon of this host listens.
pub const SOCKET: &str = "/run/turnaway/control.sock";
/// The socket's name in the folder of a state that is not the usual one.
const NAME: &str = "control.sock";
/// Longest request, bytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Longest answer, bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Most incidents in an answer.
pub const MAX_INCIDENTS: usize = 1000;

/// The socket of a daemon that keeps its state elsewhere: several daemons have one each.
#[must_use]
pub fn beside(state: &Path) -> PathBuf {
    state.join(NAME)
}

/// What can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Status {},
    /// How listeners and their owners are.
    Top {
        /// More is wanted of this one, with the answers after this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<RowId>,
    },
    /// Incidents that fire.
    Incidents {},
    /// Silences.
    Silences {},
    /// Be silent about something.
    Silence(Silence),
    /// End a silence.
    Unsilence {
        /// Which.
        id: String,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It cannot be done, and why.
    Error(String),
    /// How it is.
    Status(Box<Status>),
    /// How listeners and their owners are.
    Top(Box<Sample>),
    /// Incidents that fire, the worst first.
    Incidents(Incidents),
    /// Silences.
    Silences(Vec<ListedSilence>),
    /// A silence has begun.
    Silenced(Silenced),
    /// A silence has ended.
    Unsilenced(Unsilenced),
}

/// Incidents that fire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incidents {
    /// At most [`MAX_INCIDENTS`].
    pub incidents: Vec<OpenIncident>,
    /// How many more there are.
    pub more: u64,
    /// How many may yet be told.
    pub pending: u64,
}

/// An incident that fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenIncident {
    /// Nobody is told of it now.
    pub silenced: bool,
    /// Its record.
    pub record: IncidentRecord,
}

/// A silence and where it is from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedSilence {
    /// The silence.
    #[serde(flatten)]
    pub silence: Silence,
    /// It is in the configuration, where alone it can be ended.
    pub configured: bool,
    /// How many incidents that fire it is about.
    pub matches: usize,
}

/// A silence has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silenced {
    /// The silence.
    pub silence: Silence,
    /// How many incidents that fire it is about.
    pub matches: usize,
    /// It is on disk: a restart does not end it.
    pub kept: bool,
}

/// A silence has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unsilenced {
    /// Which.
    pub id: String,
    /// Its end is on disk: a restart does not begin it anew.
    pub kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Matcher;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let silence = Silence {
            id: "s-1".to_owned(),
            matcher: Matcher {
                comm: vec!["nginx*".to_owned()],
                ..Matcher::default()
            },
            until: "2026-11-25T06:00:00Z".parse().unwrap(),
            comment: None,
        };
        for request in [
            Request::Status {},
            Request::Top { detail: None },
            Request::Top {
                detail: Some(RowId::Listener(7)),
            },
            Request::Incidents {},
            Request::Silences {},
            Request::Silence(silence),
            Request::Unsilence {
                id: "s-1".to_owned(),
            },
        ] {
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        }
        for bad in [
            "",
            "{}",
            r#"{"ask":"nothing"}"#,
            r#"{"ask":"status","more":1}"#,
            r#"{"ask":"unsilence"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }
}
