//! The Huffman tables of ITU-T T.81, Annex K.3, as a JPEG segment.
//!
//! Many cameras omit the tables from the pictures of a Motion JPEG stream; decoders are expected to
//! supply them.

const DC_CODES: [[u8; 16]; 2] = [
    [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
];
const DC_VALUES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const AC_CODES: [[u8; 16]; 2] = [
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
];
/// The values that have codes of their own lengths; the others follow in order.
const AC_SHORT: [&[u8]; 2] = [
    &[
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61,
        0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52,
        0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82,
    ],
    &[
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61,
        0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33,
        0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1,
    ],
];

/// The four tables in one segment, marker included.
pub(super) fn standard_tables() -> Vec<u8> {
    let mut tables = Vec::with_capacity(420);
    for which in 0..2 {
        tables.push(which as u8);
        tables.extend(DC_CODES[which]);
        tables.extend(DC_VALUES);
        tables.push(0x10 | which as u8);
        tables.extend(AC_CODES[which]);
        tables.extend(AC_SHORT[which]);
        // A value is a run of 0 to 15 zeros and a size of 1 to 10 bits, in this order.
        let rest = (0..16u8).flat_map(|run| (1..=10u8).map(move |size| run << 4 | size));
        tables.extend(rest.filter(|value| !AC_SHORT[which].contains(value)));
    }
    let length = (tables.len() + 2) as u16;
    [&[0xff, 0xc4][..], &length.to_be_bytes(), &tables].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_has_as_many_values_as_codes() {
        for which in 0..2 {
            let codes: usize = AC_CODES[which].iter().map(|&n| usize::from(n)).sum();
            assert_eq!(codes, 162);
            assert_eq!(DC_CODES[which].iter().map(|&n| usize::from(n)).sum::<usize>(), 12);
        }
        assert_eq!(standard_tables().len(), 2 + 2 + 2 * (1 + 16 + 12 + 1 + 16 + 162));
    }
}
