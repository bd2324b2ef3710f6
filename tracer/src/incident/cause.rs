//! Which reason is the cause of which (pure).

use crate::observation::Code;

/// Where a reason stands between cause and symptom; less is nearer to the cause.
fn rank(code: &Code) -> u8 {
    match code.as_str() {
        "fd.table_pressure" => 0,
        "fd.pressure" => 1,
        "net.conntrack_full" => 2,
        "accept.emfile" | "accept.enfile" => 4,
        "fd.exhausted" => 5,
        "queue.stalled" => 7,
        "queue.slow" => 8,
        "queue.abandoned" => 10,
        "listener.closed" => 11,
        "queue.unix_full" => 12,
        other => match other.split('.').next() {
            Some("accept") => 6,
            Some("queue") => 9,
            _ => 13,
        },
    }
}

/// Causes before their symptoms.
pub fn order<'a>(codes: impl IntoIterator<Item = &'a Code>) -> Vec<&'a Code> {
    let mut codes: Vec<&Code> = codes.into_iter().collect();
    codes.sort_by_key(|code| rank(code));
    codes
}

/// The one that explains the others.
///
/// Pressure comes before the failure and is no failure: it explains none, and is the root only
/// where there is nothing else.
pub fn root<'a>(codes: impl IntoIterator<Item = &'a Code>) -> Option<&'a Code> {
    let ordered = order(codes);
    ordered
        .iter()
        .find(|code| !code.is_pressure())
        .or(ordered.first())
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symptoms_come_after_their_causes() {
        let codes = [
            "connect.refused",
            "queue.syn_overflow",
            "fd.pressure",
            "queue.stalled",
            "accept.emfile",
            "fd.exhausted",
        ]
        .map(Code::new);
        let ordered: Vec<&str> = order(&codes).into_iter().map(Code::as_str).collect();
        assert_eq!(
            ordered,
            [
                "fd.pressure",
                "accept.emfile",
                "fd.exhausted",
                "queue.stalled",
                "queue.syn_overflow",
                "connect.refused",
            ]
        );
        assert_eq!(root(&codes).unwrap().as_str(), "accept.emfile");
        assert_eq!(root(&codes[2..3]).unwrap().as_str(), "fd.pressure");
        assert_eq!(root(&codes[..1]).unwrap().as_str(), "connect.refused");
    }
}
