//! Numbers as people of many countries write them, exactly.
//!
//! `1,234` is two numbers: one thousand two hundred and thirty-four, and one and a bit. Whoever asks whether a number
//! is right gets both readings. Rationals are exact; nothing here rounds.

use std::sync::LazyLock;

use fancy_regex::Regex as Looking;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Pow as _, Zero as _};
use regex::Regex;

use crate::chars::digit;

/// Exponents beyond this are dropped.
const EXPONENT: i64 = 60;

/// A number in a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Where it begins in the normalized text, sign and space before it included.
    pub(crate) start: usize,
    /// One past its end.
    pub(crate) end: usize,
    /// What it may mean; never empty.
    pub(crate) readings: Vec<BigRational>,
}

/// A text with its numbers in one notation, and where they are.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) text: String,
    pub(crate) found: Vec<Found>,
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("patterns written here are valid")
}

static AFTER_DIGIT: LazyLock<Regex> = LazyLock::new(|| pattern("(\\d)([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])"));
static WRAPPED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}"));
static FRACTION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\\[dt]?frac\s*\{\s*([-\d.,]+)\s*\}\s*\{\s*([-\d.,]+)\s*\}"));
static POWER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\s*(?:\\times|\\cdot|×|·|\*)\s*10\s*\^\s*\{?\s*([-+]?\d+)\s*\}?"));
static RAISED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\s*(?:×|·)\s*10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)"));
static GROUPED_BY_SPACE: LazyLock<Regex> =
    LazyLock::new(|| pattern("^\\d{1,3}(?:[ \u{a0}']\\d{3})+(?:[.,]\\d+)?$"));
static GROUPED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{1,3}(?:[.,]\d{2,3})*[.,]\d{3}$"));
static AMBIGUOUS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[1-9]\d{0,2}[.,]\d{3}$"));
static NUMBER: LazyLock<Looking> = LazyLock::new(|| {
    let text = concat!(
        r"(?<![\d\p{Latin}])(?P<minus>(?<![\d\p{L})\]])\s?[-–]\s?)?[$€£¥]?(?:(?P<whole>\d+)\s)?",
        r"(?P<num>\d+)\s?[/⁄]\s?(?P<den>\d+)(?![\d/])",
        r"|(?P<minus2>(?<![\d\p{L})\]])\s?[-–]\s?)?[$€£¥]?",
        r"(?P<plain>\d{1,3}(?: \d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,'\u{a0}]\d+)*|[.,]\d+)",
        r"(?P<exp>[eE][-+]?\d+)?(?P<myriad>\s?[万萬亿億])?(?P<percent>\s?%)?",
    );
    Looking::new(text).expect("patterns written here are valid")
});

/// A character in the notation that the patterns read.
fn plain(c: char, out: &mut String) {
    if let Some(digit) = digit(c) {
        out.extend(char::from_digit(digit, 10));
        return;
    }
    let fraction = match c {
        '½' => "1/2",
        '⅓' => "1/3",
        '⅔' => "2/3",
        '¼' => "1/4",
        '¾' => "3/4",
        '⅕' => "1/5",
        '⅖' => "2/5",
        '⅗' => "3/5",
        '⅘' => "4/5",
        '⅙' => "1/6",
        '⅚' => "5/6",
        '⅛' => "1/8",
        '⅜' => "3/8",
        '⅝' => "5/8",
        '⅞' => "7/8",
        _ => "",
    };
    if !fraction.is_empty() {
        out.push_str(fraction);
        return;
    }
    out.push(match c {
        '−' | '﹣' | '－' | '‐' | '‑' => '-',
        '\u{2007}' | '\u{2009}' | '\u{202f}' => '\u{a0}',
        '٬' | '，' => ',',
        '٫' | '．' => '.',
        '％' | '٪' => '%',
        '’' => '\'',
        '＝' => '=',
        '∶' => ':',
        c => c,
    });
}

