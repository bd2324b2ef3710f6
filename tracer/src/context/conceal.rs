//! Secrets in arguments are not told (pure).

/// What secrets are called.
const NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "credential",
];
const CONCEALED: &str = "***";

/// Arguments without what looks like a secret: what follows a name of one, and the password in an
/// address. What a program calls otherwise (`-p` with a password behind it) is told.
pub(super) fn conceal(arguments: &str) -> String {
    let mut out = Vec::new();
    let mut conceals_next = false;
    for word in arguments.split(' ') {
        if conceals_next && !word.is_empty() {
            conceals_next = false;
            out.push(CONCEALED.to_owned());
            continue;
        }
        let lower = word.to_ascii_lowercase();
        let is_named = NAMES.iter().any(|name| lower.contains(name));
        match word.split_once('=') {
            // The name stands before it, not in a path behind it.
            Some((name, _)) if names_secret(name) => out.push(format!("{name}={CONCEALED}")),
            None if is_named && word.starts_with('-') => {
                conceals_next = true;
                out.push(word.to_owned());
            }
            _ => out.push(address(word)),
        }
    }
    out.join(" ")
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|secret| name.contains(secret))
}

/// `scheme://user:password@host` without the password.
fn address(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority
        .rsplit_once('@')
        .and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
    {
        Some((user, host)) => format!("{scheme}://{user}:{CONCEALED}@{host}{path}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::conceal;

    #[test]
    fn what_looks_like_a_secret_is_not_told() {
        for (arguments, told) in [
            ("pg_dump -Fc shop", "pg_dump -Fc shop"),
            (
                "mysqldump --password=hunter2 shop",
                "mysqldump --password=*** shop",
            ),
            ("curl --token abc x", "curl --token *** x"),
            ("env PGPASSWORD=x psql", "env PGPASSWORD=*** psql"),
            (
                "psql postgres://me:pw@db/shop?x=1",
                "psql postgres://me:***@db/shop?x=1",
            ),
            ("psql postgres://me@db/shop", "psql postgres://me@db/shop"),
            ("x --out=/etc/secrets", "x --out=/etc/secrets"),
            ("", ""),
        ] {
            assert_eq!(conceal(arguments), told);
        }
    }
}
