//! The commands that there are, as the command line's own definition has them.

use clap::Command;

/// Every command with its names behind `turnaway`, nested ones included: `["silence", "add"]`. The first
/// is turnaway itself, without any.
pub(super) fn all() -> Vec<(Vec<String>, Command)> {
    let mut root = turnaway::cli::command().disable_help_subcommand(true);
    root.build();
    let mut found = Vec::new();
    collect(&root, &mut Vec::new(), &mut found);
    assert!(found.len() > 10, "{found:?}");
    found
}

fn collect(command: &Command, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Command)>) {
    found.push((path.clone(), command.clone()));
    for one in command.get_subcommands() {
        path.push(one.get_name().to_owned());
        collect(one, path, found);
        path.pop();
    }
}
