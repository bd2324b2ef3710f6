//! The servers.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::nginx::{self, Nginx};
use super::processes::as_nobody;
use super::{Place, Server};

/// The limit of those that are given one.
const LIMIT: u64 = 40;

const GIVEN: Server = Server {
    name: "",
    program: "",
    comm: "",
    limit: LIMIT,
    own_limit: false,
    failures: 3,
    sheds: false,
    logs: None,
    command: |_| unreachable!("every server has a command"),
};

/// All servers.
pub const ALL: &[Server] = &[
    Server {
        name: "nginx",
        program: "/usr/sbin/nginx",
        comm: "nginx",
        limit: 32,
        own_limit: true,
        logs: Some("accept4() failed (24: Too many open files)"),
        command: nginx,
        ..GIVEN
    },
    Server {
        name: "haproxy",
        program: "/usr/sbin/haproxy",
        comm: "haproxy",
        command: haproxy,
        ..GIVEN
    },
    Server {
        name: "redis",
        program: "/usr/bin/redis-server",
        comm: "redis-server",
        // It asks again at once, for ever.
        failures: 100,
        logs: Some("Accepting client connection: accept: Too many open files"),
        command: redis,
        ..GIVEN
    },
    Server {
        name: "memcached",
        program: "/usr/bin/memcached",
        comm: "memcached",
        failures: 1,
        command: memcached,
        ..GIVEN
    },
    Server {
        name: "pgbouncer",
        program: "/usr/sbin/pgbouncer",
        comm: "pgbouncer",
        // One every few seconds.
        failures: 2,
        logs: Some("accept() failed: Too many open files"),
        command: pgbouncer,
        ..GIVEN
    },
    Server {
        name: "node",
        program: "/usr/bin/node",
        comm: "node",
        // It closes a descriptor that it keeps for this, accepts and closes.
        sheds: true,
        command: node,
        ..GIVEN
    },
    Server {
        name: "asyncio",
        program: "/usr/bin/python3",
        comm: "python3",
        command: asyncio,
        ..GIVEN
    },
    Server {
        name: "spin",
        program: "/usr/bin/cc",
        comm: "spin",
        failures: 1000,
        command: spin,
        ..GIVEN
    },
];

fn nginx(place: &Place) -> Result<Command> {
    let server = Nginx {
        main: "daemon off; worker_processes 1; worker_rlimit_nofile 32;",
        http: &nginx::answers(place.port, ""),
        ..Nginx::default()
    };
    let mut command = as_nobody(nginx::PROGRAM);
    command.args(server.configure(&place.dir)?);
    Ok(command)
}

fn haproxy(place: &Place) -> Result<Command> {
    let port = place.port;
    let config = place.file(
        "haproxy.cfg",
        &format!(
            "global\n  maxconn 500\n  nbthread 1\n\
            defaults\n  mode http\n  timeout client 1m\n  timeout connect 1m\n  timeout server 1m\n\
            frontend all\n  bind 127.0.0.1:{port}\n  http-request return status 204\n"
        ),
    )?;
    let mut command = as_nobody("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(config);
    Ok(command)
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for every server")]
fn redis(place: &Place) -> Result<Command> {
    let mut command = as_nobody("/usr/bin/redis-server");
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--maxclients", "500"])
        .args(["--port", &place.port.to_string(), "--dir"])
        .arg(&place.dir);
    Ok(command)
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for every server")]
fn memcached(place: &Place) -> Result<Command> {
    let mut command = as_nobody("/usr/bin/memcached");
    command
        .args(["-l", "127.0.0.1", "-U", "0", "-c", "500"])
        .args(["-p", &place.port.to_string()]);
    Ok(command)
}

fn pgbouncer(place: &Place) -> Result<Command> {
    let port = place.port;
    let config = place.file(
        "pgbouncer.ini",
        &format!(
            "[databases]\n* = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
            listen_port = {port}\nunix_socket_dir =\nauth_type = any\nmax_client_conn = 500\n"
        ),
    )?;
    let mut command = as_nobody("/usr/sbin/pgbouncer");
    command.arg(config);
    Ok(command)
}

fn node(place: &Place) -> Result<Command> {
    let script = place.file(
        "server.js",
        "require('http').createServer((_, answer) => answer.end())\
         .listen(Number(process.argv[2]), '127.0.0.1');\n",
    )?;
    let mut command = as_nobody("/usr/bin/node");
    command.arg(script).arg(place.port.to_string());
    Ok(command)
}

fn asyncio(place: &Place) -> Result<Command> {
    let script = place.file(
        "server.py",
        "import asyncio, sys\n\
        async def serve(reader, writer):\n    await reader.read()\n\
        async def main():\n\
        \x20   server = await asyncio.start_server(serve, '127.0.0.1', int(sys.argv[1]))\n\
        \x20   await server.serve_forever()\n\
        asyncio.run(main())\n",
    )?;
    let mut command = as_nobody("/usr/bin/python3");
    command.arg(script).arg(place.port.to_string());
    Ok(command)
}

fn spin(place: &Place) -> Result<Command> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/spin.c");
    let program = place.dir.join("spin");
    let status = Command::new("/usr/bin/cc")
        .args(["-O2", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(source)
        .status()?;
    ensure!(status.success(), "cc: {status}");
    let mut command = as_nobody(&program.to_string_lossy());
    command.arg(place.port.to_string());
    Ok(command)
}
