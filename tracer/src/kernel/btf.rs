//! A small reader of BTF, the kernel's own description of its types and functions.
//!
//! Format: Documentation/bpf/btf.rst. Only what offsets and prototypes need is
//! understood; nothing is copied but one offset per type, so that opening 5 MB of BTF
//! costs a few milliseconds. Every access is checked: a truncated or hostile file gives
//! an error or an absent answer.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use memchr::memmem;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;

/// Kinds of `enum { BTF_KIND_* }` in include/uapi/linux/btf.h that matter here.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Qualifiers, typedefs and anonymous members nest; a file that loops must not hang us.
const MAX_DEPTH: usize = 32;

/// One BTF blob: its bytes, where its types begin, and where each type is.
struct Blob {
    bytes: Vec<u8>,
    strings: std::ops::Range<usize>,
    types: Vec<usize>,
}

/// The types of the kernel and of the modules that were added.
pub struct Btf {
    /// First the kernel itself, then modules, each numbered from where the kernel ends.
    base: Blob,
    modules: Vec<Blob>,
}

#[derive(Clone, Copy)]
struct Type<'a> {
    blob: &'a Blob,
    at: usize,
    name: u32,
    kind: u32,
    vlen: usize,
    kind_flag: bool,
    /// Size in bytes, or the number of another type, as the kind has it.
    third: u32,
}

/// Where a type was found: its number, and the module whose numbering it is in.
#[derive(Clone, Copy)]
struct Id<'a> {
    number: u32,
    module: Option<&'a Blob>,
}

impl Btf {
    /// Reads the running kernel's BTF from `dir` (`/sys/kernel/btf`): `vmlinux`, and of
    /// `modules` those that are loaded.
    pub fn open(dir: &Path, modules: &[&str]) -> Result<Self> {
        let path = dir.join("vmlinux");
        let bytes = fs::read(&path)
            .with_context(|| format!("cannot read the kernel's BTF from {}", path.display()))?;
        let mut btf = Self::parse(bytes)
            .with_context(|| format!("cannot understand the BTF in {}", path.display()))?;
        for module in modules {
            // A module that is not loaded, or whose BTF is odd, has types we do without.
            if let Ok(bytes) = fs::read(dir.join(module)) {
                let _ = btf.add_module(bytes);
            }
        }
        Ok(btf)
    }

