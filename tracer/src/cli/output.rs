//! How results are printed: the same options for every command.

use clap::ValueEnum;

use crate::stream::format::Format;

#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// How to print it: text, or one JSON object a line (docs/records.md)
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl OutputArgs {
    /// Whether JSON is asked for.
    pub(super) fn is_json(&self) -> bool {
        self.json || self.output == Output::Json
    }
}

/// Of commands that can tell records in the words of others, too.
#[derive(Debug, clap::Args)]
pub(super) struct ToldArgs {
    /// How to print it: text, or one JSON object a line, native (docs/records.md) or in the words of ECS or OCSF
    /// (docs/formats.md)
    #[arg(short, long, value_enum, default_value_t = Told::Text)]
    output: Told,

    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Told {
    Text,
    Json,
    Ecs,
    Ocsf,
}

impl ToldArgs {
    /// In whose words records are asked for; none where text is.
    pub(super) fn records(&self) -> Option<Format> {
        match self.output {
            _ if self.json => Some(Format::Native),
            Told::Text => None,
            Told::Json => Some(Format::Native),
            Told::Ecs => Some(Format::Ecs),
            Told::Ocsf => Some(Format::Ocsf),
        }
    }
}
