//! The little of tar (POSIX.1-1988 ustar) that keeps a model and its data files together: regular files and their names.
//! What any tar program writes of such files opens here, and the other way round.

/// Files and headers start at multiples of this.
pub(super) const BLOCK: usize = 512;

/// A file of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Bytes of content.
    pub(super) size: u64,
}

impl Entry {
    /// The block before the content; `None` when the name has no place in it. Says nothing of owner and time, so the same
    /// files give the same archive.
    pub(super) fn header(&self) -> Option<[u8; BLOCK]> {
        let (prefix, name) = split(&self.name)?;
        let mut block = [0; BLOCK];
        put(&mut block, NAME, name.as_bytes())?;
        put(&mut block, PREFIX, prefix.as_bytes())?;
        put(&mut block, MODE, b"0000644\0")?;
        for (at, width) in [UID, GID, DEV_MAJOR, DEV_MINOR] {
            put(&mut block, (at, width), b"0000000\0")?;
        }
        if self.size <= OCTAL_MAX {
            put(&mut block, SIZE, format!("{:011o}\0", self.size).as_bytes())?;
        } else {
            // As GNU tar and POSIX.1-2001's programs write what eleven digits cannot: in base 256, the first bit set.
            let [a, b, c, d, e, f, g, h] = self.size.to_be_bytes();
            put(&mut block, SIZE, &[0x80, 0, 0, 0, a, b, c, d, e, f, g, h])?;
        }
        put(&mut block, MTIME, b"00000000000\0")?;
        put(&mut block, TYPE, b"0")?;
        put(&mut block, MAGIC, USTAR)?;
        let sum = checksum(&block);
        put(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes())?;
        Some(block)
    }

    /// Reads a header; mode, owner and time do not count.
    ///
    /// # Errors
    /// What is not as expected.
    pub(super) fn read(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        // GNU tar's own format has two spaces for ustar's zero and version; of short names and plain files it is the same.
        if ![&USTAR[..], b"ustar  \0"].contains(&field(block, MAGIC)) {
            return Err("a header is not that of a tar archive (ustar)");
        }
        if octal(field(block, CHECKSUM)) != Some(checksum(block)) {
            return Err("the checksum of a header is wrong");
        }
        if !matches!(field(block, TYPE), b"0" | b"\0") {
            return Err("it has a link, a folder or an extension; only regular files are expected");
        }
        if !text(field(block, LINK_NAME))?.is_empty() {
            return Err("a regular file has the target of a link");
        }
        let size = match field(block, SIZE) {
            [0x80, 0, 0, 0, rest @ ..] => {
                let size = rest.try_into().map(u64::from_be_bytes).ok();
                size.filter(|size| *size > OCTAL_MAX)
            }
            digits => octal(digits),
        };
        let size = size.ok_or("the size of a file is not a number")?;
        let (prefix, name) = (text(field(block, PREFIX))?, text(field(block, NAME))?);
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        Ok(Self { name, size })
    }

    /// Zeros after the content, up to the next block.
    pub(super) fn padding(&self) -> usize {
        let end = self.size.checked_next_multiple_of(BLOCK as u64).unwrap_or(self.size);
        usize::try_from(end.saturating_sub(self.size)).unwrap_or_default()
    }
}

/// The name as folder and rest, each of the length that a header has room for.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= NAME.1 {
        return Some(("", name));
    }
    let fits = |(prefix, rest): &(&str, &str)| prefix.len() <= PREFIX.1 && rest.len() <= NAME.1;
    name.match_indices('/')
        .filter_map(|(at, _)| Some((name.get(..at)?, name.get(at.checked_add(1)?..)?)))
        .find(fits)
}

type Place = (usize, usize);

fn field(block: &[u8; BLOCK], (at, width): Place) -> &[u8] {
    block.get(at..at.saturating_add(width)).unwrap_or_default()
}

fn put(block: &mut [u8; BLOCK], (at, width): Place, bytes: &[u8]) -> Option<()> {
    let place = block.get_mut(at..at.checked_add(width)?)?;
    place.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(())
}

/// Text up to the first zero, after which there are only zeros.
fn text(field: &[u8]) -> Result<&str, &'static str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at_checked(end).unwrap_or((field, b""));
    if rest.iter().any(|byte| *byte != 0) {
        return Err("a name goes on after its end");
    }
    std::str::from_utf8(text).map_err(|_| "a name is not UTF-8")
}

/// Digits with zeros before them, ended by zeros or spaces.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(field.len());
    let (digits, rest) = field.split_at_checked(end)?;
    if digits.is_empty() || !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The sum of all bytes, those of the checksum taken for spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let own = CHECKSUM.0..CHECKSUM.0.saturating_add(CHECKSUM.1);
    let bytes = block.iter().enumerate();
    bytes.map(|(at, byte)| u64::from(if own.contains(&at) { b' ' } else { *byte })).sum()
}

const NAME: Place = (0, 100);
const MODE: Place = (100, 8);
const UID: Place = (108, 8);
const GID: Place = (116, 8);
const SIZE: Place = (124, 12);
const MTIME: Place = (136, 12);
const CHECKSUM: Place = (148, 8);
const TYPE: Place = (156, 1);
const LINK_NAME: Place = (157, 100);
const MAGIC: Place = (257, 8);
const DEV_MAJOR: Place = (329, 8);
const DEV_MINOR: Place = (337, 8);
const PREFIX: Place = (345, 155);

const USTAR: &[u8; 8] = b"ustar\x0000";
/// Eleven octal digits: 8 GiB - 1.
const OCTAL_MAX: u64 = 0o77_777_777_777;
