//! `--fields`: which columns of text, or which fields of records.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::Value;

use super::Usage;
use crate::{record::schema, sink::text::Text};

/// Schemas within schemas, at most.
const DEEPEST: usize = 20;

#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct FieldsArgs {
    /// Show only these, with commas between, in that order. Of text: time, reason, errno, pid, comm, listener, queue, fds,
    /// unit. Of JSON: fields of records, such as reason,process.pid
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    fields: Vec<String>,
}

impl FieldsArgs {
    /// Whether any are asked for.
    pub(super) fn is_any(&self) -> bool {
        !self.fields.is_empty()
    }

    /// The columns of text, by their numbers; none is all.
    pub(super) fn columns(&self) -> Result<Vec<usize>, Usage> {
        let names = Text::columns();
        let number = |field: &String| {
            let found = names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(field));
            found.ok_or_else(|| {
                let names = names.map(str::to_lowercase).join(", ");
                Usage(format!(
                    "--fields {field}: there is no such column; use {names}"
                ))
            })
        };
        self.fields.iter().map(number).collect()
    }

    /// The fields of records, as paths; none is all.
    pub(super) fn paths(&self) -> Result<Vec<String>, Usage> {
        for field in &self.fields {
            if PATHS.contains(field) {
                continue;
            }
            let alike: Vec<&str> = PATHS
                .iter()
                .filter(|path| path.rsplit('.').next() == Some(field))
                .map(String::as_str)
                .take(5)
                .collect();
            let what = if alike.is_empty() {
                "docs/records.md has them".to_owned()
            } else {
                format!("there is {}", alike.join(", "))
            };
            return Err(Usage(format!(
                "--fields {field}: no record has this field; {what}"
            )));
        }
        Ok(self.fields.clone())
    }
}

/// Of commands whose text has no columns.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct RecordFieldsArgs {
    /// Show only these fields of records, with commas between, such as started,statement; with --json
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    fields: Vec<String>,
}

impl RecordFieldsArgs {
    /// The fields, as paths; none is all.
    pub(super) fn paths(&self, is_json: bool) -> Result<Vec<String>, Usage> {
        if !self.fields.is_empty() && !is_json {
            return Err(Usage("--fields is for records: add --json".to_owned()));
        }
        let all = FieldsArgs {
            fields: self.fields.clone(),
        };
        all.paths()
    }
}

/// Every field of every record, as `listener.port`.
static PATHS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let schema = schema::all();
    let mut paths = BTreeSet::new();
    collect(&schema, &schema, "", DEEPEST, &mut paths);
    paths
});

/// Collects the fields of the objects that a schema, a part of the whole one, allows.
fn collect(whole: &Value, part: &Value, above: &str, deep: usize, paths: &mut BTreeSet<String>) {
    if deep == 0 {
        return;
    }
    if let Some(reference) = part["$ref"].as_str() {
        let named = reference.strip_prefix('#').and_then(|at| whole.pointer(at));
        collect(whole, named.unwrap_or(&Value::Null), above, deep - 1, paths);
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        for one in part[list].as_array().into_iter().flatten() {
            collect(whole, one, above, deep - 1, paths);
        }
    }
    for (name, one) in part["properties"].as_object().into_iter().flatten() {
        let path = if above.is_empty() {
            name.clone()
        } else {
            format!("{above}.{name}")
        };
        collect(whole, one, &path, deep - 1, paths);
        paths.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use super::FieldsArgs;

    fn fields(names: &[&str]) -> FieldsArgs {
        FieldsArgs {
            fields: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn columns_are_named_as_their_heads() {
        assert_eq!(
            fields(&["pid", "Reason", "unit"]).columns().unwrap(),
            [3, 1, 8]
        );
        assert_eq!(fields(&[]).columns().unwrap(), [0_usize; 0]);
        let refused = fields(&["pids"]).columns().unwrap_err().to_string();
        assert!(refused.contains("listener, queue, fds, unit"), "{refused}");
    }

    #[test]
    fn fields_are_what_the_schema_has() {
        for known in [
            "reason",
            "process.container.pod.name",
            "fd.used",
            "totals",
            "victim.process.pid",
        ] {
            assert!(fields(&[known]).paths().is_ok(), "{known}");
        }
        let refused = fields(&["port"]).paths().unwrap_err().to_string();
        assert!(refused.contains("listener.port"), "{refused}");
        assert!(fields(&["foo"]).paths().is_err());
        assert!(fields(&["process."]).paths().is_err());
    }
}
