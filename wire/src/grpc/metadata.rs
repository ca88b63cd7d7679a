//! The metadata of a call: header fields in the order they came, in one flat buffer that is
//! recycled.
//!
//! Values were checked when the header block was decoded, `-bin` ones too, so reading never fails.
//! Names are lower case. The connection owns the storage ([`Fields`]); services see it through the
//! borrowed [`Metadata`].

use std::borrow::Cow;

use super::connection::base64;

/// Metadata of one call, borrowed for a callback.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a> {
    fields: &'a Fields,
}

static NOTHING: Fields = Fields {
    bytes: Vec::new(),
    spans: Vec::new(),
};

impl<'a> Metadata<'a> {
    /// Of a call that no client sent.
    pub fn empty() -> Metadata<'static> {
        Metadata { fields: &NOTHING }
    }

    pub(crate) fn new(fields: &'a Fields) -> Self {
        Self { fields }
    }

    /// First value of a key (lower case), as it was sent: a `-bin` value is still base64.
    pub fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.get_all(key).next()
    }

    /// All values of a key, in order.
    pub fn get_all<'k>(&self, key: &'k [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'k> {
        self.iter()
            .filter(move |(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    /// First value of a key as the application means it: `-bin` values decoded, others as they are.
    pub fn get_decoded(&self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let value = self.get(key)?;
        if key.ends_with(b"-bin") {
            base64::decode(value).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(value))
        }
    }

    /// All fields, in the order they came. Contains `:authority` and `user-agent`, but no other
    /// field of the transport.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.fields.iter()
    }
}

/// Metadata of a call that did not come over gRPC, made by its owner.
#[derive(Debug, Default)]
pub struct MetadataBuf {
    fields: Fields,
}

impl MetadataBuf {
    /// Adds a field; `name` is in lower case, a `-bin` value is base64.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.fields.push(name, value);
    }

    pub fn view(&self) -> Metadata<'_> {
        Metadata::new(&self.fields)
    }
}

/// Name and value pairs in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u32,
    name_bytes: u32,
    value_bytes: u32,
}

/// Buffers above these sizes are given back when a field list is recycled.
const RETAINED_BYTES_MAX: usize = 4096;
const RETAINED_SPANS_MAX: usize = 64;

impl Fields {
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        // Lists are bounded by `header_list_bytes_max`, a u32, before anything is pushed.
        let span = Span {
            offset: self.bytes.len() as u32,
            name_bytes: name.len() as u32,
            value_bytes: value.len() as u32,
        };
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.spans.push(span);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| {
            let name = span.offset as usize;
            let value = name + span.name_bytes as usize;
            let end = value + span.value_bytes as usize;
            (&self.bytes[name..value], &self.bytes[value..end])
        })
    }

    /// Memory in use, for `metadata_bytes_max`.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }

    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > RETAINED_BYTES_MAX || self.spans.capacity() > RETAINED_SPANS_MAX
        {
            *self = Self::default();
        } else {
            self.bytes.clear();
            self.spans.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_by_key() {
        let mut fields = Fields::default();
        fields.push(b"token", b"a");
        fields.push(b"blob-bin", b"aGk");
        fields.push(b"token", b"b");
        let metadata = Metadata::new(&fields);
        assert_eq!(metadata.get(b"token"), Some(&b"a"[..]));
        assert_eq!(metadata.get_all(b"token").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(metadata.get(b"blob-bin"), Some(&b"aGk"[..]));
        assert_eq!(
            metadata.get_decoded(b"blob-bin").as_deref(),
            Some(&b"hi"[..])
        );
        assert_eq!(metadata.get(b"none"), None);
        assert_eq!(metadata.iter().count(), 3);
    }
}
