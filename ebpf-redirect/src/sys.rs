//! The bpf(2) calls that aya has no safe interface for: pins, links that outlive their process, single
//! elements of maps whose keys and values are this project's. Nothing but the calls lives here; what
//! they mean is said in `table.rs`, `attach.rs` and `maps.rs`.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Opens what is pinned at a path.
pub(crate) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..ObjectAttr::default() };
    // SAFETY: `attr` is what OBJ_GET takes, and the path outlives the call.
    unsafe { bpf_fd(OBJ_GET, &mut attr) }
}

/// Pins a map or a link at a path, which must be free.
pub(crate) fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: number(object), flags: 0 };
    // SAFETY: `attr` is what OBJ_PIN takes, and the path outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

/// Attaches a program to a cgroup or a network namespace for as long as the link lives.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr =
        LinkCreateAttr { program: number(program), target: number(target), attach_type, flags: 0 };
    // SAFETY: `attr` is what LINK_CREATE takes.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

/// Attaches a program to an interface, after those that are there.
pub(crate) fn link_create_on(
    program: BorrowedFd<'_>,
    interface: u32,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr =
        LinkCreateAttr { program: number(program), target: interface, attach_type, flags: 0 };
    // SAFETY: `attr` is what LINK_CREATE takes.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

/// Puts another program in a link's place at once.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr =
        LinkUpdateAttr { link: number(link), program: number(program), flags: 0, old: 0 };
    // SAFETY: `attr` is what LINK_UPDATE takes.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

/// Makes a link let go of what it is attached to, before this returns; without it, that happens some
/// time after the last who has the link has closed it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr { link: number(link) };
    // SAFETY: `attr` is what LINK_DETACH takes.
    unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
}

/// Attaches a program to a map of sockets, in the place of the one that is there: those that are enrolled
/// keep theirs. It stays as long as the map.
pub(crate) fn program_attach(
    program: BorrowedFd<'_>,
    map: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target: number(map),
        program: number(program),
        attach_type,
        ..AttachAttr::default()
    };
    // SAFETY: `attr` is what PROG_ATTACH takes.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// What a link holds on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// The cgroup with this id.
    Cgroup(u64),
    /// The network namespace with this inode number.
    Namespace(u32),
    /// The interface with this number.
    Interface(u32),
    /// It is gone; the program is called no more.
    Gone,
    /// A link of a kind that is not made here.
    Other(u32),
}

/// Asks a link what it holds on to.
pub(crate) fn link_target(link: BorrowedFd<'_>) -> io::Result<LinkTarget> {
    let mut info = LinkInfo::default();
    // SAFETY: any bytes are a `LinkInfo`.
    unsafe { object_info(link, &mut info)? };
    let [low, high] = info.target;
    Ok(match info.kind {
        LINK_CGROUP if low == 0 && high == 0 => LinkTarget::Gone,
        LINK_NETNS | LINK_TCX if low == 0 => LinkTarget::Gone,
        LINK_CGROUP => LinkTarget::Cgroup(u64::from_ne_bytes(words(low, high))),
        LINK_NETNS => LinkTarget::Namespace(low),
        LINK_TCX => LinkTarget::Interface(low),
        other => LinkTarget::Other(other),
    })
}

/// Kind and sizes of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapInfo {
    /// One of [`map_kind`].
    pub(crate) kind: u32,
    /// The kernel's number for it.
    pub(crate) id: u32,
    /// Bytes of a key.
    pub(crate) key_size: u32,
    /// Bytes of a value.
    pub(crate) value_size: u32,
    /// Entries there is room for.
    pub(crate) max_entries: u32,
    /// Flags it was made with.
    pub(crate) flags: u32,
}

/// Asks a map what it is.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    // SAFETY: any bytes are a `MapInfo`.
    unsafe { object_info(map, &mut info)? };
    Ok(info)
}