/// Digits of every script to ASCII, signs and separators to one form, LaTeX unwrapped.
pub(crate) fn normal(text: &str) -> String {
    let spaced = AFTER_DIGIT.replace_all(text, "$1 $2");
    let mut out = String::with_capacity(spaced.len());
    spaced.chars().for_each(|c| plain(c, &mut out));
    let out = WRAPPED.replace_all(&out, "$1");
    let out = FRACTION.replace_all(&out, " $1/$2");
    let out = out
        .replace("\\pm", "±")
        .replace("{,}", ",")
        .replace("\\,", "\u{a0}")
        .replace("\\!", "")
        .replace("\\%", "%")
        .replace("\\$", "$");
    let out = POWER.replace_all(&out, "e$1");
    let raised = |c: &regex::Captures<'_>| format!("e{}", c[1].chars().map(lowered).collect::<String>());
    RAISED.replace_all(&out, raised).into_owned()
}

fn lowered(c: char) -> char {
    let at = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻".chars().position(|raised| raised == c);
    at.and_then(|at| "0123456789-".chars().nth(at)).unwrap_or(c)
}

/// A decimal of ASCII digits with at most one point, exactly.
pub(crate) fn decimal(text: &str) -> Option<BigRational> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{whole}{part}");
    if joined.is_empty() || !joined.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = BigRational::new(joined.parse().ok()?, BigInt::from(10).pow(part.len()));
    Some(if negative { -value } else { value })
}

/// Values that digits with separators may write: one, two where it is ambiguous, none where they are several numbers.
fn readings(text: &str) -> Option<Vec<BigRational>> {
    let is_space = |c: char| matches!(c, ' ' | '\u{a0}' | '\'');
    let grouped = GROUPED_BY_SPACE.is_match(text);
    let text = if grouped { text.replace(is_space, "") } else { text.to_owned() };
    if text.contains(is_space) {
        return None;
    }
    let one = |text: &str| decimal(text).map(|value| vec![value]);
    let (dots, commas) = (text.matches('.').count(), text.matches(',').count());
    let separator = if dots > 0 { '.' } else { ',' };
    match (dots, commas) {
        (0, 0) => one(&text),
        (1.., 1..) => {
            let last = text.rfind(['.', ','])?;
            let (head, tail) = (&text[..last], &text[last + 1..]);
            let other = if text[last..].starts_with('.') { ',' } else { '.' };
            let decimal_once = text.matches(if other == ',' { '.' } else { ',' }).count() == 1;
            if !decimal_once || !GROUPED.is_match(head) {
                return None;
            }
            one(&format!("{}.{tail}", head.replace(other, "")))
        }
        (2.., 0) | (0, 2..) => {
            if GROUPED.is_match(&text) {
                one(&text.replace(separator, ""))
            } else {
                None
            }
        }
        _ => {
            let mut values = vec![decimal(&text.replace(',', "."))?];
            if !grouped && AMBIGUOUS.is_match(&text) {
                values.push(decimal(&text.replace(separator, ""))?);
            }
            Some(values)
        }
    }
}

/// The numbers of a text, in the order written.
pub(crate) fn numbers(text: &str) -> Numbers {
    let text = normal(text);
    let mut found = Vec::new();
    let mut at = 0;
    // An error is the engine's limit on looking back, which no text of this pattern's bounded parts comes near.
    while let Ok(Some(m)) = NUMBER.captures_from_pos(&text, at) {
        let Some(whole) = m.get(0) else { break };
        at = whole.end();
        let minus = m.name("minus").or_else(|| m.name("minus2")).is_some();
        let values = if let (Some(num), Some(den)) = (m.name("num"), m.name("den")) {
            fraction(m.name("whole").map(|w| w.as_str()), num.as_str(), den.as_str())
        } else if let Some(plain) = m.name("plain") {
            let Some(values) = readings(plain.as_str()) else {
                found.extend(list(plain.as_str(), plain.start()));
                continue;
            };
            let power = m.name("exp").map(|exp| &exp.as_str()[1..]);
            let Some(values) = raised(values, power) else { continue };
            let values = match m.name("myriad") {
                Some(sign) => counted(&values, sign.as_str(), &text, &mut at),
                None => values,
            };
            let hundredth = || values.iter().map(|value| value / BigInt::from(100)).collect::<Vec<_>>();
            let more = if m.name("percent").is_some() { hundredth() } else { Vec::new() };
            Some([values, more].concat())
        } else {
            None
        };
        if let Some(values) = values {
            let readings = values.into_iter().map(|value| if minus { -value } else { value }).collect();
            found.push(Found { start: whole.start(), end: at, readings });
        }
    }
    Numbers { text, found }
}

