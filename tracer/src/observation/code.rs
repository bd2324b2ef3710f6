//! Reason codes as records have them.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize};
use turnaway_common::Reason;

/// A reason code. One that this version does not know is kept: a record of a later version says
/// something all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Code(Cow<'static, str>);

impl Code {
    /// The code of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let known = Reason::ALL.iter().map(|reason| reason.code());
        match known.into_iter().find(|code| *code == name) {
            Some(code) => Self(Cow::Borrowed(code)),
            None => Self(Cow::Owned(super::bounded(name))),
        }
    }

    /// Its name, such as `accept.emfile`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes before the point, such as `accept`.
    #[must_use]
    pub fn family(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// Whether it begins, lasts and ends, instead of happening.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.0 == "queue.stalled" || self.is_pressure()
    }

    /// Whether it is a limit that comes near, which turns nobody away yet.
    #[must_use]
    pub fn is_pressure(&self) -> bool {
        matches!(self.as_str(), "fd.pressure" | "fd.table_pressure")
    }

    /// Whether it is about a connection that a process of this host wanted to make, which then
    /// is the one that suffers.
    #[must_use]
    pub fn is_of_client(&self) -> bool {
        self.family() == "connect" || self.0 == "queue.unix_full"
    }
}

impl From<Reason> for Code {
    fn from(reason: Reason) -> Self {
        Self(Cow::Borrowed(reason.code()))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(from)?;
        Ok(Self::new(&name))
    }
}
