//! Checks a data file before LMDB maps it. LMDB trusts its file: a truncated file kills the process with SIGBUS, a page
//! of the wrong kind with a failed assertion. Here every page of the newest snapshot is read with `pread` and its form
//! is checked, so that damage is reported as one clear sentence instead.
//!
//! Format (LMDB data version 1, numbers in the machine's byte order): pages 0 and 1 are meta pages; the one with the
//! higher transaction number is in force and contains the roots of two B+trees, free pages and tables; a table is a
//! leaf node that contains the root of a further tree. A page in use is never changed in place, so other processes may
//! write meanwhile: a fault is reported only if the snapshot in force stayed the same.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::error::{StoreError, io_error};

/// Checks the file; a missing one is left for LMDB to create.
pub(super) fn verify(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error, path)),
    };
    if file.metadata().map_err(|source| io_error(source, path))?.len() == 0 {
        return Err(StoreError::Corrupt { path: path.into(), detail: "it is empty (0 bytes)".into() });
    }
    let mut fault: Option<(u64, String)> = None;
    for _ in 0..TRIES {
        let again = match Snapshot::newest(&file) {
            Ok(snapshot) => match snapshot.check(&file) {
                Ok(()) => return Ok(()),
                Err(detail) => (snapshot.transaction, detail),
            },
            // Without a snapshot there is no number; two tries must agree on that, too.
            Err(detail) => (u64::MAX, detail),
        };
        if fault.as_ref().is_some_and(|(transaction, _)| *transaction == again.0) {
            return Err(StoreError::Corrupt { path: path.into(), detail: again.1 });
        }
        fault = Some(again);
    }
    // Another process commits faster than pages are read. It has the store open, so the store is valid.
    Ok(())
}

/// How often to try to see one snapshot twice.
const TRIES: usize = 10;
/// Longest path from a root to a leaf, tables included: two trees of LMDB's own bound of 32.
const LEVELS_MAX: u16 = 64;
const HEADER_BYTES: usize = 16;
const NODE_BYTES: usize = 8;
const TREE_BYTES: usize = 48;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
/// With the kinds of page (`P_LEAF2`, `P_SUBP`) that only tables with duplicates have; there are none.
const KINDS: u16 = 0x6F;
const BIG_DATA: u16 = 1;
const SUB_TREE: u16 = 2;
const NO_ROOT: u64 = u64::MAX;

type Fault = String;

fn word16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]))
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The content of a meta page.
struct Snapshot {
    transaction: u64,
    page_bytes: usize,
    last_page: u64,
    trees: [Tree; 2],
}

/// Root, depth and kind of a B+tree.
#[derive(Clone, Copy)]
struct Tree {
    root: u64,
    depth: u16,
    flags: u16,
}

impl Tree {
    /// From LMDB's record of a tree.
    fn decode(bytes: &[u8]) -> Self {
        Self { root: word64(bytes, 40), depth: word16(bytes, 6) as u16, flags: word16(bytes, 4) as u16 }
    }
}

impl Snapshot {
    fn newest(file: &File) -> Result<Self, Fault> {
        let first = Self::read(file, 0)?;
        let second = Self::read(file, first.page_bytes as u64)?;
        let (page, newest) = if second.transaction > first.transaction { (1, second) } else { (0, first) };
        // Transactions write the two pages in turn, and LMDB reads the page given by the transaction number, not the
        // newest.
        if newest.transaction % 2 != page {
            return Err(format!("meta page {page} is of transaction {}, which writes the other", newest.transaction));
        }
        Ok(newest)
    }

    fn read(file: &File, at: u64) -> Result<Self, Fault> {
        let mut page = [0; HEADER_BYTES + 136];
        file.read_exact_at(&mut page, at).map_err(|error| format!("its meta pages: {error}"))?;
        let meta = &page[HEADER_BYTES..];
        let page_bytes = word32(meta, 24) as usize;
        let known = word32(meta, 0) == 0xBEEF_C0DE && word32(meta, 4) == 1;
        if !known || !page_bytes.is_power_of_two() || !(512..=32_768).contains(&page_bytes) {
            return Err("it has no meta page of LMDB".into());
        }
        Ok(Self {
            transaction: word64(meta, 128),
            page_bytes,
            last_page: word64(meta, 120),
            trees: [Tree::decode(&meta[24..]), Tree::decode(&meta[24 + TREE_BYTES..])],
        })
    }

    fn check(&self, file: &File) -> Result<(), Fault> {
        let file_bytes = file.metadata().map_err(|error| format!("its length: {error}"))?.len();
        // The file itself declares its last page: a wrong value must not make the walk long.
        let pages_left = self.last_page.min(file_bytes / self.page_bytes as u64);
        let mut walk = Walk { file, snapshot: self, pages_left, levels: 0 };
        self.trees.iter().try_for_each(|tree| walk.tree(*tree))
    }
}

struct Walk<'a> {
    file: &'a File,
    snapshot: &'a Snapshot,
    /// Every page is reached at most once: more would be a loop.
    pages_left: u64,
    /// Pages between a root and this one, across nested trees: this bounds the recursion.
    levels: u16,
}

