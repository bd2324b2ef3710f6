//! What people expect of a command line: pages for man, completions in their shell, help that helps.

#[path = "manners/commands.rs"]
mod commands;
#[path = "manners/ends.rs"]
mod ends;
#[path = "manners/generated.rs"]
mod generated;
#[path = "manners/shown.rs"]
mod shown;
