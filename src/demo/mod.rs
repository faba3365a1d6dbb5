//! Our own pages and endpoints for trying things out.
