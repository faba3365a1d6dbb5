//! Small pictures: 96 × 96 pixels, two colours, written as PNG (W3C PNG, third edition) without compression.

pub const SHAPES: [&str; 6] = ["circle", "square", "triangle", "diamond", "ring", "cross"];
pub const COLOURS: [&str; 6] = ["blue", "red", "green", "orange", "purple", "black"];

const SIZE: u32 = 96;

/// A PNG file of `shape` in `colour` on white.
///
/// # Errors
/// In words, naming what is unknown and what there is.
pub fn png(shape: &str, colour: &str) -> Result<Vec<u8>, String> {
    let colour = match colour {
        "blue" => [0x1f, 0x6f, 0xeb],
        "red" => [0xd1, 0x24, 0x2f],
        "green" => [0x1a, 0x7f, 0x37],
        "orange" => [0xe1, 0x6f, 0x24],
        "purple" => [0x82, 0x50, 0xdf],
        "black" => [0x1f, 0x23, 0x28],
        other => return Err(unknown("colour", other, &COLOURS)),
    };
    let inside: fn(f64, f64) -> bool = match shape {
        "circle" => |x, y| x * x + y * y <= 0.64,
        "square" => |x, y| x.abs().max(y.abs()) <= 0.7,
        "triangle" => |x, y| y <= 0.7 && 2.0 * x.abs() <= y + 0.8,
        "diamond" => |x, y| x.abs() + y.abs() <= 0.85,
        "ring" => |x, y| (0.25..=0.64).contains(&(x * x + y * y)),
        "cross" => |x, y| x.abs().max(y.abs()) <= 0.8 && x.abs().min(y.abs()) <= 0.25,
        other => return Err(unknown("shape", other, &SHAPES)),
    };
    let mut rows = Vec::new();
    for row in 0..SIZE {
        rows.push(0); // the row is not filtered
        for byte in 0..SIZE / 8 {
            rows.push((0..8).fold(0, |bits: u8, bit| {
                bits << 1 | u8::from(inside(centred(byte * 8 + bit), centred(row)))
            }));
        }
    }
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend(SIZE.to_be_bytes());
    header.extend(SIZE.to_be_bytes());
    header.extend([1, 3, 0, 0, 0]); // one bit a pixel, palette, no interlacing
    chunk(&mut file, b"IHDR", &header);
    let mut palette = vec![0xff; 3];
    palette.extend(colour);
    chunk(&mut file, b"PLTE", &palette);
    chunk(&mut file, b"IDAT", &zlib_stored(&rows));
    chunk(&mut file, b"IEND", &[]);
    Ok(file)
}

/// The middle of a pixel, from -1 to 1.
fn centred(pixel: u32) -> f64 {
    (f64::from(pixel) + 0.5) / f64::from(SIZE) * 2.0 - 1.0
}

fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let given: String = given.chars().take(40).collect();
    format!("`{given}` is not a {what} I can draw; there is {}", known.join(", "))
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("the picture is small");
    file.extend(length.to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    let sum = crc32(&file[start..]);
    file.extend(sum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of one stored block (RFC 1951 §3.2.4).
fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("the picture fits one block");
    let mut stream = vec![0x78, 0x01, 0x01];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend(data);
    stream.extend(adler32(data).to_be_bytes());
    stream
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| {
                if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
            },
        )
    })
}

fn adler32(data: &[u8]) -> u32 {
    let (low, high) = data.iter().fold((1u32, 0u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_agree_with_their_published_test_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn every_shape_and_colour_differs_from_the_others() {
        let mut seen = std::collections::HashSet::new();
        for shape in SHAPES {
            for colour in COLOURS {
                let file = png(shape, colour).unwrap();
                assert!(file.len() < 2048);
                assert!(seen.insert(file), "{shape} {colour}");
            }
        }
        assert!(png("circle", "plaid").unwrap_err().contains("blue"));
    }
}
