//! Names of errno values.
//!
//! The names are a list, their numbers come from the `libc` crate, so that no number is
//! typed here and each architecture gets its own. Crates that know names either print
//! descriptions (`errno`, rustix) or cannot be asked for a number by name without trying
//! all (`nix`), and none knows the codes that the kernel keeps to itself.

use std::borrow::Cow;

/// Largest errno that a Linux system call can return (`MAX_ERRNO`, include/linux/err.h).
pub const MAX: u16 = 4095;

macro_rules! names {
    ($($name:ident)+) => {
        &[$((libc::$name, stringify!($name))),+]
    };
}

/// Every errno that programs see. Where two names share a number, the first is shown.
const NAMES: &[(i32, &str)] = names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES
    EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY
    ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK
    ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI
    EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT EBFONT ENOSTR ENODATA ETIME ENOSR
    ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG
    EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ
    ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT
    EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN
    ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY
    EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE
    ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL
    EHWPOISON
    EWOULDBLOCK EDEADLOCK ENOTSUP
};

/// Codes that the kernel keeps to itself and that a hook, or by mistake a program, can
/// see all the same (include/linux/errno.h).
const KERNEL_NAMES: &[(i32, &str)] = &[
    (512, "ERESTARTSYS"),
    (513, "ERESTARTNOINTR"),
    (514, "ERESTARTNOHAND"),
    (515, "ENOIOCTLCMD"),
    (516, "ERESTART_RESTARTBLOCK"),
    (517, "EPROBE_DEFER"),
    (518, "EOPENSTALE"),
    (519, "ENOPARAM"),
    (521, "EBADHANDLE"),
    (522, "ENOTSYNC"),
    (523, "EBADCOOKIE"),
    (524, "ENOTSUPP"),
    (525, "ETOOSMALL"),
    (526, "ESERVERFAULT"),
    (527, "EBADTYPE"),
    (528, "EJUKEBOX"),
    (529, "EIOCBQUEUED"),
    (530, "ERECALLCONFLICT"),
    (531, "ENOGRACE"),
];

fn all() -> impl Iterator<Item = &'static (i32, &'static str)> {
    NAMES.iter().chain(KERNEL_NAMES)
}

/// The name of a positive errno: `EMFILE`; `E4000` for a number that has none.
#[must_use]
pub fn name(errno: u16) -> Cow<'static, str> {
    all()
        .find(|(number, _)| *number == i32::from(errno))
        .map_or_else(
            || Cow::Owned(format!("E{errno}")),
            |(_, name)| Cow::Borrowed(*name),
        )
}

/// The errno a name stands for: any case; aliases (`EWOULDBLOCK`), the names that [`name`]
/// makes up (`E4000`) and plain numbers (`24`) are understood too. `None` for anything
/// else and for numbers outside 1 to [`MAX`].
#[must_use]
pub fn number(text: &str) -> Option<u16> {
    let named = all()
        .find(|(_, name)| name.eq_ignore_ascii_case(text))
        .and_then(|(number, _)| u16::try_from(*number).ok());
    named.or_else(|| {
        let digits = text.strip_prefix(['E', 'e']).unwrap_or(text);
        // `parse` would take a sign.
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| all_digits)?;
        (1..=MAX).contains(&number).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::{MAX, name, number};

    #[test]
    fn numbers_that_every_operator_knows() {
        for (errno, expected) in [
            (1, "EPERM"),
            (11, "EAGAIN"),
            (23, "ENFILE"),
            (24, "EMFILE"),
            (95, "EOPNOTSUPP"),
            (103, "ECONNABORTED"),
            (133, "EHWPOISON"),
            (524, "ENOTSUPP"),
            (4000, "E4000"),
        ] {
            assert_eq!(name(errno), expected);
        }
    }

    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))]
    #[test]
    fn asm_generic_has_no_gaps_but_its_own() {
        let unnamed: Vec<u16> = (1..=133)
            .filter(|errno| name(*errno) == format!("E{errno}"))
            .collect();
        // asm-generic/errno.h skips these two, which would be EWOULDBLOCK and EDEADLOCK.
        assert_eq!(unnamed, [41, 58]);
    }

    #[test]
    fn every_name_reads_back() {
        for errno in 1..=MAX {
            assert_eq!(number(&name(errno)), Some(errno));
        }
    }

    #[test]
    fn what_people_type() {
        assert_eq!(number("emfile"), Some(24));
        assert_eq!(number("EWouldBlock"), Some(11));
        assert_eq!(number("ENOTSUP"), Some(95));
        assert_eq!(number("24"), Some(24));
        for wrong in [
            "", "E", "EMFILES", "0", "E0", "4096", "+24", "E+24", "-24", "24 ",
        ] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }
}