    /// Parses the BTF of a kernel image.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        Ok(Self {
            base: Blob::parse(bytes)?,
            modules: Vec::new(),
        })
    }

    /// Adds the split BTF of a module, whose types and strings are numbered from where
    /// those of the kernel image end.
    pub fn add_module(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.modules.push(Blob::parse(bytes)?);
        Ok(())
    }

    /// Byte offset of a field, given as `type.member.member`, where this kernel has it.
    ///
    /// Anonymous structs and unions, typedefs and qualifiers are walked through; a bit
    /// field that does not begin on a byte is not found.
    #[must_use]
    pub fn offset_of(&self, path: &str) -> Option<u32> {
        let mut members = path.split('.');
        let mut id = self.find(members.next()?, &[kind::STRUCT, kind::UNION])?;
        let mut bits = 0_u32;
        for member in members {
            let (offset, of_type) = self.member(id, member, 0)?;
            bits = offset.checked_add(bits)?;
            id = Id {
                number: of_type,
                ..id
            };
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Size of a struct, bytes.
    #[must_use]
    pub fn size_of(&self, name: &str) -> Option<u32> {
        let id = self.find(name, &[kind::STRUCT, kind::UNION])?;
        Some(self.get(id)?.third)
    }

    /// Value of an enumerator, of whatever enum it is one, where the kernel itself has it.
    #[must_use]
    pub fn enum_value(&self, name: &str) -> Option<u32> {
        let name = self.base.string_at(name)?;
        self.base.types.iter().find_map(|at| {
            let ty = self.base.read(*at).filter(|ty| ty.kind == kind::ENUM)?;
            // struct btf_enum: name, value
            (0..ty.vlen)
                .map(|index| ty.at + 12 + index * 8)
                .find(|at| self.base.u32(*at) == Some(name))
                .and_then(|at| self.base.u32(at + 4))
        })
    }

    /// Parameter types of a function, spelled like `struct sock *`, where this kernel has
    /// the function as one of its own (not inlined everywhere).
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Vec<String>> {
        let id = self.find(name, &[kind::FUNC])?;
        let proto = self.get(id)?.third;
        self.parameters(Id {
            number: proto,
            ..id
        })
    }

    /// Parameter types of a tracepoint, from the typedef `btf_trace_NAME`, its leading
    /// `void *` left out.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let id = self.find(&format!("btf_trace_{name}"), &[kind::TYPEDEF])?;
        let pointer = self.strip(Id {
            number: self.get(id)?.third,
            ..id
        })?;
        let proto = self.get(pointer)?;
        if proto.kind != kind::PTR {
            return None;
        }
        let mut parameters = self.parameters(Id {
            number: proto.third,
            ..id
        })?;
        if parameters.is_empty() {
            return None;
        }
        parameters.remove(0);
        Some(parameters)
    }

    fn parameters(&self, id: Id<'_>) -> Option<Vec<String>> {
        let proto = self.get(id)?;
        if proto.kind != kind::FUNC_PROTO {
            return None;
        }
        (0..proto.vlen)
            .map(|index| {
                // struct btf_param: name, type
                let number = proto.blob.u32(proto.at + 12 + index * 8 + 4)?;
                Some(self.spell(Id { number, ..id }))
            })
            .collect()
    }

    /// How C would spell a type; `?` where the file does not say.
    fn spell(&self, id: Id<'_>) -> String {
        let mut stars = String::new();
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            if id.number == 0 {
                return format!("void{stars}");
            }
            let Some(ty) = self.get(id) else { break };
            let prefix = match ty.kind {
                kind::PTR => {
                    if stars.is_empty() {
                        stars.push(' ');
                    }
                    stars.push('*');
                    id.number = ty.third;
                    continue;
                }
                kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id.number = ty.third;
                    continue;
                }
                kind::UNION => "union ",
                kind::FWD if ty.kind_flag => "union ",
                kind::STRUCT | kind::FWD => "struct ",
                kind::ENUM | kind::ENUM64 => "enum ",
                _ => "",
            };
            let name = self.string(id, ty.name).unwrap_or("?");
            return format!("{prefix}{name}{stars}");
        }
        format!("?{stars}")
    }

    /// The first type of that name and of one of those kinds, in the kernel or a module.
    fn find(&self, name: &str, kinds: &[u32]) -> Option<Id<'_>> {
        if let Some(index) = self.base.find(name, kinds, 0) {
            return Some(Id {
                number: u32::try_from(index + 1).ok()?,
                module: None,
            });
        }
        let base_types = self.base.types.len();
        let base_strings = self.base.strings.len();
        // A module's type may use a name that the kernel's strings already hold.
        let base_name = self.base.string_at(name);
        self.modules.iter().find_map(|blob| {
            let index = match base_name {
                Some(offset) => blob.find_by_offset(offset, kinds),
                None => None,
            }
            .or_else(|| blob.find(name, kinds, base_strings))?;
            Some(Id {
                number: u32::try_from(base_types + index + 1).ok()?,
                module: Some(blob),
            })
        })
    }

    fn get<'a>(&'a self, id: Id<'a>) -> Option<Type<'a>> {
        let index = (id.number as usize).checked_sub(1)?;
        if let Some(at) = self.base.types.get(index) {
            return self.base.read(*at);
        }
        let blob = id.module?;
        blob.read(*blob.types.get(index - self.base.types.len())?)
    }

    fn string<'a>(&'a self, id: Id<'a>, offset: u32) -> Option<&'a str> {
        let offset = offset as usize;
        match id.module {
            Some(blob) if offset >= self.base.strings.len() => {
                blob.string(offset - self.base.strings.len())
            }
            _ => self.base.string(offset),
        }
        .filter(|name| !name.is_empty())
    }

    /// Skips typedefs and qualifiers.
    fn strip<'a>(&'a self, id: Id<'a>) -> Option<Id<'a>> {
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            let ty = self.get(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id.number = ty.third;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// Offset in bits and type of a member, looked for in anonymous members too.
    fn member(&self, id: Id<'_>, name: &str, depth: usize) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let id = self.strip(id)?;
        let ty = self.get(id)?;
        if !matches!(ty.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..ty.vlen {
            // struct btf_member: name, type, offset
            let at = ty.at + 12 + index * 12;
            let member_name = ty.blob.u32(at)?;
            let member_type = ty.blob.u32(at + 4)?;
            let mut offset = ty.blob.u32(at + 8)?;
            if ty.kind_flag {
                // The upper byte is the width of a bit field.
                offset &= 0x00ff_ffff;
            }
            match self.string(id, member_name) {
                Some(found) if found == name => return Some((offset, member_type)),
                Some(_) => {}
                None => {
                    let inner = Id {
                        number: member_type,
                        ..id
                    };
                    if let Some((more, of_type)) = self.member(inner, name, depth + 1) {
                        return Some((offset.checked_add(more)?, of_type));
                    }
                }
            }
        }
        None
    }
}

impl Blob {
    fn parse(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.len() >= HEADER_LEN, "shorter than a BTF header");
        let magic = u16::from_ne_bytes([bytes[0], bytes[1]]);
        ensure!(magic == MAGIC, "no BTF magic ({magic:#06x})");
        let word = |at: usize| -> Result<usize> {
            let word: [u8; 4] = bytes
                .get(at..at + 4)
                .and_then(|word| word.try_into().ok())
                .context("truncated header")?;
            Ok(u32::from_ne_bytes(word) as usize)
        };
        let header_len = word(4)?;
        let types_at = header_len + word(8)?;
        let types_end = types_at + word(12)?;
        let strings_at = header_len + word(16)?;
        let strings_end = strings_at + word(20)?;
        ensure!(
            types_end <= bytes.len() && strings_end <= bytes.len(),
            "truncated: sections end after the file"
        );
        let mut blob = Self {
            bytes,
            strings: strings_at..strings_end,
            types: Vec::new(),
        };
        let mut at = types_at;
        while at < types_end {
            let tail = blob.read(at).context("truncated type")?.tail_len()?;
            blob.types.push(at);
            at += 12 + tail;
        }
        ensure!(at == types_end, "types end in the middle of one");
        Ok(blob)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let word = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(word.try_into().ok()?))
    }

    fn read(&self, at: usize) -> Option<Type<'_>> {
        let name = self.u32(at)?;
        let info = self.u32(at + 4)?;
        let third = self.u32(at + 8)?;
        Some(Type {
            blob: self,
            at,
            name,
            kind: (info >> 24) & 0x1f,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            third,
        })
    }

    fn string(&self, offset: usize) -> Option<&str> {
        let strings = self.bytes.get(self.strings.clone())?;
        let text = strings.get(offset..)?;
        let end = memchr::memchr(0, text)?;
        std::str::from_utf8(&text[..end]).ok()
    }

    /// Where in the string section a whole string is. BTF keeps each string once.
    fn string_at(&self, name: &str) -> Option<u32> {
        let strings = self.bytes.get(self.strings.clone())?;
        let mut needle = Vec::with_capacity(name.len() + 2);
        needle.push(0);
        needle.extend_from_slice(name.as_bytes());
        needle.push(0);
        if let Some(at) = memmem::find(strings, &needle) {
            return u32::try_from(at + 1).ok();
        }
        // A module's section does not begin with the empty string.
        strings.starts_with(&needle[1..]).then_some(0)
    }

    fn find(&self, name: &str, kinds: &[u32], strings_before: usize) -> Option<usize> {
        let offset = self.string_at(name)? as usize + strings_before;
        self.find_by_offset(u32::try_from(offset).ok()?, kinds)
    }

    fn find_by_offset(&self, name: u32, kinds: &[u32]) -> Option<usize> {
        self.types.iter().position(|at| {
            self.u32(*at) == Some(name) && self.read(*at).is_some_and(|ty| kinds.contains(&ty.kind))
        })
    }
}

impl Type<'_> {
    /// Bytes that follow the common header.
    fn tail_len(&self) -> Result<usize> {
        Ok(match self.kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => self.vlen * 12,
            kind::ENUM | kind::FUNC_PROTO => self.vlen * 8,
            other => bail!("unknown kind {other}"),
        })
    }
}

#[cfg(test)]
mod tests;
