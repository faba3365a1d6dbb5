//! Writing an event stream.

/// Appends one event with `payload` as its data. A payload with line breaks becomes several `data:` lines.
pub fn data(out: &mut Vec<u8>, payload: &[u8]) {
    if memchr::memchr2(b'\n', b'\r', payload).is_none() {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(payload);
        out.push(b'\n');
    } else {
        let text = String::from_utf8_lossy(payload).replace("\r\n", "\n").replace('\r', "\n");
        for line in text.split('\n') {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// Appends an event with a name (`event:` line) before its data. Line breaks in `name` become spaces.
pub fn event(out: &mut Vec<u8>, name: &str, payload: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.replace(['\n', '\r'], " ").as_bytes());
    out.push(b'\n');
    data(out, payload);
}

/// Appends a comment, which readers ignore: keeps idle connections open.
pub fn comment(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b": ");
    out.extend_from_slice(text.replace(['\n', '\r'], " ").as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Appends OpenAI's end-of-stream marker.
pub fn done(out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: [DONE]\n\n");
}
