//! Syslog servers as people run them. What they understood is in the files that they write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use turnaway_tests::servers::foreground::{Foreground, folder, free_port};
use turnaway_tests::wait;

use crate::{different, push, start, until};

/// rsyslogd with its own parser of structured data, which writes what it found there and the message.
pub(crate) struct Rsyslog {
    server: Option<Foreground>,
    config: PathBuf,
    out: PathBuf,
    /// Lives that are over. What each wrote has a file of its own: its last line may be torn.
    lives: usize,
    pub(crate) port: u16,
}

impl Rsyslog {
    pub(crate) fn start(dir: &Path, global: &str, driver: &str) -> Self {
        let port = free_port().unwrap();
        let out = dir.join("out");
        let config = dir.join("rsyslog.conf");
        let sd = |name: &str| format!("property(name=\"$!rfc5424-sd!turnaway@32473!{name}\")");
        let text = format!(
            "global(maxMessageSize=\"64k\" workDirectory=\"{dir}\" {global})\n\
             module(load=\"mmpstrucdata\")\n\
             module(load=\"imtcp\" {driver})\n\
             template(name=\"t\" type=\"list\") {{ {} constant(value=\"|\") {} \
             constant(value=\"|\") {} constant(value=\"|\") property(name=\"app-name\") \
             constant(value=\"|\") property(name=\"syslogseverity-text\") constant(value=\"|\") \
             property(name=\"msg\") constant(value=\"\\n\") }}\n\
             ruleset(name=\"r\") {{ action(type=\"mmpstrucdata\") \
             action(type=\"omfile\" file=\"{out}\" template=\"t\") }}\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"r\")\n",
            sd("reason"),
            sd("id"),
            sd("comm"),
            dir = dir.display(),
            out = out.display(),
        );
        fs::write(&config, text).unwrap();
        let mut rsyslog = Self {
            server: None,
            config,
            out,
            lives: 0,
            port,
        };
        rsyslog.up();
        rsyslog
    }

    pub(crate) fn up(&mut self) {
        let mut command = Command::new("rsyslogd");
        command.args(["-n", "-f"]).arg(&self.config);
        command.arg("-i").arg(self.config.with_extension("pid"));
        let server = Foreground::start(&mut command, self.port);
        self.server = Some(server.expect("rsyslogd: run `cargo xtask setup --tests`"));
    }

    /// Killed, with whatever it had in memory.
    pub(crate) fn kill(&mut self) {
        self.down(libc::SIGKILL);
    }

    /// Ended, as on a restart of the service.
    pub(crate) fn end(&mut self) {
        self.down(libc::SIGTERM);
    }

    fn down(&mut self, signal: i32) {
        if let Some(mut server) = self.server.take() {
            server.signal(signal).unwrap();
            server.0.wait().unwrap();
            if self.out.exists() {
                fs::rename(&self.out, self.life(self.lives)).unwrap();
            }
            self.lives += 1;
        }
    }

    /// Reads and writes nothing from now on; its kernel still takes what is sent.
    pub(crate) fn freeze(&self) {
        let server = self.server.as_ref().unwrap();
        server.signal(libc::SIGSTOP).unwrap();
    }

    fn life(&self, number: usize) -> PathBuf {
        self.out.with_extension(number.to_string())
    }

    /// Whether it has written anything in this life.
    pub(crate) fn has_written(&self) -> bool {
        fs::metadata(&self.out).is_ok_and(|file| file.len() > 0)
    }

    /// The records that came, each life's apart.
    pub(crate) fn by_lives(&self) -> Vec<Vec<Value>> {
        let files = (0..self.lives).map(|number| self.life(number));
        files
            .chain([self.out.clone()])
            .map(|file| read(&file).into_iter().map(|(_, one)| one).collect())
            .collect()
    }

    /// What its parser made of structured data, and the records that came as messages.
    pub(crate) fn understood(&self) -> Vec<(Vec<String>, Value)> {
        read(&self.out)
    }

    fn records(&self) -> Vec<Value> {
        let understood = self.understood();
        understood.into_iter().map(|(_, record)| record).collect()
    }
}

