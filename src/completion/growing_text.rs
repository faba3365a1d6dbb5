//! Texts that may become very large.

/// Texts up to this size grow as any other.
const SMALL: usize = 1 << 20;
/// A larger one asks for so many times its size when it is full.
const FACTOR: usize = 4;

/// Appends to a text. A large one is moved less often than by doubling: what a move leaves behind stays with the allocator
/// for a while, and room that is not used takes no memory.
pub fn append_text(text: &mut String, more: &str) {
    if text.capacity() - text.len() < more.len() && text.len() >= SMALL {
        text.reserve_exact(more.len().max((FACTOR - 1) * text.len()));
    }
    text.push_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_text_is_moved_a_few_times_only() {
        let (mut text, mut moves, mut capacity) = (String::new(), 0, 0);
        let piece = "a".repeat(4096);
        while text.len() < 20 << 20 {
            append_text(&mut text, &piece);
            if text.len() > SMALL && text.capacity() != capacity {
                moves += 1;
                capacity = text.capacity();
            }
        }
        assert!(moves <= 4, "{moves}");
        append_text(&mut text, &"b".repeat(100 << 20));
        assert_eq!(text.len(), 120 << 20);
    }
}
