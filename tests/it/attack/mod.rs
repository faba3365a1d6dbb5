//! What strangers, broken peers and a broken machine did to the gateway when it was attacked, in small sizes and the same
//! shapes: each file is one kind of attack, and shows that nothing is lost, done twice, told to the wrong person or kept
//! beyond its bound. `cargo xtask test attack` runs this group alone; `cargo xtask soak` is its long form.

mod bodies;
mod connections;
mod full_disk;
mod held_by_one;
mod hidden_turns;
mod json;
mod lost_commit;
mod memory;
mod narrowed_domains;
mod protocol;
mod restored_copy;
mod stale_pages;
mod useless_links;
mod wire;
