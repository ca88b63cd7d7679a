//! Decodes header blocks.
//!
//! Fields are handed out one by one, borrowed from the block, from a table or from a scratch
//! buffer: nothing is allocated in steady state. [`Decoded`] tells whether the block changed the
//! dynamic table and whether it read it; the caller uses that to recognise the same bytes later
//! without decoding them.

use super::field::{FieldKind, classify};
use super::table::Table;
use super::{huffman, integer, static_table};

/// The block breaks RFC 7541; the connection must end with COMPRESSION_ERROR, for the tables no
/// longer agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidBlock;

impl From<integer::InvalidInteger> for InvalidBlock {
    fn from(_: integer::InvalidInteger) -> Self {
        InvalidBlock
    }
}

impl From<huffman::InvalidHuffman> for InvalidBlock {
    fn from(_: huffman::InvalidHuffman) -> Self {
        InvalidBlock
    }
}

/// What a block did to and with the dynamic table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The table is as it was before the block.
    pub table_unchanged: bool,
    /// A field came from the dynamic table, so the same bytes mean something else when the table
    /// has changed.
    pub used_dynamic: bool,
}

/// Decoding state of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Largest size the encoder may choose: what we advertised, at least the initial 4096.
    size_max: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Scratch buffers above this size are given back after the block.
const SCRATCH_BYTES_MAX: usize = 16 << 10;

const TABLE_BYTES_INITIAL: usize = 4096;

