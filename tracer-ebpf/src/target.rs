//! What a program wants to connect to, read from the address it passes: the socket forgets it
//! when the call fails.

use turnaway_common::{
    Exemplar, FailureKey,
    failure::{UNIX_PATH_LEN, UNIX_PATH_ROOM, known},
};

use crate::kread::UserAddr;

pub(crate) const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_VSOCK: u16 = 40;

/// Where each family keeps its parts, and the least length the kernel takes (include/uapi:
/// linux/in.h, linux/in6.h, linux/un.h, linux/vm_sockets.h).
const IN_PORT: usize = 2;
const IN_ADDR: usize = 4;
const IN_LEN: u32 = 16;
const IN6_ADDR: usize = 8;
const IN6_LEN: u32 = 24;
const VM_PORT: usize = 4;
const VM_CID: usize = 8;
const VM_LEN: u32 = 16;
const SUN_PATH: usize = 2;

/// A `struct sockaddr` of a program's.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Where it is, or 0.
    pub(crate) address: u64,
    /// Its length.
    pub(crate) length: u32,
}

impl Target {
    /// `AF_*`, or 0.
    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        // `AF_UNSPEC` is 0 too, and ends a connection instead of making one.
        if self.length < size_of::<u16>() as u32 {
            return 0;
        }
        UserAddr::new(self.address)
            .and_then(UserAddr::read)
            .unwrap_or(0)
    }

    /// Fills in what a key has of a target, where it can be read.
    #[inline(always)]
    pub(crate) fn read_into(self, key: &mut FailureKey) -> Option<()> {
        let from = UserAddr::new(self.address)?;
        let to = key.target_addr.as_mut_ptr();
        match self.family() {
            AF_INET if self.length >= IN_LEN => {
                key.target_port = u32::from(u16::from_be(from.at(IN_PORT).read()?));
                from.at(IN_ADDR).copy_to(to, 4).then_some(())?;
                key.target_family = AF_INET;
            }
            AF_INET6 if self.length >= IN6_LEN => {
                key.target_port = u32::from(u16::from_be(from.at(IN_PORT).read()?));
                from.at(IN6_ADDR).copy_to(to, 16).then_some(())?;
                key.target_family = AF_INET6;
            }
            AF_VSOCK if self.length >= VM_LEN => {
                key.target_port = from.at(VM_PORT).read()?;
                from.at(VM_CID).copy_to(to, 4).then_some(())?;
                key.target_family = AF_VSOCK;
            }
            AF_UNIX => {
                let hash = hash(from.at(SUN_PATH), self.name_length()?);
                // SAFETY: 16 bytes, of no alignment that is known.
                unsafe { to.cast::<[u64; 2]>().write_unaligned(hash) };
                key.target_family = AF_UNIX;
            }
            _ => {}
        }
        Some(())
    }

    /// Fills in the path of an AF_UNIX target.
    #[inline(always)]
    pub(crate) fn read_path(self, out: &mut Exemplar) {
        if out.key.target_family != AF_UNIX {
            return;
        }
        let (Some(from), Some(length)) = (UserAddr::new(self.address), self.name_length()) else {
            return;
        };
        // As in `facts::read_path`.
        let bounded = core::hint::black_box(length) & (UNIX_PATH_ROOM as u32 - 1);
        if from.at(SUN_PATH).copy_to(out.path.as_mut_ptr(), bounded) {
            out.path_len = length;
            out.listener.known |= known::TARGET_PATH;
        }
    }

    #[inline(always)]
    fn name_length(self) -> Option<u32> {
        let length = self.length.wrapping_sub(SUN_PATH as u32);
        (length <= UNIX_PATH_LEN as u32).then_some(length)
    }
}

/// Two hashes of the name of an AF_UNIX socket. A path ends at its first NUL, an abstract name
/// where its length says.
#[inline(always)]
fn hash(name: UserAddr, length: u32) -> [u64; 2] {
    const WORD: usize = size_of::<u64>();
    const WORDS: usize = UNIX_PATH_LEN.div_ceil(WORD);
    const ONES: u64 = u64::MAX / 0xff;
    // Odd numbers whose bits are many and in no order (the golden ratio's, and murmur3's).
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const SECOND: u64 = 0xff51_afd7_ed55_8ccd;
    let mut hash = [u64::from(length == 0), 0];
    let mut is_path = true;
    let mut index = 0;
    while index < WORDS {
        let at = index * WORD;
        if at as u32 >= length {
            break;
        }
        // What follows the name is the program's too, nearly always.
        let mut word: u64 = name.at(at).read().unwrap_or(0);
        let left = length - at as u32;
        if left < WORD as u32 {
            word &= (1 << (left * 8)) - 1;
        }
        if index == 0 {
            is_path = word & 0xff != 0;
        }
        // The lowest bit that is set is the top one of the first byte that is NUL.
        let nul = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if is_path && nul != 0 {
            word &= ((nul & nul.wrapping_neg()) >> 7) - 1;
        }
        hash[0] = (hash[0].rotate_left(29) ^ word).wrapping_mul(FIRST);
        hash[1] = (hash[1] ^ (word >> 32) ^ (word << 32)).wrapping_mul(SECOND);
        hash[1] ^= hash[1] >> 33;
        if is_path && nul != 0 {
            break;
        }
        index += 1;
    }
    hash
}
