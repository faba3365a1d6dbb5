//! Images and sounds as base64: what they are, how large, and nothing more.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The type of data about which nothing is known.
pub const UNKNOWN_TYPE: &str = "application/octet-stream";

const MIME_TYPE_BYTES: usize = 100;

/// An image that models take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image<'a> {
    pub mime_type: &'static str,
    pub base64: &'a str,
}

impl<'a> Image<'a> {
    /// `base64` as an image, when its first bytes are those of a kind that providers accept. They refuse a whole
    /// request for an image whose type is not what its bytes are.
    pub fn recognise(base64: &'a [u8]) -> Option<Self> {
        let start = STANDARD.decode(base64.get(..16)?).ok()?;
        let mime_type = match &start[..] {
            [0x89, b'P', b'N', b'G', ..] => "image/png",
            [0xff, 0xd8, 0xff, ..] => "image/jpeg",
            [b'G', b'I', b'F', b'8', ..] => "image/gif",
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => "image/webp",
            _ => return None,
        };
        Some(Image { mime_type, base64: std::str::from_utf8(base64).ok()? })
    }

    /// The image as an address, as OpenAI's `image_url` takes it.
    pub fn data_url(&self) -> String {
        format!("data:{};base64,{}", self.mime_type, self.base64)
    }
}

/// Whether `data` is base64 of the standard alphabet with its padding.
pub fn is_base64(data: &[u8]) -> bool {
    let padding = data.iter().rev().take(2).take_while(|&&b| b == b'=').count();
    data.len().is_multiple_of(4)
        && data[..data.len() - padding].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// `type/subtype` in lower case without parameters, or `None` when it is not one (RFC 9110 §8.3.1).
pub fn mime_type(text: &str) -> Option<String> {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    let (kind, subtype) = essence.split_once('/')?;
    (essence.len() <= MIME_TYPE_BYTES && is_token(kind) && is_token(subtype))
        .then(|| essence.to_ascii_lowercase())
}

/// The size of what `base64` encodes, in words.
pub fn decoded_size(base64: &[u8]) -> String {
    let padding = base64.iter().rev().take(2).take_while(|&&b| b == b'=').count();
    size((base64.len() / 4 * 3).saturating_sub(padding) as u64)
}

/// `bytes` in words: `812 bytes`, `12 KiB`, `3.4 MiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_bytes() {
        for (bytes, expect) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", Some("image/jpeg")),
            (b"GIF89a\x01\0\x01\0\x80\0\0", Some("image/gif")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"<svg xmlns='http'>", None),
            (b"GIF8", None),
        ] {
            let base64 = STANDARD.encode(bytes);
            assert_eq!(Image::recognise(base64.as_bytes()).map(|image| image.mime_type), expect);
        }
    }

    #[test]
    fn base64_is_checked_without_decoding() {
        for (data, expect) in [
            ("", true),
            ("QQ==", true),
            ("QUE=", true),
            ("QUFB", true),
            ("Q===", false),
            ("QUF", false),
            ("QU-B", false),
            ("QQ==QQ==", false),
            ("QUFB\n", false),
            ("\"}]}", false),
        ] {
            assert_eq!(is_base64(data.as_bytes()), expect, "{data:?}");
        }
    }

    #[test]
    fn types_and_sizes_are_short_and_plain() {
        assert_eq!(mime_type("Text/HTML; charset=utf-8").as_deref(), Some("text/html"));
        assert_eq!(mime_type("image/svg+xml").as_deref(), Some("image/svg+xml"));
        assert_eq!(mime_type("</details>/x"), None);
        assert_eq!(mime_type(&format!("a/{}", "b".repeat(200))), None);
        assert_eq!(decoded_size(b"QQ=="), "1 byte");
        for (bytes, expect) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (12_000, "12 KiB"),
            (3_565_158, "3.4 MiB"),
            (u64::MAX, "17592186044416.0 MiB"),
        ] {
            assert_eq!(size(bytes), expect);
        }
    }
}