/// Makes a map; `id` of what is wanted is not looked at.
pub(crate) fn map_create(wanted: &MapInfo, name: &str) -> io::Result<OwnedFd> {
    let mut attr = MapCreateAttr {
        kind: wanted.kind,
        key_size: wanted.key_size,
        value_size: wanted.value_size,
        max_entries: wanted.max_entries,
        flags: wanted.flags,
        ..MapCreateAttr::default()
    };
    let room = attr.name.len() - 1;
    for (to, from) in attr.name[..room].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: `attr` is what MAP_CREATE takes.
    unsafe { bpf_fd(MAP_CREATE, &mut attr) }
}

/// Opens a map by the kernel's number for it; takes CAP_SYS_ADMIN.
pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = ByIdAttr { id, next: 0, flags: 0 };
    // SAFETY: `attr` is what MAP_GET_FD_BY_ID takes.
    unsafe { bpf_fd(MAP_GET_FD_BY_ID, &mut attr) }
}

/// Copies the value of a key to `value`.
///
/// # Safety
/// `key` and `value` point to as many bytes as the map's keys and values have.
pub(crate) unsafe fn map_lookup(
    map: BorrowedFd<'_>,
    key: *const u8,
    value: *mut u8,
) -> io::Result<()> {
    let mut attr = ElementAttr::new(map, key, value as u64, 0);
    // SAFETY: the caller's promise.
    unsafe { bpf(MAP_LOOKUP, &mut attr) }.map(drop)
}

/// Writes an entry.
///
/// # Safety
/// As of [`map_lookup`].
pub(crate) unsafe fn map_update(
    map: BorrowedFd<'_>,
    key: *const u8,
    value: *const u8,
    flags: u64,
) -> io::Result<()> {
    let mut attr = ElementAttr::new(map, key, value as u64, flags);
    // SAFETY: the caller's promise.
    unsafe { bpf(MAP_UPDATE, &mut attr) }.map(drop)
}

/// Removes an entry.
///
/// # Safety
/// `key` points to as many bytes as the map's keys have.
pub(crate) unsafe fn map_delete(map: BorrowedFd<'_>, key: *const u8) -> io::Result<()> {
    let mut attr = ElementAttr::new(map, key, 0, 0);
    // SAFETY: the caller's promise.
    unsafe { bpf(MAP_DELETE, &mut attr) }.map(drop)
}

/// Copies the key that comes after another one, or the first one after null.
///
/// # Safety
/// `next`, and `key` unless it is null, point to as many bytes as the map's keys have.
pub(crate) unsafe fn map_next_key(
    map: BorrowedFd<'_>,
    key: *const u8,
    next: *mut u8,
) -> io::Result<()> {
    let mut attr = ElementAttr::new(map, key, next as u64, 0);
    // SAFETY: the caller's promise.
    unsafe { bpf(MAP_NEXT_KEY, &mut attr) }.map(drop)
}

/// Writes many entries with one call; those before the one that fails stay.
///
/// # Safety
/// `keys` and `values` point to `count` times as many bytes as the map's keys and values have.
pub(crate) unsafe fn map_update_batch(
    map: BorrowedFd<'_>,
    keys: *const u8,
    values: *const u8,
    count: u32,
) -> io::Result<()> {
    let mut attr = BatchAttr {
        keys: keys as u64,
        values: values as u64,
        count,
        map: number(map),
        ..BatchAttr::default()
    };
    // SAFETY: the caller's promise.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) }.map(drop)
}