/// `a/b`, or `a b/c`; nothing where it divides by zero.
fn fraction(whole: Option<&str>, num: &str, den: &str) -> Option<Vec<BigRational>> {
    let number = |text: &str| text.parse::<BigInt>().ok();
    let den = number(den).filter(|den| !den.is_zero())?;
    let whole = whole.map_or(Some(BigInt::zero()), number)?;
    Some(vec![BigRational::new(number(num)?, den) + whole])
}

/// Digits that are several numbers written as a list.
fn list(text: &str, start: usize) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    for run in text.split(|c: char| !c.is_ascii_digit()) {
        if let Some(value) = decimal(run) {
            found.push(Found { start: start + at, end: start + at + run.len(), readings: vec![value] });
        }
        at += run.len();
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
    found
}

/// Values times a power of ten; nothing where it is too large to be meant.
fn raised(values: Vec<BigRational>, power: Option<&str>) -> Option<Vec<BigRational>> {
    let Some(power) = power else { return Some(values) };
    let power: i64 = power.parse().ok().filter(|power: &i64| power.abs() <= EXPONENT)?;
    let size = BigRational::from(BigInt::from(10).pow(power.unsigned_abs()));
    let factor = if power < 0 { BigRational::one() / size } else { size };
    Some(values.into_iter().map(|value| value * &factor).collect())
}

/// `27万6000`: the first reading in ten thousands or hundred millions, with up to four digits behind it.
fn counted(values: &[BigRational], sign: &str, text: &str, at: &mut usize) -> Vec<BigRational> {
    let unit = if sign.trim().contains(['万', '萬']) { 10_000_u64 } else { 100_000_000 };
    let mut value = values[0].clone() * BigInt::from(unit);
    let rest = &text[*at..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let ends = !rest[digits..].starts_with(['万', '萬']);
    if (1..=4).contains(&digits)
        && ends
        && let Some(more) = decimal(&rest[..digits])
    {
        value += more;
        *at += digits;
    }
    vec![value]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let show =
            |found: &Found| found.readings.iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
        numbers(text).found.iter().map(show).collect()
    }

    #[test]
    fn notations_of_many_countries_are_read() {
        for (text, expected) in [
            ("18", vec!["18"]),
            ("1,234", vec!["617/500|1234"]),
            ("0,234", vec!["117/500"]),
            ("1.234,5", vec!["2469/2"]),
            ("1,234.5", vec!["2469/2"]),
            ("1,14,200", vec!["114200"]),
            ("1.234.567", vec!["1234567"]),
            ("12 345 678", vec!["12345678"]),
            ("12'345", vec!["12345"]),
            ("3-5", vec!["3", "5"]),
            ("= -5", vec!["-5"]),
            ("−5", vec!["-5"]),
            ("1/2", vec!["1/2"]),
            ("2 1/2", vec!["5/2"]),
            ("2½", vec!["5/2"]),
            ("1/0", vec![]),
            ("50%", vec!["50|1/2"]),
            ("27万6000", vec!["276000"]),
            ("3亿", vec!["300000000"]),
            ("1,2,3", vec!["1", "2", "3"]),
            ("٤٢", vec!["42"]),
            ("１８", vec!["18"]),
            ("1.5 × 10^3", vec!["1500"]),
            ("1.5×10⁻³", vec!["3/2000"]),
            ("1e61", vec![]),
            (r"\frac{3}{4}", vec!["3/4"]),
            (r"\$70{,}000", vec!["70|70000"]),
            ("x2", vec!["2"]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal("-0.10").unwrap().to_string(), "-1/10");
        assert_eq!((decimal("1e3"), decimal(""), decimal("."), decimal("1.2.3")), (None, None, None, None));
    }
}
