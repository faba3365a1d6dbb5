//! The client against servers on this machine that say exactly what each test needs, to the byte where it counts.

mod fake;
mod legacy;
mod modern;
mod stream;
mod tasks;
