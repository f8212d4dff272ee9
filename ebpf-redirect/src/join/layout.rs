//! Where the running kernel keeps what programs look at in its own structures of a TCP socket. It differs
//! between kernels, and each describes itself (BTF).

use std::fs;
use std::io;

use portreeve_ebpf_common::KernelLayout;

/// Asks the kernel.
pub(crate) fn read() -> io::Result<KernelLayout> {
    let bytes = fs::read(VMLINUX)?;
    let types = Types::parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    find(&types).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn find(types: &Types<'_>) -> Option<KernelLayout> {
    let sock = types.named("sock")?;
    let member = |of, name| types.member(of, name).map(|(offset, _)| offset);
    // A `struct sock` begins with it.
    let common = types.named("sock_common")?;
    let (backlog, inner) = types.member(sock, "sk_backlog")?;
    Some(KernelLayout {
        write_seq: member(types.named("tcp_sock")?, "write_seq")?,
        rmem_alloc: backlog + member(inner, "rmem_alloc")?,
        sock_flags: member(common, "skc_flags")?,
        zerocopy: types.value("sock_flags", "SOCK_ZEROCOPY")?,
        socket: member(sock, "sk_socket")?,
        file: member(types.named("socket")?, "file")?,
        file_flags: member(types.named("file")?, "f_flags")?,
        control: member(types.named("sk_buff")?, "cb")?,
    })
}

/// The types a kernel tells of (Documentation/bpf/btf.rst).
struct Types<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// Where each type is described, by its number; number 0 is none.
    places: Vec<usize>,
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = |at| word(bytes, at).map(|word| word as usize);
        if word(bytes, 0)? & 0xffff != MAGIC {
            return None;
        }
        let [start, from, length, strings, strings_length] =
            [header(4)?, header(8)?, header(12)?, header(16)?, header(20)?];
        let strings = bytes.get(start + strings..)?.get(..strings_length)?;
        let bytes = bytes.get(start + from..)?.get(..length)?;
        let mut places = vec![0];
        let mut at = 0;
        while at < bytes.len() {
            places.push(at);
            let info = word(bytes, at + 4)?;
            at += 12 + tail(info)?;
        }
        Some(Self { bytes, strings, places })
    }

    /// The structure of this name.
    fn named(&self, name: &str) -> Option<usize> {
        self.of_kind(STRUCT, name)
    }

    fn of_kind(&self, wanted: u32, name: &str) -> Option<usize> {
        (1..self.places.len()).find(|&number| {
            self.info(number).is_some_and(|info| kind(info) == wanted)
                && self.name(self.places[number]) == Some(name.as_bytes())
        })
    }

    /// A value of an enumeration.
    fn value(&self, enumeration: &str, name: &str) -> Option<u32> {
        let number = self.of_kind(ENUM, enumeration)?;
        let start = self.places[number] + 12;
        (0..self.info(number)? as usize & 0xffff).map(|index| start + 8 * index).find_map(|at| {
            (self.name(at)? == name.as_bytes()).then(|| word(self.bytes, at + 4)).flatten()
        })
    }

    /// Where a structure has a member, in bytes, and of which type it is. Members of what has no name
    /// itself are the structure's.
    fn member(&self, number: usize, name: &str) -> Option<(u32, usize)> {
        let info = self.info(number)?;
        if !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        let start = self.places[number] + 12;
        (0..info & 0xffff).find_map(|index| {
            let at = start + 12 * index as usize;
            let of = word(self.bytes, at + 4)? as usize;
            let bits = word(self.bytes, at + 8)?;
            // The upper 8 bits are the width of a bit field.
            let offset = if info >> 31 == 0 { bits } else { bits & 0x00ff_ffff } / 8;
            match self.name(at)? {
                found if found == name.as_bytes() => Some((offset, of)),
                [] => self.member(of, name).map(|(inner, of)| (offset + inner, of)),
                _ => None,
            }
        })
    }

    fn info(&self, number: usize) -> Option<u32> {
        word(self.bytes, self.places.get(number)? + 4)
    }

    fn name(&self, at: usize) -> Option<&'a [u8]> {
        let rest = self.strings.get(word(self.bytes, at)? as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Bytes that follow the common part of a type's description.
fn tail(info: u32) -> Option<usize> {
    let count = info as usize & 0xffff;
    Some(match kind(info) {
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Pointers, forward declarations, names, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        ARRAY => 12,
        STRUCT | UNION | DATA_SECTION | ENUM64 => 12 * count,
        ENUM | PROTOTYPE => 8 * count,
        _ => return None,
    })
}

const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const PROTOTYPE: u32 = 13;
const DATA_SECTION: u32 = 15;
const ENUM64: u32 = 19;

const MAGIC: u32 = 0xeb9f;
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

#[cfg(test)]
mod tests {
    use super::*;

    /// ```c
    /// struct sock_common { int family; int skc_flags; };
    /// struct sock { struct sock_common c; struct { int rmem_alloc; } sk_backlog; int sk_socket; };
    /// struct tcp_sock { struct sock sk; union { int write_seq; }; };
    /// struct socket { int state; int file; };
    /// struct file { int f_flags; };
    /// struct sk_buff { int family; int cb; };
    /// enum sock_flags { SOCK_DEAD, SOCK_ZEROCOPY = 9 };
    /// ```
    fn described() -> Vec<u8> {
        let names = b"\0int\0sock\0family\0sk_backlog\0rmem_alloc\0tcp_sock\0sk\0write_seq\0\
            skc_flags\0sk_socket\0sock_common\0c\0socket\0state\0file\0f_flags\0sock_flags\0sk_buff\0cb\0SOCK_DEAD\0SOCK_ZEROCOPY\0";
        let name = |wanted: &str| {
            let with_end = [wanted.as_bytes(), b"\0"].concat();
            let at = names.windows(with_end.len()).position(|window| window == with_end);
            u32::try_from(at.expect("a name")).expect("a small number")
        };
        let common =
            |name: u32, kind: u32, count: u32, size: u32| vec![name, kind << 24 | count, size];
        let mut words = Vec::new();
        words.extend([common(name("int"), 1, 0, 4), vec![32]].concat());
        words.extend([common(0, STRUCT, 1, 4), vec![name("rmem_alloc"), 1, 0]].concat());
        let members = vec![name("c"), 6, 0, name("sk_backlog"), 2, 64, name("sk_socket"), 1, 96];
        words.extend([common(name("sock"), STRUCT, 3, 16), members].concat());
        words.extend([common(0, UNION, 1, 4), vec![name("write_seq"), 1, 0]].concat());
        let members = vec![name("sk"), 3, 0, 0, 4, 128];
        words.extend([common(name("tcp_sock"), STRUCT, 2, 20), members].concat());
        let members = vec![name("family"), 1, 0, name("skc_flags"), 1, 32];
        words.extend([common(name("sock_common"), STRUCT, 2, 8), members].concat());
        let members = vec![name("state"), 1, 0, name("file"), 1, 32];
        words.extend([common(name("socket"), STRUCT, 2, 8), members].concat());
        words.extend([common(name("file"), STRUCT, 1, 4), vec![name("f_flags"), 1, 0]].concat());
        let members = vec![name("family"), 1, 0, name("cb"), 1, 32];
        words.extend([common(name("sk_buff"), STRUCT, 2, 8), members].concat());
        let values = vec![name("SOCK_DEAD"), 0, name("SOCK_ZEROCOPY"), 9];
        words.extend([common(name("sock_flags"), ENUM, 2, 4), values].concat());
        let length = u32::try_from(words.len() * 4).expect("a small number");
        let strings = u32::try_from(names.len()).expect("a small number");
        let header = [MAGIC | 1 << 16, 24, 0, length, length, strings];
        let words = header.iter().chain(&words).flat_map(|word| word.to_ne_bytes());
        words.chain(names.iter().copied()).collect()
    }

    #[test]
    fn members_are_found_where_they_are_described() {
        let bytes = described();
        let types = Types::parse(&bytes).expect("types");
        let expected = KernelLayout {
            write_seq: 16,
            rmem_alloc: 8,
            sock_flags: 4,
            zerocopy: 9,
            socket: 12,
            file: 4,
            file_flags: 0,
            control: 4,
        };
        assert_eq!(find(&types), Some(expected));
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_refused() {
        let bytes = described();
        for length in 0..bytes.len() {
            let found = Types::parse(&bytes[..length]);
            assert_eq!(found.and_then(|types| find(&types)), None, "{length} bytes");
        }
        assert!(Types::parse(&[0; 64]).is_none());
    }

    #[test]
    fn this_kernel_describes_itself() {
        if !std::path::Path::new(VMLINUX).exists() {
            return;
        }
        let layout = super::read().expect("a layout");
        assert!(layout.write_seq > layout.rmem_alloc && layout.zerocopy < 32, "{layout:?}");
    }
}