/// What a server wrote: five fields and the message.
fn read(file: &Path) -> Vec<(Vec<String>, Value)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            let mut parts = line.splitn(6, '|');
            let fields = parts.by_ref().take(5).map(str::to_owned).collect();
            let message = parts.next().unwrap_or_default().trim();
            (fields, serde_json::from_str(message).unwrap())
        })
        .collect()
}

#[test]
fn rsyslog_reads_structured_data() {
    const SENT: u64 = 500;
    let dir = folder().unwrap();
    let mut rsyslog = Rsyslog::start(dir.path(), "", "");
    let stream = json!({
        "type": "tcp", "address": format!("127.0.0.1:{}", rsyslog.port),
        "envelope": "rfc5424", "framing": "octet-counted", "settle": "500ms",
    });
    let mut streams = start(&[stream], &dir.path().join("spool"));
    for number in 1..=SENT {
        push(&mut streams, number);
    }
    wait::until_true("all of it", || {
        Ok(different(&rsyslog.records()) == (1..=SENT).collect())
    })
    .unwrap();
    until(&streams, "delivery", |health| health.waiting == 0);
    for (fields, record) in rsyslog.understood() {
        let id = record["record_id"].as_str().unwrap();
        assert_eq!(
            fields,
            ["accept.emfile", id, "pgbouncer", "turnaway", "warning"]
        );
    }
    rsyslog.kill();
}

