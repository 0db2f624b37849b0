//! A supervisor by itself, for this crate's tests.

fn main() -> std::io::Result<()> {
    headwater_sandbox::supervisor::serve()
}
