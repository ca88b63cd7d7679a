//! Encodes the header blocks a gRPC server sends: response headers, trailers, and both in one; and
//! those of plain answers, which are few and leave the table alone.
//!
//! There are few distinct fields, so each gets a fixed slot: `content-type`, `grpc-message` and the
//! status codes enter the dynamic table at their first use and are one byte afterwards. Together
//! they are below [`TABLE_BYTES_USED`], so nothing is ever evicted; a client whose table is smaller
//! gets literals. Texts of errors never enter the table.

use super::huffman;
use super::integer;

/// `content-type` of an answer: grpc-go repeats the sub-type of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType<'a> {
    Grpc,
    GrpcProto,
    /// `application/grpc+` and this.
    Other(&'a [u8]),
}

/// What all entries together can occupy: 17 codes and three other fields.
const TABLE_BYTES_USED: u32 = 17 * (32 + 11 + 2) + (32 + 12 + 16) + (32 + 12 + 22) + (32 + 12);

const TABLE_BYTES_INITIAL: u32 = 4096;

const SLOT_GRPC: usize = 17;
const SLOT_GRPC_PROTO: usize = 18;
const SLOT_EMPTY_MESSAGE: usize = 19;
const SLOTS: usize = 20;

const STATIC_STATUS_200: u8 = 8;
const STATIC_CONTENT_TYPE: usize = 31;
const STATIC_ENTRIES: usize = 61;

/// Encoding state of one connection.
#[derive(Debug)]
pub struct Encoder {
    /// When each slot was inserted, counted from 1; 0 if it is not in the table.
    inserted_at: [u8; SLOTS],
    inserted: u8,
    /// Whether the client's table is large enough for our entries.
    uses_table: bool,
    /// Size in force, which the client knows.
    size: u32,
    /// Sizes to announce with the next block: the smallest one since the last block, and the final
    /// one.
    announce: Option<(u32, u32)>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            inserted_at: [0; SLOTS],
            inserted: 0,
            uses_table: true,
            size: TABLE_BYTES_INITIAL,
            announce: None,
        }
    }
}

impl Encoder {
    /// SETTINGS_HEADER_TABLE_SIZE of the client. We never use more than the initial size.
    pub fn set_table_size(&mut self, size: u32) {
        let size = size.min(TABLE_BYTES_INITIAL);
        let (smallest, current) = self.announce.unwrap_or((self.size, self.size));
        if size != current {
            self.announce = Some((smallest.min(size), size));
        }
    }

    /// `:status: 200` and the content type.
    pub fn headers(&mut self, content_type: ContentType<'_>, out: &mut Vec<u8>) {
        self.begin(out);
        out.push(0x80 | STATIC_STATUS_200);
        self.content_type(content_type, out);
    }

    /// `grpc-status` (its decimal text) and `grpc-message` (already percent-encoded).
    pub fn trailers(&mut self, code: u8, code_text: &str, message: &[u8], out: &mut Vec<u8>) {
        self.begin(out);
        self.status(code, code_text, message, out);
    }

    /// Headers and trailers in one block. `http_status` is three digits.
    pub fn trailers_only(
        &mut self,
        http_status: &str,
        content_type: ContentType<'_>,
        code: u8,
        code_text: &str,
        message: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.begin(out);
        put_http_status(http_status, out);
        self.content_type(content_type, out);
        self.status(code, code_text, message, out);
    }

    /// The block of an answer that is not gRPC. Names are in lower case.
    pub fn plain(&mut self, http_status: u16, fields: &[(&[u8], &[u8])], out: &mut Vec<u8>) {
        self.begin(out);
        put_http_status(&http_status.to_string(), out);
        for (name, value) in fields {
            out.push(0);
            string(name, out);
            string(value, out);
        }
    }

    #[inline]
    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(sizes) = self.announce.take() {
            self.announce_sizes(sizes, out);
        }
    }

    #[cold]
    fn announce_sizes(&mut self, (smallest, size): (u32, u32), out: &mut Vec<u8>) {
        if smallest < TABLE_BYTES_USED && self.inserted > 0 {
            // The client has evicted some of ours. Emptying the table for certain is simpler than
            // knowing which.
            integer::encode(0, 5, 0x20, out);
            self.inserted_at = [0; SLOTS];
            self.inserted = 0;
        } else if smallest != size {
            integer::encode(smallest as usize, 5, 0x20, out);
        }
        integer::encode(size as usize, 5, 0x20, out);
        self.size = size;
        self.uses_table = TABLE_BYTES_USED <= size;
    }

    fn content_type(&mut self, content_type: ContentType<'_>, out: &mut Vec<u8>) {
        let (slot, value) = match content_type {
            ContentType::Grpc => (SLOT_GRPC, &b"application/grpc"[..]),
            ContentType::GrpcProto => (SLOT_GRPC_PROTO, &b"application/grpc+proto"[..]),
            ContentType::Other(subtype) => {
                integer::encode(STATIC_CONTENT_TYPE, 4, 0, out);
                integer::encode(b"application/grpc+".len() + subtype.len(), 7, 0, out);
                out.extend_from_slice(b"application/grpc+");
                out.extend_from_slice(subtype);
                return;
            }
        };
        if self.indexed(slot, out) {
            return;
        }
        if self.insert(slot) {
            integer::encode(STATIC_CONTENT_TYPE, 6, 0x40, out);
        } else {
            integer::encode(STATIC_CONTENT_TYPE, 4, 0, out);
        }
        string(value, out);
    }

    #[inline]
    fn status(&mut self, code: u8, code_text: &str, message: &[u8], out: &mut Vec<u8>) {
        if !self.indexed(usize::from(code), out) {
            out.push(if self.insert(usize::from(code)) {
                0x40
            } else {
                0
            });
            string(b"grpc-status", out);
            string(code_text.as_bytes(), out);
        }
        if message.is_empty() {
            if !self.indexed(SLOT_EMPTY_MESSAGE, out) {
                out.push(if self.insert(SLOT_EMPTY_MESSAGE) {
                    0x40
                } else {
                    0
                });
                string(b"grpc-message", out);
                string(b"", out);
            }
        } else if let Some(index) = self.index(SLOT_EMPTY_MESSAGE) {
            integer::encode(usize::from(index), 4, 0, out);
            string(message, out);
        } else {
            out.push(0);
            string(b"grpc-message", out);
            string(message, out);
        }
    }

    #[inline]
    fn index(&self, slot: usize) -> Option<u8> {
        let inserted_at = self.inserted_at[slot];
        (inserted_at != 0).then(|| STATIC_ENTRIES as u8 + 1 + self.inserted - inserted_at)
    }

    /// Writes the one-byte form if the slot is in the table.
    #[inline]
    fn indexed(&self, slot: usize, out: &mut Vec<u8>) -> bool {
        match self.index(slot) {
            Some(index) => {
                out.push(0x80 | index);
                true
            }
            None => false,
        }
    }

    /// Books the slot as inserted by what the caller writes next. False if the table is not used.
    fn insert(&mut self, slot: usize) -> bool {
        if self.uses_table {
            self.inserted += 1;
            self.inserted_at[slot] = self.inserted;
        }
        self.uses_table
    }
}

