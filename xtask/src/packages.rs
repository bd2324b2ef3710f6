//! The Debian packages used, each with what it is for. There is no other list.

/// What compiling the kernel side and linking anything needs.
pub(crate) const BUILD: &[&str] = &[
    "gcc",                     // the linker driver of every Rust program
    "libc6-dev",               // crt1.o and the static libc that turnaway is linked with
    "rustc-web",               // the rustc that knows the BPF target …
    "libstd-rust-web-dev-bpf", // … and core, compiled for it
    "llvm-22-dev",             // what bpf-linker is built on; as new as that rustc's LLVM
];

/// What lints and tests run, trace or compare with.
pub(crate) const TESTS: &[&str] = &[
    "rust-web-clippy", // clippy for the kernel side; the host's comes with rustup
    "qemu-system-x86", // boots the test kernels
    "nginx-light",     // servers and proxies whose listeners are made to turn clients away
    "haproxy",
    "redis-server",
    "memcached",
    "pgbouncer",
    "postgresql",
    "php-fpm",
    "gunicorn",
    "python3-psycopg2",        // what gunicorn's program asks a database with
    "podman",                  // containers that are named as their runtime names them …
    "runc",                    // … run by what also runs where both versions of cgroups are mounted
    "systemd",                 // systemd-socket-activate: listeners that are handed on by exec
    "prometheus-alertmanager", // what alerts are delivered to
    "nodejs",                  // acceptors and clients written in other languages
    "python3",
    "golang-go",
    "prometheus", // scrapes metrics; promtool checks them, and the shipped rules
    "curl",
    "iproute2",  // routes of test networks
    "bpftool",   // shows what is loaded, independently of turnaway
    "openssl",   // certificates for receivers of alerts
    "chromium",  // opens reports
    "e2fsprogs", // a file system that is frozen, or full
    "fish",      // shells whose completions are tried …
    "zsh",
    "man-db",         // … and what shows the man pages
    "jq",             // examples in documents use it
    "debootstrap",    // a Debian to install turnaway's package in
    "strace",         // shows what accept returned, independently of turnaway
    "tcpdump",        // shows which connections were reset, independently of turnaway
    "tmux",           // a terminal whose screen tests can read
    "rsyslog",        // takes the stream …
    "rsyslog-gnutls", // … over TLS
    "libivykis0",     // what syslog-ng, which is unpacked beside, is linked with
    "libjson-c5",
    "libnet1",
    "libpcre3",
    "libwrap0",
];

/// Other tools at the nearest job, which `cargo xtask bench` compares with; strace is among [`TESTS`].
pub(crate) const BENCH: &[&str] = &["bpftrace", "linux-perf"];

/// What tests run without installing it: it excludes another package of the list.
pub(crate) const UNPACKED: &[&str] = &[
    "syslog-ng-core", // takes the stream, too; it and rsyslog exclude each other
];
