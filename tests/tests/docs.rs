//! The documents: every example in them, in the README and in `--help` is run, every link leads somewhere.

#[path = "docs/blocks.rs"]
mod blocks;
#[path = "manners/commands.rs"]
mod commands;
#[path = "docs/examples.rs"]
mod examples;
#[path = "docs/files.rs"]
mod files;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/reasons.rs"]
mod reasons;
#[path = "docs/stage.rs"]
mod stage;
