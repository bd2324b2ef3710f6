//! What people expect of a command line: pages for man, completions in their shell, help that helps.

#[path = "manners/commands.rs"]
mod commands;
#[path = "manners/generated.rs"]
mod generated;
