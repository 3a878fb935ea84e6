//! Lists of numbers as processes send them: each behind its length.

use descant_workers::Dealt;

/// What is wrong where lists are not those of the pieces that were dealt.
pub(super) const OTHERS: &str = "it sent results of other pieces";

/// Lists behind each other: the length of each, then its numbers.
pub(crate) fn packed(lists: &[Vec<f32>]) -> Vec<u8> {
    let bytes = |list: &Vec<f32>| {
        let length = (list.len() as u32).to_le_bytes();
        length.into_iter().chain(list.iter().flat_map(|value| value.to_le_bytes())).collect::<Vec<u8>>()
    };
    lists.iter().flat_map(bytes).collect()
}

fn unpacked(bytes: &[u8]) -> Option<Vec<Vec<f32>>> {
    let (mut rest, mut lists) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = (u32::from_le_bytes(*length) as usize).checked_mul(size_of::<f32>())?;
        let (list, behind) = behind.split_at_checked(length)?;
        lists.push(floats(list));
        rest = behind;
    }
    Some(lists)
}

/// Numbers out of their bytes.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// What each rank sent of its pieces, in the order of the pieces.
///
/// # Errors
/// The rank that sent something else.
pub(crate) fn put_in_order(dealt: &Dealt, all: Vec<Vec<u8>>) -> Result<Vec<Vec<f32>>, usize> {
    let mut ordered: Vec<Vec<f32>> = vec![Vec::new(); dealt.owners.len()];
    for (rank, bytes) in all.into_iter().enumerate() {
        let lists = unpacked(&bytes).filter(|lists| lists.len() == dealt.of(rank).count());
        let lists = lists.ok_or(rank)?;
        for (at, list) in dealt.of(rank).zip(lists) {
            ordered[at] = list;
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use descant_workers::deal;

    use super::*;

    #[test]
    fn lists_are_read_as_they_were_packed_and_damage_is_none() {
        let lists = vec![vec![1.0, -0.0, f32::NAN], vec![], vec![2.5]];
        let bytes = packed(&lists);
        let read = unpacked(&bytes).unwrap();
        let bits = |lists: &[Vec<f32>]| -> Vec<Vec<u32>> {
            lists.iter().map(|list| list.iter().map(|value| value.to_bits()).collect()).collect()
        };
        assert_eq!(bits(&read), bits(&lists));
        for cut in [1, 3, 5, bytes.len() - 1] {
            assert_eq!(unpacked(&bytes[..cut]), None, "cut at {cut}");
        }
        let dealt = deal(&[3, 2, 1], 2);
        let all = |first: &[Vec<f32>], second: &[Vec<f32>]| vec![packed(first), packed(second)];
        let ordered = put_in_order(&dealt, all(&[vec![0.0]], &[vec![1.0], vec![2.0]])).unwrap();
        assert_eq!(ordered, [[0.0], [1.0], [2.0]]);
        assert_eq!(put_in_order(&dealt, all(&[vec![0.0]], &[vec![1.0]])), Err(1));
    }
}