/// `:status`, three digits.
fn put_http_status(text: &str, out: &mut Vec<u8>) {
    if text == "200" {
        out.push(0x80 | STATIC_STATUS_200);
    } else {
        integer::encode(usize::from(STATIC_STATUS_200), 4, 0, out);
        string(text.as_bytes(), out);
    }
}

/// Writes a string literal, Huffman-coded if that is shorter.
fn string(text: &[u8], out: &mut Vec<u8>) {
    let encoded_bytes = huffman::encoded_bytes(text);
    if encoded_bytes < text.len() {
        integer::encode(encoded_bytes, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::decoder::Decoder;
    use super::*;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> String {
        let mut out = String::new();
        let field = |_, name: &[u8], value: &[u8]| {
            out += &format!("{}={} ", name.escape_ascii(), value.escape_ascii());
        };
        decoder.decode(block, field).expect("our own block");
        out
    }

    #[test]
    fn second_use_is_two_bytes() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
        for round in 0..3 {
            let (mut headers, mut trailers) = (Vec::new(), Vec::new());
            encoder.headers(ContentType::Grpc, &mut headers);
            encoder.trailers(0, "0", b"", &mut trailers);
            assert_eq!(
                decode(&mut decoder, &headers),
                ":status=200 content-type=application/grpc "
            );
            assert_eq!(
                decode(&mut decoder, &trailers),
                "grpc-status=0 grpc-message= "
            );
            if round > 0 {
                assert_eq!((headers.len(), trailers.len()), (2, 2));
            }
        }
    }

    /// Every code, content type and HTTP status, under table sizes that come and go.
    #[test]
    fn the_client_always_reads_what_was_meant() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
        let sizes = [4096, 0, 4096, 100, 2000, 65_536, 900, 1500, 0, 1, 5000];
        for (round, size) in sizes.into_iter().cycle().take(400).enumerate() {
            if round % 3 == 0 {
                encoder.set_table_size(size);
            }
            if round % 5 == 0 {
                encoder.set_table_size(sizes[round % 7]);
            }
            let code = (round % 17) as u8;
            let text = code.to_string();
            let message = if round % 2 == 0 { "" } else { "etcdserver: no" };
            let mut block = Vec::new();
            encoder.trailers_only(
                "415",
                ContentType::Other(b"json"),
                code,
                &text,
                message.as_bytes(),
                &mut block,
            );
            assert_eq!(
                decode(&mut decoder, &block),
                format!(
                    ":status=415 content-type=application/grpc+json grpc-status={code} grpc-message={message} "
                )
            );
            block.clear();
            encoder.headers(
                if round % 4 < 2 {
                    ContentType::GrpcProto
                } else {
                    ContentType::Grpc
                },
                &mut block,
            );
            let subtype = if round % 4 < 2 { "+proto" } else { "" };
            assert_eq!(
                decode(&mut decoder, &block),
                format!(":status=200 content-type=application/grpc{subtype} ")
            );
        }
    }

    #[test]
    fn plain_answers_leave_the_table_alone() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
        for round in 0..3 {
            let mut block = Vec::new();
            let fields: [(&[u8], &[u8]); 2] = [(b"content-type", b"text/plain"), (b"allow", b"")];
            let status = [200, 404, 503][round];
            encoder.plain(status, &fields, &mut block);
            assert_eq!(
                decode(&mut decoder, &block),
                format!(":status={status} content-type=text/plain allow= ")
            );
            let mut headers = Vec::new();
            encoder.headers(ContentType::Grpc, &mut headers);
            assert_eq!(
                decode(&mut decoder, &headers),
                ":status=200 content-type=application/grpc "
            );
            assert!(round == 0 || headers.len() == 2);
        }
    }

    #[test]
    fn a_shrink_and_growth_between_blocks_announces_the_smallest_size() {
        let mut encoder = Encoder::default();
        encoder.trailers(0, "0", b"", &mut Vec::new());
        encoder.set_table_size(0);
        encoder.set_table_size(4096);
        let mut block = Vec::new();
        encoder.headers(ContentType::Grpc, &mut block);
        assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f]);
    }
}