#[test]
fn rsyslog_takes_tls() {
    let dir = folder().unwrap();
    certificate(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let global = format!(
        "defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{0}\" \
         defaultNetstreamDriverCertFile=\"{0}\" defaultNetstreamDriverKeyFile=\"{1}\"",
        file("cert"),
        file("key")
    );
    let driver = "streamDriver.name=\"gtls\" streamDriver.mode=\"1\" \
                  streamDriver.authMode=\"x509/certvalid\"";
    let mut rsyslog = Rsyslog::start(dir.path(), &global, driver);
    let address = format!("127.0.0.1:{}", rsyslog.port);
    let stream = |name: &str, more: Value| {
        let mut stream = json!({
            "type": "tls", "name": name, "address": address, "envelope": "rfc5424",
            "framing": "octet-counted", "settle": "500ms",
        });
        for (option, value) in more.as_object().unwrap() {
            stream[option] = value.clone();
        }
        stream
    };
    let client = json!({
        "ca_file": file("cert"), "cert_file": file("cert"), "key_file": file("key"),
    });
    let mut streams = start(
        &[stream("wary", json!({})), stream("trusting", client)],
        &dir.path().join("spool"),
    );
    for number in 1..=500 {
        push(&mut streams, number);
    }
    let wary = until(&streams, "a refusal", |health| health.failed_attempts > 0);
    let why = wary.last_error.unwrap();
    assert!(why.contains("certificate"), "{why}");
    wait::until_true("all", || {
        Ok(different(&rsyslog.records()) == (1..=500).collect())
    })
    .unwrap();
    wait::until_true("delivery", || Ok(streams.health()[1].delivered == 500)).unwrap();
    assert_eq!(streams.health()[0].delivered, 0);
    rsyslog.kill();
}

/// A certificate for 127.0.0.1 that vouches for itself, and its key.
fn certificate(dir: &Path) {
    const REQUEST: &str = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = more\n\
                           [name]\nCN = receiver\n[more]\nsubjectAltName = IP:127.0.0.1\n";
    fs::write(dir.join("request"), REQUEST).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-config", "request", "-keyout", "key", "-out", "cert"])
        .current_dir(dir)
        .output()
        .expect("openssl: run `cargo xtask setup --tests`");
    assert!(made.status.success(), "{made:?}");
}

/// syslog-ng reads structured data by itself.
#[test]
fn syslog_ng_takes_both_framings() {
    let root = xtask::unpacked::dir("syslog-ng-core").unwrap();
    let dir = folder().unwrap();
    let path = dir.path().display();
    let (counted, lines) = (free_port().unwrap(), free_port().unwrap());
    let config = dir.path().join("syslog-ng.conf");
    let text = format!(
        "@version: 3.38\noptions {{ log-msg-size(65536); }};\n\
         source s {{ syslog(ip(\"127.0.0.1\") port({counted}) transport(\"tcp\")); }};\n\
         source l {{ network(ip(\"127.0.0.1\") port({lines}) flags(syslog-protocol)); }};\n\
         template t {{ template(\"${{.SDATA.turnaway@32473.reason}}|\
         ${{.SDATA.turnaway@32473.id}}|${{PROGRAM}}|${{MSGID}}|${{LEVEL}}|${{MSG}}\\n\"); }};\n\
         log {{ source(s); destination {{ file(\"{path}/counted\" template(t)); }}; }};\n\
         log {{ source(l); destination {{ file(\"{path}/lines\" template(t)); }}; }};\n"
    );
    fs::write(&config, text).unwrap();
    let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/syslog-ng"]
        .map(|folder| root.join(folder).display().to_string())
        .join(":");
    let file = |name: &str| dir.path().join(name);
    let mut command = Command::new(root.join("usr/sbin/syslog-ng"));
    command
        .env("LD_LIBRARY_PATH", libraries)
        .args(["-F", "--no-caps", "-f"])
        .arg(&config)
        .arg(format!(
            "--module-path={}",
            root.join("usr/lib/syslog-ng/3.38").display()
        ))
        .arg("-R")
        .arg(file("persist"))
        .arg("-p")
        .arg(file("pid"))
        .arg("-c")
        .arg(file("control"));
    let server = Foreground::start(&mut command, counted);
    let mut server = server.expect("syslog-ng: run `cargo xtask setup --tests`");
    let stream = |name: &str, port: u16| {
        json!({
            "type": "tcp", "name": name, "address": format!("127.0.0.1:{port}"),
            "envelope": "rfc5424", "framing": name, "settle": "500ms",
        })
    };
    let mut streams = start(
        &[stream("octet-counted", counted), stream("ndjson", lines)],
        &dir.path().join("spool"),
    );
    for number in 1..=1_000 {
        push(&mut streams, number);
    }
    for name in ["counted", "lines"] {
        let mut understood = Vec::new();
        wait::until_true("all", || {
            understood = read(&file(name));
            let records: Vec<Value> = understood.iter().map(|(_, one)| one.clone()).collect();
            Ok(different(&records) == (1..=1_000).collect())
        })
        .unwrap();
        for (fields, record) in understood {
            let id = record["record_id"].as_str().unwrap();
            assert_eq!(
                fields,
                ["accept.emfile", id, "turnaway", "count", "warning"]
            );
        }
    }
    server.0.kill().unwrap();
}

#[test]
fn datagrams_are_syslog_messages() {
    use std::os::unix::net::UnixDatagram;

    let dir = folder().unwrap();
    let path = dir.path().join("log");
    let unix = UnixDatagram::bind(&path).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    unix.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    udp.set_read_timeout(Some(crate::PATIENCE)).unwrap();
    let streams = [
        json!({ "type": "unix", "path": path, "socket": "datagram", "envelope": "rfc5424" }),
        json!({
            "type": "udp", "address": udp.local_addr().unwrap().to_string(), "envelope": "rfc5424",
        }),
    ];
    let mut streams = start(&streams, dir.path());
    for number in 1..=20 {
        push(&mut streams, number);
    }
    let mut buffer = vec![0; 65_536];
    for number in 1..=20 {
        let length = unix.recv(&mut buffer).unwrap();
        check(&buffer[..length], number);
        let length = udp.recv(&mut buffer).unwrap();
        check(&buffer[..length], number);
    }
}

fn check(message: &[u8], number: u64) {
    let text = std::str::from_utf8(message).unwrap();
    assert!(text.starts_with("<28>1 2"), "{text}");
    let record: Value = serde_json::from_str(&text[text.find("] {").unwrap() + 2..]).unwrap();
    assert_eq!(record["count"], number);
}