impl Decoder {
    /// `size_max` is the SETTINGS_HEADER_TABLE_SIZE we advertise.
    pub fn new(size_max: usize) -> Self {
        Self {
            table: Table::new(TABLE_BYTES_INITIAL),
            size_max: size_max.max(TABLE_BYTES_INITIAL),
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Decodes one complete block. `field` gets each field in order.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(FieldKind, &[u8], &[u8]),
    ) -> Result<Decoded, InvalidBlock> {
        let mut decoded = Decoded {
            table_unchanged: true,
            used_dynamic: false,
        };
        let mut input = block;
        let mut seen_field = false;
        while let Some((&first, rest)) = input.split_first() {
            input = rest;
            if first & 0x80 != 0 {
                let index = integer::decode(first, 7, &mut input)? as usize;
                decoded.used_dynamic |= index > static_table::COUNT;
                let (name, value, kind) = self.lookup(index)?;
                field(kind, name, value);
            } else if first & 0xc0 == 0x40 {
                decoded.table_unchanged = false;
                self.literal(first, 6, &mut input, true, &mut decoded, &mut field)?;
            } else if first & 0xe0 == 0x20 {
                let size = integer::decode(first, 5, &mut input)? as usize;
                if seen_field || size > self.size_max {
                    return Err(InvalidBlock);
                }
                decoded.table_unchanged = false;
                self.table.set_size_max(size);
                continue;
            } else {
                self.literal(first, 4, &mut input, false, &mut decoded, &mut field)?;
            }
            seen_field = true;
        }
        for scratch in [&mut self.name, &mut self.value] {
            if scratch.capacity() > SCRATCH_BYTES_MAX {
                *scratch = Vec::new();
            }
        }
        Ok(decoded)
    }

    #[inline]
    fn lookup(&self, index: usize) -> Result<(&[u8], &[u8], FieldKind), InvalidBlock> {
        if index > static_table::COUNT {
            self.table
                .get(index - static_table::COUNT - 1)
                .ok_or(InvalidBlock)
        } else {
            static_table::ENTRIES
                .get(index.wrapping_sub(1))
                .copied()
                .ok_or(InvalidBlock)
        }
    }

    fn literal(
        &mut self,
        first: u8,
        prefix_bits: u32,
        input: &mut &[u8],
        insert: bool,
        decoded: &mut Decoded,
        field: &mut impl FnMut(FieldKind, &[u8], &[u8]),
    ) -> Result<(), InvalidBlock> {
        let index = integer::decode(first, prefix_bits, input)? as usize;
        if index == 0 {
            let name = string(input, &mut self.name)?;
            let value = string(input, &mut self.value)?;
            let kind = classify(name, value);
            field(kind, name, value);
            if insert {
                self.table.insert(name, value, kind);
            }
        } else if let Some(dynamic) = index.checked_sub(static_table::COUNT + 1) {
            decoded.used_dynamic = true;
            let (name, ..) = self.table.get(dynamic).ok_or(InvalidBlock)?;
            let value = string(input, &mut self.value)?;
            let kind = classify(name, value);
            field(kind, name, value);
            if insert {
                self.table.insert_named(dynamic, value, kind);
            }
        } else {
            let (name, ..) = static_table::ENTRIES[index - 1];
            let value = string(input, &mut self.value)?;
            let kind = classify(name, value);
            field(kind, name, value);
            if insert {
                self.table.insert(name, value, kind);
            }
        }
        Ok(())
    }
}

/// Reads a string literal (RFC 7541 5.2): from the input if it is plain, else from the scratch
/// buffer.
fn string<'s, 'a: 's>(
    input: &mut &'a [u8],
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], InvalidBlock> {
    let (&first, rest) = input.split_first().ok_or(InvalidBlock)?;
    *input = rest;
    let length = integer::decode(first, 7, input)? as usize;
    let (text, rest) = input.split_at_checked(length).ok_or(InvalidBlock)?;
    *input = rest;
    if first & 0x80 == 0 {
        return Ok(text);
    }
    scratch.clear();
    huffman::decode(text, scratch)?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |byte: u8| (byte as char).to_digit(16).expect("a hex digit") as u8;
        digits
            .chunks(2)
            .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
            .collect()
    }

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<String, InvalidBlock> {
        let mut out = String::new();
        decoder.decode(block, |_, name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            out += &format!("{}: {}\n", text(name), text(value));
        })?;
        Ok(out)
    }

    /// Blocks of one connection, each with the fields expected and the table size after it.
    fn check(decoder: &mut Decoder, blocks: &[(&str, &str, usize)]) {
        for (block, expected, size) in blocks {
            assert_eq!(
                fields(decoder, &hex(block)).as_deref(),
                Ok(*expected),
                "{block}"
            );
            assert_eq!(decoder.table.size(), *size, "{block}");
        }
    }

    const REQUEST_1: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
    const REQUEST_2: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n";
    const REQUEST_3: &str = ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n";
    const RESPONSE_1: &str = ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n";
    const RESPONSE_2: &str = ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n";
    const RESPONSE_3: &str = ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\ncontent-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n";

    #[test]
    fn appendix_c2_single_fields() {
        let decoder = || Decoder::new(4096);
        check(
            &mut decoder(),
            &[(
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                "custom-key: custom-header\n",
                55,
            )],
        );
        check(
            &mut decoder(),
            &[(
                "040c 2f73 616d 706c 652f 7061 7468",
                ":path: /sample/path\n",
                0,
            )],
        );
        check(
            &mut decoder(),
            &[(
                "1008 7061 7373 776f 7264 0673 6563 7265 74",
                "password: secret\n",
                0,
            )],
        );
        check(&mut decoder(), &[("82", ":method: GET\n", 0)]);
    }

    #[test]
    fn appendix_c3_requests() {
        check(
            &mut Decoder::new(4096),
            &[
                (
                    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                    REQUEST_1,
                    57,
                ),
                ("8286 84be 5808 6e6f 2d63 6163 6865", REQUEST_2, 110),
                (
                    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                    REQUEST_3,
                    164,
                ),
            ],
        );
    }

    #[test]
    fn appendix_c4_requests_huffman() {
        check(
            &mut Decoder::new(4096),
            &[
                ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUEST_1, 57),
                ("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2, 110),
                (
                    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                    REQUEST_3,
                    164,
                ),
            ],
        );
    }

    #[test]
    fn appendix_c5_responses_with_eviction() {
        let mut decoder = Decoder::new(4096);
        decoder.table.set_size_max(256);
        check(
            &mut decoder,
            &[
                (
                    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                    RESPONSE_1,
                    222,
                ),
                ("4803 3330 37c1 c0bf", RESPONSE_2, 222),
                (
                    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                    RESPONSE_3,
                    215,
                ),
            ],
        );
        assert_eq!(decoder.table.len(), 3);
    }

    #[test]
    fn appendix_c6_responses_huffman_with_eviction() {
        let mut decoder = Decoder::new(4096);
        decoder.table.set_size_max(256);
        check(
            &mut decoder,
            &[
                (
                    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                    RESPONSE_1,
                    222,
                ),
                ("4883 640e ffc1 c0bf", RESPONSE_2, 222),
                (
                    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                    RESPONSE_3,
                    215,
                ),
            ],
        );
    }

    #[test]
    fn blocks_that_break_the_rules() {
        for block in [
            &b"\x80"[..],        // index 0
            b"\xbe",             // empty dynamic table
            b"\x7f",             // cut off index
            b"\x40",             // no name
            b"\x40\x01a",        // no value
            b"\x40\x05a",        // name cut off
            b"\x40\x81\xfe\x00", // bad Huffman
            b"\x3f\xe2\x1f",     // table size 4097
            b"\x82\x20",         // size update after a field
            b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert!(
                fields(&mut Decoder::new(4096), block).is_err(),
                "{block:02x?}"
            );
        }
    }

    #[test]
    fn size_updates_evict_and_entries_larger_than_the_table_empty_it() {
        let mut decoder = Decoder::new(4096);
        fields(&mut decoder, b"\x40\x01a\x01b\x40\x01c\x01d").expect("valid");
        assert_eq!(decoder.table.len(), 2);
        fields(&mut decoder, b"\x3f\x03").expect("valid"); // 34: one entry left
        assert_eq!(decoder.table.len(), 1);
        assert_eq!(fields(&mut decoder, b"\xbe").as_deref(), Ok("c: d\n"));
        fields(&mut decoder, b"\x40\x01a\x02bb").expect("valid");
        assert_eq!((decoder.table.len(), decoder.table.size()), (0, 0));
        fields(&mut decoder, b"\x20\x3f\xe1\x1f").expect("two updates in a row");
    }

    #[test]
    fn a_name_may_come_from_the_entry_its_insertion_evicts() {
        let mut decoder = Decoder::new(4096);
        fields(&mut decoder, b"\x3f\x05\x40\x02ab\x02cd").expect("valid"); // 36: room for one
        assert_eq!(
            fields(&mut decoder, b"\x7e\x02ef").as_deref(),
            Ok("ab: ef\n")
        );
        assert_eq!(fields(&mut decoder, b"\xbe").as_deref(), Ok("ab: ef\n"));
    }

    #[test]
    fn the_buffer_of_the_table_stays_bounded() {
        let mut decoder = Decoder::new(4096);
        let mut block = b"\x40\x04name\x7f\x49".to_vec(); // 200 bytes of value
        block.extend([b'x'; 200]);
        for round in 0..1000u32 {
            block[8] = b'a' + (round % 26) as u8;
            fields(&mut decoder, &block).expect("valid");
            let (_, value, _) = decoder.table.get(0).expect("just inserted");
            assert_eq!(value[0], block[8]);
        }
        assert!(decoder.table.size() <= 4096);
    }

    #[test]
    fn it_says_whether_the_table_changed_or_was_used() {
        let mut decoder = Decoder::new(4096);
        let mut decode = |block: &[u8]| decoder.decode(block, |_, _, _| {}).expect("valid");
        let decoded = |table_unchanged, used_dynamic| Decoded {
            table_unchanged,
            used_dynamic,
        };
        assert_eq!(decode(b"\x83\x00\x01a\x01b"), decoded(true, false));
        assert_eq!(decode(b"\x40\x01a\x01b"), decoded(false, false));
        assert_eq!(decode(b"\xbe"), decoded(true, true));
        assert_eq!(decode(b"\x0f\x2f\x01c"), decoded(true, true));
        assert_eq!(decode(b"\x3f\xe1\x1f"), decoded(false, false));
    }
}
