//! Some fields of a record.

use serde_json::{Map, Value};

/// The record of a line with these fields alone, each a path such as `process.pid`; `None` where it has
/// none of them. Without any, the line as it is.
#[must_use]
pub fn only(line: String, paths: &[String]) -> Option<String> {
    if paths.is_empty() {
        return Some(line);
    }
    let record: Value = serde_json::from_str(&line).ok()?;
    let mut kept = Map::new();
    for path in paths {
        let mut names = path.split('.');
        let Some(last) = names.next_back() else {
            continue;
        };
        let mut from = Some(&record);
        for name in names.clone() {
            from = from.and_then(|from| from.get(name));
        }
        let Some(value) = from.and_then(|from| from.get(last)) else {
            continue;
        };
        let mut to = &mut kept;
        for name in names {
            let below = to.entry(name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(below) = below else {
                // The whole of it was asked for, too.
                return None;
            };
            to = below;
        }
        to.insert(last.to_owned(), value.clone());
    }
    (!kept.is_empty()).then(|| Value::Object(kept).to_string())
}

#[cfg(test)]
mod tests {
    use super::only;

    fn of(line: &str, paths: &[&str]) -> Option<String> {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        only(line.to_owned(), &paths)
    }

    #[test]
    fn fields_stay_where_they_are_and_the_rest_goes() {
        let line = r#"{"reason":"a","process":{"pid":7,"comm":"b","unit":null},"count":2}"#;
        assert_eq!(of(line, &[]).as_deref(), Some(line));
        assert_eq!(
            of(line, &["process.pid", "count", "process.comm"]).as_deref(),
            Some(r#"{"count":2,"process":{"comm":"b","pid":7}}"#)
        );
        assert_eq!(of(line, &["listener.port", "count.more"]), None);
        assert_eq!(
            of(line, &["process", "process.pid"]).as_deref(),
            Some(r#"{"process":{"comm":"b","pid":7,"unit":null}}"#)
        );
    }
}
