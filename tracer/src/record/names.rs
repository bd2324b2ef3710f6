//! What fields may say that are text in code, for the schema: nothing here is ever made.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use turnaway_common::Reason;

use crate::{
    attribute::{
        Runtime,
        holdings::{Family, Kind},
    },
    syscall,
};

/// What was going on where no system call says, but for io_uring's operations on descriptors.
const OPERATIONS: [&str; 8] = [
    "accept",
    "io_uring_accept",
    "syn",
    "ack",
    "close",
    "connect",
    "io_uring_connect",
    "io_uring",
];

/// A type whose values are these; it has a name of its own in the schema, or stands where it is used.
macro_rules! values {
    ($name:ident, $id:literal, $inline:literal, $schema:expr) => {
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $id.into()
            }

            fn inline_schema() -> bool {
                $inline
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

values!(
    Time,
    "time",
    false,
    json_schema!({
        "type": "string",
        "format": "date-time",
        "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$",
        "description": "RFC 3339, UTC, nanoseconds.",
    })
);
values!(
    Errno,
    "errno",
    false,
    json_schema!({ "type": "string", "pattern": "^E[A-Z0-9_]+$" })
);
values!(
    ReasonCode,
    "reason",
    false,
    one_of(Reason::ALL.iter().map(|reason| reason.code()))
);
values!(
    Syscall,
    "syscall",
    true,
    one_of(syscall::NAMES.iter().copied())
);
values!(
    Operation,
    "op",
    true,
    one_of(
        OPERATIONS
            .into_iter()
            .chain(syscall::IO_URING.iter().map(|(_, name)| *name))
    )
);
values!(
    RuntimeName,
    "runtime",
    true,
    one_of(Runtime::ALL.iter().map(|runtime| runtime.name()))
);
values!(
    KindName,
    "kind",
    true,
    one_of(Kind::ALL.iter().map(|kind| kind.name()))
);
values!(
    FamilyName,
    "family",
    true,
    one_of(Family::ALL.iter().map(|family| family.name()))
);

fn one_of(names: impl Iterator<Item = &'static str>) -> Schema {
    json_schema!({ "enum": names.collect::<Vec<_>>() })
}
