//! The table at the end of OVMF images, by which VMMs find what they have to know of them
//! (edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`).

use crate::image::MeasureError;

/// A firmware image with such a table. It is mapped so that it ends at 4 GiB.
pub(crate) struct Firmware<'a> {
    image: &'a [u8],
    /// The entries, each `data ‖ length of the entry (2) ‖ GUID (16)`; the last one is to be read first.
    table: &'a [u8],
}

/// A GUID as it is stored: the first three groups little-endian.
pub(crate) type Guid = [u8; 16];

/// 96b582de-1fb2-45f7-baea-a366c55a082d
const FOOTER: Guid = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
/// Bytes between the table and the end of the image.
const AFTER_TABLE: usize = 32;
/// How long the end of an entry is: its length and its GUID.
const ENTRY_TAIL: usize = 18;

pub(crate) const PAGE: usize = 4096;

impl<'a> Firmware<'a> {
    pub(crate) fn parse(image: &'a [u8]) -> Result<Self, MeasureError> {
        // OVMF builds have a few MiB; more than 2 GiB below 4 GiB leave no room for memory.
        if image.is_empty() || !image.len().is_multiple_of(PAGE) || image.len() > 1 << 31 {
            return Err(malformed("length", "whole pages of 4096 bytes, up to 2 GiB", image.len()));
        }
        let body = image.len().checked_sub(AFTER_TABLE).and_then(|end| image.get(..end)).unwrap_or_default();
        let (rest, len, guid) = last_entry(body).ok_or(NO_TABLE)?;
        if guid != FOOTER {
            return Err(NO_TABLE);
        }
        // The length of the table includes that of the footer.
        let found = usize::from(len);
        let table = found.checked_sub(ENTRY_TAIL).and_then(|len| tail(rest, len));
        let table =
            table.ok_or_else(|| malformed("GUID table's length", "18 bytes up to the image's", found))?;
        Ok(Self { image, table })
    }

    pub(crate) fn image(&self) -> &'a [u8] {
        self.image
    }

    /// Where the image is mapped.
    pub(crate) fn base(&self) -> u64 {
        (1_u64 << 32).saturating_sub(self.image.len() as u64)
    }

    /// The data of the entry `wanted`.
    pub(crate) fn entry(&self, wanted: &Guid) -> Result<Option<&'a [u8]>, MeasureError> {
        let mut rest = self.table;
        while let Some((before, len, guid)) = last_entry(rest) {
            let found = usize::from(len);
            let data = found.checked_sub(ENTRY_TAIL).and_then(|len| tail(before, len));
            let data = data.ok_or_else(|| {
                malformed("GUID table entry's length", "18 bytes or more, within the table", found)
            })?;
            if guid == *wanted {
                return Ok(Some(data));
            }
            rest = before.get(..before.len().saturating_sub(data.len())).unwrap_or_default();
        }
        Ok(None)
    }

    /// The little-endian number with which the entry `wanted` starts.
    pub(crate) fn number(&self, wanted: &Guid, what: &'static str) -> Result<Option<u32>, MeasureError> {
        let Some(data) = self.entry(wanted)? else { return Ok(None) };
        let number = data.first_chunk().ok_or_else(|| malformed(what, "4 bytes or more", data.len()))?;
        Ok(Some(u32::from_le_bytes(*number)))
    }

    /// What starts that many bytes before the end of the image.
    pub(crate) fn before_end(&self, offset: u32, what: &'static str) -> Result<&'a [u8], MeasureError> {
        usize::try_from(offset)
            .ok()
            .and_then(|offset| tail(self.image, offset))
            .ok_or_else(|| malformed(what, "an offset within the image", offset))
    }
}

/// A part of the firmware that is not `expected`.
pub(crate) fn malformed(
    what: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> MeasureError {
    MeasureError::Malformed { file: "firmware", what, expected: expected.into(), found: found.to_string() }
}

/// What is before the tail of the last entry in `bytes`, the entry's length and its GUID.
fn last_entry(bytes: &[u8]) -> Option<(&[u8], u16, Guid)> {
    let (rest, guid) = bytes.split_last_chunk()?;
    let (rest, len) = rest.split_last_chunk()?;
    Some((rest, u16::from_le_bytes(*len), *guid))
}

/// The last `len` bytes.
fn tail(bytes: &[u8], len: usize) -> Option<&[u8]> {
    bytes.len().checked_sub(len).and_then(|start| bytes.get(start..))
}

const NO_TABLE: MeasureError = MeasureError::Absent {
    file: "firmware",
    what: "OVMF's GUID table",
    hint: "is it an OVMF image, whole and with its code at the end?",
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An image of `len` bytes whose table has `entries`, the first one to be found last.
    pub(crate) fn image(len: usize, entries: &[(Guid, &[u8])]) -> Vec<u8> {
        let mut table = Vec::new();
        for (guid, data) in entries {
            table.extend_from_slice(data);
            table.extend_from_slice(&u16::try_from(data.len() + ENTRY_TAIL).unwrap().to_le_bytes());
            table.extend_from_slice(guid);
        }
        let total = u16::try_from(table.len() + ENTRY_TAIL).unwrap();
        table.extend_from_slice(&total.to_le_bytes());
        table.extend_from_slice(&FOOTER);
        // Not all zero, so that no two pages are equal.
        let mut image: Vec<u8> = (0..len).map(|i| (i / 7 % 251) as u8).collect();
        let start = len - AFTER_TABLE - table.len();
        image[start..start + table.len()].copy_from_slice(&table);
        image
    }

    const A: Guid = [0xaa; 16];
    const B: Guid = [0xbb; 16];

    #[test]
    fn entries_are_found_from_the_end() {
        let image = image(8192, &[(A, &[1, 2, 3, 4, 5]), (B, &[])]);
        let firmware = Firmware::parse(&image).unwrap();
        assert_eq!(firmware.entry(&A).unwrap(), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(firmware.entry(&B).unwrap(), Some(&[][..]));
        assert_eq!(firmware.entry(&FOOTER).unwrap(), None);
        assert_eq!(firmware.number(&A, "a").unwrap(), Some(0x0403_0201));
        assert!(firmware.number(&B, "b").is_err());
        assert_eq!(firmware.base(), (1 << 32) - 8192);
        assert_eq!(firmware.before_end(8192, "all").unwrap(), image);
        assert!(firmware.before_end(8193, "more").is_err());
    }

    #[test]
    fn images_without_a_sound_table_are_refused() {
        let good = image(4096, &[(A, &[1, 2])]);
        assert!(Firmware::parse(&[]).is_err());
        assert!(Firmware::parse(&good[1..]).is_err());
        assert_eq!(Firmware::parse(&[0; 4096]).err(), Some(NO_TABLE));
        let set = |from_end: usize, len: u16| {
            let mut image = good.clone();
            image[4096 - from_end..][..2].copy_from_slice(&len.to_le_bytes());
            image
        };
        let footer = AFTER_TABLE + ENTRY_TAIL;
        for len in [0, 17, 4096] {
            assert!(Firmware::parse(&set(footer, len)).is_err(), "{len}");
        }
        for len in [0, 17, 21, 4096] {
            let image = set(footer + ENTRY_TAIL, len);
            assert!(Firmware::parse(&image).unwrap().entry(&B).is_err(), "{len}");
        }
    }
}