/// The cookie of the network namespace that a socket is in.
pub(crate) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the option is 8 bytes, and there is room for them.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Has all that a socket sends carry a mark; what it accepts inherits it.
pub(crate) fn set_mark(socket: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    // SAFETY: the option is 4 bytes, and they are there.
    let result = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_MARK);
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const mark).cast(), 4)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits until programs that run now have ended.
pub(crate) fn wait_for_programs() {
    // SAFETY: the call takes no pointers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
    if waited != 0 {
        // Not everywhere; but programs run for microseconds.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Asks about a map or a link.
///
/// # Safety
/// Any bytes are a `T`.
unsafe fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let length = u32::try_from(size_of::<T>()).map_err(|_| invalid())?;
    let mut attr = InfoAttr { fd: number(object), length, info: std::ptr::from_mut(info) as u64 };
    // SAFETY: `attr` is what OBJ_GET_INFO_BY_FD takes, and the kernel writes no more than `length`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// # Safety
/// `attr` is what the command takes, with pointers that are valid for it; it answers with a descriptor.
unsafe fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; what the kernel returns is open and nobody else's.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// # Safety
/// `attr` is what the command takes, with pointers that are valid for it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes no more than the size it is told.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(|_| invalid())
}

fn invalid() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor that is borrowed is open, so not negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn words(low: u32, high: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old: u32,
}

#[repr(C)]
struct LinkDetachAttr {
    link: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// A cgroup's id (8 bytes); or a network namespace's inode number, or an interface's (4), and the
    /// attach type.
    target: [u32; 2],
    rest: [u32; 2],
}

#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct ByIdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElementAttr {
    fn new(map: BorrowedFd<'_>, key: *const u8, value: u64, flags: u64) -> Self {
        Self { map: number(map), pad: 0, key: key as u64, value, flags }
    }
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

// include/uapi/linux/bpf.h, `enum bpf_cmd`
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const MAP_NEXT_KEY: libc::c_long = 4;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_ATTACH: libc::c_long = 8;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

// `enum bpf_link_type`
const LINK_CGROUP: u32 = 3;
const LINK_NETNS: u32 = 5;
const LINK_TCX: u32 = 11;

/// Refuse to replace an entry that exists.
pub(crate) const NO_EXIST: u64 = 1;
/// Entries are allocated as they come.
pub(crate) const NO_PREALLOC: u32 = 1;

/// `enum bpf_map_type`.
pub(crate) mod map_kind {
    pub(crate) const HASH: u32 = 1;
    pub(crate) const PER_CPU_ARRAY: u32 = 6;
    pub(crate) const LRU_HASH: u32 = 9;
    pub(crate) const LPM_TRIE: u32 = 11;
    pub(crate) const ARRAY_OF_MAPS: u32 = 12;
    pub(crate) const HASH_OF_MAPS: u32 = 13;
    pub(crate) const SOCKMAP: u32 = 15;
    pub(crate) const SOCKHASH: u32 = 18;
    pub(crate) const SK_STORAGE: u32 = 24;
    pub(crate) const RING_BUFFER: u32 = 27;
}

/// `enum bpf_attach_type`.
pub(crate) mod attach_type {
    pub(crate) const SOCK_CREATE: u32 = 2;
    pub(crate) const SOCK_OPS: u32 = 3;
    pub(crate) const SK_SKB_STREAM_VERDICT: u32 = 5;
    pub(crate) const SK_MSG_VERDICT: u32 = 7;
    pub(crate) const CONNECT4: u32 = 10;
    pub(crate) const CONNECT6: u32 = 11;
    pub(crate) const POST_BIND4: u32 = 12;
    pub(crate) const POST_BIND6: u32 = 13;
    pub(crate) const SENDMSG4: u32 = 14;
    pub(crate) const SENDMSG6: u32 = 15;
    pub(crate) const RECVMSG4: u32 = 19;
    pub(crate) const RECVMSG6: u32 = 20;
    pub(crate) const GETSOCKOPT: u32 = 21;
    pub(crate) const SETSOCKOPT: u32 = 22;
    pub(crate) const GETPEERNAME4: u32 = 29;
    pub(crate) const GETPEERNAME6: u32 = 30;
    pub(crate) const SOCK_RELEASE: u32 = 34;
    pub(crate) const SK_LOOKUP: u32 = 36;
    pub(crate) const TCX_INGRESS: u32 = 46;
    pub(crate) const TCX_EGRESS: u32 = 47;
}

/// `enum membarrier_cmd`: waits for what the kernel calls a grace period, in which programs run.
const MEMBARRIER_GLOBAL: libc::c_int = 1;
/// `asm-generic/socket.h`, since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