impl Walk<'_> {
    fn tree(&mut self, tree: Tree) -> Result<(), Fault> {
        match (tree.root, tree.depth) {
            (NO_ROOT, _) => Ok(()),
            (root, 1..=LEVELS_MAX) => self.page(root, tree.depth),
            (_, depth) => Err(format!("a tree of depth {depth}")),
        }
    }

    /// Checks a page and all pages below it.
    fn page(&mut self, number: u64, depth: u16) -> Result<(), Fault> {
        let fault = |what: &str| format!("page {number} {what}");
        if self.levels == LEVELS_MAX {
            return Err(fault("is nested too deeply"));
        }
        self.levels += 1;
        let page = self.read(number)?;
        let kind = if depth > 1 { BRANCH } else { LEAF };
        if word16(&page, 10) as u16 & KINDS != kind {
            return Err(fault("is of the wrong kind"));
        }
        let (lower, upper) = (word16(&page, 12), word16(&page, 14));
        if !(HEADER_BYTES..=upper).contains(&lower)
            || upper > page.len()
            || (kind == BRANCH && lower < HEADER_BYTES + 2)
        {
            return Err(fault("has impossible bounds"));
        }
        for index in 0..(lower - HEADER_BYTES) / 2 {
            let at = word16(&page, HEADER_BYTES + 2 * index);
            let Some(node) = page.get(at..).filter(|node| at >= upper && node.len() >= NODE_BYTES) else {
                return Err(fault("has an entry outside"));
            };
            let node = Node::decode(node).ok_or_else(|| fault("has an entry that is too long"))?;
            match kind {
                BRANCH => self.page(node.child, depth - 1)?,
                _ => self.leaf(&node).map_err(|what| fault(&what))?,
            }
        }
        self.levels -= 1;
        Ok(())
    }

    fn leaf(&mut self, node: &Node<'_>) -> Result<(), Fault> {
        // LMDB treats a value with the duplicates flag as a table's own tree, and follows a null pointer.
        if node.flags & !(BIG_DATA | SUB_TREE) != 0 {
            return Err("has a value of a kind that no table has".into());
        }
        let data = node.rest.get(..if node.flags & BIG_DATA == 0 { node.data_bytes } else { 8 });
        let data = data.ok_or("has a value that is too long")?;
        if node.flags & BIG_DATA != 0 {
            return self.overflow(word64(data, 0), node.data_bytes);
        }
        if node.flags & SUB_TREE != 0 {
            if data.len() != TREE_BYTES {
                return Err("has a table of the wrong size".into());
            }
            let tree = Tree::decode(data);
            // Sorted duplicates, integer keys: none of these tables has them.
            if tree.flags != 0 {
                return Err("has a table of another kind".into());
            }
            return self.tree(tree);
        }
        Ok(())
    }

    fn overflow(&mut self, number: u64, data_bytes: usize) -> Result<(), Fault> {
        let page = self.read(number)?;
        let pages = u64::from(word32(&page, 12));
        let room = pages.saturating_mul(page.len() as u64);
        let inside = number.checked_add(pages).is_some_and(|end| end <= self.snapshot.last_page.saturating_add(1));
        if word16(&page, 10) as u16 & KINDS != OVERFLOW || !inside || room < (HEADER_BYTES + data_bytes) as u64 {
            return Err(format!("has a value in page {number}, which cannot hold it"));
        }
        // The last page must be in the file; those between are in it, too, then.
        let cut_off = || format!("has a value in page {number}, which is cut off");
        let end = (number + pages).checked_mul(page.len() as u64).ok_or_else(cut_off)?;
        self.file.read_exact_at(&mut [0], end - 1).map_err(|_| cut_off())
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, Fault> {
        if number < 2 || number > self.snapshot.last_page {
            return Err(format!("page {number} is referenced, which cannot exist"));
        }
        self.pages_left = self.pages_left.checked_sub(1).ok_or("pages are referenced twice")?;
        let mut page = vec![0; self.snapshot.page_bytes];
        let at = number.checked_mul(page.len() as u64).ok_or("a page number is too large")?;
        self.file.read_exact_at(&mut page, at).map_err(|_| format!("page {number} is cut off"))?;
        if word64(&page, 0) != number {
            return Err(format!("page {number} has another's number"));
        }
        Ok(page)
    }
}

/// An entry of a page.
struct Node<'a> {
    /// In a branch: the page below.
    child: u64,
    /// In a leaf.
    flags: u16,
    /// In a leaf.
    data_bytes: usize,
    /// The bytes after the key.
    rest: &'a [u8],
}

impl<'a> Node<'a> {
    fn decode(node: &'a [u8]) -> Option<Self> {
        let halves = if cfg!(target_endian = "little") { [0, 2] } else { [2, 0] };
        let [low, high] = halves.map(|at| word16(node, at));
        let (flags, key_bytes) = (word16(node, 4), word16(node, 6));
        Some(Self {
            child: low as u64 | (high as u64) << 16 | (flags as u64) << 32,
            flags: flags as u16,
            data_bytes: low | high << 16,
            rest: node.get(NODE_BYTES + key_bytes..)?,
        })
    }
}
