//! What a daemon takes at one moment, as the kernel has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::measure::{cpu_time, memory_kib};

/// One look.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// Since the start.
    pub(super) seconds: f64,
    /// Resident memory, KiB.
    pub(super) rss_kib: f64,
    /// Of that, what is no file: heap, stacks, and memory of its own.
    pub(super) anon_kib: f64,
    pub(super) fds: usize,
    pub(super) threads: usize,
    /// Entries of its hash maps in the kernel.
    pub(super) entries: usize,
    /// Entries of those maps that make room by themselves: they fill until they are full, which takes no more
    /// memory.
    pub(super) lru_entries: usize,
    /// Of each of both kinds that has any, by name.
    pub(super) maps: BTreeMap<String, usize>,
    /// The folder of its state.
    pub(super) state_kib: u64,
    /// The file of its stream.
    pub(super) stream_kib: u64,
    /// Processor time since its start.
    pub(super) cpu_seconds: f64,
}

impl Sample {
    pub(super) fn take(pid: u32, seconds: f64, state: &Path, stream: &Path) -> Result<Self> {
        let (mut entries, mut lru_entries, mut named) = (0, 0, BTreeMap::new());
        for map in maps(pid)? {
            *(if map.makes_room {
                &mut lru_entries
            } else {
                &mut entries
            }) += map.entries;
            if map.entries > 0 {
                named.insert(map.name, map.entries);
            }
        }
        let count =
            |folder: &str| anyhow::Ok(fs::read_dir(format!("/proc/{pid}/{folder}"))?.count());
        Ok(Self {
            seconds,
            rss_kib: memory_kib(pid, "VmRSS:")?,
            anon_kib: memory_kib(pid, "RssAnon:")?,
            fds: count("fd")?,
            threads: count("task")?,
            entries,
            lru_entries,
            maps: named,
            state_kib: size(state)? / 1024,
            stream_kib: size(stream)? / 1024,
            cpu_seconds: cpu_time(pid)?.as_secs_f64(),
        })
    }
}

/// A hash map.
struct Map {
    name: String,
    makes_room: bool,
    entries: usize,
}

/// The hash maps that a process holds.
fn maps(pid: u32) -> Result<Vec<Map>> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("map_id:") {
            let id: u32 = id.trim().parse().context("no id of a map")?;
            held.insert(id);
        }
    }
    ensure!(!held.is_empty(), "process {pid} holds no maps");
    let all: Vec<Value> = bpftool(&["map", "show"])?;
    let mut maps = Vec::new();
    for one in all {
        let id = one["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let Some(id) = id.filter(|id| held.contains(id)) else {
            continue;
        };
        let makes_room = match one["type"].as_str() {
            Some("hash") => false,
            Some("lru_hash") => true,
            _ => continue,
        };
        let entries: Vec<IgnoredAny> = bpftool(&["map", "dump", "id", &id.to_string()])?;
        maps.push(Map {
            name: one["name"].as_str().unwrap_or_default().to_owned(),
            makes_room,
            entries: entries.len(),
        });
    }
    Ok(maps)
}

fn bpftool<T: DeserializeOwned>(arguments: &[&str]) -> Result<T> {
    let output = Command::new("bpftool")
        .arg("--json")
        .args(arguments)
        .output()
        .context("no bpftool: run `cargo xtask setup --tests`")?;
    ensure!(output.status.success(), "bpftool {arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("bpftool {arguments:?} printed no such JSON"))
}

/// Bytes of a file, or of all files below a folder.
fn size(path: &Path) -> Result<u64> {
    let Ok(about) = fs::symlink_metadata(path) else {
        // Not made yet, or replaced just now.
        return Ok(0);
    };
    if !about.is_dir() {
        return Ok(about.len());
    }
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(0);
    };
    entries.map(|entry| size(&entry?.path())).sum()
}
