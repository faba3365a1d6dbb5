//! Reading an event stream, whatever the chunks it arrives in.

use bytes::{Buf, Bytes, BytesMut};

/// Longer names and ids are passed over: every event carries a copy.
const LONGEST_FIELD: usize = 4 << 10;

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The `event:` field, `None` for the default type `message`.
    pub name: Option<String>,
    /// All `data:` lines, joined with line feeds. Not necessarily UTF-8 when the sender is broken.
    pub data: Bytes,
    /// The last event id in force when the event was dispatched.
    pub id: Option<String>,
    /// The last `retry:` value in force, in milliseconds.
    pub retry_milliseconds: Option<u64>,
}

/// An event or a line was longer than the decoder's limit; the stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct TooLong {
    /// The limit in bytes.
    pub limit: usize,
}

/// Incremental parser: [`Decoder::feed`] bytes, then take events with [`Decoder::next_event`] until `None`.
///
/// Accepts LF, CRLF and CR line ends and a leading byte order mark. An event that the stream's end cuts off
/// is not dispatched, as the standard says.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
    /// Bytes of `buffer` already searched for a line end.
    searched: usize,
    /// The last line ended in CR; a following LF belongs to it.
    skip_line_feed: bool,
    at_start: bool,
    name: Option<String>,
    data: Data,
    id: Option<String>,
    retry_milliseconds: Option<u64>,
}

/// The data gathered so far: most events have one line, which is handed on without a copy.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::None => 0,
            Data::One(line) => line.len(),
            Data::Many(lines) => lines.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        *self = match std::mem::take(self) {
            Data::None => Data::One(line),
            Data::One(first) => {
                let mut lines = BytesMut::with_capacity(first.len() + 1 + line.len());
                lines.extend_from_slice(&first);
                Data::Many(append_line(lines, &line))
            }
            Data::Many(lines) => Data::Many(append_line(lines, &line)),
        };
    }
}

fn append_line(mut lines: BytesMut, line: &[u8]) -> BytesMut {
    lines.extend_from_slice(b"\n");
    lines.extend_from_slice(line);
    lines
}

impl Decoder {
    /// A decoder that refuses events longer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Decoder {
            buffer: BytesMut::new(),
            limit,
            searched: 0,
            skip_line_feed: false,
            at_start: true,
            name: None,
            data: Data::None,
            id: None,
            retry_milliseconds: None,
        }
    }

    /// Adds the next bytes of the stream.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete event, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`TooLong`] when an event exceeds the limit; every later call fails likewise.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
            } else {
                self.field(line);
                if self.data.len() > self.limit {
                    return Err(TooLong { limit: self.limit });
                }
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.skip_line_feed && !self.buffer.is_empty() {
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
            self.skip_line_feed = false;
        }
        if self.at_start {
            const MARK: &[u8] = b"\xEF\xBB\xBF";
            if self.buffer.len() < MARK.len() && MARK.starts_with(&self.buffer) {
                return Ok(None);
            }
            if self.buffer.starts_with(MARK) {
                self.buffer.advance(MARK.len());
            }
            self.at_start = false;
        }
        let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return if self.searched > self.limit { Err(TooLong { limit: self.limit }) } else { Ok(None) };
        };
        let end = self.searched + found;
        self.searched = 0;
        self.skip_line_feed = self.buffer[end] == b'\r';
        let line = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        Ok(Some(line))
    }

    fn field(&mut self, line: Bytes) {
        let colon = memchr::memchr(b':', &line).unwrap_or(line.len());
        let mut value = line.slice((colon + 1).min(line.len())..);
        if value.first() == Some(&b' ') {
            value.advance(1);
        }
        match &line[..colon] {
            b"data" => self.data.push(value),
            b"event" if value.len() > LONGEST_FIELD => {}
            b"id" if value.len() > LONGEST_FIELD => {}
            b"event" => self.name = Some(String::from_utf8_lossy(&value).into_owned()),
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(&value).into_owned()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_milliseconds =
                    std::str::from_utf8(&value).ok().and_then(|digits| digits.parse().ok());
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = self.name.take().filter(|name| !name.is_empty());
        let data = match std::mem::take(&mut self.data) {
            Data::None => return None,
            Data::One(line) => line,
            Data::Many(lines) => lines.freeze(),
        };
        Some(Event { name, data, id: self.id.clone(), retry_milliseconds: self.retry_milliseconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk);
            while let Some(event) = decoder.next_event().expect("short events") {
                events.push(event);
            }
        }
        events
    }

    fn texts(input: &str) -> Vec<String> {
        read(&[input.as_bytes()]).iter().map(|e| String::from_utf8_lossy(&e.data).into_owned()).collect()
    }

    #[test]
    fn reads_the_forms_of_the_standard() {
        for (input, expect) in [
            ("data: a\n\n", vec!["a"]),
            ("data:a\r\n\r\ndata: b\r\rdata: c\n\n", vec!["a", "b", "c"]),
            ("data: one\ndata:  two\n\n", vec!["one\n two"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            (": comment\n\ndata\n\n", vec![""]),
            ("event: x\n\ndata: cut off", vec![]),
            ("data: a\nunknown: b\n\n", vec!["a"]),
        ] {
            assert_eq!(texts(input), expect, "{input:?}");
        }
    }

    #[test]
    fn keeps_name_id_and_retry() {
        let events = read(&[b"id: 7\nevent: endpoint\nretry: 250\ndata: /x\n\ndata: y\n\n"]);
        assert_eq!(events[0].name.as_deref(), Some("endpoint"));
        assert_eq!(events[1].name, None);
        assert_eq!(events[1].id.as_deref(), Some("7"));
        assert_eq!(events[1].retry_milliseconds, Some(250));
    }

    #[test]
    fn refuses_endless_lines_and_endless_events() {
        let mut decoder = Decoder::new(10);
        decoder.feed(b"data: 0123456789");
        assert_eq!(decoder.next_event(), Err(TooLong { limit: 10 }));
        let mut decoder = Decoder::new(10);
        decoder.feed(b"data: 01234\ndata: 56789\n");
        assert_eq!(decoder.next_event(), Err(TooLong { limit: 10 }));
    }

    #[test]
    fn long_ids_and_names_are_passed_over() {
        let long = "x".repeat(LONGEST_FIELD + 1);
        let events = read(&[format!("id: {long}\nevent: {long}\ndata: a\n\n").as_bytes()]);
        assert_eq!((events[0].id.as_deref(), events[0].name.as_deref()), (None, None));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            input in "((data|id|event|retry|x)?:? ?[a-z\u{e9}\u{0}]{0,4}(\n|\r|\r\n)){0,12}",
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let bytes = input.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&chunks), read(&[bytes]));
        }

        #[test]
        fn what_is_encoded_is_read_back(payload in "[^\r]{0,40}") {
            let mut out = Vec::new();
            super::super::data(&mut out, payload.as_bytes());
            let events = read(&[&out]);
            prop_assert_eq!(&events[0].data[..], payload.as_bytes());
        }
    }
}
