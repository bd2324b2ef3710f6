//! Where bytes from outside come in, each as a function of them that must neither panic nor hang: for `cargo xtask
//! fuzz` and for the test that goes through what it found. Not part of the library.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    control,
    event::Failure,
    history::Wanted,
    kernel::btf::Btf,
    metrics,
    replay::Replay,
    report,
    rules::{self, trial::Trial},
    sockets, stream,
};

/// An entry.
pub type Entry = fn(&[u8]);

/// All, by the name of their corpus.
pub const ALL: [(&str, Entry); 10] = [
    ("event", event),
    ("btf", btf),
    ("sock_diag", sock_diag),
    ("config", config),
    ("trial", trial),
    ("replay", replay),
    ("report", report),
    ("spool", spool),
    ("control", control),
    ("http", http),
];

/// A record of the ring buffer.
pub fn event(bytes: &[u8]) {
    if let Some(failure) = Failure::decode(bytes) {
        let _ = format!("{failure:?}");
    }
}

/// The kernel's type information; a module's is what follows the first half.
pub fn btf(bytes: &[u8]) {
    let (kernel, module) = bytes.split_at(bytes.len() / 2);
    for kernel in [bytes, kernel] {
        let Ok(mut types) = Btf::parse(kernel.to_vec()) else {
            continue;
        };
        // A module that cannot be read is left out.
        let _ = types.add_module(module.to_vec());
        for path in ["task_struct.files", "sock.sk_lock.owned", "a.b"] {
            let _ = types.offset_of(path);
        }
        let _ = types.size_of("task_struct");
        let _ = types.enum_value("LINUX_MIB_LISTENDROPS");
        let _ = types.function("__sys_accept4");
        let _ = types.tracepoint("inet_sock_set_state");
    }
}

/// A datagram of sock_diag.
pub fn sock_diag(bytes: &[u8]) {
    sockets::read_datagram(bytes);
}

/// A configuration.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = rules::read_configuration(text, "fuzz").map_err(|error| error.to_string());
    }
}

/// A trial of rules: records and the alerts that are expected of them.
pub fn trial(bytes: &[u8]) {
    // Other files that it names may be any of this machine.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !["records =", "config ="]
            .iter()
            .any(|key| text.contains(key))
        && let Ok(trial) = Trial::read(text, "fuzz", PathBuf::new())
    {
        let _ = trial.run().map(|outcome| outcome.text());
    }
}

/// Records, one a line, that are replayed.
pub fn replay(bytes: &[u8]) {
    let mut replay = Replay::new(rules::Rules::default());
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(line).map_err(|error| error.to_string());
        for change in replay.line(line).1 {
            let _ = crate::replay::change(&change);
        }
    }
    let _ = replay.finish();
}

/// Records, one a line, that are reported on.
pub fn report(bytes: &[u8]) {
    let wanted = Wanted::default();
    let facts = report::gather::from_lines(bytes, rules::Rules::default(), &wanted, &TimeZone::UTC);
    if let Ok((facts, _)) = facts {
        let blocks = report::tell(&facts, &TimeZone::UTC, true);
        let _ = report::text::text(&blocks);
        let _ = report::html::html(&blocks, "", &TimeZone::UTC);
    }
}

/// A segment of a spool.
pub fn spool(bytes: &[u8]) {
    stream::read_segment(bytes);
}

/// A request to the control socket.
pub fn control(bytes: &[u8]) {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    within_a_runtime(async move {
        let sent = client.write_all(&bytes[..bytes.len().min(60 << 10)]);
        let _ = sent.await;
        let _ = client.shutdown().await;
        let _ = control::request(server).await;
    });
}

/// A request for metrics.
pub fn http(bytes: &[u8]) {
    let metrics = Arc::new(metrics::Metrics::new(metrics::Config::default()));
    let (mut client, server) = tokio::io::duplex(64 << 10);
    within_a_runtime(async move {
        let _ = client.write_all(&bytes[..bytes.len().min(60 << 10)]).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let (served, read) = tokio::join!(
            metrics::connection(server, metrics, Arc::default()),
            client.read_to_end(&mut answer)
        );
        if served.is_ok() && read.is_ok() && !answer.is_empty() {
            assert!(
                answer.starts_with(b"HTTP/1."),
                "{:?}",
                String::from_utf8_lossy(&answer)
            );
        }
    });
}

fn within_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread");
    let done =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await });
    assert!(done.is_ok(), "it hangs");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::ALL;

    /// What fuzzing has found, and what it begins with.
    #[test]
    fn nothing_that_was_found_does_harm_again() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, entry) in ALL {
            let folder = corpora.join(name);
            let mut inputs = 0;
            for file in fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            {
                entry(&fs::read(file.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "{name} has no corpus");
            entry(b"");
        }
    }
}
