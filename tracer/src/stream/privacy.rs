//! What of records is nobody's business (docs/stream.md): addresses of others, command lines and users are
//! kept, left out, or told apart by a keyed hash.
//!
//! It is done to native records, before they are kept on disk and before they are told in other words.

mod text;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::notify::{config::absolute, secret::Secret};

/// In place of what is left out of a text.
const HIDDEN: &str = "[hidden]";
/// Bytes of a hash that are told: enough for no two values to meet.
const TOLD: usize = 16;
/// A shorter key could be tried out.
const SHORTEST_KEY: usize = 16;

/// What becomes of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// It is told as it is.
    #[default]
    Keep,
    /// It is not told.
    Drop,
    /// A hash is told, by which equal ones can be found.
    Hash,
}

/// `[privacy]` of the configuration, as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Addresses of the other ends of connections.
    #[serde(default)]
    peers: Choice,
    /// Arguments of programs.
    #[serde(default)]
    command_lines: Choice,
    /// Users, by number or by the name of their home.
    #[serde(default)]
    users: Choice,
    /// Holds the key of the hashes; without one, each start has its own.
    key_file: Option<PathBuf>,
}

impl Config {
    /// The same, understood.
    pub(crate) fn understand(&self) -> Result<Privacy> {
        let all = [self.peers, self.command_lines, self.users];
        ensure!(
            self.key_file.is_none() || all.contains(&Choice::Hash),
            "privacy.key_file: nothing is to be hashed"
        );
        Ok(Privacy {
            peers: self.peers,
            command_lines: self.command_lines,
            users: self.users,
            key_file: self
                .key_file
                .as_deref()
                .map(|path| absolute("privacy.key_file", path))
                .transpose()?,
        })
    }
}

/// What of records is nobody's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    peers: Choice,
    command_lines: Choice,
    users: Choice,
    key_file: Option<PathBuf>,
}

impl Privacy {
    /// What does it to records; none where all is kept. It fails where the key cannot be read.
    pub fn filter(&self) -> Result<Option<Filter>> {
        let all = [self.peers, self.command_lines, self.users];
        if all == [Choice::Keep; 3] {
            return Ok(None);
        }
        let key = if !all.contains(&Choice::Hash) {
            None
        } else if let Some(path) = &self.key_file {
            Some(key(path).context("privacy.key_file")?)
        } else {
            Some(key_of_this_start()?)
        };
        Ok(Some(Filter {
            peers: self.peers,
            command_lines: self.command_lines,
            users: self.users,
            key,
        }))
    }
}

fn key(path: &Path) -> Result<hmac::Key> {
    let secret = Secret::read(path)?;
    let secret = secret.reveal().as_bytes();
    ensure!(
        secret.len() >= SHORTEST_KEY,
        "{} holds fewer than {SHORTEST_KEY} bytes: give it a line of chance, such as that of \
         `openssl rand -hex 32`",
        path.display()
    );
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

/// The same for all streams, and after a reload.
fn key_of_this_start() -> Result<hmac::Key> {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    let mut fresh = [0; 32];
    SystemRandom::new()
        .fill(&mut fresh)
        .map_err(|_| anyhow::anyhow!("the kernel gives no chance for a key"))?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, KEY.get_or_init(|| fresh)))
}

/// Leaves out of records what is nobody's business.
#[derive(Debug)]
pub struct Filter {
    peers: Choice,
    command_lines: Choice,
    users: Choice,
    key: Option<hmac::Key>,
}

impl Filter {
    /// A native record of one line, as it may be told.
    pub(super) fn line(&self, line: &str) -> String {
        // It is JSON of our own. Were it not, nothing of it would be told.
        let mut record: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
        self.apply(&mut record);
        serde_json::to_string(&record).unwrap_or_default()
    }

    /// Changes a native record (docs/records.md).
    pub fn apply(&self, record: &mut Map<String, Value>) {
        let mut found = Found::default();
        if self.peers != Choice::Keep {
            found.look(None, record);
        }
        for (name, value) in record.iter_mut() {
            self.value(name, value, &found);
        }
        self.object(None, record);
    }

