//! Real servers past their limit of descriptors: what turnaway counts is what strace saw.

use turnaway_tests::servers::{self, ALL};
use turnaway_tests::tracer;

fn check(name: &str) {
    let server = ALL
        .iter()
        .find(|server| server.name == name)
        .expect("there is such a server");
    if let Some(why) = servers::missing(server) {
        panic!("{name}: {why}");
    }
    let turnaway = tracer::binary().unwrap();
    if let Err(error) = servers::run(server, &turnaway, "tracepoint") {
        panic!("{name}: {error:#}");
    }
}

macro_rules! servers {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+

        #[test]
        fn every_server_has_a_test() {
            let names: Vec<_> = ALL.iter().map(|server| server.name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
        }
    };
}

servers! { nginx haproxy redis memcached pgbouncer node asyncio spin }
