//! How deep the stack of each eBPF program gets, read off its instructions. Pure.
//!
//! The kernel allows 512 bytes for a program and the functions that it calls, one within the other, each rounded up to
//! 32 (`check_max_stack_depth` in kernel/bpf/verifier.c; 16 since 6.9 where programs are compiled).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind,
};

/// Most bytes that the kernel allows.
pub const MOST: u32 = 512;
const ROUNDED_TO: u32 = 32;

const INSTRUCTION: usize = 8;
/// The same, for jumps.
const STEP: i64 = 8;
/// Opcodes of `struct bpf_insn`, whole or their class, and the source register of a call within the object.
const CALL: u8 = 0x85;
const ADD: u8 = 0x07;
const MOVE: u8 = 0xbf;
const CLASS: u8 = 7;
const LOAD: u8 = 1;
const STORE: u8 = 2;
const STORE_REGISTER: u8 = 3;
const PSEUDO_CALL: u8 = 1;
const FRAME: u8 = 10;

/// A function's own frame, and what it calls.
#[derive(Debug, Default)]
struct Function {
    name: String,
    frame: u32,
    calls: Vec<Place>,
}

/// Number of a section, and byte in it.
type Place = (usize, u64);

/// Bytes of stack by program, of an object that `cargo xtask build-ebpf` made.
pub fn depths(object: &[u8]) -> Result<BTreeMap<String, u32>> {
    let file = object::File::parse(object).context("the eBPF object cannot be read")?;
    let mut functions = BTreeMap::new();
    for symbol in file.symbols() {
        if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        let index = symbol.section_index().context("a function is nowhere")?;
        let name = symbol.name()?.to_owned();
        let function = function(&file, index, symbol.address(), symbol.size())
            .with_context(|| name.clone())?;
        functions.insert((index.0, symbol.address()), Function { name, ..function });
    }
    let text = file.section_by_name(".text").map(|text| text.index().0);
    functions
        .iter()
        .filter(|((section, _), _)| Some(*section) != text)
        .map(|(place, function)| Ok((function.name.clone(), depth(&functions, *place, 0)?)))
        .collect()
}

fn function(
    file: &object::File<'_>,
    index: SectionIndex,
    from: u64,
    size: u64,
) -> Result<Function> {
    let section = file.section_by_index(index)?;
    let (start, end) = (usize::try_from(from)?, usize::try_from(from + size)?);
    let code = section.data()?.get(start..end).context("it is cut off")?;
    let moved: BTreeMap<u64, RelocationTarget> = section
        .relocations()
        .map(|(at, relocation)| (at, relocation.target()))
        .collect();
    let mut calls = Vec::new();
    for (number, one) in code.chunks_exact(INSTRUCTION).enumerate() {
        let at = from + (number * INSTRUCTION) as u64;
        let immediate = i32::from_le_bytes([one[4], one[5], one[6], one[7]]);
        if one[0] != CALL || one[1] >> 4 != PSEUDO_CALL {
            continue;
        }
        calls.push(match moved.get(&at) {
            Some(RelocationTarget::Symbol(symbol)) => {
                let symbol = file.symbol_by_index(*symbol)?;
                let section = symbol.section_index().context("it calls what is nowhere")?;
                // The symbol may be the section's own; the rest is in the instruction.
                let within = (i64::from(immediate) + 1) * STEP;
                (section.0, symbol.address().wrapping_add_signed(within))
            }
            Some(_) => bail!("a call goes to what is no symbol"),
            None => {
                let next = at + INSTRUCTION as u64;
                let by = i64::from(immediate) * STEP;
                (index.0, next.wrapping_add_signed(by))
            }
        });
    }
    Ok(Function {
        frame: frame(code),
        calls,
        ..Function::default()
    })
}

/// The lowest byte below its frame that a function reads, writes or takes the address of.
fn frame(code: &[u8]) -> u32 {
    let mut lowest = 0;
    let mut copy_of_frame = None;
    for one in code.chunks_exact(INSTRUCTION) {
        let (destination, source) = (one[1] & 0xf, one[1] >> 4);
        let offset = i16::from_le_bytes([one[2], one[3]]);
        let immediate = i32::from_le_bytes([one[4], one[5], one[6], one[7]]);
        let below = match one[0] & CLASS {
            // Loads and stores: relative to the register that holds the address.
            LOAD if source == FRAME => -i32::from(offset),
            STORE | STORE_REGISTER if destination == FRAME => -i32::from(offset),
            // `r = frame; r += -N`: an address on the stack, to hand out.
            _ if one[0] == ADD && copy_of_frame == Some(destination) => immediate.saturating_neg(),
            _ => 0,
        };
        copy_of_frame = (one[0] == MOVE && source == FRAME).then_some(destination);
        lowest = lowest.max(u32::try_from(below).unwrap_or(0));
    }
    lowest
}

fn depth(functions: &BTreeMap<Place, Function>, place: Place, within: usize) -> Result<u32> {
    // The kernel allows 8 frames.
    ensure!(within < 8, "functions call each other too deeply");
    let function = functions
        .get(&place)
        .context("it calls what is no function")?;
    let own = function.frame.max(1).next_multiple_of(ROUNDED_TO);
    let mut most = 0;
    for called in &function.calls {
        most =
            most.max(depth(functions, *called, within + 1).with_context(|| function.name.clone())?);
    }
    Ok(own + most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{MOST_STACK, object};

    #[test]
    fn frames_are_read_off_loads_stores_and_addresses() {
        let store = [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0]; // *(u64 *)(r10 - 8) = r1
        let load = [0x79, 0xa1, 0xe8, 0xff, 0, 0, 0, 0]; // r1 = *(u64 *)(r10 - 24)
        let copy = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]; // r2 = r10
        let add = [0x07, 2, 0, 0, 0xc0, 0xff, 0xff, 0xff]; // r2 += -64
        let elsewhere = [0x79, 0x21, 0x80, 0xff, 0, 0, 0, 0]; // r1 = *(u64 *)(r2 - 128)
        assert_eq!(frame(&[store, elsewhere, add].concat()), 8);
        assert_eq!(frame(&[store, load].concat()), 24);
        assert_eq!(frame(&[store, copy, add, elsewhere].concat()), 64);
    }

    #[test]
    fn calls_add_up_and_frames_are_rounded() {
        let function = |frame, calls| Function {
            name: String::new(),
            frame,
            calls,
        };
        let functions = BTreeMap::from([
            ((1, 0), function(40, vec![(2, 0), (2, 80)])),
            ((2, 0), function(0, vec![])),
            ((2, 80), function(8, vec![(2, 160)])),
            ((2, 160), function(33, vec![])),
        ]);
        assert_eq!(depth(&functions, (1, 0), 0).unwrap(), 64 + 32 + 64);
        assert!(depth(&functions, (3, 0), 0).is_err());
    }

    #[test]
    fn every_program_is_well_within_what_the_kernel_allows() {
        let depths =
            depths(&std::fs::read(object()).expect("`cargo xtask test` builds it")).unwrap();
        assert!(depths.len() > 60, "{depths:?}");
        println!("{:?}", depths.iter().max_by_key(|(_, depth)| **depth));
        // They hold keys on it.
        assert!(depths["accept_fexit"] >= 64, "{depths:?}");
        let deep: Vec<_> = depths
            .iter()
            .filter(|(_, depth)| **depth > MOST_STACK)
            .collect();
        assert!(deep.is_empty(), "of {MOST_STACK}: {deep:?}");
    }
}
