//! Runs of decimal digits, as the reference's regular expressions see them.
//!
//! Python's `\d` is any decimal digit of Unicode, not only ASCII, and a byte-level tokenizer can write all of them.

/// The zeros of Unicode's decimal digits (category Nd, Unicode 14); the nine code points after each follow in order.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50,
    0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40,
    0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066,
    0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950,
    0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6,
    0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// Value of a decimal digit.
pub(super) fn digit(c: char) -> Option<u8> {
    let code = u32::from(c);
    let after = ZEROS.partition_point(|&zero| zero <= code);
    let value = code - ZEROS.get(after.checked_sub(1)?)?;
    (value < 10).then_some(value as u8)
}

/// Length in bytes of the digits that `text` begins with.
pub(super) fn leading(text: &str) -> usize {
    text.find(|c| digit(c).is_none()).unwrap_or(text.len())
}

/// The last run of digits in `text`.
pub(super) fn last_run(text: &str) -> Option<&str> {
    let (last, c) = text.char_indices().rfind(|&(_, c)| digit(c).is_some())?;
    let before = text[..last].char_indices().rev().take_while(|&(_, c)| digit(c).is_some()).last();
    let start = before.map_or(last, |(at, _)| at);
    Some(&text[start..last + c.len_utf8()])
}

/// The number a run of digits writes; `None` when it does not fit.
pub(super) fn value(run: &str) -> Option<u128> {
    run.chars().try_fold(0_u128, |sum, c| sum.checked_mul(10)?.checked_add(digit(c)?.into()))
}
