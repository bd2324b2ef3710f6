//! What is worth an alert: rules with good defaults, what is ignored, and silences (pure).

mod config;
mod defaults;
mod matcher;
pub mod trial;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use config::parse;
#[cfg(any(test, fuzzing))]
pub(crate) use config::parse as read_configuration;
pub use config::{ConfigError, Configuration, known as known_reason, load};
pub use matcher::{Matcher, Subject};

use crate::{
    alert::Severity,
    observation::{Code, Observation},
};

/// Everything that decides what becomes an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The rules; names are unique.
    pub rules: Vec<Rule>,
    /// What is counted and never becomes or joins an incident.
    pub ignore: Vec<Matcher>,
    /// What is not told until a time.
    pub silences: Vec<Silence>,
}

/// When failures of some reasons become an incident.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub matcher: Matcher,
    /// What must hold.
    pub trigger: Trigger,
    /// How long that must hold before it is told.
    pub hold: Duration,
    /// How long it must not hold before the incident is over.
    pub resolve_after: Duration,
    /// How bad it is.
    pub severity: Severity,
    /// Labels that its alerts get besides.
    pub labels: BTreeMap<String, String>,
}

/// What must hold. What began and lasts, such as a stall, counts as one failure for as long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trigger {
    /// At least so many failures …
    pub count: u64,
    /// … within this.
    pub window: Duration,
    /// And at least this share of all attempts within the window, 0 to 1. Where attempts are not
    /// known it does not hold.
    pub ratio: Option<f64>,
    /// Instead of all that: a state has lasted so long.
    pub duration: Option<Duration>,
}

/// What is not told until a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Identifies it.
    pub id: String,
    /// What is silent.
    pub matcher: Matcher,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub comment: Option<String>,
}

impl Rule {
    /// Whether it is about limits that come near, and about nothing that turns anybody away.
    #[must_use]
    pub fn is_of_pressure(&self) -> bool {
        let mut reasons = self.matcher.reason.iter();
        !self.matcher.reason.is_empty() && reasons.all(|reason| Code::new(reason).is_pressure())
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rules: defaults::rules(),
            ignore: defaults::ignored(),
            silences: Vec::new(),
        }
    }
}

impl Rules {
    /// Whether it is counted only.
    #[must_use]
    pub fn ignores(&self, seen: &Observation) -> bool {
        self.ignore
            .iter()
            .any(|matcher| matcher.matches(&Subject::of(seen)))
    }

    /// The rules that are about it.
    pub fn about<'a>(&'a self, seen: &'a Observation) -> impl Iterator<Item = &'a Rule> {
        self.rules
            .iter()
            .filter(|rule| rule.matcher.matches(&Subject::of(seen)))
    }

    /// The rule of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

#[cfg(test)]
mod tests;
