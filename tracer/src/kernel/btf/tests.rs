//! The reader against hand-made BTF: what the running kernel's holds is checked by the
//! tests that attach.

#![expect(
    clippy::many_single_char_names,
    clippy::cast_possible_truncation,
    reason = "members of samples; blobs of a few hundred bytes"
)]

use super::{Btf, kind};

/// Builds a BTF blob as pahole would.
struct Maker {
    types: Vec<u8>,
    strings: Vec<u8>,
    strings_before: u32,
}

impl Maker {
    fn base() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            strings_before: 0,
        }
    }

    fn module(strings_before: u32) -> Self {
        Self {
            types: Vec::new(),
            strings: Vec::new(),
            strings_before,
        }
    }

    fn name(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32 + self.strings_before;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn push(&mut self, name: &str, kind: u32, vlen: u32, flag: u32, third: u32, tail: &[u32]) {
        let name = self.name(name);
        for word in [name, (kind << 24) | vlen | (flag << 31), third]
            .iter()
            .chain(tail)
        {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut out = vec![0x9f, 0xeb, 1, 0];
        if cfg!(target_endian = "big") {
            out[..2].reverse();
        }
        for word in [
            24,
            0,
            self.types.len() as u32,
            self.types.len() as u32,
            self.strings.len() as u32,
        ] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend(self.types);
        out.extend(self.strings);
        out
    }
}

/// int; struct inner { int a; int b; }; const inner; struct outer { int x; union { int y;
/// const inner z; }; int bits:4 at 100 }; func f(struct outer *, int)
fn sample() -> Vec<u8> {
    let mut make = Maker::base();
    make.push("int", kind::INT, 0, 0, 4, &[32]);
    let (a, b) = (make.name("a"), make.name("b"));
    make.push("inner", kind::STRUCT, 2, 0, 8, &[a, 1, 0, b, 1, 32]);
    make.push("", kind::CONST, 0, 0, 2, &[]);
    let (y, z) = (make.name("y"), make.name("z"));
    make.push("", kind::UNION, 2, 0, 8, &[y, 1, 0, z, 3, 0]);
    let (x, bits) = (make.name("x"), make.name("bits"));
    make.push(
        "outer",
        kind::STRUCT,
        3,
        1,
        16,
        &[x, 1, 0, 0, 4, 32, bits, 1, (4 << 24) + 100],
    );
    make.push("", kind::PTR, 0, 0, 5, &[]);
    make.push("", kind::FUNC_PROTO, 2, 0, 1, &[0, 6, 0, 1]);
    make.push("f", kind::FUNC, 0, 0, 7, &[]);
    make.push("", kind::FUNC_PROTO, 2, 0, 0, &[0, 11, 0, 6]);
    make.push("", kind::PTR, 0, 0, 9, &[]);
    make.push("", kind::PTR, 0, 0, 0, &[]);
    make.push("btf_trace_t", kind::TYPEDEF, 0, 0, 10, &[]);
    make.finish()
}

#[test]
fn offsets_go_through_anonymous_members_and_qualifiers() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.offset_of("outer.x"), Some(0));
    assert_eq!(btf.offset_of("outer.y"), Some(4));
    assert_eq!(btf.offset_of("outer.z.b"), Some(8));
    assert_eq!(btf.offset_of("outer.bits"), None, "not on a byte");
    assert_eq!(btf.offset_of("outer.nope"), None);
    assert_eq!(btf.offset_of("nope.x"), None);
    assert_eq!(btf.size_of("outer"), Some(16));
}

#[test]
fn prototypes_are_spelled() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.function("f").unwrap(), ["struct outer *", "int"]);
    assert_eq!(btf.function("outer"), None, "a struct is no function");
    assert_eq!(btf.tracepoint("t").unwrap(), ["struct outer *"]);
}

#[test]
fn a_module_builds_on_the_kernel() {
    let mut btf = Btf::parse(sample()).unwrap();
    let strings = btf.base.strings.len() as u32;
    let mut make = Maker::module(strings);
    let (p, q) = (make.name("p"), make.name("q"));
    // Types of the module are numbered on from the kernel's twelve.
    make.push("modular", kind::STRUCT, 2, 0, 24, &[p, 1, 0, q, 5, 64]);
    btf.add_module(make.finish()).unwrap();
    assert_eq!(btf.offset_of("modular.q"), Some(8));
    assert_eq!(btf.offset_of("modular.q.z.b"), Some(16));
}

#[test]
fn broken_files_are_errors_and_never_panics() {
    let good = sample();
    for len in 0..good.len() {
        assert!(Btf::parse(good[..len].to_vec()).is_err(), "cut at {len}");
    }
    // Any single changed byte gives an error or some answer.
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(btf) = Btf::parse(bad) {
                let _ = btf.offset_of("outer.z.b");
                let _ = btf.function("f");
                let _ = btf.tracepoint("t");
            }
        }
    }
}
