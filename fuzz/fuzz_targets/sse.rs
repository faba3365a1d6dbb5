//! Any split of a stream gives the same events, and memory stays within the limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate::sse::{Decoder, Event};

const LIMIT: usize = 4096;

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Event>> {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk);
        while let Some(event) = decoder.next_event().ok()? {
            assert!(event.data.len() <= LIMIT);
            events.push(event);
        }
    }
    Some(events)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let whole = read(std::iter::once(bytes));
    let split = read(bytes.chunks(usize::from(size).max(1)));
    if let (Some(whole), Some(split)) = (whole, split) {
        assert_eq!(whole, split);
    }
});