    fn value(&self, name: &str, value: &mut Value, found: &Found) {
        match value {
            Value::Object(object) => {
                for (inner, value) in object.iter_mut() {
                    self.value(inner, value, found);
                }
                self.object(Some(name), object);
            }
            Value::Array(list) => list
                .iter_mut()
                .for_each(|value| self.value(name, value, found)),
            Value::String(text) => self.text(name, text, found),
            _ => {}
        }
    }

    /// Fields that are left out as a whole, or told by another name.
    fn object(&self, of: Option<&str>, object: &mut Map<String, Value>) {
        self.field(self.command_lines, object, "argv");
        if matches!(of, Some("peer" | "peers")) {
            self.field(self.peers, object, "address");
            if self.peers == Choice::Drop {
                object.remove("port");
            }
        }
        if self.peers == Choice::Drop {
            // The same name is a number elsewhere: of how many they are.
            if object.get("peers").is_some_and(Value::is_array) {
                object.remove("peers");
            }
            object.remove("remote");
            let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
            if object.get("peer").is_some_and(is_empty) {
                object.remove("peer");
            }
            if of == Some("victim") {
                object.remove("target");
            }
        }
        if self.users != Choice::Keep
            && let Some(uid) = object.get("uid").and_then(Value::as_u64)
        {
            object.remove("uid");
            if self.users == Choice::Hash {
                object.insert("uid_hash".to_owned(), self.hash(&uid.to_string()).into());
            }
        }
    }

    fn field(&self, choice: Choice, object: &mut Map<String, Value>, name: &str) {
        match (choice, object.get_mut(name)) {
            (Choice::Keep, _) | (_, None) => {}
            (Choice::Hash, Some(Value::String(text))) => *text = self.hash(text),
            (Choice::Drop | Choice::Hash, Some(_)) => {
                object.remove(name);
            }
        }
    }

    fn text(&self, name: &str, text: &mut String, found: &Found) {
        let keeps = |choice| choice == Choice::Keep;
        if !keeps(self.peers) && (text::is_told(name) || matches!(name, "remote" | "target")) {
            for peer in &found.peers {
                if !found.own.contains(peer) {
                    *text = text::replace_whole(text, peer, |peer| self.told(self.peers, peer));
                }
            }
            *text = text::replace_addresses(text, |address| {
                let is_own = found.own.iter().any(|own| own == address);
                (!is_own).then(|| self.told(self.peers, address))
            });
        }
        // `argv` and addresses are gone as a whole, or hashed as they were.
        if !keeps(self.users) && (name != "argv" || keeps(self.command_lines)) {
            *text = text::replace_users(text, |user| self.told(self.users, user));
        }
    }

    fn told(&self, choice: Choice, value: &str) -> String {
        match choice {
            Choice::Keep => value.to_owned(),
            Choice::Drop => HIDDEN.to_owned(),
            Choice::Hash => self.hash(value),
        }
    }

    fn hash(&self, value: &str) -> String {
        let Some(key) = &self.key else {
            return HIDDEN.to_owned();
        };
        let tag = hmac::sign(key, value.as_bytes());
        let mut out = "hash:".to_owned();
        for byte in tag.as_ref().iter().take(TOLD) {
            // Writing to a string cannot fail.
            let _ = std::fmt::Write::write_fmt(&mut out, format_args!("{byte:02x}"));
        }
        out
    }
}

/// What a record says of addresses, to find the same in its sentences.
#[derive(Debug, Default)]
struct Found {
    /// Those of others, and what a client wants to reach.
    peers: Vec<String>,
    /// Those that something of this host listens on.
    own: Vec<String>,
}

impl Found {
    fn look(&mut self, of: Option<&str>, object: &Map<String, Value>) {
        for (name, value) in object {
            match (name.as_str(), of, value) {
                ("address", Some("peer" | "peers"), Value::String(text)) => {
                    self.peers.push(text.clone());
                }
                // A path is of this host, and an address is found in any sentence.
                ("target", Some("victim"), Value::String(text))
                    if !text.starts_with(['/', '@', '.']) && !text::has_address(text) =>
                {
                    self.peers.push(text.clone());
                }
                ("address", Some("listener" | "listeners"), Value::String(text)) => {
                    self.own.push(text.clone());
                }
                (_, _, Value::Object(object)) => self.look(Some(name), object),
                (_, _, Value::Array(list)) => {
                    for object in list.iter().filter_map(Value::as_object) {
                        self.look(Some(name), object);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
