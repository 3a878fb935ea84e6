//! What the workspace and the binary promise, seen from outside.

mod edges;
